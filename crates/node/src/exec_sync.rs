//! Running a command in a container and keeping what it prints, up to CRI's limit.
//!
//! The command writes straight into pipes of this daemon; the shim never touches the bytes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use model::container::{self, Container};
use model::id::ContainerId;
use model::pod::Verdict;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::context::{Context, blocking};
use crate::error::{ExecError, Fault};
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;
use crate::shim_client::{ExecIo, ExecStreams, ShimError};

/// CRI's limit for each of stdout and stderr; what a command prints beyond it is read and dropped.
pub const OUTPUT_LIMIT: usize = 16 << 20;

/// How long after the command's end its pipes may stay open, held by children that it left behind.
const DRAIN: Duration = Duration::from_millis(500);

const SIGKILL: u32 = 9;

/// What a command printed, and its exit code as a shell counts it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutput {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// Runs `command` in the container; no `timeout`: as long as it takes.
pub(crate) async fn run(
    context: Arc<Context>,
    record: Arc<ContainerRecord>,
    shim: PodShim,
    command: Vec<String>,
    timeout: Option<Duration>,
) -> Result<ExecOutput, ExecError> {
    let id = record.id.clone();
    check(&record, &command)?;
    let fail = |fault| ExecError::Failed { id: id.clone(), fault };
    let process = process(&context, &record, command, false).await.map_err(fail)?;
    let (stdout, stdout_end) = output_pipe().map_err(|source| fail(pipe_fault(source)))?;
    let (stderr, stderr_end) = output_pipe().map_err(|source| fail(pipe_fault(source)))?;
    let exec_id = crate::context::new_exec_id();
    let streams = ExecStreams { stdin: None, stdout: Some(stdout_end), stderr: Some(stderr_end) };
    let out_of_time = || ExecError::TimedOut { id: id.clone(), timeout: timeout.unwrap_or_default() };
    let deadline = timeout.map(|timeout| tokio::time::Instant::now() + timeout);
    let (client, container, named) = (shim.client.clone(), id.clone(), exec_id.clone());
    let mut beginning =
        Box::pin(
            async move { client.exec(container.as_str(), &named, process, ExecIo::Streams(streams)).await },
        );
    let begun = tokio::select! {
        begun = &mut beginning => begun,
        // In a frozen container nothing begins until it is thawed.
        () = until(deadline) => {
            tokio::spawn(async move {
                if beginning.await.is_ok() {
                    kill(&shim, &record.id, &exec_id).await;
                }
            });
            return Err(out_of_time());
        }
    };
    match begun {
        Ok(_) => {}
        Err(error) if error.is_refusal() => {
            return Err(ExecError::NotExecuted { id, why: error.to_string() });
        }
        Err(error) => return Err(fail(error.into())),
    }
    let mut reading = Reading::new(stdout, stderr);
    let ended = tokio::select! {
        ended = reading.until(shim.client.wait_exec(id.as_str(), &exec_id)) => Some(ended),
        () = until(deadline) => None,
    };
    let Some(ended) = ended else {
        kill(&shim, &id, &exec_id).await;
        return Err(out_of_time());
    };
    let exit = ended.map_err(|error| fail(error.into()))?;
    let (stdout, stderr) = reading.finish().await;
    Ok(ExecOutput { stdout, stderr, exit_code: i32::try_from(exit.code).unwrap_or(255) })
}

pub(crate) fn check(record: &ContainerRecord, command: &[String]) -> Result<(), ExecError> {
    let id = record.id.clone();
    match container::exec(&record.state.container) {
        Verdict::Go | Verdict::AlreadyDone => {}
        Verdict::Refuse(state) => return Err(ExecError::NotRunning { id, state }),
    }
    if command.first().is_none_or(String::is_empty) {
        return Err(ExecError::NoCommand { id });
    }
    Ok(())
}

