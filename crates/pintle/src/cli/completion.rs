//! `pintle completion`: the completion script of a shell.

use super::Cli;
use super::failure::Failure;
use super::output::write_out;
use clap::CommandFactory;
use clap_complete::Shell;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell, for example: pintle completion bash > /etc/bash_completion.d/pintle
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pintle", &mut script);
    write_out(&String::from_utf8_lossy(&script))
}
