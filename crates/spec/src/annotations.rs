//! Annotations that tools of other runtimes look for in a container's spec. They inform; nothing of ours reads them back.

use std::collections::HashMap;

use crate::input::SpecInput;

/// The annotations by which CRI runtimes say what a container is. None of the request's or the image's gets in: annotations and labels
/// of strangers have steered runtimes before (CVE-2022-0811, CVE-2026-53488).
pub(crate) fn of_container(input: &SpecInput<'_>) -> HashMap<String, String> {
    let name = &input.pod.name;
    [
        ("container-type", "container"),
        ("container-name", &input.container.name),
        ("image-name", &input.image.name),
        ("sandbox-id", input.pod_id.as_str()),
        ("sandbox-name", &name.name),
        ("sandbox-namespace", &name.namespace),
        ("sandbox-uid", &name.uid),
    ]
    .into_iter()
    .map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value.to_owned()))
    .collect()
}
