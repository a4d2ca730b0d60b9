//! `pintle events`: what happens to pods and containers, as it happens.

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::rfc3339;
use super::output::{Format, OutputArgs, printable, short_id, write_out};
use cri::runtime_v1 as cri_v1;
use serde_json::{Value, json};
use std::collections::HashMap;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
}

/// One step of a pod or a container.
struct Step {
    at: Option<String>,
    kind: &'static str,
    /// None: the pod itself.
    container: Option<String>,
    id: String,
    pod: String,
    pod_id: String,
}

/// Shows events until it is interrupted, the daemon ends, or the daemon ends a reader that was too slow.
pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let asking = || "asking for events".to_owned();
    let answer = client.runtime().get_container_events(cri_v1::GetEventsRequest {}).await;
    let mut events = answer.explain(asking)?;
    let mut names = HashMap::new();
    while let Some(event) = events.message().await.map(tonic::Response::new).explain(asking)? {
        let step = step(&event, &mut names);
        write_out(&match args.output.output {
            Format::Table => line(&step),
            // One document a line, for programs that read as it comes.
            Format::Json => format!("{}\n", json(&step)),
            Format::Yaml => format!("---\n{}", super::yaml::to_yaml(&json(&step))),
        })?;
    }
    Ok(())
}

/// What a message tells. `names` remembers containers, which are not described any more when they are deleted.
fn step(event: &cri_v1::ContainerEventResponse, names: &mut HashMap<String, String>) -> Step {
    for status in &event.containers_statuses {
        let name = status.metadata.clone().unwrap_or_default().name;
        names.insert(status.id.clone(), name);
    }
    let pod = event.pod_sandbox_status.clone().unwrap_or_default();
    let id = event.container_id.clone();
    let deleted = event.container_event_type() == cri_v1::ContainerEventType::ContainerDeletedEvent;
    let name = if deleted { names.remove(&id) } else { names.get(&id).cloned() };
    Step {
        at: rfc3339(event.created_at),
        kind: kind(event.container_event_type()),
        container: (id != pod.id).then(|| name.unwrap_or_default()),
        id,
        pod: pod.metadata.unwrap_or_default().name,
        pod_id: pod.id,
    }
}

fn kind(kind: cri_v1::ContainerEventType) -> &'static str {
    match kind {
        cri_v1::ContainerEventType::ContainerCreatedEvent => "created",
        cri_v1::ContainerEventType::ContainerStartedEvent => "started",
        cri_v1::ContainerEventType::ContainerStoppedEvent => "stopped",
        cri_v1::ContainerEventType::ContainerDeletedEvent => "deleted",
    }
}

fn line(step: &Step) -> String {
    let (what, name) = match &step.container {
        None => ("pod", step.pod.clone()),
        Some(container) => ("container", format!("{}/{container}", step.pod)),
    };
    let at = step.at.as_deref().unwrap_or("-");
    format!("{at}   {:<7}   {what:<9}   {}   {}\n", step.kind, short_id(&step.id), printable(&name))
}

fn json(step: &Step) -> Value {
    json!({
        "at": step.at,
        "event": step.kind,
        "id": step.id,
        "containerName": step.container,
        "podId": step.pod_id,
        "podName": step.pod,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_container_still_has_its_name() {
        let mut event = cri_v1::ContainerEventResponse {
            container_id: "c".repeat(64),
            created_at: 1_000_000_000,
            pod_sandbox_status: Some(cri_v1::PodSandboxStatus {
                id: "a".repeat(64),
                metadata: Some(cri_v1::PodSandboxMetadata { name: "web".into(), ..Default::default() }),
                ..Default::default()
            }),
            containers_statuses: vec![cri_v1::ContainerStatus {
                id: "c".repeat(64),
                metadata: Some(cri_v1::ContainerMetadata { name: "app\x1b".into(), attempt: 0 }),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut names = HashMap::new();
        let created = step(&event, &mut names);
        assert_eq!((created.kind, created.container.as_deref()), ("created", Some("app\x1b")));
        event.containers_statuses.clear();
        event.set_container_event_type(cri_v1::ContainerEventType::ContainerDeletedEvent);
        let deleted = step(&event, &mut names);
        assert_eq!((deleted.container.as_deref(), names.len()), (Some("app\x1b"), 0));
        assert_eq!(
            line(&deleted),
            "1970-01-01T00:00:01.000000000Z   deleted   container   cccccccccccc   web/app\u{fffd}\n"
        );
        event.container_id = "a".repeat(64);
        assert_eq!(json(&step(&event, &mut names))["containerName"], Value::Null);
    }
}
