//! A server on a real socket with a node without pods: what it answers to what is absent, malformed, giant or not served.

use std::sync::Arc;
use std::time::Duration;

use cri::runtime_v1::image_service_client::ImageServiceClient;
use cri::runtime_v1::runtime_service_client::RuntimeServiceClient;
use cri::runtime_v1::*;
use cri::{MAX_MESSAGE_BYTES, node_v1};
use node::shim_client::ShimBinary;
use node::{CgroupDriver, CheckpointConfig, Node, NodeConfig, Parts};
use tokio::net::UnixListener;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

/// A served node in a folder of its own; all of it goes when this is dropped.
struct Served {
    channel: Channel,
    server: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_encoding_message_size(2 * MAX_MESSAGE_BYTES)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
    }
}

/// None: this test cannot run here, and has said so.
async fn served() -> Option<Served> {
    if !std::path::Path::new("/proc/self/status").exists() || !is_root() {
        println!("SKIPPED: a node needs root");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["state", "cni", "network"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let store = Arc::new(store::Store::open(&at("pintle.db")).unwrap());
    let images = image::Images::open(image::ImageConfig::new(at("images")), store.clone()).unwrap();
    let networks = network::Networks::new(network::NetworkConfig {
        conf_dir: at("cni"),
        state_dir: at("network"),
        root_dir: at("network"),
        plugin_deadline: Duration::from_secs(5),
        bin_dirs: vec![],
    });
    let parts = Parts {
        nri: nri::Nri::off(),
        config: NodeConfig {
            state_dir: at("state"),
            cgroup_driver: CgroupDriver::Cgroupfs,
            cdi_dirs: Vec::new(),
            checkpoint: CheckpointConfig { criu: "criu".into(), work_dir: at("checkpoints") },
            hooks_dirs: Vec::new(),
            security: Default::default(),
            gc_after: Duration::from_secs(3600),
            handlers: Vec::new(),
            default_handler: String::new(),
        },
        store,
        images,
        networks: Arc::new(networks.unwrap()),
        // No pod is run, so the shim is never executed.
        shim: ShimBinary::of_self().unwrap(),
    };
    let node = Node::open(parts).await.unwrap();
    let socket = at("cri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = tokio::spawn(async move {
        let streaming = stream::Server::start(stream::Config::default(), Arc::new(node.clone())).unwrap();
        cri::serve(node, Arc::new(streaming), listener, std::future::pending()).await;
    });
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    Some(Served { channel, server, _folder: folder })
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t0")))
}

macro_rules! code_of {
    ($call:expr) => {
        $call.await.map(|_| ()).map_err(|status| status.code())
    };
}

#[tokio::test]
async fn what_is_absent_is_not_found_or_already_done() {
    let Some(served) = served().await else { return };
    let mut runtime = served.runtime();
    let id = || "0123456789abcdef".to_owned();
    let not_found = Err(Code::NotFound);
    let status = PodSandboxStatusRequest { pod_sandbox_id: id(), verbose: false };
    assert_eq!(code_of!(runtime.pod_sandbox_status(status)), not_found);
    let status = ContainerStatusRequest { container_id: id(), verbose: true };
    assert_eq!(code_of!(runtime.container_status(status)), not_found);
    assert_eq!(code_of!(runtime.start_container(StartContainerRequest { container_id: id() })), not_found);
    let exec = ExecSyncRequest { container_id: id(), cmd: vec!["true".into()], timeout: 1 };
    assert_eq!(code_of!(runtime.exec_sync(exec)), not_found);
    let reopen = ReopenContainerLogRequest { container_id: id() };
    assert_eq!(code_of!(runtime.reopen_container_log(reopen)), not_found);
    assert_eq!(code_of!(runtime.container_stats(ContainerStatsRequest { container_id: id() })), not_found);
    let update = UpdateContainerResourcesRequest { container_id: id(), ..Default::default() };
    assert_eq!(code_of!(runtime.update_container_resources(update)), not_found);
    assert_eq!(code_of!(runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id() })), Ok(()));
    assert_eq!(
        code_of!(runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id() })),
        Ok(())
    );
    let stop = StopContainerRequest { container_id: id(), timeout: 0 };
    assert_eq!(code_of!(runtime.stop_container(stop)), Ok(()));
    assert_eq!(code_of!(runtime.remove_container(RemoveContainerRequest { container_id: id() })), Ok(()));
    assert!(
        runtime
            .list_pod_sandbox(ListPodSandboxRequest::default())
            .await
            .unwrap()
            .into_inner()
            .items
            .is_empty()
    );
    assert!(
        runtime
            .list_containers(ListContainersRequest::default())
            .await
            .unwrap()
            .into_inner()
            .containers
            .is_empty()
    );
    let mut stream =
        runtime.stream_containers(StreamContainersRequest::default()).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn images_that_are_absent_are_no_error() {
    let Some(served) = served().await else { return };
    let mut images = served.images();
    let image = || Some(ImageSpec { image: "registry.example/none:1".into(), ..Default::default() });
    let status = images.image_status(ImageStatusRequest { image: image(), verbose: true }).await.unwrap();
    assert_eq!(status.into_inner().image, None);
    images.remove_image(RemoveImageRequest { image: image() }).await.unwrap();
    assert!(images.list_images(ListImagesRequest::default()).await.unwrap().into_inner().images.is_empty());
    let info = images.image_fs_info(ImageFsInfoRequest {}).await.unwrap().into_inner();
    let mountpoint = info.image_filesystems[0].fs_id.clone().unwrap().mountpoint;
    assert!(std::path::Path::new(&mountpoint).is_dir());
    assert_eq!(info.container_filesystems.len(), 1);
    let unnamed = code_of!(images.pull_image(PullImageRequest::default()));
    assert_eq!(unnamed, Err(Code::InvalidArgument));
    let spec = Some(ImageSpec { image: "UPPER CASE".into(), ..Default::default() });
    let malformed = images.pull_image(PullImageRequest { image: spec, ..Default::default() });
    assert_eq!(code_of!(malformed), Err(Code::InvalidArgument));
}

