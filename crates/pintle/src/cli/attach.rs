//! `pintle attach`: joins the program of a running container and returns its exit code.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::inventory::Inventory;
use super::session::{Ended, Wants, open, talk};
use cri::runtime_v1::{AttachRequest, ContainerState};
use std::time::Duration;

/// How often it is asked for an exit that should be known any moment, and how long is waited between.
const ASKED: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
#[command(after_help = "With -i and -t, Ctrl-P Ctrl-Q leaves the program running.")]
pub(crate) struct Args {
    /// Send it what is typed; only a container that was made to have an input reads it
    #[arg(short, long)]
    interactive: bool,
    /// The container has a terminal: show it as one
    #[arg(short, long)]
    tty: bool,
    /// Container by name, POD/NAME, id or the beginning of an id
    container: String,
}

/// Returns the exit code of the program, or 0 when it runs on.
pub(crate) async fn run(args: Args, client: &Client) -> Result<u8, Failure> {
    let inventory = Inventory::load(client).await?;
    let id = &inventory.container(&args.container)?.id;
    let wants = Wants {
        stdin: args.interactive,
        output: true,
        terminal: args.tty,
        detach_keys: args.interactive && args.tty,
    };
    let url = url(client, id, wants).await?;
    let ended = talk(open(&url).await?, wants).await?;
    exit_code(client, id, ended).await
}

/// The URL under which a container is attached to.
pub(crate) async fn url(client: &Client, id: &str, wants: Wants) -> Result<String, Failure> {
    let request = AttachRequest {
        container_id: id.to_owned(),
        stdin: wants.stdin,
        tty: wants.terminal,
        stdout: wants.output,
        stderr: wants.output && !wants.terminal,
    };
    let answer = client.runtime().attach(request).await;
    Ok(answer.explain(|| format!("attaching to the container {id}"))?.url)
}

/// The exit code of a container after a conversation with it: the server of the streams does not tell it.
pub(crate) async fn exit_code(client: &Client, id: &str, ended: Ended) -> Result<u8, Failure> {
    match ended {
        Ended::Detached => return Ok(0),
        Ended::Exited(code) => return Ok(code),
        Ended::Well => {}
    }
    for _ in 0..ASKED {
        let status = client.container_status(id, false).await?.status.unwrap_or_default();
        if status.state() == ContainerState::ContainerExited {
            if status.reason == "OOMKilled" {
                eprintln!("pintle: the container was killed because it used more memory than its limit");
            }
            return Ok(u8::try_from(status.exit_code).unwrap_or(u8::MAX));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(0)
}
