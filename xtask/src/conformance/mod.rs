//! `cargo xtask conformance`: Kubernetes' own clients, crictl and critest, against a throw-away daemon in namespaces of its own, and the
//! OCI's validation programs against the OCI runtime.

mod clients;
mod containerd;
mod crictl;
mod crictl_streams;
mod critest;
mod daemon;
mod engines;
mod images;
mod oci;
mod sandbox;
mod v1alpha2;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub(crate) use clients::cache;
pub(crate) use critest::outcome;
pub(crate) use daemon::{build as build_daemon, configuration as daemon_config, network as network_config};
pub(crate) use images::{HOSTS, Registry, build_set as build_images, patched_critest};
pub(crate) use oci::build as validation_programs;

use daemon::Daemon;

const USAGE: &str = "\
cargo xtask conformance crictl [--crictl FILE] [--binary FILE | --endpoint SOCKET] [--keep]
cargo xtask conformance v1alpha2 [--binary FILE | --endpoint SOCKET] [--keep]
cargo xtask conformance critest [--critest FILE] [--binary FILE | --endpoint SOCKET | --containerd FOLDER] [--handler KIND:PATH [--setting LINE]... [--failing FILE]] [--focus REGEX] [--skip REGEX] [--websocket] [--keep]
cargo xtask conformance oci [--binary FILE] [--focus PART]
cargo xtask conformance engines [--binary FILE] [--focus containerd|nerdctl|docker|podman|podman-cni]

  --binary FILE       the pintle to test; without it, the one that `cargo build --release` makes
  --endpoint SOCKET   another runtime's CRI socket, already running, in place of a throw-away daemon; the images it pulls come from
                      a registry at 127.77.0.80:80, which stands in for registry.k8s.io, k8s.gcr.io and gcr.io
  --containerd FOLDER a throw-away containerd with the programs of this folder, with --runtime TYPE as its default runtime:
                      io.containerd.pintle.v2 (the shim that --binary is), or io.containerd.runc.v2 with --oci FILE in place of runc
  --handler KIND:PATH all pods of the throw-away daemon are run by this handler: oci:/usr/sbin/runc, shim:containerd-shim-runc-v2
  --setting LINE      a further line of the handler's section, such as pause='always'
  --failing FILE      the specs that are known to fail, in place of conformance/critest-failing.txt
  --crictl FILE       another crictl than the current one, for instance an older one
  --critest FILE      another critest than the current one, for instance a newer one, which has specs of NRI
  --focus, --skip     which specs of critest; a part of the names of the OCI's programs
  --websocket         critest streams over WebSocket; without it, over SPDY
  --keep              leave the daemon's files and log for a look";

/// The clients, and the images that they use.
pub(crate) fn clients() -> Result<clients::Clients> {
    let clients = clients::build()?;
    images::build(&clients)?;
    Ok(clients)
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    suite: String,
    binary: Option<PathBuf>,
    endpoint: Option<String>,
    containerd: Option<PathBuf>,
    runtime: Option<String>,
    oci: Option<PathBuf>,
    handler: Option<String>,
    settings: Vec<String>,
    failing: Option<PathBuf>,
    crictl: Option<PathBuf>,
    critest: Option<PathBuf>,
    focus: Option<String>,
    skip: Option<String>,
    websocket: bool,
    keep: bool,
    inside: bool,
}

