//! What a streaming server asks of whoever has the containers: processes whose streams are descriptors, and connections into a pod.

use std::future::Future;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::pin::Pin;

/// A future on the heap.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A command to run in a container. At least one of the three streams is wanted, and with a terminal no `stderr`: the call that made
/// the URL has seen to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// The container's full id.
    pub container: String,
    pub command: Vec<String>,
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// The streams of a container's main process that somebody wants. With `terminal` he tells sizes, which matter if the container has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The container's full id.
    pub container: String,
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Whoever has the containers.
pub trait Backend: Send + Sync + 'static {
    /// Starts a command in a container.
    ///
    /// # Errors
    /// The container or the command is not there, or it does not start.
    fn exec(&self, exec: Exec) -> Boxed<'_, Result<Process, Refusal>>;

    /// Joins the streams of a container's main process.
    ///
    /// # Errors
    /// The container is not there or does not run.
    fn attach(&self, attach: Attach) -> Boxed<'_, Result<Process, Refusal>>;

    /// Connects to a port of the loopback interface in the network namespace of pod `pod`: over IPv4, then over IPv6. The socket does not block.
    ///
    /// # Errors
    /// The pod is not there, or nobody listens.
    fn connect(&self, pod: &str, port: u16) -> Boxed<'_, Result<TcpStream, Refusal>>;
}

/// A process that somebody talks with. Dropping it closes the streams, which is all that a client's vanishing does to the process.
pub struct Process {
    /// What the process reads; closing it is the end of its input. With a terminal, the terminal.
    pub stdin: Option<OwnedFd>,
    /// What the process wrote; at its end, everything was read. With a terminal it may end with EIO.
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub control: Box<dyn Control>,
}

/// What else can be done with a process.
pub trait Control: Send + Sync {
    /// Gives its terminal another size. Without a terminal, nothing.
    fn resize(&self, size: TerminalSize);

    /// Waits for its end.
    fn exit(&self) -> Boxed<'_, Exit>;
}

/// Columns and rows of a terminal, in characters; neither is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// How a process ended, or the watching of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its exit code; 128 + signal when a signal ended it.
    Code(u32),
    /// Nobody can tell any more: the reason, for the client.
    Lost(String),
}

/// Why it cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    NotPossible(String),
    #[error("{0}")]
    Failed(String),
}
