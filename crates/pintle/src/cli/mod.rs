//! The command line: what people type, sent as CRI to whichever runtime listens.

mod attach;
pub(crate) mod client;
mod completion;
mod df;
pub(crate) mod endpoint;
mod events;
pub(crate) mod exec;
pub(crate) mod failure;
mod find;
mod gc;
pub(crate) mod human;
mod image_details;
mod images;
mod info;
mod inspect;
pub(crate) mod inventory;
mod label;
mod load;
mod logs;
mod network;
pub(crate) mod output;
mod pod_stats;
mod pods;
mod port_forward;
mod ps;
pub(crate) mod pull;
pub(crate) mod pull_progress;
mod push;
mod registry;
pub(crate) mod rm;
mod rmi;
mod run;
mod save;
mod session;
mod several;
pub(crate) mod stats;
pub(crate) mod stop;
mod tag;
mod terminal;
mod verify;
mod version;
pub(crate) mod view;
mod yaml;

use clap::{Parser, Subcommand};
use client::Client;
use endpoint::Endpoint;
use failure::{FAILED_BEFORE_THE_PROGRAM, Failure};
use std::ffi::OsString;
use std::process::ExitCode;

/// A container runtime for Kubernetes, and its command line.
#[derive(Debug, Parser)]
#[command(name = "pintle", version, propagate_version = false, arg_required_else_help = true, after_help = OTHER_PARTS)]
pub(crate) struct Cli {
    /// CRI socket to talk to: unix:///path/to.sock
    #[arg(
        long,
        global = true,
        env = "CONTAINER_RUNTIME_ENDPOINT",
        value_name = "ENDPOINT",
        help_heading = "Global options"
    )]
    endpoint: Option<String>,
    #[command(subcommand)]
    command: Command,
}

/// Parts of the binary that are chosen before this command line is read.
const OTHER_PARTS: &str = "Parts of Pintle that other programs start:
  serve       The daemon: serves CRI to the kubelet and to these commands
  oci         The OCI runtime: create, start, state, kill, delete, ...
  cni         The CNI plugin `type: pintle`";

/// Every command there is.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make a pod with one container of an image and run it
    Run(Box<run::Args>),
    /// Run a command in a running container
    Exec(exec::Args),
    /// Join the program of a running container
    Attach(attach::Args),
    /// Reach ports of a pod at ports of this machine
    PortForward(port_forward::Args),
    /// Show what a container has written
    Logs(logs::Args),
    /// List containers
    Ps(ps::Args),
    /// List pods
    Pods(pods::Args),
    /// Stop containers and pods
    Stop(stop::Args),
    /// Remove containers and pods
    Rm(rm::Args),
    /// Show everything about containers, pods and images
    Inspect(inspect::Args),
    /// Show what containers or pods use of the machine
    Stats(stats::Args),
    /// Show what happens to pods and containers, as it happens
    Events(events::Args),
    /// Pull images
    Pull(pull::Args),
    /// List images, or show everything about one
    Images(images::Args),
    /// Give an image one more name
    Tag(tag::Args),
    /// Save images as an archive
    Save(save::Args),
    /// Load images from an archive, or from containerd's or CRI-O's store
    Load(load::Args),
    /// Send an image to a registry
    Push(push::Args),
    /// Remove images
    Rmi(rmi::Args),
    /// Show what is on disk and what could be freed
    Df(df::Args),
    /// Let go of what nobody needs on disk
    Gc(gc::Args),
    /// Show whether the runtime is ready and what it works with
    Info(info::Args),
    /// Show how registries are configured here
    Registry(registry::Args),
    /// Set up the pod network
    Network(network::Args),
    /// Show versions
    Version(version::Args),
    /// Show everything on a throw-away daemon; leaves nothing behind
    Demo(crate::demo::Args),
    /// Write a shell's completion script
    Completion(completion::Args),
}

/// Runs the command line in `args` (the program's name first) and returns the process's exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Also --help and --version come as an "error"; clap knows where each is written and its exit code.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("pintle: starting the event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runs_a_program = matches!(cli.command, Command::Run(_) | Command::Exec(_) | Command::Attach(_));
    match runtime.block_on(cli.run()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report();
            let code = failure.exit_code();
            // Under `run`, `exec` and `attach` the small codes belong to the program.
            let ours = runs_a_program && code == failure::FAILED;
            ExitCode::from(if ours { FAILED_BEFORE_THE_PROGRAM } else { code })
        }
    }
}

impl Cli {
    /// Returns the exit code.
    async fn run(self) -> Result<u8, Failure> {
        let endpoint = match &self.endpoint {
            None => Endpoint::default(),
            Some(given) => given.parse().map_err(|why| Failure::Endpoint { given: given.clone(), why })?,
        };
        match self.command {
            Command::Completion(args) => completion::run(&args)?,
            Command::Demo(args) => return crate::demo::run(args).await,
            Command::Network(args) => network::run(args)?,
            Command::Registry(args) => registry::run(&args)?,
            Command::Version(args) => version::run(args, &endpoint).await?,
            Command::Run(args) => return run::run(*args, &Client::connect(&endpoint).await?).await,
            Command::Exec(args) => return exec::run(args, &Client::connect(&endpoint).await?).await,
            Command::Attach(args) => return attach::run(args, &Client::connect(&endpoint).await?).await,
            Command::PortForward(args) => port_forward::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Logs(args) => logs::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Ps(args) => ps::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Pods(args) => pods::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Stop(args) => stop::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Rm(args) => rm::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Inspect(args) => inspect::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Stats(args) => stats::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Events(args) => events::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Pull(args) => pull::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Images(args) => images::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Save(args) => save::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Push(args) => push::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Load(args) => load::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Tag(args) => tag::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Rmi(args) => rmi::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Df(args) => df::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Gc(args) => gc::run(args, &Client::connect(&endpoint).await?).await?,
            Command::Info(args) => info::run(args, &Client::connect(&endpoint).await?).await?,
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
