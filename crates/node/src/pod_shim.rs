//! A pod's shim as the node holds it: the client, its process, and how it ends, asked for or not.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use network::{InterfaceMeter, InterfaceStats};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use shim::config::{ShimConfig, ShimRecord, record_path};
use shim::protocol::{ErrorCode, InfoResponse};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Fault;
use crate::shim_client::{ShimBinary, ShimClient, ShimError, SpawnError};

/// How long a shim may take to end once it was asked to, before it is killed.
const ENDING: Duration = Duration::from_secs(5);

/// A running shim. Clones are the same shim.
#[derive(Debug, Clone)]
pub(crate) struct PodShim {
    pub(crate) client: ShimClient,
    process: Arc<Process>,
}

#[derive(Debug)]
struct Process {
    pid: i32,
    /// 0: the containers have process namespaces of their own, or the host's.
    pid_namespace_init: i32,
    /// 0: the pod's users are the host's.
    user_namespace: u32,
    pidfd: AsyncFd<OwnedFd>,
    /// Its end was asked for, so it is no loss.
    ending: AtomicBool,
    /// Opened when the pod's network is first looked at. It goes with the shim, so that it keeps no namespace that nobody needs.
    interfaces: OnceLock<InterfaceMeter>,
}

impl PodShim {
    /// Starts the shim of a pod and waits until its namespaces stand.
    pub(crate) async fn spawn(binary: &ShimBinary, config: &ShimConfig) -> Result<PodShim, Fault> {
        let path = config.pod_dir.join("shim.log");
        let messages =
            std::fs::File::create(&path).map_err(|source| Fault::File { path: path.clone(), source })?;
        // The child is dropped: tokio reaps it, and the pidfd tells when it ends.
        let (client, _child) =
            ShimClient::spawn(binary, config, messages).await.map_err(|error| with_messages(error, &path))?;
        PodShim::adopt(client).await.map(|(shim, _)| shim)
    }

    /// Connects to a shim that an earlier daemon left.
    pub(crate) async fn connect(pod_dir: &Path) -> Result<(PodShim, InfoResponse), Fault> {
        PodShim::adopt(ShimClient::connect(pod_dir)?).await
    }

    async fn adopt(client: ShimClient) -> Result<(PodShim, InfoResponse), Fault> {
        let info = client.info().await?;
        let number = |pid: u32| i32::try_from(pid).unwrap_or(0);
        let pid = number(info.pid);
        let open = || -> io::Result<AsyncFd<OwnedFd>> {
            let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
            watched(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
        };
        let pidfd = open().map_err(|source| Fault::File { path: format!("/proc/{pid}").into(), source })?;
        let process = Process {
            pid,
            pid_namespace_init: number(info.pid_namespace_init),
            user_namespace: info.user_namespace,
            pidfd,
            ending: AtomicBool::new(false),
            interfaces: OnceLock::new(),
        };
        Ok((PodShim { client, process: Arc::new(process) }, info))
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.pid
    }

    /// The shim's process, whatever its number means by now.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.get_ref().as_fd()
    }

    /// The first process of the pod's own process namespace, where it has one.
    pub(crate) fn pid_namespace_init(&self) -> Option<i32> {
        (self.process.pid_namespace_init != 0).then_some(self.process.pid_namespace_init)
    }

    /// The pod's namespace of this kind (`net`, `ipc`, `uts`): the shim is in it.
    pub(crate) fn namespace(&self, kind: &str) -> PathBuf {
        format!("/proc/{}/ns/{kind}", self.process.pid).into()
    }

    /// The counters of the pod's interfaces.
    pub(crate) fn interfaces(&self) -> io::Result<Vec<InterfaceStats>> {
        let known = &self.process.interfaces;
        if let Some(meter) = known.get() {
            return meter.read();
        }
        let meter = InterfaceMeter::open(std::fs::File::open(self.namespace("net"))?.as_fd())?;
        // Two that look at once open two, of which one is kept.
        known.get_or_init(|| meter).read()
    }

    /// The pod's user namespace, where it has one: the shim holds it open.
    pub(crate) fn user_namespace(&self) -> Option<PathBuf> {
        let (pid, number) = (self.process.pid, self.process.user_namespace);
        (number != 0).then(|| format!("/proc/{pid}/fd/{number}").into())
    }

