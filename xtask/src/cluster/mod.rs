//! `cargo xtask cluster`: the real kubelet, alone and under a real control plane, on Pintle; in namespaces and control groups of its own.

mod checks;
mod images;
mod kubelet;
mod manifests;
mod node;
mod plane;
mod programs;
mod sandbox;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use sandbox::Place;

const USAGE: &str = "\
cargo xtask cluster test [--node] [--kubelet VERSION] [--binary FILE] [--focus PART] [--keep]
cargo xtask cluster up   [--node] [--kubelet VERSION] [--binary FILE]
cargo xtask cluster down

  test             three nodes under a control plane: each thing that is shown is a line with ok or FAILED
  up               what stays, and how to speak with it; Ctrl-C or `down` ends it
  down             ends what `up` began, and removes what a killed run has left

  --node           one node, no control plane: static pods, asked about by the kubelet's own API
  --kubelet 1.22   the last kubelet that speaks CRI v1alpha2 only, in place of the newest
  --binary FILE    the pintle to test; without it, the one that `cargo build --release` makes
  --focus PART     only checks whose names contain it
  --keep           leave the folder with logs and manifests for a look";

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Test,
    Up,
    Down,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    task: Task,
    node: bool,
    kubelet: programs::Release,
    binary: Option<PathBuf>,
    focus: Option<String>,
    keep: bool,
    /// The folder of the run, for the second start of this program, in its namespaces.
    inside: Option<PathBuf>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let mut args = args.iter();
        let task = match args.next().map(String::as_str) {
            Some("test") => Task::Test,
            Some("up") => Task::Up,
            Some("down") => Task::Down,
            _ => bail!("what is to be done?\n{USAGE}"),
        };
        let kubelet = programs::Release::Newest;
        let mut options =
            Options { task, node: false, kubelet, binary: None, focus: None, keep: false, inside: None };
        while let Some(arg) = args.next() {
            let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--node" => options.node = true,
                "--kubelet" => options.kubelet = programs::Release::parse(&value()?)?,
                "--binary" => options.binary = Some(std::path::absolute(value()?)?),
                "--focus" => options.focus = Some(value()?),
                "--keep" => options.keep = true,
                sandbox::INSIDE => options.inside = Some(value()?.into()),
                _ => bail!("cluster: `{arg}` is not understood\n{USAGE}"),
            }
        }
        Ok(options)
    }
}

/// Builds what is needed, enters the namespaces, and does it there; an error where a check fails.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    match &options.inside {
        Some(folder) if options.task == Task::Down => return sandbox::janitor(folder, options.keep),
        Some(folder) => return inside(&options, folder),
        None => {}
    }
    if !crate::command::is_root() {
        bail!("a cluster needs root: run it as `sudo -E cargo xtask cluster ...`");
    }
    if options.task == Task::Down {
        return sandbox::remove_all();
    }
    programs::build(options.kubelet)?;
    if !options.node {
        if options.kubelet != programs::Release::Newest {
            bail!("the cluster has the newest release; another kubelet is tested with --node");
        }
        programs::build_plane()?;
    }
    images::build()?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => crate::conformance::build_daemon()?,
    };
    sandbox::enter(&options, &binary)
}

fn inside(options: &Options, folder: &std::path::Path) -> Result<()> {
    let binary = options.binary.as_deref().context("inside, the binary is named")?;
    let place = Place::open(folder, binary, options.kubelet)?;
    match options.task {
        Task::Up if options.node => table::stay(&place),
        Task::Up => table::stay_as_cluster(&place),
        Task::Test | Task::Down if options.node => table::one_node(&place, options.focus.as_deref()),
        Task::Test | Task::Down => table::cluster(&place, options.focus.as_deref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_read() {
        let read = options("test --node --kubelet 1.22 --binary /p --focus logs --keep").unwrap();
        assert_eq!((read.task, read.node, read.keep), (Task::Test, true, true));
        assert_eq!((read.kubelet, read.focus.as_deref()), (programs::Release::Last22, Some("logs")));
        for bad in ["", "test --focus", "sideways", "test --kubelet 1.3", "up --nonsense"] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }
}
