//! The error object of CNI, which plugins print and the built-in plugin returns (SPEC, "Error").

use serde_json::{Value, json};

use super::version::Version;

/// Codes that the specification reserves, and those of the built-in plugin from 100 on.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const UNSUPPORTED_FIELD: u32 = 2;
    pub const UNKNOWN_CONTAINER: u32 = 3;
    pub const BAD_ENVIRONMENT: u32 = 4;
    pub const IO: u32 = 5;
    pub const DECODE: u32 = 6;
    pub const BAD_CONFIGURATION: u32 = 7;
    pub const TRY_AGAIN: u32 = 11;
    pub const NOT_AVAILABLE: u32 = 50;
    pub const NO_ADDRESS_LEFT: u32 = 100;
    pub const HOST_PORT_TAKEN: u32 = 101;
    pub const KERNEL: u32 = 102;
    pub const CHECK_FAILED: u32 = 103;
}

/// Why a command of a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{details}", if details.is_empty() { "" } else { ": " })]
pub struct CniError {
    pub code: u32,
    pub message: String,
    pub details: String,
}

impl CniError {
    pub fn new(code: u32, message: impl Into<String>) -> CniError {
        CniError { code, message: message.into(), details: String::new() }
    }

    /// The object as a plugin prints it.
    pub fn to_json(&self, version: Version) -> Value {
        json!({ "cniVersion": version.as_str(), "code": self.code, "msg": self.message, "details": self.details })
    }

    /// Reads what a plugin printed; `None` where it is not an error object.
    pub fn from_json(value: &Value) -> Option<CniError> {
        let code = value.get("code")?.as_u64()?;
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let message = text("msg");
        Some(CniError { code: u32::try_from(code).unwrap_or(u32::MAX), message, details: text("details") })
    }
}
