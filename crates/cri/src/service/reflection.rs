//! gRPC's server reflection: what services there are and what their messages look like, for grpcurl and the like.

use std::convert::Infallible;
use std::sync::OnceLock;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic_reflection::server::Builder;
use tower::util::BoxCloneSyncService;

/// The `FileDescriptorSet` of all that the socket serves, made by `cargo xtask gen`.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!("../generated/descriptors.bin");

pub(super) const V1: &str = "grpc.reflection.v1.ServerReflection";
pub(super) const V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

type Answering = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Answers a call of either version.
///
/// The services are made at the first call: decoded, the descriptors take more memory than many a pod, and most daemons are never asked.
pub(super) fn call(request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible> {
    static SERVICES: OnceLock<Result<[Answering; 2], String>> = OnceLock::new();
    let newer = request.uri().path().split('/').nth(1) == Some(V1);
    match SERVICES.get_or_init(services) {
        Ok([v1, v1alpha]) => {
            let mut service = if newer { v1.clone() } else { v1alpha.clone() };
            service.call(request)
        }
        Err(why) => {
            let status = Status::internal(format!("a defect of pintle: {why}"));
            Box::pin(async move { Ok(status.into_http()) })
        }
    }
}

fn services() -> Result<[Answering; 2], String> {
    let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let v1 = builder().build_v1().map_err(|error| error.to_string())?;
    let v1alpha = builder().build_v1alpha().map_err(|error| error.to_string())?;
    Ok([BoxCloneSyncService::new(v1), BoxCloneSyncService::new(v1alpha)])
}
