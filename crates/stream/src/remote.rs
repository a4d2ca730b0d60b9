//! Exec and attach: a process's streams, its terminal's size, and its end, over either transport.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::channel::{Inbound, Outbound};
use crate::protocol::Protocol;
use crate::spdy::Incoming;
use crate::status::Outcome;
use crate::websocket::Channels;
use crate::{Attach, Backend, Exec, Process, Refusal, process, resize};

/// What to talk with.
pub(crate) enum Remote {
    Exec(Exec),
    Attach(Attach),
}

/// Which streams were asked for.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    resize: bool,
}

impl Remote {
    fn wanted(&self, protocol: Protocol) -> Wanted {
        let (terminal, stdin, stdout, stderr) = match self {
            Remote::Exec(exec) => (exec.terminal, exec.stdin, exec.stdout, exec.stderr),
            Remote::Attach(attach) => (attach.terminal, attach.stdin, attach.stdout, attach.stderr),
        };
        Wanted { stdin, stdout, stderr, resize: terminal && protocol.resize }
    }

    async fn start(self, backend: &dyn Backend) -> Result<Process, Refusal> {
        match self {
            Remote::Exec(exec) => backend.exec(exec).await,
            Remote::Attach(attach) => backend.attach(attach).await,
        }
    }
}

/// The client's streams.
struct Streams {
    error: Outbound,
    stdin: Option<Inbound>,
    stdout: Option<Outbound>,
    stderr: Option<Outbound>,
    resize: Option<Inbound>,
}

/// Over SPDY the client opens each stream, and says by a header what it is for.
pub(crate) async fn over_spdy(
    incoming: mpsc::Receiver<Incoming>,
    remote: Remote,
    protocol: Protocol,
    backend: &dyn Backend,
    limit: Duration,
) {
    let wanted = remote.wanted(protocol);
    match opened(incoming, &wanted, limit).await {
        Ok(streams) => run(remote, streams, protocol, backend, false).await,
        Err(error) => {
            let late = format!("not all streams were opened within {} seconds", limit.as_secs());
            tell(error, &Outcome::Failed(late), protocol).await;
        }
    }
}

/// The streams that are wanted, or the one for errors if it was among those that came.
async fn opened(
    mut incoming: mpsc::Receiver<Incoming>,
    wanted: &Wanted,
    limit: Duration,
) -> Result<Streams, Option<Outbound>> {
    let mut missing: Vec<&'static str> = [
        (true, "error"),
        (wanted.stdin, "stdin"),
        (wanted.stdout, "stdout"),
        (wanted.stderr, "stderr"),
        (wanted.resize, "resize"),
    ]
    .into_iter()
    .filter_map(|(wanted, name)| wanted.then_some(name))
    .collect();
    let mut found: HashMap<&str, (Inbound, Outbound)> = HashMap::new();
    let all = async {
        while !missing.is_empty() {
            let stream = incoming.recv().await?;
            let kind = stream.headers.get("streamtype").unwrap_or_default();
            // One that nobody asked for is refused by dropping it.
            if let Some(at) = missing.iter().position(|name| *name == kind) {
                let name = missing.swap_remove(at);
                found.insert(name, stream.accept()?);
            }
        }
        Some(())
    };
    let all = timeout(limit, all).await;
    let mut outbound = |name| found.remove(name);
    let error = outbound("error").map(|(_, error)| error);
    match (all, error) {
        (Ok(Some(())), Some(error)) => Ok(Streams {
            error,
            stdin: outbound("stdin").map(|(stdin, _)| stdin),
            stdout: outbound("stdout").map(|(_, stdout)| stdout),
            stderr: outbound("stderr").map(|(_, stderr)| stderr),
            resize: outbound("resize").map(|(resize, _)| resize),
        }),
        (_, error) => Err(error),
    }
}

/// Over WebSocket the channels are there from the beginning.
pub(crate) async fn over_websocket(
    mut channels: Channels,
    remote: Remote,
    protocol: Protocol,
    backend: &dyn Backend,
) {
    let wanted = remote.wanted(protocol);
    let streams = Streams {
        error: channels.outbound(3),
        stdin: channels.inbound(0).filter(|_| wanted.stdin),
        stdout: wanted.stdout.then(|| channels.outbound(1)),
        stderr: wanted.stderr.then(|| channels.outbound(2)),
        resize: channels.inbound(4).filter(|_| wanted.resize),
    };
    drop(channels);
    run(remote, streams, protocol, backend, true).await;
}

/// With `announce`, a first message without content tells the client that the process is there and its streams are joined.
async fn run(remote: Remote, streams: Streams, protocol: Protocol, backend: &dyn Backend, announce: bool) {
    let Streams { error, stdin, stdout, stderr, resize } = streams;
    let exec = matches!(remote, Remote::Exec(_));
    let outcome = match remote.start(backend).await {
        Ok(process) => {
            if announce && stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error).announce().await.is_err() {
                return;
            }
            let outcome = talk(process, stdin, stdout, stderr, resize).await;
            // How a container ends is no matter of who watched it.
            if exec || matches!(outcome, Outcome::Failed(_)) { outcome } else { Outcome::Success }
        }
        Err(refusal) => {
            for output in [stdout, stderr].into_iter().flatten() {
                output.end().await;
            }
            Outcome::Failed(refusal.to_string())
        }
    };
    tell(Some(error), &outcome, protocol).await;
}

/// Carries a process's streams until it has ended and all that it wrote has gone out.
async fn talk(
    process: Process,
    stdin: Option<Inbound>,
    stdout: Option<Outbound>,
    stderr: Option<Outbound>,
    sizes: Option<Inbound>,
) -> Outcome {
    let (ended, exited) = watch::channel(false);
    let control = &*process.control;
    let exit = async {
        let exit = control.exit().await;
        ended.send_replace(true);
        exit
    };
    let output = |fd, to: Option<Outbound>| {
        let exited = exited.clone();
        async move {
            match (fd, to) {
                (Some(fd), to) => process::drain(fd, to, exited).await,
                (None, Some(to)) => to.end().await,
                (None, None) => {}
            }
        }
    };
    let input = async {
        let feed = async {
            if let (Some(from), Some(to)) = (stdin, process.stdin) {
                process::feed(from, to).await;
            }
        };
        let sizes = async {
            if let Some(sizes) = sizes {
                resize::follow(sizes, control).await;
            }
        };
        tokio::join!(feed, sizes);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        (exit, (), ()) = async {
            tokio::join!(exit, output(process.stdout, stdout), output(process.stderr, stderr))
        } => Outcome::of(exit),
        never = input => match never {},
    }
}

async fn tell(error: Option<Outbound>, outcome: &Outcome, protocol: Protocol) {
    let Some(error) = error else { return };
    let status = if protocol.json_status { outcome.json() } else { outcome.text() };
    let _gone = error.write(status).await;
    error.end().await;
}
