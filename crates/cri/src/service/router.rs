//! Which service a call is for: decided by the first part of its path, as gRPC has it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use node::Node;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::images::Images;
use super::node_info::NodeInfo;
use super::runtime::Runtime;
use crate::MAX_MESSAGE_BYTES;
use crate::node_v1::node_server::NodeServer;
use crate::runtime_v1::image_service_server::ImageServiceServer;
use crate::runtime_v1::runtime_service_server::RuntimeServiceServer;

/// All services of the socket.
#[derive(Clone)]
pub(super) struct Router {
    runtime: RuntimeServiceServer<Runtime>,
    images: ImageServiceServer<Images>,
    own: NodeServer<NodeInfo>,
}

impl Router {
    pub(super) fn new(node: Node) -> Router {
        Router {
            runtime: RuntimeServiceServer::new(Runtime::new(node.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            images: ImageServiceServer::new(Images::new(node.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
            own: NodeServer::new(NodeInfo::new(node))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
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
        match request.uri().path().split('/').nth(1).unwrap_or_default() {
            <RuntimeServiceServer<Runtime> as NamedService>::NAME => self.runtime.call(request),
            <ImageServiceServer<Images> as NamedService>::NAME => self.images.call(request),
            <NodeServer<NodeInfo> as NamedService>::NAME => self.own.call(request),
            other => {
                let name: String = other.chars().take(64).collect();
                let status = Status::unimplemented(format!(
                    "there is no service {name:?} here; pintle serves runtime.v1 of CRI and pintle.v1"
                ));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
