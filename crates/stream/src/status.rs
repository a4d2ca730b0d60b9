//! How a client is told the end of what it started.

use bytes::Bytes;
use serde_json::json;

use crate::Exit;

/// What came of an exec or an attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The command ended with this code, which is not 0.
    ExitCode(u32),
    /// It was not done, or nobody knows how it ended.
    Failed(String),
}

impl Outcome {
    pub(crate) fn of(exit: Exit) -> Outcome {
        match exit {
            Exit::Code(0) => Outcome::Success,
            Exit::Code(code) => Outcome::ExitCode(code),
            Exit::Lost(why) => Outcome::Failed(why),
        }
    }

    /// The object that versions 4 and 5 send: Kubernetes' `metav1.Status`.
    pub(crate) fn json(&self) -> Bytes {
        let status = match self {
            Outcome::Success => json!({ "metadata": {}, "status": "Success" }),
            Outcome::ExitCode(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.sentence(),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Outcome::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.sentence(),
                "reason": "InternalError",
                "details": { "causes": [{ "message": why }] },
                "code": 500,
            }),
        };
        Bytes::from(status.to_string())
    }

    /// What older versions send; nothing when all is well.
    pub(crate) fn text(&self) -> Bytes {
        Bytes::from(self.sentence())
    }

    fn sentence(&self) -> String {
        match self {
            Outcome::Success => String::new(),
            Outcome::ExitCode(code) => format!("command terminated with non-zero exit code: {code}"),
            Outcome::Failed(why) => format!("Internal error occurred: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_have_what_clients_look_for() {
        let read =
            |outcome: &Outcome| -> serde_json::Value { serde_json::from_slice(&outcome.json()).unwrap() };
        assert_eq!(read(&Outcome::of(Exit::Code(0)))["status"], "Success");
        let code = read(&Outcome::of(Exit::Code(137)));
        assert_eq!(code["reason"], "NonZeroExitCode");
        assert_eq!(code["details"]["causes"][0]["reason"], "ExitCode");
        assert_eq!(code["details"]["causes"][0]["message"], "137");
        let lost = read(&Outcome::of(Exit::Lost("the \"shim\" is gone".into())));
        assert_eq!((&lost["reason"], &lost["code"]), (&json!("InternalError"), &json!(500)));
        assert_eq!(lost["message"], "Internal error occurred: the \"shim\" is gone");
        assert_eq!(Outcome::Success.text(), "");
        assert_eq!(Outcome::ExitCode(3).text(), "command terminated with non-zero exit code: 3");
    }
}
