//! The container's cgroup: where it is, who is in it, and what may be done with it as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use cgroup::{Cgroup, Driver, Host, Mode};
use oci_spec::runtime::{Linux, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::error::{Failure, Stage, UpdateError, Warning};
use crate::record::{Folder, Record, Status, status};

const FREEZE_WAIT: Duration = Duration::from_secs(5);
const REMOVE_WAIT: Duration = Duration::from_secs(5);

/// Which generation init sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// What init needs to know of its cgroup.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) version: Version,
    pub(crate) path: String,
}

/// The host's control groups, looked for once in a process's life.
pub(crate) fn host() -> Result<&'static Host, Failure> {
    static HOST: OnceLock<Host> = OnceLock::new();
    if let Some(host) = HOST.get() {
        return Ok(host);
    }
    let found = Host::detect().map_err(|error| Failure::new(Stage::Cgroup, "the host's cgroups", error))?;
    Ok(HOST.get_or_init(|| found))
}

/// Looks for the host's control groups now. A process that forks to create containers calls it once before, so that no child has to.
///
/// # Errors
/// No control groups are mounted.
pub fn warm_up() -> Result<(), Failure> {
    host().map(|_| ())
}

/// The way into the group for a process that is cloned, `born` into the part of it that takes newborns. No group: nothing to enter.
pub(crate) fn entrance(group: Option<&Cgroup>, born: bool) -> Result<cgroup::Entrance, Failure> {
    let Some(group) = group else { return Ok(cgroup::Entrance::default()) };
    group.entrance(born).map_err(|error| Failure::new(Stage::Cgroup, group.path().to_string(), error))
}

/// Who makes the group.
pub(crate) fn driver(systemd_cgroup: bool) -> Driver {
    if systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs }
}

/// When a group gets its quota of processor time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    AtOnce,
    /// One of less than a processor by [`ration`], once its init has built the container: a hundredth of one would take a tenth of a second.
    Later,
}

/// Makes the group and applies the resources. A group with processes in it is somebody else's.
pub(crate) fn create(
    path: &Path,
    driver: Driver,
    linux: &Linux,
    quota: Quota,
    warnings: &mut Vec<Warning>,
) -> Result<(Cgroup, Option<Holder>), Failure> {
    let name = path.display().to_string();
    let fail = |cause: String| Failure::new(Stage::Cgroup, name.clone(), cause);
    let text = path.to_str().ok_or_else(|| fail("is not valid UTF-8".into()))?;
    let resources = linux.resources().clone().unwrap_or_default();
    let resources = if crate::rootless::inside() {
        // Nobody makes devices in a user namespace, and only the host's root may load a program that decides of them.
        let mut resources = resources;
        resources.set_devices(None);
        resources
    } else {
        with_default_devices(resources)
    };
    let holder = match driver {
        Driver::Cgroupfs => None,
        Driver::Systemd => Some(Holder::start().map_err(|error| fail(error.to_string()))?),
    };
    let held: Vec<i32> = holder.iter().map(|holder| holder.0.pid).collect();
    let group = driver.create(host()?, text, &resources, &held).map_err(|error| fail(error.to_string()))?;
    let mut taken = group.processes(true).map_err(|error| fail(error.to_string()))?;
    taken.retain(|pid| !held.contains(pid));
    if !taken.is_empty() {
        return Err(fail(format!("has {} processes already", taken.len()))
            .remedy("choose another linux.cgroupsPath, or end what runs there"));
    }
    match group.apply_made(&resources) {
        Ok(told) => warnings.extend(told.into_iter().map(as_ours)),
        Err(error) => {
            drop(holder);
            let _ = group.delete(REMOVE_WAIT);
            return Err(fail(error.to_string()));
        }
    }
    if quota == Quota::Later && scarce(linux, driver).is_some() {
        let mut none = LinuxCpu::default();
        none.set_quota(Some(-1));
        // It was possible, and can be set again; where it cannot be lifted, building takes longer.
        let _ = group.apply_made(&only(none));
    }
    Ok((group, holder))
}

/// Gives the group the quota that [`create`] lifted.
pub(crate) fn ration(group: &Cgroup, driver: Driver, linux: &Linux) -> Result<(), Failure> {
    let Some(quota) = scarce(linux, driver) else { return Ok(()) };
    let given = group.apply_made(&only(quota)).map(drop);
    given.map_err(|error| Failure::new(Stage::Cgroup, group.path().to_string(), error))
}

/// The quota, if it is less than one processor; what systemd was told of a scope is left as it is.
fn scarce(linux: &Linux, driver: Driver) -> Option<LinuxCpu> {
    let cpu = linux.resources().as_ref()?.cpu().as_ref()?;
    let period = cpu.period().filter(|period| *period != 0).unwrap_or(USUAL_PERIOD);
    let is_scarce = cpu.quota().is_some_and(|quota| quota > 0 && quota.unsigned_abs() < period);
    let mut quota = LinuxCpu::default();
    quota.set_quota(cpu.quota()).set_period(cpu.period()).set_burst(cpu.burst());
    (is_scarce && driver == Driver::Cgroupfs).then_some(quota)
}

