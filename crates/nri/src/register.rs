//! A plugin's way in: it says who it is, is configured, and is told of everything that there is. And its way out.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::api::{
    ConfigureRequest, ConfigureResponse, Container, ContainerUpdate, Empty, PodSandbox,
    RegisterPluginRequest, SynchronizeRequest, SynchronizeResponse, UpdateContainersRequest,
    UpdateContainersResponse,
};
use crate::connection::{Asked, CallError, Connection, code};
use crate::dispatch::Wishes;
use crate::plugin::{ALL_EVENTS, Plugin};
use crate::plugins::{Inner, Inventory};

/// The version of NRI that is spoken here.
const NRI_VERSION: &str = "v0.12.5";

/// Room that a message leaves for the envelope around it.
const ENVELOPE: usize = 64 << 10;

/// The longest name of a plugin.
const NAME_LIMIT: usize = 128;

/// A plugin's place among the others, its name, and what it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) index: String,
    pub(crate) base: String,
    pub(crate) config: String,
}

impl Identity {
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.index, self.base)
    }

    /// Checks what a plugin says of itself.
    pub(crate) fn new(index: &str, base: &str) -> Result<Identity, String> {
        let shown = |text: &str| text.chars().take(NAME_LIMIT).collect::<String>();
        if index.len() != 2 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("the plugin's index {:?} is not two digits", shown(index)));
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if base.is_empty() || base.len() > NAME_LIMIT || !base.bytes().all(plain) {
            return Err(format!("the plugin's name {:?} is not of letters, digits and -_.+", shown(base)));
        }
        Ok(Identity { index: index.into(), base: base.into(), config: String::new() })
    }
}

/// Why a plugin is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    #[error("it did not register within {0:?}")]
    Silent(Duration),
    #[error("it ended before it registered")]
    Ended,
    #[error("{0}")]
    Name(String),
    #[error("{request}: {source}")]
    Call { request: &'static str, source: CallError },
    #[error("it wants events that do not exist: {0:#x}")]
    Events(i32),
    #[error("pods and containers do not fit one message, and it does not take several")]
    Unsplittable,
    #[error("it kept the node waiting before; it may come back in {0:?}")]
    Penance(Duration),
    #[error("there was no moment in which nothing changed")]
    NoLull,
}

/// Serves a plugin from its first byte to its last. `known`: who it is, where it was started from here; `ready` is dropped when it is
/// settled whether it is let in.
pub(crate) async fn serve(
    inner: Arc<Inner>,
    socket: UnixStream,
    known: Option<Identity>,
    ready: Option<oneshot::Sender<()>>,
) {
    let (connection, asked) = Connection::open(socket);
    let name = known.as_ref().map(Identity::name).unwrap_or_default();
    match enter(&inner, connection, asked, known).await {
        Ok((plugin, calls)) => {
            drop(ready);
            plugin.connection.ended().await;
            calls.abort();
            inner.dismiss(&plugin);
            info!(plugin = plugin.name, "NRI plugin disconnected");
        }
        Err(error) => warn!(plugin = name, %error, "an NRI plugin is not let in"),
    }
}

async fn enter(
    inner: &Arc<Inner>,
    connection: Connection,
    mut asked: mpsc::Receiver<Asked>,
    known: Option<Identity>,
) -> Result<(Arc<Plugin>, tokio::task::AbortHandle), RegisterError> {
    let patience = inner.config.registration_timeout;
    let identity = tokio::time::timeout(patience, introduced(&mut asked, known))
        .await
        .map_err(|_| RegisterError::Silent(patience))??;
    let name = identity.name();
    if let Some(left) = inner.penance(&name) {
        return Err(RegisterError::Penance(left));
    }
    // From here on the plugin is answered, whatever else it is busy with.
    let (configured, was_configured) = watch::channel(false);
    let calls = tokio::spawn(answer(inner.clone(), asked, was_configured, name.clone())).abort_handle();
    let calls = AbortOnDrop(Some(calls));
    let answer = configure(inner, &connection, &identity).await?;
    configured.send_replace(true);
    let plugin = Arc::new(Plugin {
        name,
        index: identity.index,
        base: identity.base,
        connection,
        events: answer.events,
        policy: answer.failure_policy.unwrap_or_default(),
        patience: inner.config.request_timeout,
        turn: tokio::sync::Mutex::default(),
        by_state_change: AtomicU32::new(0),
    });
    let updates = synchronize(inner, &plugin).await?;
    info!(plugin = plugin.name, events = format!("{:#x}", plugin.events), "NRI plugin connected");
    if let Some(runtime) = inner.runtime().filter(|_| !updates.is_empty()) {
        runtime.change(Wishes { updates, evictions: Vec::new() }).await;
    }
    Ok((plugin, calls.keep()))
}

