//! A configuration to start from, as `spec` writes it.

/// The default `config.json`.
pub fn default_spec() -> oci_spec::runtime::Spec {
    oci_spec::runtime::Spec::default()
}
