//! Where errors and warnings go: standard error, and the log file that an engine reads the reason of a failure from.

use std::fs::File;
use std::io::Write;
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
}

impl Log {
    pub(super) fn open(path: Option<&Path>, format: Format) -> std::io::Result<Log> {
        let open = |path: &Path| {
            File::options().append(true).create(true).open(path).map_err(|error| {
                std::io::Error::new(error.kind(), format!("log file {}: {error}", path.display()))
            })
        };
        Ok(Log { file: path.map(open).transpose()?, format })
    }

    pub(super) fn error(&self, message: &str) {
        eprintln!("pintle oci: {message}");
        self.write("error", message);
    }

    pub(super) fn warning(&self, message: &str) {
        if self.file.is_none() {
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
