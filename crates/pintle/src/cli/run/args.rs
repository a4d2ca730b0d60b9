//! The options of `pintle run`.

use crate::cli::human::parse_bytes;
use crate::cli::label::Label;
use crate::cli::run::parse::{Cpus, Env, Port, User, Volume};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the container's id and leave it running; otherwise its output is shown until it ends
    #[arg(short, long)]
    pub detach: bool,
    /// Remove the pod, the container and its log when it ends
    #[arg(long)]
    pub rm: bool,
    /// Name of the pod and of the container; otherwise one is made up
    #[arg(long)]
    pub name: Option<String>,
    /// Set an environment variable; KEY alone takes it from this environment
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub env: Vec<Env>,
    /// Make a port of the container reachable at a port of this machine
    #[arg(short, long, value_name = "[IP:]HOST:CONTAINER[/tcp|udp|sctp]")]
    pub publish: Vec<Port>,
    /// Put a file or directory of this machine into the container
    #[arg(short, long, value_name = "SOURCE:TARGET[:ro]")]
    pub volume: Vec<Volume>,
    /// Most memory it may use: 64m, 1.5g
    #[arg(short, long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory: Option<i64>,
    /// How many processors it may use: 0.5, 2
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<Cpus>,
    /// `pod` is a network of its own, `host` this machine's
    #[arg(long, value_enum, default_value_t, value_name = "NETWORK")]
    pub network: Network,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run as this user
    #[arg(short, long, value_name = "NAME|UID[:GID]")]
    pub user: Option<User>,
    /// Host name of the pod; otherwise its name
    #[arg(long)]
    pub hostname: Option<String>,
    /// Program to start instead of the image's; the command is given to it as arguments
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// Label for the pod and the container
    #[arg(short, long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// The container cannot write to its root
    #[arg(long)]
    pub read_only: bool,
    /// All capabilities, all devices, no seccomp: the container is root on this machine
    #[arg(long)]
    pub privileged: bool,
    /// Runtime handler
    #[arg(long, value_name = "HANDLER")]
    pub runtime: Option<String>,
    /// Give the program a terminal of the size of this one
    #[arg(short, long)]
    pub tty: bool,
    /// Give the program an input: what is typed, or what standard input has
    #[arg(short, long)]
    pub interactive: bool,
    /// Where pods' logs are kept, as the kubelet does
    #[arg(long, hide = true, default_value = "/var/log/pods")]
    pub log_root: PathBuf,
    /// Image, pulled when it is not here
    pub image: String,
    /// Command and arguments instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Which network a pod is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    #[default]
    Pod,
    Host,
}
