//! `pintle network init`: writes the configuration of a pod network for a node that has none.

use super::failure::Failure;
use super::output::write_out;
use ipnet::IpNet;
use network::{Defaults, default_configuration};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a CNI configuration that uses the built-in plugin
    Init(InitArgs),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    /// Addresses for pods; give one of IPv4 and one of IPv6 for dual stack
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<IpNet>,
    /// Take the addresses from what the kubelet says is this node's (its pod CIDR)
    #[arg(long, conflicts_with = "subnets")]
    pod_cidr: bool,
    /// Name of the bridge
    #[arg(long, value_name = "NAME")]
    bridge: Option<String>,
    /// MTU of the pods' interfaces; otherwise that of the uplink
    #[arg(long)]
    mtu: Option<u32>,
    /// Directory of the CNI configuration
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    conf_dir: PathBuf,
    /// Print the configuration and write nothing
    #[arg(long)]
    print: bool,
}

/// The file's name: runtimes take the first by name, and 10 is what others use.
const FILE_NAME: &str = "10-pintle.conflist";

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let Command::Init(args) = args.command;
    let mut defaults = Defaults { mtu: args.mtu, ..Defaults::default() };
    if args.pod_cidr || !args.subnets.is_empty() {
        defaults.subnets = args.subnets;
    }
    if let Some(bridge) = args.bridge {
        defaults.bridge = bridge;
    }
    let text = default_configuration(&defaults);
    if args.print {
        return write_out(&text);
    }
    if let Some(present) = first_configuration(&args.conf_dir)? {
        return Err(Failure::Usage(format!(
            "there is a network configuration already: {}\n  Nothing was written. Remove it first if this node should have another one.",
            present.display()
        )));
    }
    let path = args.conf_dir.join(FILE_NAME);
    let cannot =
        |source| Failure::File { what: "writing the network configuration", path: path.clone(), source };
    std::fs::create_dir_all(&args.conf_dir).map_err(cannot)?;
    // `create_new`: what appeared since the look is not overwritten.
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(cannot)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)?;
    write_out(&format!("wrote {}; the daemon takes it up by itself\n", path.display()))
}

/// The configuration a runtime would use now: the first by name.
fn first_configuration(directory: &std::path::Path) -> Result<Option<PathBuf>, Failure> {
    let cannot = |source| Failure::File { what: "reading", path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(cannot)?,
    };
    let paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(cannot)?;
    let counts = |path: &PathBuf| {
        matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("conf" | "conflist" | "json")
        )
    };
    Ok(paths.into_iter().filter(counts).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(directory: &std::path::Path) -> Args {
        let (subnets, conf_dir) = (Vec::new(), directory.to_owned());
        Args {
            command: Command::Init(InitArgs {
                subnets,
                pod_cidr: false,
                bridge: None,
                mtu: None,
                conf_dir,
                print: false,
            }),
        }
    }

    #[test]
    fn a_configuration_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("net.d");
        run(args(&inside)).unwrap();
        let text = std::fs::read_to_string(inside.join(FILE_NAME)).unwrap();
        assert!(text.contains("\"pintle0\""), "{text}");
        assert!(matches!(run(args(&inside)), Err(Failure::Usage(_))));
    }

    #[test]
    fn another_plugins_configuration_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("05-cilium.conflist"), "{}").unwrap();
        let failure = run(args(directory.path())).unwrap_err();
        assert!(failure.to_string().contains("05-cilium.conflist"), "{failure}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