/// The container's own process, with another command: same user, environment, limits and rights. A terminal is an xterm to it, whatever
/// the container's was.
pub(crate) async fn process(
    context: &Context,
    record: &ContainerRecord,
    command: Vec<String>,
    terminal: bool,
) -> Result<Vec<u8>, Fault> {
    #[derive(serde::Deserialize)]
    struct OnlyProcess {
        process: oci_spec::runtime::Process,
    }
    let path = context.bundle(&record.pod, &record.id).join("config.json");
    blocking(move || {
        let read = || -> std::io::Result<Vec<u8>> {
            let bytes = std::fs::read(&path)?;
            let mut process = serde_json::from_slice::<OnlyProcess>(&bytes)?.process;
            process.set_args(Some(command)).set_terminal(Some(terminal));
            if terminal {
                let env = process.env_mut().get_or_insert_default();
                env.retain(|line| !line.starts_with("TERM="));
                env.push("TERM=xterm".into());
            }
            Ok(serde_json::to_vec(&process)?)
        };
        read().map_err(|source| Fault::File { path, source })
    })
    .await
}

/// A pipe whose near end is read without blocking and whose far end is a plain one, as programs expect.
fn output_pipe() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (near, far) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(near)?, far))
}

fn pipe_fault(source: std::io::Error) -> Fault {
    Fault::File { path: "a pipe for its output".into(), source }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The timeout is the client's answer already; whether the kill works is seen at the container's end at the latest.
async fn kill(shim: &PodShim, id: &ContainerId, exec_id: &str) {
    if let Err(error) = shim.client.kill_exec(id.as_str(), exec_id, SIGKILL).await
        && !error.is_gone()
    {
        tracing::warn!(exec_id, %error, "a command that ran out of time could not be killed");
    }
    // Its end is heard of, though nobody waits for it, so that the shim need not keep it for somebody.
    let (client, id, exec_id) = (shim.client.clone(), id.clone(), exec_id.to_owned());
    tokio::spawn(async move { client.wait_exec(id.as_str(), &exec_id).await.map(drop) });
}

/// Both pipes being read into bounded memory.
struct Reading {
    stdout: Capture,
    stderr: Capture,
}

struct Capture {
    pipe: Option<pipe::Receiver>,
    kept: Vec<u8>,
}

impl Reading {
    fn new(stdout: pipe::Receiver, stderr: pipe::Receiver) -> Reading {
        let capture = |pipe| Capture { pipe: Some(pipe), kept: Vec::new() };
        Reading { stdout: capture(stdout), stderr: capture(stderr) }
    }

    /// Reads until the command has ended.
    async fn until<T>(&mut self, ended: impl Future<Output = Result<T, ShimError>>) -> Result<T, ShimError> {
        tokio::pin!(ended);
        loop {
            tokio::select! {
                exit = &mut ended => return exit,
                () = self.stdout.read(), if self.stdout.pipe.is_some() => {}
                () = self.stderr.read(), if self.stderr.pipe.is_some() => {}
            }
        }
    }

    /// Reads to the end of both pipes, or as long as a child that stayed behind deserves.
    async fn finish(mut self) -> (Vec<u8>, Vec<u8>) {
        let _ = tokio::time::timeout(DRAIN, async {
            while self.stdout.pipe.is_some() || self.stderr.pipe.is_some() {
                tokio::select! {
                    () = self.stdout.read(), if self.stdout.pipe.is_some() => {}
                    () = self.stderr.read(), if self.stderr.pipe.is_some() => {}
                }
            }
        })
        .await;
        (self.stdout.kept, self.stderr.kept)
    }
}

impl Capture {
    /// Takes what there is; at the end of the pipe, or an error of it, there is no pipe any more.
    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let room = OUTPUT_LIMIT - self.kept.len();
        let got = if room > 0 {
            // `read_buf` is cancel safe: bytes are either kept or still in the pipe.
            self.kept.reserve(room.min(4096));
            (&mut *pipe).take(room as u64).read_buf(&mut self.kept).await
        } else {
            let mut dropped = [0; 16 << 10];
            pipe.read(&mut dropped).await
        };
        if !matches!(got, Ok(1..)) {
            self.pipe = None;
        }
    }
}

/// The words for a container's state in a sentence.
pub(crate) fn state_name(container: &Container) -> &'static str {
    match container {
        Container::Created { .. } => "created but not started",
        Container::Running { .. } => "running",
        Container::Exited { .. } => "exited",
        Container::Unreadable { .. } => "in an unreadable state",
    }
}
