//! How a container ended: what is known of it, and never a guess.

use serde::{Deserialize, Serialize};

/// The end of a container's first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It called exit(2) with this status.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
    /// The kernel killed a process of its cgroup for memory, and the first process ended with `status` (as a shell counts it).
    OutOfMemory { status: i32 },
    /// It never ran: the command could not be executed.
    NotStarted { why: String },
    /// Nobody saw it end: its shim was killed, or the machine was started anew.
    Lost { why: String },
}

impl Exit {
    /// The exit code that CRI reports: the status itself, 128 + the signal, 128 for a command that could not be executed, and 255
    /// where it is unknown ([`Exit::reason`] then says so).
    pub fn code(&self) -> i32 {
        match self {
            Exit::Code(code) => i32::from(*code),
            Exit::Signal(signal) => 128 + i32::from(*signal),
            Exit::OutOfMemory { status } => *status,
            Exit::NotStarted { .. } => 128,
            Exit::Lost { .. } => 255,
        }
    }

    /// The word that the kubelet shows; `OOMKilled` is fixed by CRI.
    pub fn reason(&self) -> &'static str {
        match self {
            Exit::Code(0) => "Completed",
            Exit::Code(_) | Exit::Signal(_) => "Error",
            Exit::OutOfMemory { .. } => "OOMKilled",
            Exit::NotStarted { .. } => "StartError",
            Exit::Lost { .. } => "ContainerStatusUnknown",
        }
    }

    /// More than the reason, where there is more to say.
    pub fn message(&self) -> &str {
        match self {
            Exit::Code(_) | Exit::Signal(_) | Exit::OutOfMemory { .. } => "",
            Exit::NotStarted { why } | Exit::Lost { why } => why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_reasons_are_those_of_cri() {
        let oom = Exit::OutOfMemory { status: 137 };
        assert_eq!((oom.code(), oom.reason()), (137, "OOMKilled"));
        assert_eq!((Exit::Code(0).code(), Exit::Code(0).reason()), (0, "Completed"));
        assert_eq!((Exit::Signal(15).code(), Exit::Signal(15).reason()), (143, "Error"));
        assert_eq!(Exit::Lost { why: "x".into() }.code(), 255);
    }
}
