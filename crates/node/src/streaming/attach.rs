//! Attach: the streams of a container's main process, which its shim keeps over every restart of the daemon.

use std::sync::Arc;

use model::container::Container;
use stream::{Boxed, Control, Exit, Process, TerminalSize};
use tokio::sync::watch;

use super::{Pipes, to_the_end};
use crate::actor::Command;
use crate::error::AttachError;
use crate::exec_sync::state_name;
use crate::node::Node;
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;

/// How much output waits for a client that is slow for a moment. The shim leaves out what does not fit.
const WAITING_BYTES: usize = 512 << 10;

impl Node {
    /// Whether somebody could attach to the container now; the container. One that was created and not started can be attached to, so
    /// that nothing of its output is missed.
    ///
    /// # Errors
    /// There is none, or it does not run any more.
    pub fn can_attach(&self, given: &str) -> Result<Arc<ContainerRecord>, AttachError> {
        let record = self.container(given)?;
        match &record.state.container {
            Container::Created { .. } | Container::Running { .. } => Ok(record),
            ended @ (Container::Exited { .. } | Container::Unreadable { .. }) => {
                Err(AttachError::NotRunning { id: record.id.clone(), state: state_name(ended) })
            }
        }
    }

    /// Joins the streams of a container's main process.
    ///
    /// # Errors
    /// The container is not there or does not run.
    pub async fn attach(&self, attach: stream::Attach) -> Result<Process, AttachError> {
        let record = self.can_attach(&attach.container)?;
        let (id, node) = (record.id.clone(), self.clone());
        to_the_end(async move { node.join_streams(&record, &attach).await }, |fault| AttachError::Failed {
            id,
            fault,
        })
        .await
    }

    async fn join_streams(
        &self,
        record: &ContainerRecord,
        attach: &stream::Attach,
    ) -> Result<Process, AttachError> {
        let id = record.id.clone();
        let not_running = || AttachError::NotRunning { id: id.clone(), state: "without its pod's shim" };
        let handle = self.context.handle(&record.pod).ok_or_else(not_running)?;
        let shim = handle.shim.borrow().clone().ok_or_else(not_running)?;
        let (reply, ended) = tokio::sync::oneshot::channel();
        let asked = handle.command(Command::Ended { id: id.clone(), reply }).await;
        let ended = asked.and(ended.await.ok()).flatten().ok_or_else(not_running)?;
        let terminal = record.request.tty;
        let failed = |fault| AttachError::Failed { id: id.clone(), fault };
        let pipes = Pipes::new([attach.stdin, attach.stdout, attach.stderr]).map_err(failed)?;
        for output in pipes.near[1..].iter().flatten() {
            // Less is less patience, and no failure: the limit of all pipes together may be reached (pipe(7)).
            let _ = rustix::pipe::fcntl_setpipe_size(output, WAITING_BYTES);
        }
        match shim.client.attach(id.as_str(), pipes.far).await {
            Ok(()) => {}
            Err(error) if error.is_refusal() => {
                return Err(AttachError::Refused { id, why: error.to_string() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let [stdin, stdout, stderr] = pipes.near;
        let sizes = terminal.then(|| resizing(shim, id.to_string()));
        Ok(Process { stdin, stdout, stderr, control: Box::new(Attached { sizes, ended }) })
    }
}

/// Somebody who is attached.
struct Attached {
    /// Of the terminal, where there is one. Only the latest is ever waiting.
    sizes: Option<watch::Sender<Option<TerminalSize>>>,
    ended: watch::Receiver<Option<model::exit::Exit>>,
}

impl Control for Attached {
    fn resize(&self, size: TerminalSize) {
        if let Some(sizes) = &self.sizes {
            sizes.send_replace(Some(size));
        }
    }

    fn exit(&self) -> Boxed<'_, Exit> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            match ended.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone()) {
                Some(model::exit::Exit::Lost { why }) => Exit::Lost(why),
                Some(exit) => Exit::Code(u32::try_from(exit.code()).unwrap_or(255)),
                None => Exit::Lost("the container is gone".into()),
            }
        })
    }
}

/// Tells the shim of sizes, one after the other, for as long as somebody is attached.
fn resizing(shim: PodShim, id: String) -> watch::Sender<Option<TerminalSize>> {
    let (sizes, mut changed) = watch::channel(None::<TerminalSize>);
    tokio::spawn(async move {
        while changed.changed().await.is_ok() {
            let size = *changed.borrow_and_update();
            if let Some(size) = size
                && let Err(error) = shim.client.resize(&id, size.width, size.height).await
            {
                tracing::debug!(container = id, %error, "its terminal could not be resized");
            }
        }
    });
    sizes
}
