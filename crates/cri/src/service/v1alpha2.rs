//! `runtime.v1alpha2`: CRI under its old name, for clients from before Kubernetes 1.26.
//!
//! Its messages are those of `runtime.v1` with fewer fields (`proto/runtime/v1alpha2` is the last one published, of Kubernetes 1.25), so
//! its calls lead to the same handlers.

use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;

/// How `Version` names it.
pub(super) const VERSION: &str = "v1alpha2";
pub(super) const RUNTIME_SERVICE: &str = "runtime.v1alpha2.RuntimeService";
pub(super) const IMAGE_SERVICE: &str = "runtime.v1alpha2.ImageService";

const RUNTIME_CALLS: &[&str] = &[
    "Version",
    "RunPodSandbox",
    "StopPodSandbox",
    "RemovePodSandbox",
    "PodSandboxStatus",
    "ListPodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "ListContainers",
    "ContainerStatus",
    "UpdateContainerResources",
    "ReopenContainerLog",
    "ExecSync",
    "Exec",
    "Attach",
    "PortForward",
    "ContainerStats",
    "ListContainerStats",
    "PodSandboxStats",
    "ListPodSandboxStats",
    "UpdateRuntimeConfig",
    "Status",
];

const IMAGE_CALLS: &[&str] = &["ListImages", "ImageStatus", "PullImage", "RemoveImage", "ImageFsInfo"];

/// Where `uri`, a call of one of the two services, is served; None where v1alpha2 has no such call.
pub(super) fn served_at(uri: &Uri) -> Option<Uri> {
    let mut parts = uri.path().split('/').skip(1);
    let (service, call) = (parts.next()?, parts.next()?);
    let (calls, now) = match service {
        RUNTIME_SERVICE => (RUNTIME_CALLS, "runtime.v1.RuntimeService"),
        IMAGE_SERVICE => (IMAGE_CALLS, "runtime.v1.ImageService"),
        _ => return None,
    };
    let call = calls.iter().find(|known| **known == call).filter(|_| parts.next().is_none())?;
    let path = PathAndQuery::try_from(format!("/{now}/{call}")).ok()?;
    Some(Uri::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_calls_lead_to_the_new_ones_and_later_calls_do_not() {
        let of = |path: &'static str| served_at(&Uri::from_static(path)).map(|uri| uri.path().to_owned());
        let version = of("/runtime.v1alpha2.RuntimeService/Version");
        assert_eq!(version.as_deref(), Some("/runtime.v1.RuntimeService/Version"));
        let pull = of("/runtime.v1alpha2.ImageService/PullImage");
        assert_eq!(pull.as_deref(), Some("/runtime.v1.ImageService/PullImage"));
        for absent in [
            "/runtime.v1alpha2.RuntimeService/CheckpointContainer",
            "/runtime.v1alpha2.RuntimeService/PullImage",
            "/runtime.v1alpha2.RuntimeService/Version/more",
            "/runtime.v1alpha2.RuntimeService/",
            "/runtime.v1.RuntimeService/Version",
        ] {
            assert_eq!(of(absent), None, "{absent}");
        }
    }
}
