//! Where errors and warnings go: standard error, and the log file that an engine reads the reason of a failure from.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;

use super::text::timestamp;

/// How lines of the log file look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

#[derive(Debug)]
pub(super) struct Log {
    file: Option<File>,
    format: Format,
    /// Whether warnings are wanted on standard error. Often that is the container's, and what is written there is taken for its words.
    warn: bool,
}

impl Log {
    /// With `debug`, warnings go to standard error also if that is no terminal.
    pub(super) fn open(path: Option<&Path>, format: Format, debug: bool) -> std::io::Result<Log> {
        let open = |path: &Path| {
            File::options().append(true).create(true).open(path).map_err(|error| {
                std::io::Error::new(error.kind(), format!("log file {}: {error}", path.display()))
            })
        };
        let warn = path.is_none() && (debug || std::io::stderr().is_terminal());
        Ok(Log { file: path.map(open).transpose()?, format, warn })
    }

    pub(super) fn error(&self, message: &str) {
        eprintln!("pintle oci: {message}");
        self.write("error", message);
    }

    pub(super) fn warning(&self, message: &str) {
        if self.warn {
            eprintln!("pintle oci: warning: {message}");
        }
        self.write("warning", message);
    }

    fn write(&self, level: &str, message: &str) {
        let Some(mut file) = self.file.as_ref() else { return };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let time = timestamp(now.as_secs());
        let line = match self.format {
            Format::Json => {
                format!("{}\n", serde_json::json!({"level": level, "msg": message, "time": time}))
            }
            Format::Text => format!("time={time:?} level={level} msg={message:?}\n"),
        };
        // There is no place left to report a log that cannot be written.
        let _ = file.write_all(line.as_bytes());
    }
}
