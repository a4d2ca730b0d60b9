//! The connection to a CRI socket and the calls every command needs.

use super::endpoint::Endpoint;
use super::failure::{Explain, Failure};
use cri::MAX_MESSAGE_BYTES;
use cri::node_v1::images_client::ImagesClient;
use cri::node_v1::node_client::NodeClient;
use cri::runtime_v1::image_service_client::ImageServiceClient;
use cri::runtime_v1::runtime_service_client::RuntimeServiceClient;
use cri::runtime_v1::{self as cri_v1};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::PathBuf;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Uri};

/// Sockets of other runtimes, offered when ours is not there.
const KNOWN_SOCKETS: &[&str] = &[
    super::endpoint::DEFAULT_SOCKET,
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/cri-dockerd.sock",
];

/// A connected client. Cloning shares the connection.
#[derive(Clone)]
pub(crate) struct Client {
    endpoint: Endpoint,
    channel: Channel,
}

impl Client {
    /// Connects, or says why nobody answers there and what to do.
    pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Client, Failure> {
        // The first connection is made here, outside the channel, because the channel hides the reason.
        drop(UnixStream::connect(endpoint.socket()).await.map_err(|error| refused(endpoint, error))?);
        let socket: PathBuf = endpoint.socket().to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The authority is what the kubelet sends; a path in its place is not valid HTTP/2.
        let channel = tonic::transport::Endpoint::from_static("http://localhost");
        Ok(Client { endpoint: endpoint.clone(), channel: channel.connect_with_connector_lazy(connector) })
    }

    /// Where it is connected to.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The runtime service: pods and containers.
    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The image service.
    pub(crate) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Pintle's own service; every other runtime answers its calls with `Unimplemented`.
    pub(crate) fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// Pintle's own service for images; every other runtime answers its calls with `Unimplemented`.
    pub(crate) fn own_images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// All containers, the newest first.
    pub(crate) async fn list_containers(&self) -> Result<Vec<cri_v1::Container>, Failure> {
        let request = cri_v1::ListContainersRequest { filter: None };
        let answer = self.runtime().list_containers(request).await;
        let mut containers = answer.explain(|| "listing containers".into())?.containers;
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        Ok(containers)
    }

    /// All pods, the newest first.
    pub(crate) async fn list_pods(&self) -> Result<Vec<cri_v1::PodSandbox>, Failure> {
        let request = cri_v1::ListPodSandboxRequest { filter: None };
        let answer = self.runtime().list_pod_sandbox(request).await;
        let mut pods = answer.explain(|| "listing pods".into())?.items;
        pods.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        Ok(pods)
    }

    /// All images, in the order of their names.
    pub(crate) async fn list_images(&self) -> Result<Vec<cri_v1::Image>, Failure> {
        let answer = self.images().list_images(cri_v1::ListImagesRequest { filter: None }).await;
        let mut images = answer.explain(|| "listing images".into())?.images;
        images.sort_by(|a, b| (&a.repo_tags, &a.id).cmp(&(&b.repo_tags, &b.id)));
        Ok(images)
    }

    /// The status of a container by its full id; with `verbose` also what the runtime tells for debugging.
    pub(crate) async fn container_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<cri_v1::ContainerStatusResponse, Failure> {
        let request = cri_v1::ContainerStatusRequest { container_id: id.to_owned(), verbose };
        self.runtime().container_status(request).await.explain(|| format!("asking for container {id}"))
    }

    /// The status of a pod by its full id.
    pub(crate) async fn pod_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<cri_v1::PodSandboxStatusResponse, Failure> {
        let request = cri_v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose };
        self.runtime().pod_sandbox_status(request).await.explain(|| format!("asking for pod {id}"))
    }

    /// The status of an image by any of its references; `None` when it is not on this machine.
    pub(crate) async fn image_status(
        &self,
        reference: &str,
        verbose: bool,
    ) -> Result<Option<cri_v1::ImageStatusResponse>, Failure> {
        let image = cri_v1::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let request = cri_v1::ImageStatusRequest { image: Some(image), verbose };
        let answer = self.images().image_status(request).await;
        // CRI says that an absent image is an answer without `image`; some runtimes say NotFound.
        match answer {
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            answer => {
                let answer = answer.explain(|| format!("asking for image {reference}"))?;
                Ok(answer.image.is_some().then_some(answer))
            }
        }
    }
}

/// Why a socket did not take the connection.
fn refused(endpoint: &Endpoint, error: io::Error) -> Failure {
    let endpoint = endpoint.clone();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let running_elsewhere = other_runtimes(&endpoint);
            Failure::NoRuntime { endpoint, running_elsewhere }
        }
        io::ErrorKind::ConnectionRefused => Failure::Deserted { endpoint },
        io::ErrorKind::PermissionDenied => Failure::Denied { endpoint },
        _ => Failure::Connect { endpoint, source: error },
    }
}

fn other_runtimes(asked: &Endpoint) -> Vec<Endpoint> {
    let known = KNOWN_SOCKETS.iter().map(|path| Endpoint::from(PathBuf::from(path)));
    known.filter(|known| known != asked && known.socket().exists()).collect()
}