/// The kernel's, in microseconds.
const USUAL_PERIOD: u64 = 100_000;

fn only(cpu: LinuxCpu) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_cpu(Some(cpu));
    resources
}

fn as_ours(told: cgroup::Warning) -> Warning {
    Warning { stage: Stage::Cgroup, message: format!("{}: {}", told.field, told.why) }
}

/// A process that is in a scope of systemd, which cannot be without one, until the container's own is. It ends with this value.
#[derive(Debug)]
pub(crate) struct Holder(sys::process::Child);

impl Holder {
    fn start() -> io::Result<Holder> {
        sys::process::clone_idle(0).map(Holder)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill_and_reap();
    }
}

/// As [`create`], for a process that may not be allowed to: then there is no group, if nothing is to be limited.
pub(crate) fn create_if_allowed(
    path: &Path,
    driver: Driver,
    linux: &Linux,
    warnings: &mut Vec<Warning>,
) -> Result<(Option<Cgroup>, Option<Holder>), Failure> {
    let failure = match create(path, driver, linux, Quota::Later, warnings) {
        Ok((group, holder)) => return Ok((Some(group), holder)),
        Err(failure) => failure,
    };
    let mut limits = linux.resources().clone().unwrap_or_default();
    limits.set_devices(None);
    if limits != LinuxResources::default()
        && serde_json::to_value(&limits).is_ok_and(|limits| limits != serde_json::json!({}))
    {
        return Err(failure.remedy("without a cgroup nothing can be limited: leave linux.resources out"));
    }
    let message =
        format!("there is none, so that the container can be neither paused nor measured: {failure}");
    warnings.push(Warning { stage: Stage::Cgroup, message });
    Ok((None, None))
}

/// What init of a container in the group `path` has to know.
pub(crate) fn view(path: &Path) -> Result<View, Failure> {
    let version = match host()?.mode() {
        Mode::V2 => Version::V2,
        Mode::V1 | Mode::Hybrid => Version::V1,
    };
    Ok(View { version, path: path.display().to_string() })
}

/// `linux.cgroupsPath`, or a group named after the container.
pub(crate) fn path_of(linux: &Linux, id: &str, driver: Driver) -> Result<PathBuf, Failure> {
    let given = linux.cgroups_path().as_ref().map(|path| path.display().to_string());
    let given = given.filter(|path| !path.is_empty()).unwrap_or_else(|| match driver {
        Driver::Cgroupfs => format!("/pintle-{id}"),
        Driver::Systemd => format!(":pintle:{id}"),
    });
    let path = match driver {
        Driver::Cgroupfs => driver.path(&given),
        // An ordinary user's container is a unit of that user's own systemd.
        Driver::Systemd => cgroup::systemd::place_of(cgroup::systemd::manager(), &given),
    };
    path.map(PathBuf::from).map_err(|error| Failure::new(Stage::Cgroup, given, error))
}

/// A container may always use the default devices, its terminals, and make nodes of any device (which it then cannot open). Without
/// any rule, everything else is denied.
fn with_default_devices(mut resources: LinuxResources) -> LinuxResources {
    use LinuxDeviceType::{A, B, C};
    let rule = |allow, kind, major: Option<i64>, minor: Option<i64>, access: &str| {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(allow).set_typ(Some(kind)).set_major(major).set_minor(minor);
        rule.set_access(Some(access.to_string()));
        rule
    };
    let mut rules = resources.devices().clone().unwrap_or_default();
    if rules.is_empty() {
        rules.push(rule(false, A, None, None, "rwm"));
    }
    rules.push(rule(true, C, None, None, "m"));
    rules.push(rule(true, B, None, None, "m"));
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
        rules.push(rule(true, C, Some(major), Some(minor), "rwm"));
    }
    rules.push(rule(true, C, Some(136), None, "rwm"));
    resources.set_devices(Some(rules));
    resources
}

/// The group of a container, or `None` if it has none or it is gone.
pub(crate) fn open(record: &Record) -> Result<Option<Cgroup>, Failure> {
    let Some(path) = &record.cgroup else { return Ok(None) };
    let text = path.display().to_string();
    match host()?.open(&text) {
        Ok(group) => Ok(Some(group)),
        Err(cgroup::CgroupError::NotFound { .. }) => Ok(None),
        Err(error) => Err(Failure::new(Stage::Cgroup, text, error)),
    }
}

/// A group below the container's, which exists.
pub(crate) fn below(record: &Record, below: &str) -> Result<Cgroup, Failure> {
    let fail =
        |cause: &str| Failure::new(Stage::Cgroup, format!("cgroup {below:?} below the container's"), cause);
    let own = record.cgroup.as_ref().ok_or_else(|| fail("the container has no cgroup"))?;
    let inside = Path::new(below.trim_start_matches('/'));
    if inside.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(fail("bad sub cgroup path: it is not one of plain names"));
    }
    let text = own.join(inside).display().to_string();
    host()?.open(&text).map_err(|error| fail(&error.to_string()))
}

pub(crate) fn is_frozen(record: &Record) -> bool {
    matches!(open(record), Ok(Some(group)) if group.is_frozen().unwrap_or(false))
}

