//! The daemon's side of a shim: starts it, finds it again, and calls it.

mod connection;
mod spawn;

pub use spawn::{ShimBinary, SpawnError};

use connection::Connection;
use prost::Message;
use shim::config::socket_path;
use shim::protocol::{
    AttachRequest, BeginPodRequest, CallError, CheckpointRequest, CreateRequest, CreateResponse,
    DeleteRequest, DeleteResponse, Empty, ErrorCode, ExecRequest, ExecResponse, Exit, InfoRequest,
    InfoResponse, KillExecRequest, KillRequest, Method, PROTOCOL_VERSION, PauseRequest, ReopenLogRequest,
    ResizeRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, UpdateRequest,
    WaitExecRequest, WaitRequest, WaitResponse,
};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::trace;

/// How many processes are begun at one time in one pod. Others wait for their turn: a shim refuses what is too much for it.
const BEGINNINGS: usize = 64;

/// The target of the events that tell when the shim took a call and when it answered: fields `call`, `began` and `ended`, the latter in
/// nanoseconds since 1970. Waits are left out, in which nothing is done.
const SERVED: &str = "pintle::shim";

/// The pause before a wait is sent again over a new connection.
const AGAIN: Duration = Duration::from_millis(50);

/// Why a call did not give its answer.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The shim answered, with an error.
    #[error(transparent)]
    Refused(#[from] CallError),
    /// Nobody listens: the shim has ended, or was never there.
    #[error("the shim of {pod_dir:?} cannot be reached: {cause}")]
    Unreachable { pod_dir: PathBuf, cause: io::Error },
    /// The connection broke after the request was sent: whether it was done is not known.
    #[error("the shim of {pod_dir:?} went away during {method}; whether it was done is not known")]
    Disconnected { pod_dir: PathBuf, method: &'static str },
    #[error("the shim of {pod_dir:?} did not answer {method} within {timeout:?}")]
    TimedOut { pod_dir: PathBuf, method: &'static str, timeout: Duration },
    #[error("the shim of {pod_dir:?} answered {method} with bytes that are no such answer: {cause}")]
    Garbled { pod_dir: PathBuf, method: &'static str, cause: String },
}

/// The standard streams of a further process; what is `None` is /dev/null.
#[derive(Debug, Default)]
pub struct ExecStreams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// What a further process reads and writes.
#[derive(Debug)]
pub enum ExecIo {
    Streams(ExecStreams),
    /// A terminal, whose master end is sent over this connected unix socket.
    Terminal(OwnedFd),
}

/// A shim that can be called from any task. Clones share one connection, which is made anew when it broke.
#[derive(Debug, Clone)]
pub struct ShimClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pod_dir: PathBuf,
    connection: Mutex<Option<Connection>>,
    beginnings: Semaphore,
}

impl ShimClient {
    /// Uses a socket that is connected already.
    pub(crate) fn over(pod_dir: &Path, socket: OwnedFd) -> io::Result<ShimClient> {
        let connection = Connection::open(socket)?;
        Ok(ShimClient { shared: Arc::new(Shared::new(pod_dir, Some(connection))) })
    }

    /// Connects to the shim that listens in `pod_dir`, as a daemon does that was started anew. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `Unreachable`: nobody listens there.
    pub fn connect(pod_dir: &Path) -> Result<ShimClient, ShimError> {
        let shared = Arc::new(Shared::new(pod_dir, None));
        shared.connection()?;
        Ok(ShimClient { shared })
    }

    /// The pod's folder, by which this shim is known.
    pub fn pod_dir(&self) -> &Path {
        &self.shared.pod_dir
    }

    /// Who the shim is and what it parents. The first call after a spawn also tells whether the pod's namespaces could be set up.
    pub async fn info(&self) -> Result<InfoResponse, ShimError> {
        let info: InfoResponse = self.call(Method::Info, &InfoRequest {}, Vec::new()).await?;
        if info.protocol_version == 0 || info.protocol_version > PROTOCOL_VERSION {
            tracing::debug!(
                shim = info.protocol_version,
                ours = PROTOCOL_VERSION,
                "shim speaks another version"
            );
        }
        Ok(info)
    }

    /// Makes a container up to its first instruction; `rootfs` and `volumes` are detached mounts. Returns the pid of its first process.
    pub async fn create(
        &self,
        mut request: CreateRequest,
        rootfs: Option<OwnedFd>,
        volumes: Vec<OwnedFd>,
    ) -> Result<u32, ShimError> {
        request.has_rootfs = rootfs.is_some();
        request.volumes = volumes.len() as u32;
        let descriptors = rootfs.into_iter().chain(volumes).collect();
        let _turn = self.shared.beginnings.acquire().await;
        let created: CreateResponse = self.call(Method::Create, &request, descriptors).await?;
        Ok(created.pid)
    }

    /// Lets a created container run; when it did, in nanoseconds since 1970.
    pub async fn start(&self, id: &str) -> Result<i64, ShimError> {
        let started: StartResponse =
            self.call(Method::Start, &StartRequest { id: id.into() }, Vec::new()).await?;
        Ok(started.started_at_ns)
    }

    /// Sends a signal to a container's first process, or with `all` to every process in it.
    pub async fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), ShimError> {
        self.call(Method::Kill, &KillRequest { id: id.into(), signal, all }, Vec::new())
            .await
            .map(|Empty {}| ())
    }

    /// Waits until a container has exited. Goes on over a broken connection, for as long as the shim can be reached.
    pub async fn wait(&self, id: &str) -> Result<Exit, ShimError> {
        let request = WaitRequest { id: id.into() };
        self.wait_for(Method::Wait, &request).await
    }

    /// Removes what is left of a container that does not run.
    pub async fn delete(&self, id: &str) -> Result<Option<Exit>, ShimError> {
        let deleted: DeleteResponse =
            self.call(Method::Delete, &DeleteRequest { id: id.into() }, Vec::new()).await?;
        Ok(deleted.exit)
    }

    /// Runs a further process in a container; `process_json` is an OCI `process` object. Returns its pid.
    pub async fn exec(
        &self,
        container_id: &str,
        exec_id: &str,
        process_json: Vec<u8>,
        io: ExecIo,
    ) -> Result<u32, ShimError> {
        let mut request = ExecRequest {
            container_id: container_id.into(),
            exec_id: exec_id.into(),
            process_json,
            ..ExecRequest::default()
        };
        let descriptors = match io {
            ExecIo::Terminal(socket) => {
                request.terminal = true;
                vec![socket]
            }
            ExecIo::Streams(ExecStreams { stdin, stdout, stderr }) => {
                request.has_stdin = stdin.is_some();
                request.has_stdout = stdout.is_some();
                request.has_stderr = stderr.is_some();
                [stdin, stdout, stderr].into_iter().flatten().collect()
            }
        };
        let _turn = self.shared.beginnings.acquire().await;
        let executed: ExecResponse = self.call(Method::Exec, &request, descriptors).await?;
        Ok(executed.pid)
    }

    /// Waits until a further process has exited. Its output is complete when the ends of its pipes were read to their end.
    pub async fn wait_exec(&self, container_id: &str, exec_id: &str) -> Result<Exit, ShimError> {
        let request = WaitExecRequest { container_id: container_id.into(), exec_id: exec_id.into() };
        self.wait_for(Method::WaitExec, &request).await
    }

    /// Sends a signal to a further process.
    pub async fn kill_exec(&self, container_id: &str, exec_id: &str, signal: u32) -> Result<(), ShimError> {
        let request = KillExecRequest { container_id: container_id.into(), exec_id: exec_id.into(), signal };
        self.call(Method::KillExec, &request, Vec::new()).await.map(|Empty {}| ())
    }

    /// Joins the streams of a container's main process with far ends of pipes: stdin, stdout, stderr, at least one.
    pub async fn attach(&self, container_id: &str, ends: [Option<OwnedFd>; 3]) -> Result<(), ShimError> {
        let [has_stdin, has_stdout, has_stderr] = ends.each_ref().map(Option::is_some);
        let request = AttachRequest { container_id: container_id.into(), has_stdin, has_stdout, has_stderr };
        let descriptors = ends.into_iter().flatten().collect();
        self.call(Method::Attach, &request, descriptors).await.map(|Empty {}| ())
    }

    /// Gives a container's terminal another size, in characters.
    pub async fn resize(&self, container_id: &str, width: u16, height: u16) -> Result<(), ShimError> {
        let request =
            ResizeRequest { container_id: container_id.into(), width: width.into(), height: height.into() };
        self.call(Method::Resize, &request, Vec::new()).await.map(|Empty {}| ())
    }

    /// Opens a container's log file anew after a rotation. On an error the old file stays in use and none is made.
    pub async fn reopen_log(&self, id: &str) -> Result<(), ShimError> {
        let request = ReopenLogRequest { id: id.into() };
        self.call(Method::ReopenLog, &request, Vec::new()).await.map(|Empty {}| ())
    }

    /// Freezes running containers, all or none, until [`ShimClient::resume`], and not longer than `limit` or than this connection lasts.
    pub async fn pause(&self, ids: Vec<String>, limit: Duration) -> Result<(), ShimError> {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let request = PauseRequest { ids, limit_ms };
        self.call(Method::Pause, &request, Vec::new()).await.map(|Empty {}| ())
    }

    /// Lets what is paused run again.
    pub async fn resume(&self) -> Result<(), ShimError> {
        self.call(Method::Resume, &ResumeRequest {}, Vec::new()).await.map(|Empty {}| ())
    }

    /// Saves the processes of a paused container into the folder `images`; CRIU's log goes to the folder `work`.
    pub async fn checkpoint(
        &self,
        id: &str,
        criu: &Path,
        images: &Path,
        work: &Path,
    ) -> Result<(), ShimError> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (criu, images, work) = (text(criu), text(images), text(work));
        let request = CheckpointRequest { id: id.into(), criu, images, work };
        self.call(Method::Checkpoint, &request, Vec::new()).await.map(|Empty {}| ())
    }

    /// Has a foreign runtime begin the pod; `spec_json` is the OCI spec of what stands for it there.
    pub async fn begin_pod(&self, spec_json: Vec<u8>) -> Result<(), ShimError> {
        self.call(Method::BeginPod, &BeginPodRequest { spec_json }, Vec::new()).await.map(|Empty {}| ())
    }

    /// Has a foreign runtime change a container's limits; `resources_json` is an OCI `linux.resources` object.
    pub async fn update(&self, id: &str, resources_json: Vec<u8>) -> Result<(), ShimError> {
        let request = UpdateRequest { id: id.into(), resources_json };
        self.call(Method::Update, &request, Vec::new()).await.map(|Empty {}| ())
    }

    /// Kills and removes all containers of the pod and ends the shim.
    pub async fn shutdown(&self) -> Result<(), ShimError> {
        self.call(Method::Shutdown, &ShutdownRequest {}, Vec::new()).await.map(|Empty {}| ())
    }

    /// Gives up waiting for a call after `timeout`; what was asked for goes on in the shim.
    pub async fn within<T>(
        &self,
        timeout: Duration,
        method: Method,
        call: impl Future<Output = Result<T, ShimError>>,
    ) -> Result<T, ShimError> {
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
            Err(ShimError::TimedOut { pod_dir: self.shared.pod_dir.clone(), method: method.name(), timeout })
        })
    }

    /// A wait changes nothing in the shim, so it may be sent again.
    async fn wait_for(&self, method: Method, request: &impl Message) -> Result<Exit, ShimError> {
        loop {
            match self.call::<WaitResponse>(method, request, Vec::new()).await {
                Ok(WaitResponse { exit: Some(exit) }) => return Ok(exit),
                Ok(WaitResponse { exit: None }) => {
                    return Err(self.shared.garbled(method, "no exit in it".into()));
                }
                // A shim that turns connections away would be asked without a pause otherwise.
                Err(ShimError::Disconnected { .. }) => tokio::time::sleep(AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn call<R: Message + Default>(
        &self,
        method: Method,
        request: &impl Message,
        descriptors: Vec<OwnedFd>,
    ) -> Result<R, ShimError> {
        let connection = self.shared.connection()?;
        let answer = connection.call(method, request.encode_to_vec(), descriptors).await;
        let response = answer.map_err(|error| match error {
            connection::Broken::TooLong => ShimError::Refused(CallError::new(
                ErrorCode::InvalidArgument,
                format!("a {} request is longer than a frame may be", method.name()),
            )),
            connection::Broken::Gone => {
                ShimError::Disconnected { pod_dir: self.shared.pod_dir.clone(), method: method.name() }
            }
        })?;
        if let Some(served) = response.served.filter(|_| !matches!(method, Method::Wait | Method::WaitExec)) {
            trace!(target: SERVED, call = method.name(), began = served.began_ns, ended = served.ended_ns);
        }
        match response.status {
            Some(status) if status.code != 0 => Err(CallError::from_status(&status).into()),
            _ => R::decode(&response.payload[..])
                .map_err(|cause| self.shared.garbled(method, cause.to_string())),
        }
    }
}

impl Shared {
    fn new(pod_dir: &Path, connection: Option<Connection>) -> Shared {
        let (connection, beginnings) = (Mutex::new(connection), Semaphore::new(BEGINNINGS));
        Shared { pod_dir: pod_dir.into(), connection, beginnings }
    }

    /// The connection in use, or a new one if that broke. Connecting to a unix socket does not wait, unless its backlog is full.
    fn connection(&self) -> Result<Connection, ShimError> {
        let mut current = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let connection = sys::socket::connect(&socket_path(&self.pod_dir))
            .and_then(Connection::open)
            .map_err(|cause| ShimError::Unreachable { pod_dir: self.pod_dir.clone(), cause })?;
        Ok(current.insert(connection).clone())
    }

    fn garbled(&self, method: Method, cause: String) -> ShimError {
        ShimError::Garbled { pod_dir: self.pod_dir.clone(), method: method.name(), cause }
    }
}
