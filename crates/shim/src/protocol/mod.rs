//! What daemon and shim say to each other: ttrpc frames, the messages of `pintle.shim.v1.Shim`, its errors. No IO.

mod error;
mod message;

pub use error::{CallError, ErrorCode};
pub use message::*;
pub use ttrpc::{
    Any, Decoder, FLAG_NO_DATA, FLAG_REMOTE_CLOSED, FLAG_REMOTE_OPEN, Frame, FrameError, FrameKind,
    HEADER_BYTES, Header, KeyValue, MAX_PAYLOAD, Request, Response, Served, Status, encode,
};

/// The name of the service in every request.
pub const SERVICE: &str = "pintle.shim.v1.Shim";

/// What this shim speaks, told by `Info`. It grows by one when a call or a field is added that an older shim would misread.
pub const PROTOCOL_VERSION: u32 = 1;

/// Metadata key whose value is the number of descriptors that ride with the request's first byte; absent means none.
pub const DESCRIPTORS_KEY: &str = "pintle-descriptors";

/// No request carries more descriptors than this.
pub const MAX_DESCRIPTORS: usize = 32;

/// The calls of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Info,
    Create,
    Start,
    Kill,
    Wait,
    Delete,
    Exec,
    WaitExec,
    KillExec,
    Attach,
    Resize,
    ReopenLog,
    Pause,
    Resume,
    Checkpoint,
    Update,
    BeginPod,
    Shutdown,
}

impl Method {
    /// Every call.
    pub const ALL: [Method; 18] = [
        Method::Info,
        Method::Create,
        Method::Start,
        Method::Kill,
        Method::Wait,
        Method::Delete,
        Method::Exec,
        Method::WaitExec,
        Method::KillExec,
        Method::Attach,
        Method::Resize,
        Method::ReopenLog,
        Method::Pause,
        Method::Resume,
        Method::Checkpoint,
        Method::Update,
        Method::BeginPod,
        Method::Shutdown,
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::Info => "Info",
            Method::Create => "Create",
            Method::Start => "Start",
            Method::Kill => "Kill",
            Method::Wait => "Wait",
            Method::Delete => "Delete",
            Method::Exec => "Exec",
            Method::WaitExec => "WaitExec",
            Method::KillExec => "KillExec",
            Method::Attach => "Attach",
            Method::Resize => "Resize",
            Method::ReopenLog => "ReopenLog",
            Method::Pause => "Pause",
            Method::Resume => "Resume",
            Method::Checkpoint => "Checkpoint",
            Method::Update => "Update",
            Method::BeginPod => "BeginPod",
            Method::Shutdown => "Shutdown",
        }
    }

    /// The call of that name, if this version knows it.
    pub fn parse(name: &str) -> Option<Method> {
        Method::ALL.into_iter().find(|method| method.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.name()), Some(method));
        }
        assert_eq!(Method::parse("info"), None);
        assert_eq!(Method::parse(""), None);
    }
}