impl Options {
    fn parse(args: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().cloned().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--binary" => options.binary = Some(std::path::absolute(value()?)?),
                "--endpoint" => options.endpoint = Some(value()?),
                "--containerd" => options.containerd = Some(std::path::absolute(value()?)?),
                "--runtime" => options.runtime = Some(value()?),
                "--oci" => options.oci = Some(std::path::absolute(value()?)?),
                "--handler" => options.handler = Some(value()?),
                "--setting" => options.settings.push(value()?),
                "--failing" => options.failing = Some(std::path::absolute(value()?)?),
                "--crictl" => options.crictl = Some(std::path::absolute(value()?)?),
                "--critest" => options.critest = Some(std::path::absolute(value()?)?),
                "--focus" => options.focus = Some(value()?),
                "--skip" => options.skip = Some(value()?),
                "--websocket" => options.websocket = true,
                "--keep" => options.keep = true,
                sandbox::INSIDE => options.inside = true,
                "crictl" | "critest" | "v1alpha2" | "oci" | "engines" if options.suite.is_empty() => {
                    options.suite = arg.clone()
                }
                _ => bail!("conformance: `{arg}` is not understood\n{USAGE}"),
            }
        }
        if options.suite.is_empty() {
            bail!("which suite?\n{USAGE}");
        }
        Ok(options)
    }

    /// The configuration of the handler that runs all pods; nothing without one.
    fn handler_config(&self) -> Result<String> {
        let Some(handler) = &self.handler else { return Ok(String::new()) };
        let (kind, path) = handler
            .split_once(':')
            .with_context(|| format!("--handler {handler}: it is KIND:PATH, as oci:/usr/sbin/runc"))?;
        let settings = self.settings.join("\n");
        Ok(format!(
            "[runtime]\ndefault_handler = 'other'\n[runtimes.other]\nkind = {kind:?}\npath = {path:?}\n{settings}\n"
        ))
    }

    /// The clients, with those that were named in place of the current ones.
    fn chosen(&self, mut clients: clients::Clients) -> clients::Clients {
        clients.crictl = self.crictl.clone().unwrap_or(clients.crictl);
        clients.critest = self.critest.clone().unwrap_or(clients.critest);
        clients
    }
}

/// Builds what is needed, and runs the suite; an error where something fails that should not.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut options = Options::parse(args)?;
    match options.suite.as_str() {
        "oci" => return oci::run(&options),
        "engines" => return engines::run(&options),
        _ => {}
    }
    if !options.inside {
        let clients = options.chosen(clients::build()?);
        images::build(&clients)?;
        let runtime = options.runtime.as_deref().unwrap_or(containerd::OURS);
        let own = options.containerd.is_none() || runtime == containerd::OURS;
        if options.binary.is_none() && options.endpoint.is_none() && own {
            options.binary = Some(daemon::build()?);
        }
        // A runtime that already runs is in the namespaces that it is in, and specs have to share its mounts.
        if options.endpoint.is_none() {
            return sandbox::enter(&options);
        }
    }
    let clients = options.chosen(clients::built()?);
    let registry = Registry::start()?;
    let daemon = match (&options.endpoint, &options.containerd) {
        (Some(endpoint), _) => Daemon::running(endpoint)?,
        (None, Some(programs)) => {
            let runtime = options.runtime.as_deref().unwrap_or(containerd::OURS);
            let (oci, binary) = (options.oci.as_deref(), options.binary.as_deref());
            Daemon::containerd(programs, runtime, oci, binary, options.keep)?
        }
        (None, None) => {
            let binary = options.binary.as_deref().context("inside, the binary is named")?;
            Daemon::start(binary, &options.handler_config()?, options.keep)?
        }
    };
    let result = match options.suite.as_str() {
        "crictl" => crictl::walk(&clients, &daemon),
        "v1alpha2" => v1alpha2::run(&clients, &daemon),
        _ => critest::run(&clients, &daemon, &options),
    };
    if result.is_err() {
        crictl::remove_pods(&clients, &daemon);
    }
    let stopped = daemon.stop(result.is_err());
    drop(registry);
    result.and(stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_line_is_read() {
        let read = options("critest --focus x.y --keep --websocket --binary /p").unwrap();
        assert_eq!((read.suite.as_str(), read.focus.as_deref(), read.keep), ("critest", Some("x.y"), true));
        assert_eq!((read.binary, read.websocket), (Some("/p".into()), true));
        for bad in ["", "crictl critest", "crictl --focus", "critest --nonsense"] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }
}
