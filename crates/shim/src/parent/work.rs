//! What helpers do with the runtime, and what they report of it.

use super::handed::Handed;
use super::helper::{CreatedReport, Report};
use super::memory::{Beside, at_first};
use crate::protocol::{CallError, ErrorCode};
use rustix::process::Signal;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::time::Duration;

/// How long the processes that init left behind may take to die of SIGKILL.
const KILL: Duration = Duration::from_secs(4);

/// How long killing and removing the cgroup of a half-made container may take.
const CGROUP_PATIENCE: Duration = Duration::from_secs(5);

/// No bundle's configuration is longer.
const MAX_BUNDLE_CONFIG: u64 = 16 << 20;

/// What a helper reports of a creation.
pub(crate) fn report_of(
    made: Result<runtime::Created, runtime::CreateError>,
    state_root: &Path,
    id: &str,
    restored: bool,
) -> Report {
    let created = match made {
        Ok(created) => created,
        Err(error) => {
            let stage = match &error {
                runtime::CreateError::Failed { failure, .. } => failure.stage.to_string(),
                runtime::CreateError::Id(_) | runtime::CreateError::Exists { .. } => "state".into(),
            };
            return Report::failed(ErrorCode::CreateFailed, stage, error);
        }
    };
    let mut warnings: Vec<_> = created.warnings.iter().map(ToString::to_string).collect();
    let record = runtime::state(state_root, id)
        .map(|(record, _)| record)
        .map_err(|error| warnings.push(format!("its record cannot be read: {error}")));
    let cgroup = record.as_ref().ok().and_then(|record| record.cgroup.clone());
    Report::Created(CreatedReport {
        pid: created.pid,
        slice_oom_kills: cgroup.as_deref().and_then(at_first),
        cgroup,
        own_pid_namespace: record.as_ref().is_ok_and(|record| record.own_pid_namespace),
        start_in_helper: restored || record.is_ok_and(|record| !record.poststart.is_empty()),
        warnings,
    })
}

/// Runs in the helper.
pub(crate) fn execute(
    id: &str,
    process: &[u8],
    state_root: &Path,
    mut handed: Handed,
    has_terminal: bool,
) -> Report {
    let prepared =
        serde_json::from_slice(process).map_err(|cause| std::io::Error::new(ErrorKind::InvalidInput, cause));
    let process: runtime::oci_spec::runtime::Process = match prepared {
        Ok(process) => process,
        Err(cause) => {
            let why = format!("process_json: it is no OCI process object: {cause}");
            return Report::failed(ErrorCode::InvalidArgument, "configuration", why);
        }
    };
    if process.terminal().unwrap_or(false) != has_terminal {
        let why = "terminal: the request and the process object do not agree";
        return Report::failed(ErrorCode::InvalidArgument, "configuration", why);
    }
    if let Err(cause) = handed.wire() {
        return Report::failed(ErrorCode::ExecFailed, "standard streams", cause);
    }
    let console = handed.console.take().map(runtime::Console::Socket);
    let request = runtime::ExecRequest {
        state_root,
        id,
        process,
        console,
        pid_file: None,
        preserve_fds: 0,
        cgroup: None,
        ignore_paused: false,
    };
    match runtime::exec(request) {
        Ok(executed) => {
            let warnings = executed.warnings.iter().map(ToString::to_string).collect();
            Report::Executed { pid: executed.pid, warnings }
        }
        Err(error) => {
            let stage = match &error {
                runtime::ExecError::Failed { failure, .. } => failure.stage.to_string(),
                runtime::ExecError::Lookup(_) | runtime::ExecError::NotRunning { .. } => "state".into(),
            };
            Report::failed(ErrorCode::ExecFailed, stage, error)
        }
    }
}

/// Runs in a helper, since killing waits and finding cgroups reads the table of mounts.
pub(crate) fn look_at(path: &Path, kill: bool, beside: &Beside) -> Report {
    let mut warnings = Vec::new();
    let mut of_slice = false;
    let looked = cgroup::Host::detect().map_err(|error| error.to_string()).and_then(|host| {
        let name = path.to_str().ok_or("it is not UTF-8")?;
        // A scope may be gone at any moment from now on.
        let group = match host.open(name) {
            Err(cgroup::CgroupError::NotFound { .. }) => None,
            other => Some(other.map_err(|error| error.to_string())?),
        };
        let count = group.as_ref().map(cgroup::Cgroup::oom_kills);
        if kill
            && let Some(group) = &group
            && let Err(error) = group.kill_all(KILL)
        {
            warnings.push(format!("what its first process left behind was not killed: {error}"));
        }
        match count {
            Some(Ok(count)) => Ok(count),
            Some(Err(error)) if !matches!(error, cgroup::CgroupError::NotFound { .. }) => {
                Err(error.to_string())
            }
            Some(Err(_)) | None => {
                of_slice = true;
                beside.of_gone(&host, path).ok_or_else(|| "it does not exist any more".to_owned())
            }
        }
    });
    let oom_kills = looked.unwrap_or_else(|error| {
        warnings.push(format!("whether memory ran out is not known: its cgroup {}: {error}", path.display()));
        0
    });
    Report::Looked { oom_kills, of_slice, warnings }
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

pub(crate) fn start_error(error: &runtime::StartError) -> CallError {
    let code = match error {
        runtime::StartError::Lookup(_) | runtime::StartError::Failed { .. } => ErrorCode::StartFailed,
        runtime::StartError::NotCreated { .. } => ErrorCode::WrongState,
    };
    CallError::new(code, error.to_string()).at(stage(error))
}

pub(crate) fn stage(error: &runtime::StartError) -> String {
    match error {
        runtime::StartError::Failed { failure, .. } => failure.stage.to_string(),
        runtime::StartError::Lookup(_) | runtime::StartError::NotCreated { .. } => "state".into(),
    }
}

/// The signal of that number, which is 1 to 64.
pub(crate) fn signal(number: u32) -> Result<Signal, CallError> {
    let raw = i32::try_from(number).unwrap_or(0);
    Signal::from_named_raw(raw)
        .or_else(|| (34..=64).contains(&raw).then(|| sys::signal::real_time(raw)).flatten())
        .ok_or_else(|| {
            CallError::new(ErrorCode::InvalidArgument, format!("signal: there is none with number {number}"))
        })
}
