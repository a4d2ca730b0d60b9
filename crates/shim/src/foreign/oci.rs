//! A runtime with the command line of OCI runtimes: runc, crun, youki, runsc.
//!
//! Nothing of a request becomes a word of its command line but ids, which have letters and digits only, and the numbers of signals.

use super::program::{self, Ended, RunError, Streams};
use super::{Made, Target, made, pause};
use crate::config::{OciProgram, runtime_state_root};
use crate::protocol::{CallError, ErrorCode};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Of a program's log, so much of its end is read.
const LOG_READ: u64 = 64 << 10;

/// Of what a program says, so much is told.
const TOLD: usize = 1000;

/// Longer than anything runs.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The longest pid file that is read.
const PID_FILE: u64 = 32;

/// The program, and where its state is.
pub(super) struct Oci<'a> {
    program: &'a OciProgram,
    pod_dir: &'a Path,
}

/// What goes wrong with one call of the program, and the words for it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{path} {verb}: {source}", path = .path.display())]
    NoEnd { path: PathBuf, verb: &'static str, source: RunError },
    #[error("{path} {verb} failed ({status}): {said}", path = .path.display())]
    Failed { path: PathBuf, verb: &'static str, status: std::process::ExitStatus, said: String },
    #[error("{path} {verb} succeeded, and {why}", path = .path.display())]
    Broken { path: PathBuf, verb: &'static str, why: String },
    #[error("{what}: {source}", what = .what.display())]
    Own { what: PathBuf, source: io::Error },
}

impl Failure {
    fn into_error(self, code: ErrorCode, target: &Target) -> CallError {
        CallError::new(code, format!("container {}: {self}", target.id)).at("runtime")
    }
}

impl<'a> Oci<'a> {
    pub(super) fn new(program: &'a OciProgram, pod_dir: &'a Path) -> Oci<'a> {
        Oci { program, pod_dir }
    }

    /// Makes and starts the container that stands for the pod, if there is to be one.
    pub(super) fn begin_pod(&self, pod_id: &str, spec: &[u8]) -> Result<(), CallError> {
        if !self.program.pause {
            return Ok(());
        }
        let target = Target { id: pod_id.into(), bundle: pause::bundle(self.pod_dir, pod_id) };
        let attempt = || {
            let own = |source| Failure::Own { what: target.bundle.clone(), source };
            pause::write(self.pod_dir, pod_id, spec).map_err(own)?;
            // With the helper's own streams, which are nobody's: a pipe would stay open with it.
            let pid = self.make(&target, None, Streams::Inherited)?;
            pause::record(self.pod_dir, pid).map_err(own)?;
            self.call("start", &target, &[(&target.id).into()], Streams::Inherited).map(drop)
        };
        let made = attempt().map_err(|failure: Failure| {
            CallError::new(ErrorCode::SetupFailed, format!("the pod's runtime: {failure}")).at("runtime")
        });
        if made.is_err() {
            let _ = self.end_pod(pod_id);
            program::end_all_children();
        }
        made
    }

    /// Ends what stands for the pod. What is not there is ended.
    pub(super) fn end_pod(&self, pod_id: &str) -> Result<(), CallError> {
        if !self.program.pause {
            return Ok(());
        }
        let target = Target { id: pod_id.into(), bundle: pause::bundle(self.pod_dir, pod_id) };
        let removed = self.delete(&target).and(super::remove_cgroup(&target));
        pause::forget(self.pod_dir);
        if self.program.root != runtime_state_root(self.pod_dir) {
            // The pod's own part of a folder that the daemon does not know.
            super::roots::unmount_below(&self.program.root);
            let _ = std::fs::remove_dir_all(&self.program.root);
        }
        removed
    }

    pub(super) fn create(&self, target: &Target, console: Option<&OwnedFd>) -> Result<Made, CallError> {
        let streams = if console.is_some() { Streams::Kept(&[]) } else { Streams::Inherited };
        self.make(target, console, streams)
            .map(|pid| made(self.pod_dir, target, pid))
            .map_err(|failure| failure.into_error(ErrorCode::CreateFailed, target))
    }

    /// The process of the container that was made.
    fn make(&self, target: &Target, console: Option<&OwnedFd>, streams: Streams<'_>) -> Result<i32, Failure> {
        let attempt = || {
            let pid_file = target.bundle.join("pid");
            let door = console.map(|_| Door::open(&target.bundle)).transpose()?;
            let mut words: Vec<OsString> = vec!["--bundle".into(), (&target.bundle).into()];
            words.extend(["--pid-file".into(), (&pid_file).into()]);
            if let Some(door) = &door {
                words.extend(["--console-socket".into(), door.path().into()]);
            }
            words.push((&target.id).into());
            self.call("create", target, &words, streams)?;
            let pid = self.pid("create", &pid_file)?;
            if let (Some(door), Some(console)) = (&door, console) {
                self.pass_terminal("create", door, console)?;
            }
            Ok(pid)
        };
        attempt()
    }

    /// Waits for the end of a container in a process that others share.
    pub(super) fn wait(&self, target: &Target) -> super::Ended {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Waited {
            exit_status: u32,
        }
        let waited = self.call_within("wait", target, &[(&target.id).into()], Streams::Kept(&[]), FOR_EVER);
        let waited = waited.and_then(|ended| {
            serde_json::from_slice::<Waited>(&ended.stdout).map_err(|cause| {
                let why = format!("what it printed tells of no end: {cause}");
                Failure::Broken { path: self.program.path.clone(), verb: "wait", why }
            })
        });
        match waited {
            Ok(waited) => super::Ended { code: waited.exit_status, exited_at_ns: 0, lost: None },
            Err(failure) => super::Ended { code: 255, exited_at_ns: 0, lost: Some(failure.to_string()) },
        }
    }

    pub(super) fn start(&self, target: &Target) -> Result<(), CallError> {
        // A process that runs all containers takes the streams of each from the call that starts it.
        let streams = if self.program.pause { Streams::Inherited } else { Streams::Kept(&[]) };
        let started = self.call("start", target, &[(&target.id).into()], streams).map(drop);
        started.map_err(|failure| failure.into_error(ErrorCode::StartFailed, target))
    }

    pub(super) fn exec(
        &self,
        target: &Target,
        exec_id: &str,
        process: &[u8],
        console: Option<&OwnedFd>,
    ) -> Result<i32, CallError> {
        let file = |what: &str| target.bundle.join(format!("exec-{exec_id}.{what}"));
        let (process_file, pid_file) = (file("json"), file("pid"));
        let attempt = || {
            sys::file::write_atomic(&process_file, process, 0o600, sys::file::Durability::Process)
                .map_err(|source| Failure::Own { what: process_file.clone(), source })?;
            let door = console.map(|_| Door::open(&target.bundle)).transpose()?;
            let mut words: Vec<OsString> =
                vec!["--detach".into(), "--process".into(), (&process_file).into()];
            words.extend(["--pid-file".into(), (&pid_file).into()]);
            if self.program.pause {
                words.extend(["--internal-pid-file".into(), inner_pid_file(target, exec_id).into()]);
            }
            if let Some(door) = &door {
                words.extend(["--console-socket".into(), door.path().into()]);
            }
            words.push((&target.id).into());
            let streams = if console.is_some() { Streams::Kept(&[]) } else { Streams::Inherited };
            self.call("exec", target, &words, streams)?;
            let pid = self.pid("exec", &pid_file)?;
            if let (Some(door), Some(console)) = (&door, console) {
                self.pass_terminal("exec", door, console)?;
            }
            Ok(pid)
        };
        let done = attempt();
        for path in [process_file, pid_file] {
            let _ = std::fs::remove_file(path);
        }
        done.map_err(|failure: Failure| failure.into_error(ErrorCode::ExecFailed, target))
    }

    pub(super) fn kill(&self, target: &Target, signal: i32, all: bool) -> Result<(), CallError> {
        let mut words: Vec<OsString> = if all { vec!["--all".into()] } else { Vec::new() };
        words.extend([(&target.id).into(), signal.to_string().into()]);
        match self.call("kill", target, &words, Streams::Kept(&[])) {
            Ok(_) => Ok(()),
            // Programs have different words for what has ended; they agree on how its state is told.
            Err(_) if self.has_ended(target) => Ok(()),
            Err(failure) => Err(failure.into_error(ErrorCode::KillFailed, target)),
        }
    }

    /// Sends a signal to a further process: to what runs in the one that all containers share, where the child of ours only waits for it.
    pub(super) fn kill_exec(&self, target: &Target, exec_id: &str, signal: i32) -> Result<(), CallError> {
        let Ok(pid) = std::fs::read_to_string(inner_pid_file(target, exec_id)) else { return Ok(()) };
        let words = ["--pid".into(), pid.trim().into(), (&target.id).into(), signal.to_string().into()];
        match self.call("kill", target, &words, Streams::Kept(&[])) {
            Ok(_) => Ok(()),
            Err(_) if self.has_ended(target) => Ok(()),
            Err(failure) => Err(failure.into_error(ErrorCode::KillFailed, target)),
        }
    }

    pub(super) fn delete(&self, target: &Target) -> Result<(), CallError> {
        let words: Vec<OsString> = vec!["--force".into(), (&target.id).into()];
        match self.call("delete", target, &words, Streams::Kept(&[])) {
            Ok(_) => Ok(()),
            Err(_) if self.status(target).is_none() && !self.has_state(target) => Ok(()),
            Err(failure) => Err(failure.into_error(ErrorCode::DeleteFailed, target)),
        }
    }

    pub(super) fn update(&self, target: &Target, resources: &[u8]) -> Result<(), CallError> {
        let words: Vec<OsString> = vec!["--resources".into(), "-".into(), (&target.id).into()];
        self.call("update", target, &words, Streams::Kept(resources))
            .map(drop)
            .map_err(|failure| failure.into_error(ErrorCode::UpdateFailed, target))
    }

    fn call(
        &self,
        verb: &'static str,
        target: &Target,
        words: &[OsString],
        streams: Streams<'_>,
    ) -> Result<Ended, Failure> {
        self.call_within(verb, target, words, streams, Duration::from_secs(self.program.deadline_secs))
    }

    /// One call; what it left in its log is removed.
    fn call_within(
        &self,
        verb: &'static str,
        target: &Target,
        words: &[OsString],
        streams: Streams<'_>,
        deadline: Duration,
    ) -> Result<Ended, Failure> {
        let log = target.bundle.join(format!("runtime-{}.log", std::process::id()));
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.arguments).arg("--root").arg(&self.program.root);
        command.arg("--log").arg(&log).args(["--log-format", "json"]);
        if self.program.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.arg(verb).args(words);
        let ended = program::run(&mut command, streams, deadline);
        let logged = last_error(&log);
        let _ = std::fs::remove_file(&log);
        let path = self.program.path.clone();
        let ended = ended.map_err(|source| Failure::NoEnd { path: path.clone(), verb, source })?;
        if ended.status.success() {
            return Ok(ended);
        }
        let said = logged
            .or_else(|| last_line(&ended.stderr))
            .or_else(|| last_line(&ended.stdout))
            .unwrap_or_else(|| "it said nothing".into());
        Err(Failure::Failed { path, verb, status: ended.status, said })
    }

    /// What the program wrote into its pid file, if that is a process which it left to us.
    fn pid(&self, verb: &'static str, file: &Path) -> Result<i32, Failure> {
        let broken = |why: String| Failure::Broken { path: self.program.path.clone(), verb, why };
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|file| file.take(PID_FILE).read_to_string(&mut text))
            .map_err(|cause| broken(format!("its pid file cannot be read: {cause}")))?;
        let pid: i32 = text
            .trim()
            .parse()
            .map_err(|_| broken(format!("its pid file says {text:?}, which is no process")))?;
        let shares = verb == "create" && pause::is(self.pod_dir, pid);
        if !shares && !program::is_child(pid) {
            let why = "which is no process that it left behind";
            return Err(broken(format!("its pid file says {pid}, {why}")));
        }
        Ok(pid)
    }

    fn pass_terminal(&self, verb: &'static str, door: &Door, console: &OwnedFd) -> Result<(), Failure> {
        door.pass(console).map_err(|cause| Failure::Broken {
            path: self.program.path.clone(),
            verb,
            why: format!("no terminal arrived at its console socket: {cause}"),
        })
    }

    fn has_ended(&self, target: &Target) -> bool {
        self.status(target).is_none_or(|status| status == "stopped")
    }

    /// The status that the program tells of a container; none if it knows none.
    fn status(&self, target: &Target) -> Option<String> {
        #[derive(Deserialize)]
        struct State {
            status: String,
        }
        let words = [OsString::from(&target.id)];
        let ended = self.call("state", target, &words, Streams::Kept(&[])).ok()?;
        let state: State = serde_json::from_slice(&ended.stdout).ok()?;
        Some(state.status)
    }

    /// Whether the program keeps something of the container in the state folder that is this pod's own.
    fn has_state(&self, target: &Target) -> bool {
        self.program.root == runtime_state_root(self.pod_dir) && self.program.root.join(&target.id).exists()
    }
}

