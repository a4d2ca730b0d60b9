//! Exec with streams: the command reads and writes pipes or a terminal whose other ends the client's session holds.
//!
//! A client that goes away closes them. What that means to the command is its own affair, as with sshd: a pipe without a reader, or the
//! hang-up of its terminal. It is waited for to its end either way, so that the shim need not keep its exit for anybody.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use stream::{Boxed, Control, Exit, Process, TerminalSize};
use tokio::sync::watch;

use super::{Pipes, no_descriptors, to_the_end};
use crate::context::blocking;
use crate::error::{ExecError, Fault};
use crate::exec_sync;
use crate::node::Node;
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;
use crate::shim_client::{ExecIo, ExecStreams};

impl Node {
    /// Whether a command could be executed in the container now; the container.
    ///
    /// # Errors
    /// There is none, it does not run, or no command was given.
    pub fn can_exec(
        &self,
        given: &str,
        command: &[String],
    ) -> Result<std::sync::Arc<ContainerRecord>, ExecError> {
        let record = self.container(given)?;
        exec_sync::check(&record, command)?;
        Ok(record)
    }

    /// Starts a command in a running container.
    ///
    /// # Errors
    /// The container is not there or does not run, or the command does not start.
    pub async fn exec(&self, exec: stream::Exec) -> Result<Process, ExecError> {
        let record = self.can_exec(&exec.container, &exec.command)?;
        let id = record.id.clone();
        let Some(shim) = self.shim_of(&record.pod) else {
            let state = exec_sync::state_name(&record.state.container);
            return Err(ExecError::NotRunning { id, state });
        };
        let context = self.context.clone();
        to_the_end(
            async move {
                let fail = |fault| ExecError::Failed { id: record.id.clone(), fault };
                let process = exec_sync::process(&context, &record, exec.command.clone(), exec.terminal)
                    .await
                    .map_err(fail)?;
                if exec.terminal {
                    with_terminal(&record, &shim, process, &exec).await
                } else {
                    with_pipes(&record, &shim, process, &exec).await
                }
            },
            |fault| ExecError::Failed { id, fault },
        )
        .await
    }
}

async fn with_pipes(
    record: &ContainerRecord,
    shim: &PodShim,
    process: Vec<u8>,
    exec: &stream::Exec,
) -> Result<Process, ExecError> {
    let pipes = Pipes::new([exec.stdin, exec.stdout, exec.stderr])
        .map_err(|fault| ExecError::Failed { id: record.id.clone(), fault })?;
    let [stdin, stdout, stderr] = pipes.far;
    let exit = begin(record, shim, process, ExecIo::Streams(ExecStreams { stdin, stdout, stderr })).await?;
    let [stdin, stdout, stderr] = pipes.near;
    Ok(Process { stdin, stdout, stderr, control: Box::new(Executed { terminal: None, exit }) })
}

async fn with_terminal(
    record: &ContainerRecord,
    shim: &PodShim,
    process: Vec<u8>,
    exec: &stream::Exec,
) -> Result<Process, ExecError> {
    let fail = |fault| ExecError::Failed { id: record.id.clone(), fault };
    let (socket, far) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|error| fail(no_descriptors(error.into())))?;
    let exit = begin(record, shim, process, ExecIo::Terminal(far)).await?;
    // It was sent before the command ran, so it lies here.
    let master = blocking(move || receive_terminal(&socket))
        .await
        .map_err(|source| fail(Fault::File { path: "the terminal of the command".into(), source }))?;
    let copy =
        |wanted: bool| -> std::io::Result<Option<OwnedFd>> { wanted.then(|| master.try_clone()).transpose() };
    let (stdin, stdout) = copy(exec.stdin)
        .and_then(|stdin| Ok((stdin, copy(exec.stdout)?)))
        .map_err(|error| fail(no_descriptors(error)))?;
    Ok(Process { stdin, stdout, stderr: None, control: Box::new(Executed { terminal: Some(master), exit }) })
}

fn receive_terminal(socket: &OwnedFd) -> std::io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(socket, true)?;
    let (_, mut descriptors) = sys::socket::receive(socket.as_fd(), &mut [0; 64])?;
    let master = descriptors.pop().ok_or(std::io::ErrorKind::UnexpectedEof)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok(master)
}

/// Starts the command and begins to wait for its end.
async fn begin(
    record: &ContainerRecord,
    shim: &PodShim,
    process: Vec<u8>,
    io: ExecIo,
) -> Result<watch::Receiver<Option<Exit>>, ExecError> {
    let id = record.id.clone();
    let exec_id = crate::context::new_exec_id();
    match shim.client.exec(id.as_str(), &exec_id, process, io).await {
        Ok(_) => {}
        Err(error) if error.is_refusal() => {
            return Err(ExecError::NotExecuted { id, why: error.to_string() });
        }
        Err(error) => return Err(ExecError::Failed { id, fault: error.into() }),
    }
    let (ended, exit) = watch::channel(None);
    let client = shim.client.clone();
    tokio::spawn(async move {
        ended.send_replace(Some(match client.wait_exec(id.as_str(), &exec_id).await {
            Ok(exit) => Exit::Code(exit.code),
            Err(error) => Exit::Lost(error.to_string()),
        }));
    });
    Ok(exit)
}

/// A command that was executed.
struct Executed {
    terminal: Option<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Control for Executed {
    fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal
            && let Err(error) = sys::terminal::set_size(terminal.as_fd(), size.height, size.width)
        {
            tracing::debug!(%error, "a terminal could not be resized");
        }
    }

    fn exit(&self) -> Boxed<'_, Exit> {
        let mut exit = self.exit.clone();
        Box::pin(async move {
            let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
            ended.unwrap_or_else(|| Exit::Lost("its end was not waited for".into()))
        })
    }
}