#[tokio::test]
async fn malformed_requests_name_the_field() {
    let Some(served) = served().await else { return };
    let mut runtime = served.runtime();
    let refused = runtime.run_pod_sandbox(RunPodSandboxRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "config: it is missing"));
    for id in [String::new(), "../x".into(), "a\0".into(), "a\n".into(), "a".repeat(1 << 20)] {
        let refused =
            runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with("pod_sandbox_id: ") && refused.message().len() < 500);
    }
    let negative = StopContainerRequest { container_id: "a".into(), timeout: -1 };
    assert_eq!(code_of!(runtime.stop_container(negative)), Err(Code::InvalidArgument));
    let metadata = PodSandboxMetadata { name: "a".into(), ..Default::default() };
    let config = Some(PodSandboxConfig { metadata: Some(metadata), ..Default::default() });
    let run = RunPodSandboxRequest { config, runtime_handler: "no-such".into() };
    let refused = runtime.run_pod_sandbox(run).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("no-such"), "{}", refused.message());
}

#[tokio::test]
async fn a_giant_request_is_refused_and_the_next_one_served() {
    let Some(served) = served().await else { return };
    let mut runtime = served.runtime();
    let giant = StopPodSandboxRequest { pod_sandbox_id: "a".repeat(MAX_MESSAGE_BYTES + 1) };
    assert_eq!(code_of!(runtime.stop_pod_sandbox(giant)), Err(Code::ResourceExhausted));
    assert!(runtime.version(VersionRequest::default()).await.is_ok());
}