/// Where the number is of a further process, as it is counted inside.
fn inner_pid_file(target: &Target, exec_id: &str) -> PathBuf {
    target.bundle.join(format!("exec-{exec_id}.inner"))
}

/// A socket for one terminal. Its folder is named by a descriptor of this process: the path of a bundle is longer than a socket's may be.
struct Door {
    listener: OwnedFd,
    folder: OwnedFd,
    name: String,
}

impl Door {
    fn open(bundle: &Path) -> Result<Door, Failure> {
        use rustix::fs::{Mode, OFlags};
        let name = format!("console-{}", std::process::id());
        let open = || -> io::Result<Door> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::open(bundle, flags, Mode::empty())?;
            let listener = sys::socket::listen_in(folder.as_fd(), OsStr::new(&name), 1)?;
            rustix::io::ioctl_fionbio(&listener, true)?;
            Ok(Door { listener, folder, name: name.clone() })
        };
        open().map_err(|source| Failure::Own { what: bundle.join(&name), source })
    }

    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}/{}", std::process::id(), self.folder.as_raw_fd(), self.name).into()
    }

    /// Passes the terminal on that was sent here.
    fn pass(&self, to: &OwnedFd) -> io::Result<()> {
        let connection = rustix::net::accept(&self.listener)?;
        rustix::io::ioctl_fionbio(&connection, true)?;
        let mut name = [0; 4096];
        let (length, descriptors) = sys::socket::receive(connection.as_fd(), &mut name)?;
        let master = descriptors.first().ok_or(io::ErrorKind::UnexpectedEof)?;
        rustix::termios::tcgetattr(master)?;
        let name = if length == 0 { &b"tty"[..] } else { &name[..length.min(64)] };
        sys::socket::send(to.as_fd(), name, &[master.as_fd()])
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.folder, self.name.as_str(), rustix::fs::AtFlags::empty());
    }
}