pub(crate) fn thaw(record: &Record) -> io::Result<()> {
    match open(record).map_err(io::Error::other)? {
        Some(group) => group.thaw().map_err(io::Error::other),
        None => Ok(()),
    }
}

/// Sends a signal to every process of the container, also to those forked meanwhile if it is SIGKILL; how many there were.
pub(crate) fn signal_all(record: &Record, signal: i32) -> io::Result<usize> {
    let Some(group) = open(record).map_err(io::Error::other)? else { return Ok(0) };
    let found = group.processes(true).map_err(io::Error::other)?;
    if signal == rustix::process::Signal::KILL.as_raw() {
        group.kill_all(REMOVE_WAIT).map_err(io::Error::other)?;
        return Ok(found.len());
    }
    let number = crate::kill::named(signal).ok_or(io::ErrorKind::InvalidInput)?;
    for pid in &found {
        let Some(pid) = rustix::process::Pid::from_raw(*pid) else { continue };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else {
            continue;
        };
        // The number may have been given to another process since it was read from the group: look again, now that it is held.
        if group.processes(true).map_err(io::Error::other)?.binary_search(&pid.as_raw_nonzero().get()).is_ok()
        {
            let _ = rustix::process::pidfd_send_signal(&pidfd, number);
        }
    }
    Ok(found.len())
}

pub(crate) fn remove(record: &Record) -> Result<(), Failure> {
    match open(record)? {
        Some(group) => delete(&group),
        None => Ok(()),
    }
}

/// Kills what is in the group and removes it.
pub(crate) fn delete(group: &Cgroup) -> Result<(), Failure> {
    let fail = |error: cgroup::CgroupError| Failure::new(Stage::Cgroup, group.path().to_string(), error);
    group.kill_all(REMOVE_WAIT).map_err(fail)?;
    group.delete(REMOVE_WAIT).map_err(fail)
}

/// Freezes all processes of the container.
///
/// # Errors
/// It is stopped, or does not freeze in time.
pub fn pause(state_root: &Path, id: &str) -> Result<(), UpdateError> {
    with_group(state_root, id, |group| group.freeze(FREEZE_WAIT))
}

/// Thaws all processes of the container.
///
/// # Errors
/// It is stopped.
pub fn resume(state_root: &Path, id: &str) -> Result<(), UpdateError> {
    with_group(state_root, id, Cgroup::thaw)
}

/// The pids of all processes of the container, as the caller's pid namespace numbers them.
///
/// # Errors
/// No such container, or its group cannot be read.
pub fn processes(state_root: &Path, id: &str) -> Result<Vec<i32>, UpdateError> {
    let record = Folder::open(state_root, id)?.read()?;
    let failed = |failure| UpdateError::Failed { id: id.into(), failure: Box::new(failure) };
    match open(&record).map_err(failed)? {
        None => Ok(Vec::new()),
        Some(group) => group
            .processes(true)
            .map_err(|error| failed(Failure::new(Stage::Cgroup, group.path().to_string(), error))),
    }
}

/// What the container uses.
///
/// # Errors
/// No such container, it is stopped, or its group cannot be read.
pub fn stats(state_root: &Path, id: &str) -> Result<cgroup::Stats, UpdateError> {
    with_group(state_root, id, Cgroup::stats)
}

/// Does something with the group of a container that is alive.
pub(crate) fn with_group<T, E: ToString>(
    state_root: &Path,
    id: &str,
    action: impl FnOnce(&Cgroup) -> Result<T, E>,
) -> Result<T, UpdateError> {
    let folder = Folder::open(state_root, id)?;
    let failed = |failure| UpdateError::Failed { id: id.into(), failure: Box::new(failure) };
    folder.lock().map_err(|error| failed(Failure::io(Stage::State, "lock", &error)))?;
    let record = folder.read()?;
    let now = status(&folder, &record).map_err(|error| failed(Failure::io(Stage::State, "init", &error)))?;
    match open(&record).map_err(failed)? {
        Some(group) if now != Status::Stopped => action(&group)
            .map_err(|error| failed(Failure::new(Stage::Cgroup, group.path().to_string(), error))),
        _ => Err(UpdateError::Stopped { id: id.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_read_as_its_driver_has_it() {
        let linux = |path: &str| {
            let mut linux = Linux::default();
            linux.set_cgroups_path(Some(path.into()));
            linux
        };
        let systemd = |path: &str| path_of(&linux(path), "c", Driver::Systemd);
        assert_eq!(systemd("a-b.slice:cri:abc").unwrap(), Path::new("/a.slice/a-b.slice/cri-abc.scope"));
        assert_eq!(systemd("").unwrap(), Path::new("/system.slice/pintle-c.scope"));
        assert!(systemd("/a/b").unwrap_err().to_string().contains("slice:prefix:name"));
        let cgroupfs = |path: &str| path_of(&linux(path), "c", Driver::Cgroupfs).unwrap();
        assert_eq!((cgroupfs("a/b"), cgroupfs("")), ("/a/b".into(), "/pintle-c".into()));
    }
}
