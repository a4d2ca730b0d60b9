//! A configuration to start from, as `spec` writes it.

use oci_spec::runtime::{Process, Spec};

/// The default `config.json`: a shell in all new namespaces but the user's, without privileges, root file system read-only.
pub fn default_spec() -> Spec {
    let mut spec = Spec::default();
    spec.set_version(crate::record::OCI_VERSION.into());
    let mut process = spec.process().clone().unwrap_or_else(Process::default);
    process.set_no_new_privileges(Some(true));
    if let Some(mut capabilities) = process.capabilities().clone() {
        // The runtime never fills the inheritable set; asking for it would mislead a reader.
        capabilities.set_inheritable(None).set_ambient(None);
        process.set_capabilities(Some(capabilities));
    }
    spec.set_process(Some(process));
    spec
}
