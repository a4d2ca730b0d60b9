//! What can go wrong between us and systemd.

use std::io;
use std::time::Duration;

/// Systemd did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// Something else is this machine's init.
    #[error(
        "systemd does not run on this machine (there is no /run/systemd/system); use the cgroup driver cgroupfs"
    )]
    Absent,
    /// Nobody answers at the socket.
    #[error("systemd cannot be reached at {path}: {source}; is dbus.service running?")]
    Unreachable {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bus knows us as somebody else, or not at all.
    #[error(
        "the bus of systemd did not let us in: it said {line:?}; the cgroup driver systemd needs root, or a systemd of one's own (user@N.service)"
    )]
    NotLetIn {
        /// What it said.
        line: String,
    },
    /// The connection broke.
    #[error("the connection to systemd: {source}")]
    Io {
        /// Why.
        #[from]
        source: io::Error,
    },
    /// What was said is no D-Bus.
    #[error("the connection to systemd: {0}")]
    Message(#[from] dbus::BadMessage),
    /// No answer in time.
    #[error(
        "systemd did not {doing} unit {unit} within {waited:?}; what it is busy with: systemctl list-jobs"
    )]
    Silent {
        /// Verb.
        doing: &'static str,
        /// The unit's name.
        unit: String,
        /// How long was waited.
        waited: Duration,
    },
    /// An error came back.
    #[error("systemd refused to {doing} unit {unit}: {message} ({name})")]
    Refused {
        /// Verb.
        doing: &'static str,
        /// The unit's name.
        unit: String,
        /// The error's name on the bus.
        name: String,
        /// Systemd's words.
        message: String,
    },
    /// The job was begun and did not succeed.
    #[error(
        "systemd could not {doing} unit {unit}: the job's result is {result:?}; more: journalctl -u {unit}"
    )]
    Job {
        /// Verb.
        doing: &'static str,
        /// The unit's name.
        unit: String,
        /// Systemd's word for it: canceled, timeout, failed, dependency, skipped.
        result: String,
    },
}

impl SystemdError {
    /// Whether this is the refusal of that name.
    pub(crate) fn is(&self, error: &str) -> bool {
        matches!(self, SystemdError::Refused { name, .. } if name == error)
    }
}
