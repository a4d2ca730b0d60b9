//! `pintle save`: images as an archive, for a node that reaches no registry.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::pull::read_password;
use cri::node_v1::{ArchivePiece, RegistryLogin, SaveImagesRequest};
use image::Piece;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use tonic::Streaming;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Images by name, id or the beginning of an id
    #[arg(required = true)]
    images: Vec<String>,
    /// Write to this file, or, ending in a slash, into this folder as an OCI layout; without it to standard output
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Refuse images that are not for this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Not what is on the node, but what the registries have now: for any platform, and bit for bit
    #[arg(long)]
    from_registry: bool,
    /// Log in to the registry as this user, with --password-stdin
    #[arg(short, long, requires_all = ["password_stdin", "from_registry"], value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    if args.output.is_none() && std::io::stdout().is_terminal() {
        let why = "an archive is not for a terminal: use -o FILE, or a pipe such as `| ssh HOST pintle load`";
        return Err(Failure::Usage(why.into()));
    }
    let login = args.username.map(read_password).transpose()?;
    let request = SaveImagesRequest {
        images: args.images.clone(),
        platform: args.platform.unwrap_or_default(),
        from_registry: args.from_registry,
        login: login.map(|login| RegistryLogin { username: login.username, password: login.password }),
    };
    let what = || format!("saving {}", args.images.join(", "));
    let stream = client.own_images().save_images(request).await.explain(what)?;
    match args.output {
        None => to_stdout(stream, &what).await,
        Some(path) if is_folder(&path) => to_folder(stream, &path, &what).await,
        Some(path) => to_file(stream, &path, &what).await,
    }
}

fn is_folder(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"/") || path.is_dir()
}

async fn next(
    stream: &mut Streaming<ArchivePiece>,
    what: &impl Fn() -> String,
) -> Result<Option<Vec<u8>>, Failure> {
    let piece = stream.message().await;
    let piece = piece.map_err(|status| Failure::Call { what: what(), status: Box::new(status) })?;
    Ok(piece.map(|piece| piece.data))
}

async fn to_stdout(mut stream: Streaming<ArchivePiece>, what: &impl Fn() -> String) -> Result<(), Failure> {
    while let Some(data) = next(&mut stream, what).await? {
        // Whoever reads half an archive has none: a closed pipe is a failure here.
        std::io::stdout().lock().write_all(&data).map_err(Failure::Output)?;
    }
    std::io::stdout().lock().flush().map_err(Failure::Output)
}

/// The file appears when it is whole.
async fn to_file(
    mut stream: Streaming<ArchivePiece>,
    path: &Path,
    what: &impl Fn() -> String,
) -> Result<(), Failure> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let failed = |source| Failure::File { what: "writing the archive", path: path.to_owned(), source };
    let mut file = File::create_new(&partial).map_err(failed)?;
    let mut write = async || {
        while let Some(data) = next(&mut stream, what).await? {
            file.write_all(&data).map_err(failed)?;
        }
        file.sync_all().and_then(|()| std::fs::rename(&partial, path)).map_err(failed)
    };
    let written = write().await;
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}

async fn to_folder(
    mut stream: Streaming<ArchivePiece>,
    path: &Path,
    what: &impl Fn() -> String,
) -> Result<(), Failure> {
    let (send, receive) = image::pieces();
    let folder = path.to_owned();
    let writing = tokio::task::spawn_blocking(move || image::write_layout(receive, &folder));
    let failed = |source| Failure::File { what: "writing the layout", path: path.to_owned(), source };
    while let Some(data) = next(&mut stream, what).await? {
        if send.send(Piece::Bytes(data.into())).await.is_err() {
            break;
        }
    }
    let _ = send.send(Piece::End).await;
    writing.await.map_err(|panic| failed(std::io::Error::other(panic)))?.map_err(failed)
}
