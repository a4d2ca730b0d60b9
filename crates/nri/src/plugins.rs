//! All plugins of this node, and what they need of it.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock, Semaphore};
use tracing::{info, warn};

use crate::api::{Container, ContainerUpdate, Empty, Event, PodSandbox};
use crate::dispatch::{Pass, Wishes};
use crate::error::StartError;
use crate::plugin::Plugin;
use crate::{launch, listen};

/// How many plugins may be connected at once, registered or on their way.
const PLACES: usize = 64;

/// How long a plugin that kept the node waiting while it was brought up to date is not let in again.
const PENANCE: Duration = Duration::from_secs(30);

/// How long a plugin that is being let in waits for what is under way; others wait as long, so it tries several times.
const LULLS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// How long plugins get to say goodbye when the daemon ends.
const GOODBYE: Duration = Duration::from_millis(500);

/// How plugins reach this node, and how patient it is with them.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where plugins connect.
    pub socket: PathBuf,
    /// Plugins to start, `NN-name`.
    pub plugin_dir: PathBuf,
    /// What those are given, in `NN-name.conf` or `name.conf`.
    pub config_dir: PathBuf,
    /// How long registering and being brought up to date may take, each.
    pub registration_timeout: Duration,
    /// How long one request may take.
    pub request_timeout: Duration,
    /// What plugins are told of who asks them.
    pub runtime_name: String,
    pub runtime_version: String,
}

/// All pods and containers, as a plugin that comes late is told of them.
#[derive(Debug, Default)]
pub struct Inventory {
    pub pods: Vec<PodSandbox>,
    pub containers: Vec<Container>,
}

/// Something that takes its time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What plugins need of the node. Neither call may wait for a [`Pass`].
pub trait Runtime: Send + Sync + 'static {
    /// Everything that there is.
    fn inventory(&self) -> Later<'_, Inventory>;
    /// Does what plugins want and returns the updates that failed and were not allowed to.
    fn change(&self, wishes: Wishes) -> Later<'_, Vec<ContainerUpdate>>;
}

/// The plugins of a node; or none, where NRI is off. Clones are the same.
#[derive(Clone, Default)]
pub struct Nri(Option<Arc<Inner>>);

pub(crate) struct Inner {
    pub(crate) config: Config,
    plugins: ArcSwap<Vec<Arc<Plugin>>>,
    /// Held for reading by whoever changes what there is, for writing while a plugin is brought up to date.
    barrier: Arc<RwLock<()>>,
    runtime: OnceLock<Arc<dyn Runtime>>,
    pub(crate) places: Arc<Semaphore>,
    penitents: Mutex<HashMap<String, Instant>>,
    listening: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Nri {
    /// NRI that is on, without plugins until [`Nri::start`].
    pub fn new(config: Config) -> Nri {
        Nri(Some(Arc::new(Inner {
            config,
            plugins: ArcSwap::default(),
            barrier: Arc::default(),
            runtime: OnceLock::new(),
            places: Arc::new(Semaphore::new(PLACES)),
            penitents: Mutex::default(),
            listening: Mutex::default(),
        })))
    }

    /// NRI that is off.
    pub fn off() -> Nri {
        Nri(None)
    }

    /// Lets plugins in: those that are installed are started, and have been registered or given up when this returns; others may
    /// connect from now on.
    ///
    /// # Errors
    /// The socket cannot be made. What can be done without it is done.
    pub async fn start(&self, runtime: Arc<dyn Runtime>) -> Result<(), StartError> {
        let Some(inner) = &self.0 else { return Ok(()) };
        if inner.runtime.set(runtime).is_err() {
            return Ok(());
        }
        let launched = launch::all(inner).await;
        let listener = listen::bind(&inner.config.socket)?;
        info!(socket = %inner.config.socket.display(), "NRI plugins may connect");
        let task = tokio::spawn(listen::accept(listener, inner.clone()));
        *inner.listening.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        launched
    }

    /// Says goodbye to the plugins and takes the socket away.
    pub async fn close(&self) {
        let Some(inner) = &self.0 else { return };
        let listening = inner.listening.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listening) = listening {
            listening.abort();
            let _ = std::fs::remove_file(&inner.config.socket);
        }
        let plugins = inner.plugins.swap(Arc::default());
        let goodbyes = plugins.iter().map(|plugin| async {
            let _ = plugin.connection.call::<_, Empty>("Shutdown", &Empty {}, GOODBYE).await;
            plugin.connection.close();
        });
        for goodbye in goodbyes {
            goodbye.await;
        }
    }

