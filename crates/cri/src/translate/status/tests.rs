//! Statuses of records that hold something in every field.

use std::sync::Arc;

use model::id::{ContainerId, PodId};
use model::request::{ContainerRequest, ImageChoice, Mount, PodName, PodRequest, Resources};
use model::time::Timestamp;
use node::{ContainerFacts, ContainerState, PodCgroup, PodLimits, PodState, Subject};

use super::*;

pub(in crate::translate) fn pod() -> PodRecord {
    let name = PodName { namespace: "shop".into(), name: "web-0".into(), uid: "u1".into(), attempt: 3 };
    let request = PodRequest {
        name,
        handler: "h".into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        annotations: [("c".to_owned(), " d\n".to_owned())].into(),
        ..Default::default()
    };
    PodRecord {
        id: PodId::from_random([1; 32]),
        request: Arc::new(request),
        created_at: Timestamp(7),
        state: PodState {
            pod: Pod::Ready,
            addresses: vec!["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
            shim_pid: 1,
            cgroup: PodCgroup { path: "/p".into(), ours: true },
            network_owed: false,
            limits: PodLimits::default(),
            selinux_level: None,
            handler: String::new(),
        },
    }
}

pub(in crate::translate) fn container(life: Life) -> ContainerRecord {
    let request = ContainerRequest {
        name: "web".into(),
        attempt: 2,
        image: ImageChoice {
            image: "sha256:1".into(),
            user_specified: "busybox".into(),
            ..Default::default()
        },
        annotations: [("c".to_owned(), " d\n".to_owned())].into(),
        mounts: vec![Mount { container_path: "/c".into(), host_path: "/h".into(), ..Default::default() }],
        ..Default::default()
    };
    ContainerRecord {
        id: ContainerId::from_random([2; 32]),
        pod: PodId::from_random([1; 32]),
        request: Arc::new(request),
        created_at: Timestamp(8),
        facts: Arc::new(ContainerFacts {
            image_id: "sha256:1".into(),
            image_ref: "busybox@sha256:2".into(),
            log_path: Some("/var/log/pods/web/2.log".into()),
            cgroup: "/p/c".into(),
            stop_signal: 15,
            uid: 1000,
            gid: 3000,
            additional_gids: vec![3000, 4000],
            volume_images: vec![],
        }),
        state: ContainerState {
            container: life,
            resources: Resources { cpu_shares: 512, ..Default::default() },
        },
    }
}

/// A running container with the labels and annotations that the kubelet gives.
pub(crate) fn described() -> ContainerRecord {
    let record = container(Life::Running { pid: 9, started_at: Timestamp(10) });
    let texts = |prefix: &str| {
        (0..6)
            .map(|n| (format!("io.kubernetes.{prefix}.{n}"), format!("{prefix}-of-this-container-{n}")))
            .collect()
    };
    let request = ContainerRequest {
        labels: texts("label"),
        annotations: texts("annotation"),
        ..ContainerRequest::clone(&record.request)
    };
    ContainerRecord { request: Arc::new(request), ..record }
}

#[test]
fn a_pods_status_has_every_field() {
    let status = pod_status(&pod());
    assert_eq!(status.id, "01".repeat(32));
    assert_eq!((status.state, status.created_at, status.runtime_handler.as_str()), (0, 7, "h"));
    assert_eq!(status.metadata.as_ref().map(|metadata| metadata.attempt), Some(3));
    let network = status.network.unwrap();
    assert_eq!((network.ip.as_str(), network.additional_ips[0].ip.as_str()), ("10.0.0.7", "fd00::7"));
    assert_eq!(status.annotations["c"], " d\n");
    assert!(status.linux.unwrap().namespaces.unwrap().options.is_some());
    let stopped = PodRecord { state: PodState { pod: Pod::Stopped { why: None }, ..pod().state }, ..pod() };
    assert_eq!(pod_item(&stopped).state, i32::from(proto::PodSandboxState::SandboxNotready));
}

#[test]
fn a_containers_status_has_every_field() {
    let (started_at, finished_at) = (Timestamp(9), Timestamp(10));
    let exit = Exit::OutOfMemory { status: 137 };
    let status = container_status(&container(Life::Exited { exit, started_at, finished_at }));
    assert_eq!((status.created_at, status.started_at, status.finished_at), (8, 9, 10));
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    assert_eq!(status.image.unwrap().image, "busybox");
    assert_eq!((status.image_ref.as_str(), status.image_id.as_str()), ("busybox@sha256:2", "sha256:1"));
    assert_eq!(status.log_path, "/var/log/pods/web/2.log");
    assert_eq!(status.annotations["c"], " d\n");
    assert_eq!(status.mounts[0].container_path, "/c");
    assert_eq!(status.resources.unwrap().linux.unwrap().cpu_shares, 512);
    let user = status.user.unwrap().linux.unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental_groups), (1000, 3000, vec![3000, 4000]));
    assert_eq!(status.stop_signal, i32::from(proto::Signal::Sigterm));
}

#[test]
fn nothing_is_said_of_an_end_that_has_not_come() {
    let running = container_status(&container(Life::Running { pid: 5, started_at: Timestamp(9) }));
    assert_eq!((running.state, running.started_at, running.finished_at), (1, 9, 0));
    assert_eq!((running.exit_code, running.reason.as_str()), (0, ""));
    let created = container_status(&container(Life::Created { pid: 5 }));
    assert_eq!((created.state, created.started_at), (0, 0));
    let unreadable = container_status(&container(Life::Unreadable { why: "torn".into() }));
    assert_eq!((unreadable.state, unreadable.message.as_str()), (3, "torn"));
    assert_eq!(unreadable.finished_at, 0);
}

#[test]
fn an_event_carries_its_pod_and_all_containers() {
    let life = Life::Running { pid: 9, started_at: Timestamp(10) };
    let told = Event {
        kind: EventKind::Started,
        subject: Subject::Container(ContainerId::from_random([2; 32])),
        at: Timestamp(77),
        pod: Arc::new(pod()),
        containers: vec![Arc::new(container(life))],
    };
    let answer = event(&told);
    assert_eq!(answer.container_event_type(), proto::ContainerEventType::ContainerStartedEvent);
    assert_eq!((answer.container_id.as_str(), answer.created_at), ("02".repeat(32).as_str(), 77));
    assert_eq!(answer.pod_sandbox_status, Some(pod_status(&pod())));
    assert_eq!(answer.containers_statuses[0].state(), proto::ContainerState::ContainerRunning);
}
