//! Messages that carry messages: `google.protobuf.Any`, and what containerd writes as JSON into one.

use prost::Message;
use ttrpc::Any;

/// The type of an OCI runtime spec (`config.json`) as JSON.
pub const OCI_SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The type of an OCI process object as JSON, which `Exec` carries.
pub const OCI_PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The type of OCI resources as JSON, which `Update` carries.
pub const OCI_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// The type of the answer to `features` as JSON, which `-info` carries.
pub const OCI_FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// A message with a name that others know it by.
pub trait Named: Message + Default {
    /// Its package and name, as in its definition.
    const NAME: &str;
}

/// The message with its name. containerd writes names without a host before them.
pub fn pack<M: Named>(message: &M) -> Any {
    Any { type_url: M::NAME.into(), value: message.encode_to_vec() }
}

/// JSON under one of the names above.
pub fn pack_json(name: &str, json: Vec<u8>) -> Any {
    Any { type_url: name.into(), value: json }
}

/// The message, if it is one of this type.
///
/// # Errors
/// It says that it is, and cannot be decoded.
pub fn unpack<M: Named>(any: &Any) -> Result<Option<M>, prost::DecodeError> {
    if type_name(any) == M::NAME { M::decode(&any.value[..]).map(Some) } else { Ok(None) }
}

/// The name of a message's type without the host that may stand before it.
pub fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// Says the names of messages: `named! { "package" => A, B }`.
macro_rules! named {
    ($package:literal => $($message:ident),+ $(,)?) => {
        $(impl $crate::Named for $message {
            const NAME: &str = concat!($package, ".", stringify!($message));
        })+
    };
}
pub(crate) use named;
