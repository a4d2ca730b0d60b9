//! What a streaming server is given: processes whose streams are descriptors, and connections into a pod's network.
//!
//! Nothing of it is kept here for a client: its streams are its own, and when it closes them, the container hears of that and nobody else has to.

mod attach;
mod connect;
mod exec;

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;

use stream::{Backend, Boxed, Process, Refusal};

use crate::error::{AttachError, ConnectError, ExecError, Fault};
use crate::node::Node;
use crate::snapshot::LookupError;

impl Backend for Node {
    fn exec(&self, exec: stream::Exec) -> Boxed<'_, Result<Process, Refusal>> {
        Box::pin(async move { self.exec(exec).await.map_err(|error| error.refusal()) })
    }

    fn attach(&self, attach: stream::Attach) -> Boxed<'_, Result<Process, Refusal>> {
        Box::pin(async move { self.attach(attach).await.map_err(|error| error.refusal()) })
    }

    fn connect(&self, pod: &str, port: u16) -> Boxed<'_, Result<TcpStream, Refusal>> {
        let pod = pod.to_owned();
        Box::pin(async move { self.connect(&pod, port).await.map_err(|error| error.refusal()) })
    }
}

impl ExecError {
    fn refusal(&self) -> Refusal {
        let why = self.to_string();
        match self {
            ExecError::Lookup(error) => of_lookup(error, why),
            ExecError::NotRunning { .. } | ExecError::NoCommand { .. } | ExecError::NotExecuted { .. } => {
                Refusal::NotPossible(why)
            }
            ExecError::TimedOut { .. } | ExecError::Failed { .. } => Refusal::Failed(why),
        }
    }
}

impl AttachError {
    fn refusal(&self) -> Refusal {
        let why = self.to_string();
        match self {
            AttachError::Lookup(error) => of_lookup(error, why),
            AttachError::NotRunning { .. } | AttachError::Refused { .. } => Refusal::NotPossible(why),
            AttachError::Failed { .. } => Refusal::Failed(why),
        }
    }
}

impl ConnectError {
    fn refusal(&self) -> Refusal {
        let why = self.to_string();
        match self {
            ConnectError::Lookup(error) => of_lookup(error, why),
            ConnectError::NotReady { .. } | ConnectError::Refused { .. } => Refusal::NotPossible(why),
            ConnectError::Failed { .. } => Refusal::Failed(why),
        }
    }
}

fn of_lookup(error: &LookupError, why: String) -> Refusal {
    match error {
        LookupError::Absent { .. } => Refusal::NotFound(why),
        LookupError::Ambiguous { .. } => Refusal::NotPossible(why),
    }
}

/// Which end of a pipe stays here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Near {
    Reads,
    Writes,
}

/// A pipe: the end that stays here, which does not block, and the other, which is a plain one, as programs expect.
fn pipe(near: Near) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (near, far) = if near == Near::Reads { (reader, writer) } else { (writer, reader) };
    rustix::io::ioctl_fionbio(&near, true)?;
    Ok((near, far))
}

/// The pipes of the streams that are wanted: stdin, stdout, stderr.
#[derive(Default)]
struct Pipes {
    near: [Option<OwnedFd>; 3],
    far: [Option<OwnedFd>; 3],
}

impl Pipes {
    fn new(wanted: [bool; 3]) -> Result<Pipes, Fault> {
        let mut pipes = Pipes::default();
        for (index, near) in [Near::Writes, Near::Reads, Near::Reads].into_iter().enumerate() {
            if wanted[index] {
                let (near, far) = pipe(near).map_err(no_descriptors)?;
                (pipes.near[index], pipes.far[index]) = (Some(near), Some(far));
            }
        }
        Ok(pipes)
    }
}

fn no_descriptors(source: io::Error) -> Fault {
    Fault::File { path: "a pipe or socket for its streams".into(), source }
}

/// Runs `work` to its end though its client may leave: what it began is then dropped, and closed by that.
async fn to_the_end<T: Send + 'static, E: Send + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
    vanished: impl FnOnce(Fault) -> E,
) -> Result<T, E> {
    tokio::spawn(work).await.unwrap_or_else(|_| Err(vanished(Fault::Vanished)))
}
