//! `pintle serve`, the daemon: reads its configuration, takes its folders and its socket, opens the node, serves, and ends in order.

mod error;
mod folders;
mod footprint;
mod handlers;
mod listen;
mod logging;
mod options;
mod reload;
mod streaming;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use node::{CgroupDriver, CheckpointConfig, Node, NodeConfig, Parts, SecurityConfig};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::{self, Config};
use crate::observe::{Exporter, Exposition, Observer};
use error::ServeError;
use options::Options;

/// Threads that poll; what may wait for a disk has threads of its own.
const WORKERS: usize = 2;

/// Runs the daemon until SIGTERM or SIGINT. `arguments` begin behind the word `serve`.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(ending) => return ending,
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pintle serve: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), ServeError> {
    // Files that containers read must be readable and nothing must be writable for all, whatever the daemon was started with.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let config = options.config()?;
    let observer = Observer::default();
    let logging = logging::begin(&config.log, observer.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        // Who asks is answered before a layer is unpacked further. Where it cannot be had, answers come a little later.
        .on_thread_start(|| drop(sys::turns::take_short()))
        .enable_all()
        .build()
        .map_err(ServeError::Threads)?;
    let served = runtime.block_on(serve(options, config, logging, observer));
    // Work on a path that hangs must not keep the daemon from ending: containers live on without it.
    runtime.shutdown_background();
    served
}

async fn serve(
    options: &Options,
    config: Config,
    logging: logging::Logging,
    observer: Observer,
) -> Result<(), ServeError> {
    let folders = folders::take(&config.daemon)?;
    let listener = listen::bind(&config.daemon.socket)?;
    let node = open(&config).await?;
    observe(&config, &observer, &node).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let streaming = streaming::start(&config.streaming, &node)?;
    let server = tokio::spawn(cri::serve(node.clone(), streaming.clone(), listener, async move {
        let mut stopped = stopped;
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    info!(socket = %config.daemon.socket.display(), streaming = %streaming.address(), version = env!("CARGO_PKG_VERSION"), "serving CRI");
    notify(sd_notify::NotifyState::Ready);
    tokio::spawn(footprint::keep_small());
    let mut reloading = reload::Reloading::new(options.clone(), config, logging, node.shared_images());
    until_told(&mut reloading).await?;
    notify(sd_notify::NotifyState::Stopping);
    stop.send_replace(true);
    match tokio::time::timeout(std::time::Duration::from_secs(10), server).await {
        Ok(Ok(())) => info!("served to the end; containers run on"),
        Ok(Err(panic)) => error!(%panic, "the server ended by a panic"),
        Err(_) => warn!(
            "calls were still under way after ten seconds; what they began is settled at the next start"
        ),
    }
    node.close().await;
    streaming::stop(&streaming).await;
    listen::unbind(&reloading.config().daemon.socket);
    drop(folders);
    Ok(())
}

/// Lets the daemon be observed as the configuration says.
async fn observe(config: &Config, observer: &Observer, node: &Node) -> Result<(), ServeError> {
    if let Some(address) = config.metrics.address {
        let page = Exposition::bind(address).await?;
        info!(address = %page.address().unwrap_or(address), "serving metrics");
        tokio::spawn(page.serve(observer.clone(), node.clone()));
    }
    if let Some(collector) = &config.tracing.collector {
        observer.export(Exporter::begin(collector)?);
    }
    observer.watch();
    Ok(())
}

/// Handles signals until one says to end.
async fn until_told(reloading: &mut reload::Reloading) -> Result<(), ServeError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(ServeError::Threads)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Threads)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Threads)?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                notify(sd_notify::NotifyState::Reloading);
                reloading.reload().await;
                notify(sd_notify::NotifyState::Ready);
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

async fn open(config: &Config) -> Result<Node, ServeError> {
    let (root, state) = (&config.daemon.root, &config.daemon.state);
    let store = Arc::new(store::Store::open(&root.join("pintle.db")).map_err(ServeError::Store)?);
    if let Some(aside) = store.quarantined() {
        error!(
            ?aside,
            "the database was damaged and is put aside; pods and images are found anew where the disk has them"
        );
    }
    let images =
        image::Images::open(reload::image_config(config), store.clone()).map_err(ServeError::Images)?;
    let networks = handlers::networks(config, &config.network.conf_dir)?;
    let shim = match crate::shim_elf::SHIM_ELF {
        Some(program) => node::shim_client::ShimBinary::sealed(program),
        None => node::shim_client::ShimBinary::of_self(),
    }
    .map_err(ServeError::Shim)?;
    let node_config = NodeConfig {
        state_dir: state.clone(),
        cdi_dirs: config.cdi.dirs.clone(),
        hooks_dirs: config.runtime.hooks_dirs.clone(),
        cgroup_driver: cgroup_driver(config.runtime.cgroup_driver)?,
        security: SecurityConfig {
            apparmor_profile: config.runtime.apparmor_profile.clone(),
            selinux: config.runtime.selinux,
        },
        handlers: handlers::of(config)?,
        default_handler: config.runtime.default_handler.clone().unwrap_or_default(),
        gc_after: config.image.gc_after_secs,
        checkpoint: CheckpointConfig {
            criu: config.checkpoint.criu.clone(),
            work_dir: root.join("checkpoints"),
        },
    };
    let nri = nri(&config.nri);
    let parts = Parts { config: node_config, store, images, networks: Arc::new(networks), nri, shim };
    Node::open(parts).await.map_err(ServeError::Node)
}

/// Who makes control groups: as told, or as it fits this machine.
fn cgroup_driver(told: config::CgroupDriver) -> Result<CgroupDriver, ServeError> {
    match told {
        config::CgroupDriver::Cgroupfs => Ok(CgroupDriver::Cgroupfs),
        config::CgroupDriver::Systemd if !cgroup::systemd::runs() => Err(ServeError::NoSystemd),
        config::CgroupDriver::Systemd => Ok(CgroupDriver::Systemd),
        config::CgroupDriver::Auto => {
            let host = cgroup::Host::detect().map_err(ServeError::Cgroups)?;
            Ok(CgroupDriver::of(&host))
        }
    }
}

fn nri(config: &config::Nri) -> nri::Nri {
    if !config.enabled {
        return nri::Nri::off();
    }
    nri::Nri::new(nri::Config {
        socket: config.socket.clone(),
        plugin_dir: config.plugin_dir.clone(),
        config_dir: config.config_dir.clone(),
        registration_timeout: config.registration_timeout_secs,
        request_timeout: config.request_timeout_secs,
        runtime_name: "pintle".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// Tells the service manager, where there is one.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "the service manager could not be told");
    }
}
