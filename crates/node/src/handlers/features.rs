//! What a foreign runtime can do, found by asking it: the command `features` of OCI runtimes.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::Duration;

use prost::Message;
use serde::Deserialize;
use sys::program::{Bound, End};
use tracing::warn;

use super::{Handler, HandlerError, HandlerKind, ShimHandler};

/// How long the answer may take. No status waits for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// No answer is longer.
const LONGEST: usize = 1 << 20;

/// What CRI wants to know of a handler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features {
    /// Mounts that are read-only with all that is below them.
    pub recursive_read_only: bool,
    /// Pods with users of their own, with volumes whose owners are mapped.
    pub user_namespaces: bool,
}

/// An answer, and the file that gave it.
#[derive(Debug)]
pub(super) struct Asked {
    stamp: Stamp,
    features: Features,
}

/// A program that is replaced has another one.
type Stamp = (u64, u64, i64, i64);

/// The parts of the answer that matter (runtime-spec, features.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    mount_options: Vec<String>,
    linux: Option<Linux>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<String>,
    mount_extensions: Option<MountExtensions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MountExtensions {
    idmap: Option<Enabled>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Enabled {
    enabled: bool,
}

impl Handler {
    /// What its runtime can do; `builtin`: what that of this program can. It may run the program, and is asked again only when the program's
    /// file has changed. Where there is no answer, it can do nothing of this.
    pub(crate) fn features(&self, builtin: Features) -> Features {
        let program = match &self.config.kind {
            HandlerKind::Builtin => return builtin,
            HandlerKind::Oci(oci) => oci.program.clone(),
            HandlerKind::Shim(shim) => shim.program(),
        };
        // A program that is missing may be installed any moment.
        let Ok(path) = self.program(&program) else { return Features::default() };
        let Ok(stamp) = stamp(&path) else { return Features::default() };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = asked.as_ref().filter(|known| known.stamp == stamp) {
            return known.features.within(builtin);
        }
        let answer = match &self.config.kind {
            HandlerKind::Builtin => return builtin,
            HandlerKind::Oci(oci) => ask(&path, &oci.arguments),
            HandlerKind::Shim(shim) => ask_shim(&path, shim),
        };
        let features = answer.unwrap_or_else(|why| {
            let (handler, path) = (&self.config.name, path.display());
            warn!(handler, %path, why, "the runtime does not say what it can do; it is taken to have no feature");
            Features::default()
        });
        asked.insert(Asked { stamp, features }).features.within(builtin)
    }

    /// Refuses what needs a feature that the runtime does not have.
    pub(crate) fn need(
        &self,
        builtin: Features,
        what: &'static str,
        has: impl Fn(&Features) -> bool,
    ) -> Result<(), HandlerError> {
        let program = match &self.config.kind {
            HandlerKind::Builtin => return Ok(()),
            HandlerKind::Oci(oci) => oci.program.clone(),
            HandlerKind::Shim(shim) => shim.program(),
        };
        if has(&self.features(builtin)) {
            return Ok(());
        }
        Err(HandlerError::Lacks { program, what })
    }
}

impl Features {
    /// What the kernel and the file systems cannot do, no runtime can.
    fn within(self, possible: Features) -> Features {
        Features {
            recursive_read_only: self.recursive_read_only && possible.recursive_read_only,
            user_namespaces: self.user_namespaces && possible.user_namespaces,
        }
    }

    fn of(answer: &Answer) -> Features {
        let linux = answer.linux.as_ref();
        let users = linux.is_some_and(|linux| linux.namespaces.iter().any(|kind| kind == "user"));
        let maps = linux
            .and_then(|linux| linux.mount_extensions.as_ref()?.idmap.as_ref())
            .is_some_and(|idmap| idmap.enabled);
        Features {
            recursive_read_only: answer.mount_options.iter().any(|option| option == "rro"),
            user_namespaces: users && maps,
        }
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}

fn ask(path: &Path, arguments: &[String]) -> Result<Features, String> {
    let mut command = Command::new(path);
    command.args(arguments).arg("features");
    of_document(&run(command, "features", &[])?)
}

/// A shim tells what its runtime's features are, if it is of runc's kind and new enough to.
fn ask_shim(path: &Path, shim: &ShimHandler) -> Result<Features, String> {
    use task::options::Options;
    let text = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
    let options =
        Options { binary_name: shim.runtime.as_ref().map(text).unwrap_or_default(), ..Options::default() };
    let input = if shim.is_of_runc() { task::pack(&options).encode_to_vec() } else { Vec::new() };
    let mut command = Command::new(path);
    command.arg("-info");
    let info = task::RuntimeInfo::decode(&run(command, "-info", &input)?[..])
        .map_err(|cause| format!("what it printed is no runtime information: {cause}"))?;
    let features = info.features.ok_or("it says nothing of features")?;
    of_document(&features.value)
}

fn of_document(text: &[u8]) -> Result<Features, String> {
    let answer: Answer = serde_json::from_slice(text)
        .map_err(|cause| format!("what it printed is no features document: {cause}"))?;
    Ok(Features::of(&answer))
}

/// What the program prints.
fn run(mut command: Command, verb: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).current_dir("/").process_group(0);
    let input = sys::program::input("input", input).map_err(|cause| cause.to_string())?;
    let child = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|cause| format!("it cannot be executed: {cause}"))?;
    let finished = sys::program::finish(child, PATIENCE, Bound::All(LONGEST), Bound::Tail(1000))
        .map_err(|cause| cause.to_string())?;
    match finished.end {
        End::Exited(status) if status.success() => Ok(finished.stdout),
        End::Exited(status) => {
            Err(format!("`{verb}` ended with {status}: {}", String::from_utf8_lossy(&finished.stderr).trim()))
        }
        End::TimedOut => Err(format!("`{verb}` did not end within {PATIENCE:?}")),
        End::TooMuchOutput => Err(format!("`{verb}` printed more than {LONGEST} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Features {
        Features::of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn features_are_what_the_document_says() {
        assert_eq!(of("{}"), Features::default());
        let rro = of(r#"{"mountOptions":["ro","rro"],"linux":{"namespaces":["user"]}}"#);
        assert_eq!(rro, Features { recursive_read_only: true, user_namespaces: false });
        let maps = r#"{"linux":{"namespaces":["user"],"mountExtensions":{"idmap":{"enabled":true}}}}"#;
        assert_eq!(of(maps), Features { recursive_read_only: false, user_namespaces: true });
        let no_users = r#"{"linux":{"namespaces":[],"mountExtensions":{"idmap":{"enabled":true}}}}"#;
        assert_eq!(of(no_users), Features::default());
        let ours = Features::of(&serde_json::from_value(runtime_features()).unwrap());
        assert_eq!(ours, Features { recursive_read_only: true, user_namespaces: true });
    }

    /// As the runtime of this program says it.
    fn runtime_features() -> serde_json::Value {
        serde_json::json!({
            "mountOptions": ["bind", "rro"],
            "linux": { "namespaces": ["cgroup", "user"], "mountExtensions": {"idmap": {"enabled": true}} },
        })
    }

    #[test]
    fn a_program_that_does_not_answer_has_no_features() {
        let words = |script: &str| vec!["-c".to_owned(), script.to_owned()];
        let shell = Path::new("/bin/sh");
        assert!(ask(shell, &words("echo '{}'")).is_ok());
        assert!(ask(shell, &words("echo garbage")).unwrap_err().contains("no features document"));
        assert!(
            ask(shell, &words("echo no such command >&2; exit 3")).unwrap_err().contains("no such command")
        );
        assert!(ask(Path::new("/nowhere"), &[]).unwrap_err().contains("cannot be executed"));
    }
}
