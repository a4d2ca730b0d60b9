//! What this runtime can do (runtime-spec, features.md).

/// The features document.
pub fn features() -> serde_json::Value {
    serde_json::json!({"ociVersionMin": "1.0.0", "ociVersionMax": crate::record::OCI_VERSION})
}
