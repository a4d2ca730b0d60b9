//! Delete: removes what is left of a container that does not run, or cancels its creation.

use super::Shim;
use super::container::Phase;
use super::create::Handed;
use super::dispatch::Outcome;
use super::helper::{Purpose, Report};
use super::pending::Key;
use super::{message, now_ns};
use crate::config::exit_path;
use crate::messages::warning;
use crate::protocol::{CallError, DeleteRequest, DeleteResponse, ErrorCode};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// How long killing and removing the cgroup of a half-made container may take.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// No bundle's configuration is longer.
const MAX_BUNDLE_CONFIG: u64 = 16 << 20;

impl Shim {
    pub(super) fn delete(&mut self, request: DeleteRequest, buffer: &mut [u8]) -> Result<Outcome, CallError> {
        let index = self.find(&request.id)?;
        let container = &mut self.containers[index];
        let serial = container.serial;
        match &mut container.phase {
            Phase::Creating { .. } => self.cancel(serial),
            phase @ (Phase::Created | Phase::Exited) => {
                // An init that could not become its command may still be on its way out, and looks as if it ran.
                let force = matches!(phase, Phase::Created);
                container.drain(buffer, &self.poller);
                self.begin_delete(serial, force);
            }
            Phase::Deleting => {}
            Phase::Starting(_) | Phase::StartingInHelper | Phase::Running | Phase::Draining { .. } => {
                let what = format!(
                    "container {} is {}; kill it and wait for its exit",
                    request.id,
                    container.phase_name()
                );
                return Err(CallError::new(ErrorCode::WrongState, what));
            }
        }
        Ok(Outcome::Later(Key::Deleted(serial)))
    }

    /// Stops the creation of a container. What is half made is removed when the helper is dead.
    pub(super) fn cancel(&mut self, serial: u32) {
        if let Some(container) = self.container(serial) {
            container.phase = Phase::Creating { cancelled: true };
        }
        self.kill_helpers(serial, |_| true);
    }

    /// Ends what is under way for a container. Otherwise a hook or a path that hangs would keep it for ever.
    pub(super) fn kill_helpers(&self, serial: u32, which: impl Fn(Purpose) -> bool) {
        for helper in self.helpers.iter().filter(|helper| which(helper.purpose)) {
            match helper.purpose {
                Purpose::Create { container }
                | Purpose::Start { container }
                | Purpose::Exec { container, .. }
                    if container == serial =>
                {
                    helper.kill();
                }
                _ => {}
            }
        }
    }

    /// Lets a helper remove the container; with `force` whatever its state is.
    pub(super) fn begin_delete(&mut self, serial: u32, force: bool) {
        // Whoever waits for its end is to see it.
        self.kill_helpers(serial, |purpose| !matches!(purpose, Purpose::Create { .. }));
        let root = self.runtime_root.clone();
        let Some(container) = self.container(serial) else {
            return;
        };
        container.phase = Phase::Deleting;
        let target = container.target();
        let (purpose, foreign) = (Purpose::Delete { container: serial }, self.foreign.clone());
        let work = move |_| match foreign {
            Some(foreign) => Report::of(foreign.delete(&target)),
            None => remove(&root, &target.id, &target.bundle, force),
        };
        if let Err(cause) = self.start_helper(purpose, Handed::default(), work) {
            let error = CallError::new(ErrorCode::DeleteFailed, cause.to_string()).at("helper");
            self.delete_failed(serial, error);
        }
    }