    /// Returns once the shim has ended; whether that was asked for.
    pub(crate) async fn ended(&self) -> Ended {
        // An error of the reactor tells nothing of the shim; there is no later event either.
        if self.process.pidfd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
        if self.process.ending.load(Ordering::Acquire) { Ended::Asked } else { Ended::Lost }
    }

    /// Ends the shim and everything below it: asked first, killed where it does not listen.
    pub(crate) async fn end(&self) -> Result<(), Fault> {
        self.process.ending.store(true, Ordering::Release);
        let asked = tokio::time::timeout(ENDING, async {
            match self.client.shutdown().await {
                Ok(()) | Err(ShimError::Unreachable { .. } | ShimError::Disconnected { .. }) => {}
                Err(error) => tracing::warn!(pid = self.process.pid, %error, "the shim refuses to end"),
            }
            self.ended().await;
        });
        if asked.await.is_ok() {
            return Ok(());
        }
        kill(self.process.pidfd.get_ref())?;
        self.ended().await;
        Ok(())
    }
}

/// How a shim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Asked,
    Lost,
}

/// Ends the shim that a pod's folder tells of, where nobody is connected to it. That there is none is fine.
pub(crate) async fn end_recorded(pod_dir: &Path) -> Result<(), Fault> {
    if let Ok(Ok((shim, _))) = tokio::time::timeout(ENDING, PodShim::connect(pod_dir)).await {
        return shim.end().await;
    }
    let Some((record, pidfd)) = recorded(pod_dir) else { return Ok(()) };
    if start_time(record.pid) == Some(record.start_time) {
        kill(&pidfd)?;
        let pidfd = watched(pidfd)
            .map_err(|source| Fault::File { path: format!("/proc/{}", record.pid).into(), source })?;
        let _ = tokio::time::timeout(ENDING, pidfd.readable()).await;
    }
    Ok(())
}

/// A pidfd that becomes readable when its process has ended.
#[allow(
    deprecated,
    reason = "unsound only for types that change their descriptor, which an OwnedFd does not"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// What the shim wrote down of itself, with a descriptor of the process that has its number now.
fn recorded(pod_dir: &Path) -> Option<(ShimRecord, OwnedFd)> {
    let record: ShimRecord = serde_json::from_slice(&std::fs::read(record_path(pod_dir)).ok()?).ok()?;
    let pid = Pid::from_raw(i32::try_from(record.pid).ok()?)?;
    // The descriptor first, then the start time: so the two are of one process.
    Some((record, pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?))
}

/// Field 22 of /proc/<pid>/stat; the command's name before it may hold anything, so it is counted from behind that.
fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

fn kill(pidfd: &OwnedFd) -> Result<(), Fault> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Fault::File { path: "the shim's process".into(), source: error.into() }),
    }
}

/// The shim's last words, where it had any: they say more than that it is not ready.
fn with_messages(error: SpawnError, path: &Path) -> Fault {
    let answered = matches!(&error, SpawnError::NotReady { cause: ShimError::Refused(_), .. });
    let words = || std::fs::read_to_string(path).ok()?.lines().last().map(ToOwned::to_owned);
    Fault::Spawn { said: if answered { None } else { words() }, source: error }
}

impl ShimError {
    /// The object or the shim itself is not there any more: for a stop or a removal that is as good as done.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            ShimError::Refused(error) => error.code == ErrorCode::NotFound,
            ShimError::Unreachable { .. } => true,
            ShimError::Disconnected { .. } | ShimError::TimedOut { .. } | ShimError::Garbled { .. } => false,
        }
    }

    /// The shim is about to be gone: asked again a moment later, it is.
    pub(crate) fn is_ending(&self) -> bool {
        match self {
            ShimError::Refused(error) => error.code == ErrorCode::ShuttingDown,
            ShimError::Disconnected { .. } => true,
            ShimError::Unreachable { .. } | ShimError::TimedOut { .. } | ShimError::Garbled { .. } => false,
        }
    }

    /// The container is in a state that does not allow it, which may be another one soon.
    pub(crate) fn is_wrong_state(&self) -> bool {
        matches!(self, ShimError::Refused(error) if error.code == ErrorCode::WrongState)
    }

    /// The shim is well and says no: the request's or the container's fault.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, ShimError::Refused(error) if error.code != ErrorCode::Internal)
    }
}
