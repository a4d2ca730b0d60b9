//! One registered plugin: what it wants to hear, how it is asked, and what its failures mean.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost::Message;
use tracing::warn;

use crate::api::{Container, Empty, Event, FailurePolicy, PodSandbox, StateChangeEvent};
use crate::connection::{CallError, Connection, code};
use crate::error::Refusal;

/// A plugin that has been registered, configured and brought up to date.
#[derive(Debug)]
pub(crate) struct Plugin {
    /// `10-name`: its place among the others, and what it calls itself.
    pub(crate) name: String,
    pub(crate) index: String,
    pub(crate) base: String,
    pub(crate) connection: Connection,
    /// A bit for each event it wants to hear of, see [`bit`].
    pub(crate) events: i32,
    pub(crate) policy: FailurePolicy,
    pub(crate) patience: Duration,
    /// Plugins are written for one request at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
    /// Events for which it has no call of their own, as plugins for older versions of NRI have not.
    pub(crate) by_state_change: AtomicU32,
}

/// The bit that subscribes to an event.
pub(crate) fn bit(event: Event) -> i32 {
    match event {
        Event::Unknown => 0,
        event => 1 << (event as i32 - 1),
    }
}

/// Every event there is.
pub(crate) const ALL_EVENTS: i32 = (1 << (Event::Last as i32 - 1)) - 1;

/// The call for an event.
pub(crate) fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}

impl Plugin {
    pub(crate) fn wants(&self, event: Event) -> bool {
        self.events & bit(event) != 0 && !self.connection.is_closed()
    }

    /// Asks the plugin, where it wants to be. `None`: it does not, or it failed and the request goes on without it.
    ///
    /// # Errors
    /// It refused, or failed and had said that it must be asked.
    pub(crate) async fn ask<Q: Message, R: Message + Default>(
        &self,
        event: Event,
        request: &Q,
    ) -> Result<Option<R>, Refusal> {
        if !self.wants(event) {
            return Ok(None);
        }
        let _turn = self.turn.lock().await;
        match self.connection.call(method(event), request, self.patience).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => self.failed(event, error).map(|()| None),
        }
    }

    /// Tells the plugin of something, in the words that it understands.
    ///
    /// # Errors
    /// As [`Plugin::ask`].
    pub(crate) async fn tell<Q: Message>(
        &self,
        event: Event,
        request: &Q,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) -> Result<(), Refusal> {
        if !self.wants(event) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        let known = bit(event).unsigned_abs();
        if self.by_state_change.load(Ordering::Relaxed) & known == 0 {
            let told = self.connection.call::<Q, Empty>(method(event), request, self.patience).await;
            match told {
                Ok(_) => return Ok(()),
                Err(CallError::Refused { code: code::UNIMPLEMENTED, .. }) => {
                    self.by_state_change.fetch_or(known, Ordering::Relaxed);
                }
                Err(error) => return self.failed(event, error),
            }
        }
        let change =
            StateChangeEvent { event: event.into(), pod: Some(pod.clone()), container: container.cloned() };
        let told = self.connection.call::<_, Empty>("StateChange", &change, self.patience).await;
        told.map(drop).or_else(|error| self.failed(event, error))
    }

    /// What a failed call means: the plugin's own refusal is one of the request; any other failure costs it its connection, and the
    /// request goes on, unless the plugin has said otherwise.
    fn failed(&self, event: Event, error: CallError) -> Result<(), Refusal> {
        let (plugin, request) = (self.name.clone(), method(event));
        match error {
            CallError::Refused { message, .. } => Err(Refusal::Plugin { plugin, request, why: message }),
            CallError::TooLong(_) => Err(Refusal::Failed { plugin, request, why: error.to_string() }),
            CallError::TimedOut(_) | CallError::Closed | CallError::Unreadable(_) => {
                self.drop_for(event, &error);
                if self.policy.fail_request {
                    return Err(Refusal::Failed { plugin, request, why: error.to_string() });
                }
                Ok(())
            }
        }
    }

    /// Disconnects the plugin for what it did, unless it is allowed to be slow and was only that.
    pub(crate) fn drop_for(&self, event: Event, error: &CallError) {
        let kept = self.policy.keep_connected && matches!(error, CallError::TimedOut(_));
        warn!(plugin = self.name, request = method(event), %error, kept, "an NRI plugin failed");
        if !kept {
            self.connection.close();
        }
    }
}
