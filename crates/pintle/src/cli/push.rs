//! `pintle push`: sends an image to a registry.

use std::collections::HashMap;

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::decimal_bytes;
use super::output::{short_id, write_out};
use super::pull::read_password;
use cri::node_v1::{PushImageRequest, PushProgress, PushedLayer, RegistryLogin};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image by name, id or the beginning of an id
    image: String,
    /// Where to, such as registry.example/team/app:1.2; without it the image's own name
    destination: Option<String>,
    /// Refuse an image that is not for this platform, such as linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Log in to the registry as this user, with --password-stdin
    #[arg(short, long, requires = "password_stdin", value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let login = args.username.map(read_password).transpose()?;
    let login = login.map(|login| RegistryLogin { username: login.username, password: login.password });
    let request = PushImageRequest {
        image: args.image.clone(),
        destination: args.destination.unwrap_or_default(),
        login,
        platform: args.platform.unwrap_or_default(),
    };
    let what = || format!("pushing {}", args.image);
    let mut stream = client.own_images().push_image(request).await.explain(what)?;
    let mut sent = HashMap::new();
    loop {
        let message = stream.message().await;
        let message = message.map_err(|status| Failure::Call { what: what(), status: Box::new(status) })?;
        let Some(message) = message else { return Err(Failure::Session("the daemon said no result".into())) };
        let Some(result) = &message.result else {
            if !args.quiet {
                report(&message, &mut sent);
            }
            continue;
        };
        if args.quiet {
            return write_out(&format!("{}\n", result.digest));
        }
        if !result.unchanged {
            eprintln!(
                "The layers were packed anew: the manifest's digest is another than the image came with, its id is the same."
            );
        }
        return write_out(&format!("{} {}\n", result.name, result.digest));
    }
}

/// A line for each layer that is there. Several are on their way at the same time.
fn report(message: &PushProgress, sent: &mut HashMap<String, u64>) {
    let layer = short_id(&message.layer);
    match message.state() {
        PushedLayer::PushSending => drop(sent.insert(message.layer.clone(), message.sent_bytes)),
        PushedLayer::PushDone => {
            let bytes = sent.remove(&message.layer).unwrap_or(0);
            eprintln!("{layer}: {} sent", decimal_bytes(bytes));
        }
        PushedLayer::PushAlreadyPresent => eprintln!("{layer}: there already"),
    }
}
