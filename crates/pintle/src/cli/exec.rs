//! `pintle exec`: runs a command in a running container and returns its exit code.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::parse_duration;
use super::inventory::Inventory;
use super::output::write_out;
use super::view;
use cri::runtime_v1::ExecSyncRequest;
use std::io::{self, Write};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kill the command after this time (30s, 2m); without it, it may run for ever
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Keep standard input open: not possible yet
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal: not possible yet
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
    if args.interactive || args.tty {
        let command = args.command.join(" ");
        return Err(Failure::Usage(format!(
            "exec -i and -t need the streaming side of CRI, which this version of Pintle does not have yet.\n  Without them it works, output comes when the command has ended: pintle exec {} {command}",
            args.container
        )));
    }
    let inventory = Inventory::load(client).await?;
    let container = inventory.container(&args.container)?;
    let state = view::container_state(container.state);
    if state != "running" {
        return Err(Failure::Usage(format!(
            "the container {} is {state}; a command can only run in a running one",
            args.container
        )));
    }
    let (output, code) = exec_sync(client, &container.id, args.command, args.timeout).await?;
    write_out_bytes(&output.stdout)?;
    let _ = io::stderr().write_all(&output.stderr);
    Ok(code)
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
