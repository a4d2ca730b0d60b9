//! Stopping a container: its stop signal once, its grace, then SIGKILL to everything in it.

use std::sync::Arc;
use std::time::Duration;

use model::container::Container;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actor::Answer;
use crate::error::{Fault, StopContainerError};
use crate::pod_shim::PodShim;
use crate::record::ContainerRecord;
use crate::stage::stage;

/// How long after SIGKILL a process may take to be gone before the stop says that it is stuck.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

const SIGKILL: u32 = 9;

/// A running stop, which a later and more impatient request can shorten.
#[derive(Debug)]
pub(crate) struct StopOrder {
    deadline: watch::Sender<Instant>,
}

impl StopOrder {
    pub(crate) fn new(timeout: Duration) -> StopOrder {
        StopOrder { deadline: watch::Sender::new(after(timeout)) }
    }

    /// Kills at the earlier of the two deadlines.
    pub(crate) fn shorten(&self, timeout: Duration) {
        let wanted = after(timeout);
        self.deadline.send_if_modified(|deadline| {
            let shorter = wanted < *deadline;
            if shorter {
                *deadline = wanted;
            }
            shorter
        });
    }
}

/// An instant that far away; a timeout beyond all clocks is thirty years.
fn after(timeout: Duration) -> Instant {
    let thirty_years = Duration::from_secs(30 * 365 * 24 * 3600);
    Instant::now() + timeout.min(thirty_years)
}

pub(crate) async fn run(
    record: Arc<ContainerRecord>,
    shim: Option<PodShim>,
    mut ended: watch::Receiver<Option<model::exit::Exit>>,
    order: Arc<StopOrder>,
) -> Answer<(), StopContainerError> {
    let id = &record.id;
    let Some(shim) = shim else {
        // Without a shim the actor is about to hear that everything in the pod ended.
        return wait_for_end(&record, &mut ended).await;
    };
    let mut deadline = order.deadline.subscribe();
    let running = matches!(record.state.container, Container::Running { .. });
    // What was never started has nothing to shut down in good order.
    if running && *deadline.borrow() > Instant::now() {
        let signal = u32::from(record.facts.stop_signal);
        match stage("signal", &record.pod, shim.client.kill(id.as_str(), signal, false)).await {
            Ok(()) => {}
            Err(error) if error.is_gone() || error.is_ending() => {}
            Err(error) => return fail(&record, error.into()),
        }
        loop {
            let until = *deadline.borrow_and_update();
            tokio::select! {
                _ = ended.wait_for(Option::is_some) => return Ok(()),
                () = tokio::time::sleep_until(until) => break,
                shortened = deadline.changed() => if shortened.is_err() { break },
            }
        }
    }
    match stage("kill", &record.pod, shim.client.kill(id.as_str(), SIGKILL, true)).await {
        Ok(()) => {}
        Err(error) if error.is_gone() || error.is_ending() => {}
        Err(error) => return fail(&record, error.into()),
    }
    wait_for_end(&record, &mut ended).await
}

async fn wait_for_end(
    record: &ContainerRecord,
    ended: &mut watch::Receiver<Option<model::exit::Exit>>,
) -> Answer<(), StopContainerError> {
    let waiting = tokio::time::timeout(KILL_PATIENCE, ended.wait_for(Option::is_some));
    match stage("end", &record.pod, waiting).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => fail(record, Fault::Vanished),
        Err(_) => Err(Arc::new(StopContainerError::Stuck {
            id: record.id.clone(),
            waited: KILL_PATIENCE,
            stuck: stuck_where(&record.state.container),
        })),
    }
}

fn fail(record: &ContainerRecord, fault: Fault) -> Answer<(), StopContainerError> {
    Err(Arc::new(StopContainerError::Failed { id: record.id.clone(), fault }))
}

/// What the kernel says the first process waits for: a process in uninterruptible sleep cannot be killed by anybody.
fn stuck_where(container: &Container) -> String {
    let (Container::Created { pid } | Container::Running { pid, .. }) = container else {
        return String::new();
    };
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let stack = read("stack");
    let state =
        read("status").lines().find_map(|line| line.strip_prefix("State:").map(str::trim).map(String::from));
    match state {
        Some(state) => format!(
            " (process {pid} is in state {state}, in the kernel at: {})",
            stack
                .lines()
                .take(4)
                .map(|line| line.trim_start_matches("[<0>] ").trim())
                .collect::<Vec<_>>()
                .join(" < ")
        ),
        None => format!(" (process {pid} is gone, its shim has not said so)"),
    }
}
