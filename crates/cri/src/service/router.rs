//! Which service a call is for: decided by the first part of its path, as gRPC has it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use node::Node;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tracing::Instrument;

use super::image_extras::ImageExtras;
use super::images::Images;
use super::lists::Lists;
use super::node_info::NodeInfo;
use super::runtime::Runtime;
use super::{observed, reflection, v1alpha2};
use crate::MAX_MESSAGE_BYTES;
use crate::node_v1::images_server::ImagesServer;
use crate::node_v1::node_server::NodeServer;
use crate::runtime_v1::image_service_server::ImageServiceServer;
use crate::runtime_v1::runtime_service_server::RuntimeServiceServer;

/// All services of the socket.
#[derive(Clone)]
pub(super) struct Router {
    lists: Lists,
    runtime: RuntimeServiceServer<Runtime>,
    /// The same for clients that know v1alpha2 only: it answers that version when asked for one.
    old_runtime: RuntimeServiceServer<Runtime>,
    images: ImageServiceServer<Images>,
    own: NodeServer<NodeInfo>,
    own_images: ImagesServer<ImageExtras>,
    health: HealthServer<HealthService>,
}

impl Router {
    pub(super) async fn new(node: Node, streaming: Arc<::stream::Server>) -> Router {
        let runtime = |version| {
            RuntimeServiceServer::new(Runtime::new(node.clone(), version, streaming.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
        };
        Router {
            lists: Lists::new(node.clone()),
            runtime: runtime("v1"),
            old_runtime: runtime(v1alpha2::VERSION),
            images: ImageServiceServer::new(Images::new(node.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            own: NodeServer::new(NodeInfo::new(node.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            own_images: ImagesServer::new(ImageExtras::new(node.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            health: HealthServer::new(health().await),
        }
    }
}

impl Service<http::Request<Body>> for Router {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let span = observed::span(&request);
        let answer = span.in_scope(|| self.route(request));
        let noted = span.clone();
        let answer = async move {
            let answer = within_grpcs_codes(answer.await?);
            observed::answered(&noted, &answer);
            Ok(answer)
        };
        Box::pin(answer.instrument(span))
    }
}

impl Router {
    fn route(&mut self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible> {
        match request.uri().path().split('/').nth(1).unwrap_or_default() {
            <RuntimeServiceServer<Runtime> as NamedService>::NAME => match self.lists.call(request) {
                Ok(answer) => answer,
                Err(request) => self.runtime.call(request),
            },
            <ImageServiceServer<Images> as NamedService>::NAME => self.images.call(request),
            <NodeServer<NodeInfo> as NamedService>::NAME => self.own.call(request),
            <ImagesServer<ImageExtras> as NamedService>::NAME => self.own_images.call(request),
            v1alpha2::RUNTIME_SERVICE => match v1alpha2::served_at(request.uri()) {
                Some(uri) => match self.lists.call(with_uri(request, uri)) {
                    Ok(answer) => answer,
                    Err(request) => self.old_runtime.call(request),
                },
                None => not_here("v1alpha2 of CRI has no such call; runtime.v1 may have it".into()),
            },
            v1alpha2::IMAGE_SERVICE => match v1alpha2::served_at(request.uri()) {
                Some(uri) => self.images.call(with_uri(request, uri)),
                None => not_here("v1alpha2 of CRI has no such call; runtime.v1 may have it".into()),
            },
            <HealthServer<HealthService> as NamedService>::NAME => self.health.call(request),
            reflection::V1 | reflection::V1ALPHA => reflection::call(request),
            other => {
                let name: String = other.chars().take(64).collect();
                not_here(format!(
                    "there is no service {name:?} here; pintle serves runtime.v1 and runtime.v1alpha2 of CRI, and pintle.v1"
                ))
            }
        }
    }
}

/// A message beyond the limit is ResourceExhausted to gRPC; tonic says OutOfRange, which nothing of ours ever means.
fn within_grpcs_codes(mut answer: http::Response<Body>) -> http::Response<Body> {
    if let Some(code) = answer.headers_mut().get_mut("grpc-status")
        && *code == (tonic::Code::OutOfRange as i32).to_string().as_str()
    {
        *code = http::HeaderValue::from(tonic::Code::ResourceExhausted as i32);
    }
    answer
}

fn with_uri(mut request: http::Request<Body>, uri: http::Uri) -> http::Request<Body> {
    *request.uri_mut() = uri;
    request
}

fn not_here(why: String) -> BoxFuture<http::Response<Body>, Infallible> {
    Box::pin(async move { Ok(Status::unimplemented(why).into_http()) })
}

/// `grpc.health.v1`: a daemon that accepts calls serves them, all of it and each service by name.
async fn health() -> HealthService {
    let health = HealthReporter::new();
    let services = [
        <RuntimeServiceServer<Runtime> as NamedService>::NAME,
        <ImageServiceServer<Images> as NamedService>::NAME,
        <NodeServer<NodeInfo> as NamedService>::NAME,
        <ImagesServer<ImageExtras> as NamedService>::NAME,
        v1alpha2::RUNTIME_SERVICE,
        v1alpha2::IMAGE_SERVICE,
    ];
    for service in services {
        health.set_service_status(service, ServingStatus::Serving).await;
    }
    HealthService::from_health_reporter(health)
}
