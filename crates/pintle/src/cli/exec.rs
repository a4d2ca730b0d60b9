//! `pintle exec`: runs a command in a running container and returns its exit code.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::parse_duration;
use super::inventory::Inventory;
use super::output::write_out;
use super::session::{Ended, Wants, open, talk};
use super::view;
use cri::runtime_v1::{ExecRequest, ExecSyncRequest};
use std::io::{self, Write};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill the command after this time (30s, 2m), and show what it wrote when it has ended; without it, it may run for ever
    #[arg(long, conflicts_with_all = ["interactive", "tty"], value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Send it what is typed, or what standard input has
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal of the size of this one
    #[arg(short, long)]
    tty: bool,
    /// Container by name, POD/NAME, id or the beginning of an id
    container: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Returns the exit code of the command.
pub(crate) async fn run(args: Args, client: &Client) -> Result<u8, Failure> {
    let inventory = Inventory::load(client).await?;
    let container = inventory.container(&args.container)?;
    let state = view::container_state(container.state);
    if state != "running" {
        return Err(Failure::Usage(format!(
            "the container {} is {state}; a command can only run in a running one",
            args.container
        )));
    }
    if args.timeout.is_some() {
        let (output, code) = exec_sync(client, &container.id, args.command, args.timeout).await?;
        write_out_bytes(&output.stdout)?;
        let _ = io::stderr().write_all(&output.stderr);
        return Ok(code);
    }
    let what = format!("running {:?} in the container {}", args.command.join(" "), container.id);
    let request = ExecRequest {
        container_id: container.id.clone(),
        cmd: args.command,
        tty: args.tty,
        stdin: args.interactive,
        stdout: true,
        stderr: !args.tty,
    };
    let url = client.runtime().exec(request).await.explain(|| what)?.url;
    let wants = Wants { stdin: args.interactive, output: true, terminal: args.tty, detach_keys: false };
    match talk(open(&url).await?, wants).await? {
        Ended::Exited(code) => Ok(code),
        Ended::Well | Ended::Detached => Ok(0),
    }
}

/// What a command wrote.
pub(crate) struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Runs a command in a container by its full id; returns what it wrote and its exit code.
pub(crate) async fn exec_sync(
    client: &Client,
    container_id: &str,
    cmd: Vec<String>,
    timeout: Option<Duration>,
) -> Result<(Output, u8), Failure> {
    // CRI counts whole seconds and takes 0 for "no limit".
    let timeout =
        timeout.map_or(0, |timeout| timeout.as_millis().div_ceil(1000).clamp(1, i64::MAX as u128) as i64);
    let what = format!("running {:?} in the container {container_id}", cmd.join(" "));
    let request = ExecSyncRequest { container_id: container_id.to_owned(), cmd, timeout };
    let answer = client.runtime().exec_sync(request).await.explain(|| what)?;
    let code = u8::try_from(answer.exit_code).unwrap_or(u8::MAX);
    Ok((Output { stdout: answer.stdout, stderr: answer.stderr }, code))
}

fn write_out_bytes(bytes: &[u8]) -> Result<(), Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) => write_out(text),
        Err(_) => io::stdout().write_all(bytes).map_err(Failure::Output),
    }
}
