//! The calls about checkpoints.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use node::Node;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::code::status;
use super::containers::seconds;
use crate::runtime_v1::*;
use crate::translate::{self, BadField, text};

pub(super) async fn container(
    node: &Node,
    request: CheckpointContainerRequest,
) -> Result<CheckpointContainerResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    let location = path("location", request.location)?;
    let timeout = seconds("timeout", request.timeout)?;
    let timeout = (!timeout.is_zero()).then_some(timeout);
    node.checkpoint_container(&id, location, timeout).await.map_err(status)?;
    Ok(CheckpointContainerResponse {})
}

pub(super) async fn pod(
    node: &Node,
    request: Request<CheckpointPodRequest>,
) -> Result<CheckpointPodResponse, Status> {
    let deadline = deadline(request.metadata())?;
    let request = request.into_inner();
    let id = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let folder = path("output_path", request.output_path)?;
    no_options(&request.options)?;
    if request.container_ids.is_empty() {
        return Err(BadField::new("container_ids", "it is empty").into());
    }
    node.checkpoint_pod(&id, &request.container_ids, folder, deadline).await.map_err(status)?;
    Ok(CheckpointPodResponse {})
}

pub(super) async fn restore(
    node: &Node,
    request: Request<RestorePodRequest>,
) -> Result<RestorePodResponse, Status> {
    let deadline = deadline(request.metadata())?;
    let request = request.into_inner();
    let folder = path("checkpoint_path", request.checkpoint_path)?;
    no_options(&request.options)?;
    let pod = translate::pod::from_proto(request.config, request.runtime_handler)?;
    let containers = request.container_configs.into_iter().enumerate().map(|(index, config)| {
        translate::container::config_from_proto(config)
            .map_err(|bad| bad.within(&format!("container_configs[{index}]")))
    });
    let containers = containers.collect::<Result<Vec<_>, BadField>>()?;
    let (pod, restored) = node.restore_pod(folder, pod, containers, deadline).await.map_err(status)?;
    let restored_containers = restored
        .into_iter()
        .map(|(name, id)| RestoredContainer { name, container_id: id.to_string() })
        .collect();
    Ok(RestorePodResponse { pod_sandbox_id: pod.to_string(), restored_containers })
}

fn path(field: &str, given: String) -> Result<PathBuf, BadField> {
    text::host_path(field, given)?.ok_or_else(|| BadField::new(field, "it is empty"))
}

/// There are none that could be set, and CRI has unknown ones refused.
fn no_options(options: &BTreeMap<String, String>) -> Result<(), BadField> {
    match options.keys().next() {
        None => Ok(()),
        Some(first) => {
            Err(BadField::new("options", format!("there is no option {:?}", text::beginning(first))))
        }
    }
}

/// When the client stops waiting, which for these calls it must say (gRPC over HTTP/2: at most eight digits and a unit).
fn deadline(metadata: &MetadataMap) -> Result<Instant, Status> {
    let given = metadata.get("grpc-timeout").and_then(|value| value.to_str().ok());
    let Some(given) = given else {
        return Err(Status::invalid_argument("the call needs a deadline (grpc-timeout), and has none"));
    };
    let limit =
        parse(given).ok_or_else(|| Status::invalid_argument(format!("grpc-timeout {given:?} is none")))?;
    Instant::now().checked_add(limit).ok_or_else(|| Status::invalid_argument("grpc-timeout is too long"))
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 =
        Some(digits).filter(|d| d.len() <= 8 && d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_demanded_and_understood() {
        assert_eq!(parse("5000m"), Some(Duration::from_secs(5)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "5", "-1S", "5s", "123456789S", "1.5S", "\u{e9}"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        let mut metadata = MetadataMap::new();
        assert_eq!(deadline(&metadata).unwrap_err().code(), tonic::Code::InvalidArgument);
        metadata.insert("grpc-timeout", "2S".parse().unwrap());
        let left = deadline(&metadata).unwrap().duration_since(Instant::now());
        assert!(left <= Duration::from_secs(2) && left > Duration::from_secs(1));
    }
}
