//! The calls about containers.

use std::time::Duration;

use node::{Node, Snapshot};
use tonic::Status;

use super::code::{Coded, status};
use super::{blocking, info};
use crate::MAX_MESSAGE_BYTES;
use crate::runtime_v1 as proto;
use crate::runtime_v1::*;
use crate::translate::filter::ContainerFilter;
use crate::translate::{self, BadField, text};

/// Longer than anybody waits, and short enough for every clock: ten years.
const LONGEST: i64 = 10 * 365 * 24 * 3600;

/// What an answer to ExecSync needs beside the output itself.
const EXEC_FRAME: usize = 64;

pub(super) async fn create(
    node: &Node,
    request: CreateContainerRequest,
) -> Result<CreateContainerResponse, Status> {
    let pod = text::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let container = translate::container::from_proto(request.config)?;
    // The pod's configuration was settled when it was run; what comes along must still be one.
    if let Some(config) = request.sandbox_config {
        translate::pod::config_from_proto(config).map_err(|bad| bad.within("sandbox_config"))?;
    }
    let id = node.create_container(&pod, container).await.map_err(status)?;
    Ok(CreateContainerResponse { container_id: id.to_string() })
}

pub(super) async fn start(
    node: &Node,
    request: StartContainerRequest,
) -> Result<StartContainerResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    node.start_container(&id).await.map_err(status)?;
    Ok(StartContainerResponse {})
}

pub(super) async fn stop(
    node: &Node,
    request: StopContainerRequest,
) -> Result<StopContainerResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    let timeout = seconds("timeout", request.timeout)?;
    node.stop_container(&id, timeout).await.map_err(status)?;
    Ok(StopContainerResponse {})
}

pub(super) async fn remove(
    node: &Node,
    request: RemoveContainerRequest,
) -> Result<RemoveContainerResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    node.remove_container(&id).await.map_err(status)?;
    Ok(RemoveContainerResponse {})
}

pub(super) fn list(node: &Node, filter: Option<proto::ContainerFilter>) -> Result<Vec<Container>, Status> {
    let filter = ContainerFilter::parse(filter)?;
    Ok(items(&node.snapshot(), &filter))
}

fn items(snapshot: &Snapshot, filter: &ContainerFilter) -> Vec<Container> {
    let wanted = snapshot.containers.values().filter(|record| filter.admits(record));
    wanted.map(|record| translate::status::container_item(record)).collect()
}

pub(super) async fn container_status(
    node: &Node,
    request: ContainerStatusRequest,
) -> Result<ContainerStatusResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    let record = node.container(&id).map_err(|error| error.status())?;
    let status = Some(translate::status::container_status(&record));
    if !request.verbose {
        return Ok(ContainerStatusResponse { status, info: Default::default() });
    }
    let node = node.clone();
    let info = blocking(move || info::container(&node, &record)).await?;
    Ok(ContainerStatusResponse { status, info })
}

pub(super) async fn update(
    node: &Node,
    request: UpdateContainerResourcesRequest,
) -> Result<UpdateContainerResourcesResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    text::map("annotations", request.annotations)?;
    let asked = translate::resources::from_proto(request.linux.unwrap_or_default())
        .map_err(|bad| bad.within("linux"))?;
    node.update_container(&id, asked).await.map_err(status)?;
    Ok(UpdateContainerResourcesResponse {})
}

pub(super) async fn reopen_log(
    node: &Node,
    request: ReopenContainerLogRequest,
) -> Result<ReopenContainerLogResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    node.reopen_log(&id).await.map_err(|error| error.status())?;
    Ok(ReopenContainerLogResponse {})
}

pub(super) async fn exec_sync(node: &Node, request: ExecSyncRequest) -> Result<ExecSyncResponse, Status> {
    let id = text::id("container_id", request.container_id)?;
    let timeout = seconds("timeout", request.timeout)?;
    super::streaming::command(&request.cmd)?;
    let timeout = (!timeout.is_zero()).then_some(timeout);
    let output = node.exec_sync(&id, request.cmd, timeout).await.map_err(status)?;
    let (stdout, stderr) = fitting(output.stdout, output.stderr);
    Ok(ExecSyncResponse { stdout, stderr, exit_code: output.exit_code })
}

/// CRI's limit for each output is also the limit of the whole message. An answer above it would be an error on the client's side, so
/// the longer output loses its end.
fn fitting(mut stdout: Vec<u8>, mut stderr: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let budget = MAX_MESSAGE_BYTES - EXEC_FRAME;
    if stdout.len() + stderr.len() > budget {
        let shorter = stdout.len().min(stderr.len()).min(budget / 2);
        let (longest, other) = if stdout.len() >= stderr.len() {
            (&mut stdout, &mut stderr)
        } else {
            (&mut stderr, &mut stdout)
        };
        longest.truncate(budget - shorter);
        other.truncate(shorter);
    }
    (stdout, stderr)
}

/// A time of the protocol, which counts whole seconds.
pub(super) fn seconds(field: &str, seconds: i64) -> Result<Duration, BadField> {
    let in_range = u64::try_from(seconds.min(LONGEST));
    in_range
        .map(Duration::from_secs)
        .map_err(|_| BadField::new(field, format!("{seconds} seconds are negative")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_fit_into_one_message() {
        let of = |stdout: usize, stderr: usize| {
            let (stdout, stderr) = fitting(vec![1; stdout], vec![2; stderr]);
            (stdout.len(), stderr.len())
        };
        let budget = MAX_MESSAGE_BYTES - EXEC_FRAME;
        assert_eq!(of(0, 5), (0, 5));
        assert_eq!(of(MAX_MESSAGE_BYTES, 5), (budget - 5, 5));
        assert_eq!(of(5, MAX_MESSAGE_BYTES), (5, budget - 5));
        assert_eq!(of(MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES), (budget - budget / 2, budget / 2));
        let full = ExecSyncResponse {
            stdout: vec![1; budget - budget / 2],
            stderr: vec![2; budget / 2],
            exit_code: i32::MIN,
        };
        assert!(prost::Message::encoded_len(&full) <= MAX_MESSAGE_BYTES);
    }

    /// A kubelet lists every second. The bound is that of a release; without optimisation it takes ten times as long.
    #[test]
    fn a_thousand_containers_are_listed_within_five_milliseconds() {
        let record = translate::status::tests::described();
        let mut snapshot = Snapshot::default();
        for number in 0..1000u16 {
            let mut bytes = [7; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            let id = model::id::ContainerId::from_random(bytes);
            let record = node::ContainerRecord { id: id.clone(), ..record.clone() };
            snapshot.containers.insert(id, std::sync::Arc::new(record));
        }
        let mut times: Vec<Duration> = (0..31)
            .map(|_| {
                let begun = std::time::Instant::now();
                let containers = items(&snapshot, &ContainerFilter::default());
                let answer = ListContainersResponse { containers };
                assert!(prost::Message::encode_to_vec(&answer).len() > 100_000);
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        println!("ListContainers of 1000: median {:?}, most {:?}", times[15], times[30]);
        let bound = Duration::from_millis(if cfg!(debug_assertions) { 50 } else { 5 });
        assert!(times[15] <= bound, "{:?}", times[15]);
    }

    #[test]
    fn times_are_not_negative_and_not_endless() {
        assert_eq!(seconds("timeout", 0), Ok(Duration::ZERO));
        assert_eq!(seconds("timeout", 30), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("timeout", -1).unwrap_err().field, "timeout");
        assert!(std::time::Instant::now().checked_add(seconds("timeout", i64::MAX).unwrap()).is_some());
    }
}