/// The last error of a log in JSON, as `--log-format json` has them, or else its last line.
fn last_error(log: &Path) -> Option<String> {
    let mut file = std::fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_READ))).ok()?;
    let mut bytes = Vec::new();
    file.take(LOG_READ).read_to_end(&mut bytes).ok()?;
    error_in(&bytes)
}

/// The last error of a log, or else its last line.
pub(crate) fn error_in(log: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        level: String,
        msg: String,
    }
    let text = String::from_utf8_lossy(log);
    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let grave = |line: &Line| matches!(line.level.as_str(), "error" | "fatal" | "panic" | "ERROR");
    lines.rfind(grave).map(|line| short(&line.msg)).or_else(|| last_line(log))
}

/// The last line that is not empty.
pub(super) fn last_line(said: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(said);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(short)
}

/// What can stand in a message.
fn short(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().take(TOLD).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_error_of_a_log_is_told() {
        let log = concat!(
            r#"{"level":"error","msg":"first","time":"x"}"#,
            "\nnoise\n",
            r#"{"level":"error","msg":"exec: \"nope\": not found\n","time":"x"}"#,
            "\n",
            r#"{"level":"warning","msg":"later","time":"x"}"#,
            "\n"
        );
        assert_eq!(error_in(log.as_bytes()).unwrap(), "exec: \"nope\": not found");
        assert_eq!(error_in(b"plain\nwords \x1b[31m\n\n").unwrap(), "words  [31m");
        assert_eq!(error_in(b"\n \n"), None);
    }

    proptest! {
        #[test]
        fn nothing_said_is_too_odd(said in prop::collection::vec(any::<u8>(), 0..4096)) {
            let told = error_in(&said).unwrap_or_default();
            prop_assert!(told.chars().count() <= TOLD && !told.contains(char::is_control));
        }
    }
}