/// Ends the task unless it is kept.
struct AbortOnDrop(Option<tokio::task::AbortHandle>);

impl AbortOnDrop {
    fn keep(mut self) -> tokio::task::AbortHandle {
        self.0.take().unwrap_or_else(|| tokio::spawn(async {}).abort_handle())
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Waits for the plugin to register.
async fn introduced(
    asked: &mut mpsc::Receiver<Asked>,
    known: Option<Identity>,
) -> Result<Identity, RegisterError> {
    while let Some(call) = asked.recv().await {
        if call.method != "RegisterPlugin" {
            call.answer(Err((code::FAILED_PRECONDITION, "register first".into()))).await;
            continue;
        }
        let said = RegisterPluginRequest::decode(&call.payload[..])
            .map_err(|why| format!("RegisterPlugin: {why}"))
            .and_then(|request| match known.clone() {
                // Who was started from here is who its file says it is.
                Some(known) => Ok(known),
                None => Identity::new(&request.plugin_idx, &request.plugin_name),
            });
        return match said {
            Ok(identity) => {
                call.answer(Ok(Empty {}.encode_to_vec())).await;
                Ok(identity)
            }
            Err(why) => {
                call.answer(Err((code::INVALID_ARGUMENT, why.clone()))).await;
                // The answer goes out before the connection ends.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(RegisterError::Name(why))
            }
        };
    }
    Err(RegisterError::Ended)
}

async fn configure(
    inner: &Inner,
    connection: &Connection,
    identity: &Identity,
) -> Result<ConfigureResponse, RegisterError> {
    let config = &inner.config;
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let request = ConfigureRequest {
        config: identity.config.clone(),
        runtime_name: config.runtime_name.clone(),
        runtime_version: config.runtime_version.clone(),
        registration_timeout: millis(config.registration_timeout),
        request_timeout: millis(config.request_timeout),
        nri_version: NRI_VERSION.into(),
    };
    let answer = connection.call("Configure", &request, config.request_timeout).await;
    let mut answer: ConfigureResponse =
        answer.map_err(|source| RegisterError::Call { request: "Configure", source })?;
    match answer.events & !ALL_EVENTS {
        0 if answer.events == 0 => answer.events = ALL_EVENTS,
        0 => {}
        unknown => return Err(RegisterError::Events(unknown)),
    }
    Ok(answer)
}

/// Tells the plugin of everything that there is, and lets it in, while nothing changes. Returns what it wants of the containers.
async fn synchronize(inner: &Inner, plugin: &Arc<Plugin>) -> Result<Vec<ContainerUpdate>, RegisterError> {
    let _lull = inner.lull().await.ok_or(RegisterError::NoLull)?;
    let inventory = match inner.runtime() {
        Some(runtime) => runtime.inventory().await,
        None => Inventory::default(),
    };
    let deadline = Instant::now() + inner.config.registration_timeout;
    let mut updates = Vec::new();
    for request in split(inventory, ttrpc::MAX_PAYLOAD - ENVELOPE) {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = plugin.connection.call("Synchronize", &request, left).await;
        let answer: SynchronizeResponse = answer.map_err(|source| {
            if matches!(source, CallError::TimedOut(_)) {
                inner.send_away(&plugin.name);
            }
            RegisterError::Call { request: "Synchronize", source }
        })?;
        if request.more && (!answer.more || !answer.update.is_empty()) {
            return Err(RegisterError::Unsplittable);
        }
        updates = answer.update;
    }
    inner.admit(plugin);
    Ok(updates)
}

/// As few requests as it takes for none to be longer than `limit`.
fn split(inventory: Inventory, limit: usize) -> Vec<SynchronizeRequest> {
    let mut requests = vec![SynchronizeRequest::default()];
    let mut length = 0;
    let mut room_for = |requests: &mut Vec<SynchronizeRequest>, bytes: usize| {
        // Its tag and its length.
        let bytes = bytes + 8;
        if length > 0 && length + bytes > limit {
            requests.push(SynchronizeRequest::default());
            length = 0;
        }
        length += bytes;
    };
    let add_pod = |requests: &mut Vec<SynchronizeRequest>, pod: PodSandbox| {
        requests.last_mut().into_iter().for_each(|last| last.pods.push(pod.clone()));
    };
    let add_container = |requests: &mut Vec<SynchronizeRequest>, container: Container| {
        requests.last_mut().into_iter().for_each(|last| last.containers.push(container.clone()));
    };
    for pod in inventory.pods {
        room_for(&mut requests, pod.encoded_len());
        add_pod(&mut requests, pod);
    }
    for container in inventory.containers {
        room_for(&mut requests, container.encoded_len());
        add_container(&mut requests, container);
    }
    let last = requests.len() - 1;
    requests.iter_mut().take(last).for_each(|request| request.more = true);
    requests
}

/// Answers what the plugin asks for, one after the other.
async fn answer(
    inner: Arc<Inner>,
    mut asked: mpsc::Receiver<Asked>,
    configured: watch::Receiver<bool>,
    name: String,
) {
    while let Some(call) = asked.recv().await {
        let answer = match call.method.as_str() {
            "UpdateContainers" if *configured.borrow() => {
                update_containers(&inner, &name, &call.payload).await
            }
            "UpdateContainers" => Err((code::FAILED_PRECONDITION, "the plugin is not configured yet".into())),
            "RegisterPlugin" => Err((code::FAILED_PRECONDITION, "the plugin is registered already".into())),
            other => {
                let other: String = other.chars().take(NAME_LIMIT).collect();
                Err((code::UNIMPLEMENTED, format!("there is no call {other:?} here")))
            }
        };
        call.answer(answer).await;
    }
}

async fn update_containers(inner: &Inner, name: &str, payload: &[u8]) -> Result<Vec<u8>, (i32, String)> {
    let request = UpdateContainersRequest::decode(payload)
        .map_err(|why| (code::INVALID_ARGUMENT, format!("UpdateContainers: {why}")))?;
    info!(
        plugin = name,
        updates = request.update.len(),
        evictions = request.evict.len(),
        "asked by an NRI plugin"
    );
    let failed = match inner.runtime() {
        Some(runtime) => runtime.change(Wishes { updates: request.update, evictions: request.evict }).await,
        None => request.update,
    };
    Ok(UpdateContainersResponse { failed }.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(Identity::new("07", "a.B-c_+").unwrap().name(), "07-a.B-c_+");
        for (index, base) in
            [("7", "a"), ("007", "a"), ("a7", "a"), ("", "a"), ("07", ""), ("07", "a/b"), ("07", "ä")]
        {
            assert!(Identity::new(index, base).is_err(), "{index}-{base}");
        }
        assert!(Identity::new("07", &"a".repeat(129)).is_err());
    }

    proptest! {
        #[test]
        fn everything_is_in_one_of_the_requests(pods in prop::collection::vec(0usize..300, 0..20), containers in prop::collection::vec(0usize..300, 0..20)) {
            let inventory = Inventory {
                pods: pods.iter().map(|length| PodSandbox { id: "x".repeat(*length), ..PodSandbox::default() }).collect(),
                containers: containers.iter().map(|length| Container { id: "y".repeat(*length), ..Container::default() }).collect(),
            };
            let requests = split(inventory, 500);
            prop_assert!(requests.iter().all(|request| request.encoded_len() <= 500));
            let (last, rest) = requests.split_last().unwrap();
            prop_assert!(!last.more && rest.iter().all(|request| request.more));
            prop_assert_eq!(requests.iter().flat_map(|r| r.pods.iter().map(|p| p.id.len())).collect::<Vec<_>>(), pods);
            prop_assert_eq!(requests.iter().flat_map(|r| r.containers.iter().map(|c| c.id.len())).collect::<Vec<_>>(), containers);
        }
    }
}
