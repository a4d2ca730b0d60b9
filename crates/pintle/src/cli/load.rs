//! `pintle load`: images from an archive or a folder, without a registry.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::output::write_out;
use super::several::Several;
use super::tag;
use cri::node_v1::{ImportImagesRequest, LoadImagesRequest, LoadOptions, LoadedImage, OtherRuntime};
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use tokio::sync::mpsc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

/// Bytes of one message.
const PIECE: usize = 256 << 10;
/// Messages that may wait.
const AHEAD: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The archive, or the folder of an OCI layout; without it standard input
    #[arg(short, long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Which image of several is taken, such as linux/arm64; without it the one for the daemon's machine
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// The name that the one image gets, whatever the archive says
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Take images from the store of another runtime on the daemon's machine, which may run or not
    #[arg(long, value_enum, value_name = "RUNTIME", conflicts_with_all = ["input", "name"])]
    from: Option<From>,
    /// Where that store is, if not where it is by default
    #[arg(long, value_name = "DIR", requires = "from")]
    root: Option<String>,
    /// The namespace of containerd's images; without it the kubelet's, k8s.io
    #[arg(long, value_name = "NAME", requires = "from")]
    namespace: Option<String>,
    /// Images to take from that store; without any all that it has
    #[arg(requires = "from")]
    images: Vec<String>,
}

/// Runtimes whose stores are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum From {
    Containerd,
    /// Also for Podman and Buildah
    Crio,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    if let Some(from) = args.from {
        return import(args, from, client).await;
    }
    if args.input.is_none() && io::stdin().is_terminal() {
        let why = "there is no archive on a terminal: use -i PATH, or a pipe";
        return Err(Failure::Usage(why.into()));
    }
    let options =
        LoadOptions { platform: args.platform.unwrap_or_default(), name: args.name.unwrap_or_default() };
    let (send, receive) = mpsc::channel(AHEAD);
    let first = LoadImagesRequest { options: Some(options), data: Vec::new() };
    let input = args.input;
    let reading = std::thread::spawn(move || feed(input, first, &send));
    let answer = client.own_images().load_images(ReceiverStream::new(receive)).await;
    // The daemon's answer to half an archive says less than why there is only a half. While it waits for more, nobody joins.
    if reading.is_finished()
        && let Ok(Err(failure)) = reading.join()
    {
        return Err(failure);
    }
    let answer = answer.explain(|| "loading images".into())?;
    write_out(&text(&answer.images))
}

async fn import(args: Args, from: From, client: &Client) -> Result<(), Failure> {
    let request = ImportImagesRequest {
        from: match from {
            From::Containerd => OtherRuntime::OtherContainerd.into(),
            From::Crio => OtherRuntime::OtherContainersStorage.into(),
        },
        root: args.root.unwrap_or_default(),
        namespace: args.namespace.unwrap_or_default(),
        images: args.images,
        platform: args.platform.unwrap_or_default(),
    };
    let answer = client.own_images().import_images(request).await;
    let answer = answer.explain(|| "reading the other runtime's store".into())?;
    write_out(&text(&answer.images))?;
    let mut several = Several::default();
    for _ in &answer.images {
        several.record(Ok(()));
    }
    for failed in answer.failed {
        several.record(Err(Failure::Session(format!("{}: {}", failed.name, failed.why))));
    }
    several.finish()
}

/// Reads the archive on a thread of its own, since a pipe may make it wait.
fn feed(
    input: Option<PathBuf>,
    first: LoadImagesRequest,
    send: &mpsc::Sender<LoadImagesRequest>,
) -> Result<(), Failure> {
    if send.blocking_send(first).is_err() {
        return Ok(());
    }
    let mut sink = Sink { send, piece: Vec::with_capacity(PIECE), gone: false };
    let done = match &input {
        None => copy(io::stdin().lock(), &mut sink).map_err(Failure::Input),
        Some(path) => {
            let failed = |source| Failure::File { what: "reading the archive", path: path.clone(), source };
            match path.is_dir() {
                true => image::read_layout(path, &mut sink).map_err(failed),
                false => File::open(path).and_then(|file| copy(file, &mut sink)).map_err(failed),
            }
        }
    };
    // A daemon that reads no more has an answer.
    if sink.gone { Ok(()) } else { done }
}

fn copy(mut from: impl Read, sink: &mut Sink<'_>) -> io::Result<()> {
    io::copy(&mut from, sink)?;
    sink.flush()
}

struct Sink<'a> {
    send: &'a mpsc::Sender<LoadImagesRequest>,
    piece: Vec<u8>,
    gone: bool,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let data = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.send.blocking_send(LoadImagesRequest { options: None, data }).map_err(|_| {
            self.gone = true;
            io::ErrorKind::BrokenPipe.into()
        })
    }
}

/// Names, one on a line, and what each led to before; the id of an image without a name.
fn text(images: &[LoadedImage]) -> String {
    let mut text = String::new();
    for image in images {
        let tags = image.names.iter().filter(|named| !named.name.contains('@'));
        let lines: String = tags.map(tag::line).collect();
        match lines.is_empty() {
            false => text.push_str(&lines),
            true => {
                text.push_str(&format!("{}\n", image.names.first().map_or(&image.id, |named| &named.name)))
            }
        }
    }
    text
}
