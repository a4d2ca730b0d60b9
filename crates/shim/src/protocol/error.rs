//! The errors a call may end with: a stable name, where it happened, and a sentence; and their form on the wire.

use super::message::ErrorDetail;
use prost::Message;
use ttrpc::{Any, Response, Status};

const DETAIL_TYPE: &str = "pintle.shim.v1/Error";

/// The stable name of an error. Names are never changed and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// No container, exec or process of that name.
    NotFound,
    /// The id is taken.
    AlreadyExists,
    /// The container's state does not allow it.
    WrongState,
    /// A field cannot be what it is.
    InvalidArgument,
    /// The method is not known to this shim.
    Unimplemented,
    /// The caller's time was over.
    DeadlineExceeded,
    /// A bound was reached: too many calls, connections or processes.
    Exhausted,
    /// The pod's namespaces, host name or sysctls could not be set up.
    SetupFailed,
    CreateFailed,
    StartFailed,
    ExecFailed,
    KillFailed,
    DeleteFailed,
    LogFailed,
    CheckpointFailed,
    UpdateFailed,
    /// Somebody deleted the container while it was being created.
    Cancelled,
    /// The shim is ending.
    ShuttingDown,
    /// A system call failed that should not.
    Internal,
    /// A name this version does not know, told by another version.
    Unknown,
}

impl ErrorCode {
    const ALL: [(ErrorCode, &'static str, i32); 19] = [
        (ErrorCode::NotFound, "not-found", 5),
        (ErrorCode::AlreadyExists, "already-exists", 6),
        (ErrorCode::WrongState, "wrong-state", 9),
        (ErrorCode::InvalidArgument, "invalid-argument", 3),
        (ErrorCode::Unimplemented, "unimplemented", 12),
        (ErrorCode::DeadlineExceeded, "deadline-exceeded", 4),
        (ErrorCode::Exhausted, "exhausted", 8),
        (ErrorCode::SetupFailed, "setup-failed", 9),
        (ErrorCode::CreateFailed, "create-failed", 2),
        (ErrorCode::StartFailed, "start-failed", 2),
        (ErrorCode::ExecFailed, "exec-failed", 2),
        (ErrorCode::KillFailed, "kill-failed", 2),
        (ErrorCode::DeleteFailed, "delete-failed", 2),
        (ErrorCode::LogFailed, "log-failed", 2),
        (ErrorCode::CheckpointFailed, "checkpoint-failed", 2),
        (ErrorCode::UpdateFailed, "update-failed", 9),
        (ErrorCode::Cancelled, "cancelled", 10),
        (ErrorCode::ShuttingDown, "shutting-down", 14),
        (ErrorCode::Internal, "internal", 13),
    ];

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        ErrorCode::ALL.iter().find(|(code, ..)| *code == self).map_or("unknown", |(_, name, _)| name)
    }

    /// The gRPC status code that says the same more coarsely.
    pub fn grpc(self) -> i32 {
        ErrorCode::ALL.iter().find(|(code, ..)| *code == self).map_or(2, |(.., grpc)| *grpc)
    }

    /// The code of that name; `Unknown` for a name of a later version.
    pub fn parse(name: &str) -> ErrorCode {
        ErrorCode::ALL
            .iter()
            .find(|(_, known, _)| *known == name)
            .map_or(ErrorCode::Unknown, |(code, ..)| *code)
    }
}

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    pub code: ErrorCode,
    /// The step in which it failed, if the call has several; else empty.
    pub stage: String,
    /// What, which object, why.
    pub message: String,
}

impl CallError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> CallError {
        CallError { code, stage: String::new(), message: message.into() }
    }

    /// Names the step in which it failed.
    pub fn at(mut self, stage: impl Into<String>) -> CallError {
        self.stage = stage.into();
        self
    }

    /// The status that says this on the wire.
    pub fn status(&self) -> Status {
        let detail = ErrorDetail { code: self.code.name().into(), stage: self.stage.clone() };
        Status {
            code: self.code.grpc(),
            message: self.message.clone(),
            details: vec![Any { type_url: DETAIL_TYPE.into(), value: detail.encode_to_vec() }],
        }
    }

    /// What a status says; without our detail the gRPC code decides.
    pub fn from_status(status: &Status) -> CallError {
        let detail = status
            .details
            .iter()
            .find(|detail| detail.type_url == DETAIL_TYPE)
            .and_then(|detail| ErrorDetail::decode(&detail.value[..]).ok());
        let message = status.message.clone();
        match detail {
            Some(detail) => CallError { code: ErrorCode::parse(&detail.code), stage: detail.stage, message },
            None => {
                let code = ErrorCode::ALL
                    .iter()
                    .find(|(.., grpc)| *grpc == status.code && *grpc != 2)
                    .map_or(ErrorCode::Unknown, |(code, ..)| *code);
                CallError { code, stage: String::new(), message }
            }
        }
    }

    /// The whole answer.
    pub fn response(&self) -> Response {
        Response { status: Some(self.status()), ..Response::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire() {
        for (code, name, grpc) in ErrorCode::ALL {
            let error = CallError::new(code, "pod p: mount /x: no such file").at("mounts");
            let bytes = error.response().encode_to_vec();
            let response = Response::decode(&bytes[..]).unwrap();
            let status = response.status.unwrap();
            assert_eq!(status.code, grpc);
            assert_eq!(ErrorCode::parse(name), code);
            assert_eq!(CallError::from_status(&status), error);
        }
    }

    #[test]
    fn a_status_of_somebody_else_is_understood_by_its_number() {
        let status = Status { code: 12, message: "no".into(), details: vec![] };
        assert_eq!(CallError::from_status(&status).code, ErrorCode::Unimplemented);
        let status = Status { code: 99, message: "no".into(), details: vec![] };
        assert_eq!(CallError::from_status(&status).code, ErrorCode::Unknown);
    }
}