    /// What the helper said.
    pub(super) fn deleted(&mut self, serial: u32, report: Report, buffer: &mut [u8]) {
        match report {
            Report::Done { warnings } => {
                // A container that was never started was killed by the helper: its end is known here at once, if not noticed yet.
                self.children_changed(buffer);
                for what in warnings {
                    warning!("{what}");
                }
                // A runtime that is another program may say so and have ended nobody.
                if let Some(pid) = self
                    .container(serial)
                    .filter(|container| container.has_init())
                    .and_then(|container| rustix::process::Pid::from_raw(container.pid))
                {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                self.forget(serial);
            }
            other => self.delete_failed(serial, other.into_error(ErrorCode::DeleteFailed)),
        }
    }

    fn delete_failed(&mut self, serial: u32, error: CallError) {
        if let Some(container) = self.container(serial) {
            // A later delete may do better.
            container.phase = if container.has_init() { Phase::Created } else { Phase::Exited };
        }
        self.answer(Key::Deleted(serial), Err(error.clone()));
        self.ending_failed(error);
    }

    /// Removes a container from the list and tells everybody who waits for anything of it.
    pub(super) fn forget(&mut self, serial: u32) {
        let Some(index) = self.containers.iter().position(|container| container.serial == serial) else {
            return;
        };
        let mut container = self.containers.swap_remove(index);
        container.close_outputs(now_ns(), &self.poller);
        container.detach_all(&self.poller);
        self.kill_helpers(serial, |_| true);
        // A pod that is shut down keeps its exit records: nobody has said yet that he knows them.
        if self.ending.is_none() {
            let _ = rustix::fs::unlink(exit_path(&self.pod.config.pod_dir, &container.id));
        }
        let gone = || CallError::new(ErrorCode::NotFound, format!("container {} was deleted", container.id));
        for exec in &container.execs {
            self.answer(Key::ExecStarted(exec.serial), Err(gone()));
            self.answer(Key::ExecExited(exec.serial), Err(gone()));
        }
        self.answer(Key::Exited(serial), Err(gone()));
        self.answer(Key::Deleted(serial), message(&DeleteResponse { exit: container.exit }));
    }
}

/// Runs in the helper.
pub(crate) fn remove(root: &Path, id: &str, bundle: &Path, force: bool) -> Report {
    match runtime::delete(root, id, force) {
        Ok(deleted) => {
            let warning = |warning: &runtime::Warning| format!("container {id}: {warning}");
            Report::Done { warnings: deleted.warnings.iter().map(warning).collect() }
        }
        // Its creation was cut off before there was a record of it.
        Err(runtime::DeleteError::Lookup(runtime::Lookup::NotFound { .. })) => match remove_cgroup(bundle) {
            Ok(()) => {
                let _ = rustix::fs::rmdir(root.join(id));
                Report::Done { warnings: Vec::new() }
            }
            Err(cause) => {
                Report::failed(ErrorCode::DeleteFailed, "cgroup", format!("container {id}: {cause}"))
            }
        },
        Err(error) => {
            let stage = match &error {
                runtime::DeleteError::Failed { failure, .. } => failure.stage.to_string(),
                runtime::DeleteError::Lookup(_) | runtime::DeleteError::Running { .. } => "state".into(),
            };
            Report::failed(ErrorCode::DeleteFailed, stage, error)
        }
    }
}

/// The part of a bundle's configuration that names its cgroup.
#[derive(serde::Deserialize)]
struct Config {
    linux: Option<ConfigLinux>,
}

#[derive(serde::Deserialize)]
struct ConfigLinux {
    #[serde(rename = "cgroupsPath")]
    cgroups_path: Option<String>,
}

/// Kills what is in the cgroup that the bundle names, and removes it. A bundle that cannot be read got nowhere near a cgroup.
pub(crate) fn remove_cgroup(bundle: &Path) -> Result<(), String> {
    let Some(path) = cgroup_of(bundle) else {
        return Ok(());
    };
    // What a group of systemd is called is not its path.
    let path = cgroup::systemd::place(&path).unwrap_or(path);
    let host = cgroup::Host::detect().map_err(|error| error.to_string())?;
    match host.open(&path) {
        Ok(group) => group.kill_all(CGROUP_PATIENCE).map_err(|error| error.to_string())?,
        Err(cgroup::CgroupError::NotFound { .. }) => {}
        Err(error) => return Err(error.to_string()),
    }
    host.delete(&path, CGROUP_PATIENCE).map_err(|error| error.to_string())
}

/// The file may be what the creation hung on: only a regular one is read.
fn cgroup_of(bundle: &Path) -> Option<String> {
    use rustix::fs::{FileType, Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(bundle.join("config.json"), flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(MAX_BUNDLE_CONFIG).read_to_end(&mut bytes).ok()?;
    let config: Config = serde_json::from_slice(&bytes).ok()?;
    config.linux?.cgroups_path.filter(|path| !path.is_empty())
}