    /// Whether anybody wants to hear of `event` now. What depends on it needs a [`Pass`].
    pub fn wants(&self, event: Event) -> bool {
        self.0.as_ref().is_some_and(|inner| inner.plugins.load().iter().any(|plugin| plugin.wants(event)))
    }

    /// A pass, unless a plugin is being brought up to date at this moment.
    pub fn try_enter(&self) -> Option<Pass> {
        let Some(inner) = &self.0 else { return Some(Pass { plugins: Arc::default(), _barrier: None }) };
        let barrier = inner.barrier.clone().try_read_owned().ok()?;
        Some(Pass { plugins: inner.plugins.load_full(), _barrier: Some(barrier) })
    }

    /// Waits until no plugin is being brought up to date, and keeps it so while the pass is held.
    pub async fn enter(&self) -> Pass {
        let Some(inner) = &self.0 else { return Pass { plugins: Arc::default(), _barrier: None } };
        let barrier = inner.barrier.clone().read_owned().await;
        Pass { plugins: inner.plugins.load_full(), _barrier: Some(barrier) }
    }
}

impl std::fmt::Debug for Nri {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Nri").field(&self.0.as_ref().map(|inner| &inner.config.socket)).finish()
    }
}

impl Inner {
    /// Set before anything can ask for it.
    pub(crate) fn runtime(&self) -> Option<&Arc<dyn Runtime>> {
        self.runtime.get()
    }

    /// Waits for a moment in which nothing changes, without holding up others for long; `None` where there is none.
    pub(crate) async fn lull(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        for patience in LULLS {
            if let Ok(lull) = tokio::time::timeout(patience, self.barrier.clone().write_owned()).await {
                return Some(lull);
            }
            // Those who waited behind this one go first.
            tokio::time::sleep(patience / 10).await;
        }
        None
    }

    /// Adds a plugin behind those of its index.
    pub(crate) fn admit(&self, plugin: &Arc<Plugin>) {
        self.plugins.rcu(|plugins| {
            let mut plugins = Vec::clone(plugins);
            plugins.push(plugin.clone());
            plugins.sort_by(|one, other| one.index.cmp(&other.index));
            plugins
        });
    }

    pub(crate) fn dismiss(&self, plugin: &Arc<Plugin>) {
        self.plugins.rcu(|plugins| {
            let others = plugins.iter().filter(|other| !Arc::ptr_eq(other, plugin));
            others.cloned().collect::<Vec<_>>()
        });
    }

    /// Notes that a plugin kept everybody waiting for nothing.
    pub(crate) fn send_away(&self, name: &str) {
        warn!(plugin = name, "an NRI plugin kept the node waiting and is not let in for {PENANCE:?}");
        let mut penitents = self.penitents.lock().unwrap_or_else(PoisonError::into_inner);
        penitents.retain(|_, since| since.elapsed() < PENANCE);
        penitents.insert(name.to_owned(), Instant::now());
    }

    /// How much longer a plugin of this name is not let in.
    pub(crate) fn penance(&self, name: &str) -> Option<Duration> {
        let penitents = self.penitents.lock().unwrap_or_else(PoisonError::into_inner);
        penitents.get(name).and_then(|since| PENANCE.checked_sub(since.elapsed()))
    }
}
