//! A configuration to start from, as `spec` writes it.

use oci_spec::runtime::{Linux, Process, Spec, get_rootless_mounts};

/// The default `config.json`: a shell with a terminal in all new namespaces but the user's, without privileges, root file system read-only.
pub fn default_spec() -> Spec {
    let mut spec = Spec::default();
    spec.set_version(crate::record::OCI_VERSION.into());
    let mut process = spec.process().clone().unwrap_or_else(Process::default);
    process.set_no_new_privileges(Some(true)).set_terminal(Some(true));
    if let Some(mut capabilities) = process.capabilities().clone() {
        // The runtime never fills the inheritable set; asking for it would mislead a reader.
        capabilities.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(capabilities));
    }
    spec.set_process(Some(process));
    spec
}

/// Changes a configuration to one that this user, without privilege, can run: a user namespace in which its root is this user, no network
/// namespace, as nobody could connect it, and no resources, as no cgroup is theirs.
pub(crate) fn make_rootless(spec: &mut Spec, uid: u32, gid: u32) {
    let mut linux = Linux::rootless(uid, gid);
    if let Some(own) = spec.linux() {
        linux.set_masked_paths(own.masked_paths().clone()).set_readonly_paths(own.readonly_paths().clone());
    }
    spec.set_linux(Some(linux)).set_mounts(Some(get_rootless_mounts()));
}