#[tokio::test]
async fn the_daemon_says_what_it_is() {
    let Some(served) = served().await else { return };
    let mut runtime = served.runtime();
    let version = runtime.version(VersionRequest::default()).await.unwrap().into_inner();
    assert_eq!((version.version.as_str(), version.runtime_api_version.as_str()), ("0.1.0", "v1"));
    assert!(!version.runtime_name.is_empty() && !version.runtime_version.is_empty());
    let status = runtime.status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    let config: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    assert!(config["stateDir"].as_str().is_some_and(|path| path.ends_with("/state")));
    let conditions = status.status.unwrap().conditions;
    let of = |kind: &str| conditions.iter().find(|condition| condition.r#type == kind).unwrap();
    assert!(of("RuntimeReady").status);
    // Its folder of network configurations is empty.
    assert!(!of("NetworkReady").status && !of("NetworkReady").message.is_empty());
    assert_eq!(status.runtime_handlers[0].name, "");
    let driver = runtime.runtime_config(RuntimeConfigRequest {}).await.unwrap().into_inner().linux.unwrap();
    assert_eq!(driver.cgroup_driver(), cri::runtime_v1::CgroupDriver::Cgroupfs);
    let mut own = node_v1::node_client::NodeClient::new(served.channel.clone());
    let info = own.info(node_v1::InfoRequest {}).await.unwrap().into_inner();
    assert!(["v1", "v2", "hybrid"].contains(&info.cgroup_layout.as_str()));
    assert_eq!(
        own.version(node_v1::VersionRequest {}).await.unwrap().into_inner().version,
        version.runtime_version
    );
}

#[tokio::test]
async fn the_pod_cidr_is_taken_or_named() {
    let Some(served) = served().await else { return };
    let mut runtime = served.runtime();
    let update = |pod_cidr: &str| UpdateRuntimeConfigRequest {
        runtime_config: Some(RuntimeConfig {
            network_config: Some(NetworkConfig { pod_cidr: pod_cidr.into() }),
        }),
    };
    assert_eq!(code_of!(runtime.update_runtime_config(update(""))), Ok(()));
    assert_eq!(code_of!(runtime.update_runtime_config(update("10.7.0.0/24,fd00:7::/64"))), Ok(()));
    assert_eq!(code_of!(runtime.update_runtime_config(update("10.7.0.0/99"))), Err(Code::InvalidArgument));
}

#[tokio::test]
async fn streams_are_checked_before_there_is_a_url() {
    let Some(served) = served().await else { return };
    let mut runtime = served.runtime();
    let exec = ExecRequest {
        container_id: "a".repeat(64),
        cmd: vec!["true".into()],
        stdout: true,
        ..ExecRequest::default()
    };
    let attach =
        AttachRequest { container_id: exec.container_id.clone(), stdout: true, ..AttachRequest::default() };
    let forward = PortForwardRequest { pod_sandbox_id: exec.container_id.clone(), port: vec![80] };
    assert_eq!(code_of!(runtime.exec(exec.clone())), Err(Code::NotFound));
    assert_eq!(code_of!(runtime.attach(attach.clone())), Err(Code::NotFound));
    assert_eq!(code_of!(runtime.port_forward(forward.clone())), Err(Code::NotFound));
    for bad in [
        ExecRequest { container_id: String::new(), ..exec.clone() },
        ExecRequest { cmd: vec![], ..exec.clone() },
        ExecRequest { cmd: vec!["a\0b".into()], ..exec.clone() },
        ExecRequest { stdout: false, ..exec.clone() },
        ExecRequest { tty: true, stderr: true, ..exec.clone() },
    ] {
        assert_eq!(code_of!(runtime.exec(bad)), Err(Code::InvalidArgument));
    }
    for bad in [
        AttachRequest { container_id: String::new(), ..attach.clone() },
        AttachRequest { stdout: false, ..attach.clone() },
        AttachRequest { tty: true, stderr: true, ..attach },
    ] {
        assert_eq!(code_of!(runtime.attach(bad)), Err(Code::InvalidArgument));
    }
    for port in [0, -1, 65536, i32::MAX] {
        let bad = PortForwardRequest { port: vec![80, port], ..forward.clone() };
        assert_eq!(code_of!(runtime.port_forward(bad)), Err(Code::InvalidArgument), "{port}");
    }
}

#[tokio::test]
async fn what_is_no_service_is_answered() {
    let Some(served) = served().await else { return };
    // What is no service here is an answer, and no broken connection.
    let other = call(&served, "/runtime.v2.RuntimeService/Version").await;
    assert_eq!(other.unwrap_err().code(), Code::Unimplemented);
}

/// Calls Version, or what takes and gives as little, at `path`.
async fn call(served: &Served, path: &'static str) -> Result<VersionResponse, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(served.channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<VersionRequest, VersionResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let answer = grpc.unary(Request::new(VersionRequest::default()), path, codec).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn v1alpha2_is_served_beside_v1() {
    let Some(served) = served().await else { return };
    let old = call(&served, "/runtime.v1alpha2.RuntimeService/Version").await.unwrap();
    let new = call(&served, "/runtime.v1.RuntimeService/Version").await.unwrap();
    assert_eq!((old.runtime_api_version.as_str(), new.runtime_api_version.as_str()), ("v1alpha2", "v1"));
    assert_eq!(old.runtime_name, new.runtime_name);
    call(&served, "/runtime.v1alpha2.ImageService/ListImages").await.unwrap();
    for later in ["CheckpointContainer", "GetContainerEvents", "RuntimeConfig", "StreamContainers"] {
        let path: &'static str = format!("/runtime.v1alpha2.RuntimeService/{later}").leak();
        let refused = call(&served, path).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{later}");
        assert!(refused.message().contains("v1alpha2"), "{refused}");
    }
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let Some(served) = served().await else { return };
    let mut health = HealthClient::new(served.channel.clone());
    for service in ["", "runtime.v1.RuntimeService", "runtime.v1alpha2.ImageService"] {
        let answer = health.check(HealthCheckRequest { service: service.into() }).await.unwrap();
        assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "runtime.v2.X".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    let ask = |question| ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("runtime.v1alpha2.PodSandboxConfig".into())),
    ];
    let mut reflection = ServerReflectionClient::new(served.channel.clone());
    let asked = tokio_stream::iter(questions);
    let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!("no list of services") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for service in ["runtime.v1.RuntimeService", "runtime.v1alpha2.ImageService", "pintle.v1.Node"] {
        assert!(names.iter().any(|name| name == service), "{service} is not in {names:?}");
    }
    let MessageResponse::FileDescriptorResponse(file) = next().await else { panic!("no definition") };
    assert!(!file.file_descriptor_proto.is_empty());
}
