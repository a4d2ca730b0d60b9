//! From a fresh process to a pod's shim: reads the configuration, makes the pod's namespaces, listens.

mod pid_init;
mod sysctl;
mod users;

use crate::config::{
    CONFIG_VERSION, MAX_CONFIG_BYTES, NamespaceMode, PidMode, PodUsers, ShimConfig, ShimRecord, record_path,
    socket_path,
};
use crate::messages::{info, set_level, warning};
use crate::protocol::ErrorCode;
use rustix::fs::{Mode, OFlags};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::process::Child;

/// The pod that this process is the shim of.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) config: ShimConfig,
    pub(crate) listener: OwnedFd,
    /// First process of the pod's pid namespace, if the pod has one.
    pub(crate) pid_init: Option<Child>,
    /// The pod's user namespace, if it has users of its own.
    pub(crate) users: Option<OwnedFd>,
}

/// Which step of the setup failed, and why.
#[derive(Debug, thiserror::Error)]
#[error("the pod cannot be set up, at {stage}: {cause}")]
pub(crate) struct SetupError {
    pub(crate) code: ErrorCode,
    pub(crate) stage: Cow<'static, str>,
    pub(crate) cause: String,
}

trait At<T> {
    fn at(self, stage: &'static str) -> Result<T, SetupError>;
}

impl<T, E: Display> At<T> for Result<T, E> {
    fn at(self, stage: &'static str) -> Result<T, SetupError> {
        self.map_err(|cause| SetupError {
            code: ErrorCode::SetupFailed,
            stage: stage.into(),
            cause: cause.to_string(),
        })
    }
}

/// Takes the first connection, which is standard output, and lets go of everything else that was inherited.
pub(crate) fn first_connection() -> io::Result<OwnedFd> {
    sys::parent::close_all_except(&[])?;
    let connection = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    rustix::net::sockopt::socket_type(&connection)?;
    rustix::stdio::dup2_stdout(null()?)?;
    rustix::io::ioctl_fionbio(&connection, true)?;
    Ok(connection)
}

/// Does everything up to listening.
pub(crate) fn set_up() -> Result<Pod, SetupError> {
    let mut config = read_config()?;
    set_level(config.log_level);
    cgroup::tell_mounts(std::mem::take(&mut config.cgroup_mounts));
    become_parent(&config)?;
    let (users, pid_init) = make_namespaces(&config)?;
    if config.foreign.is_some() {
        crate::foreign::prepare(&config.pod_dir).at("root file systems")?;
    }
    let listener = listen(&config.pod_dir).at("socket")?;
    write_record(&config.pod_dir).at("record")?;
    info!("pod {} is set up", config.pod_id);
    Ok(Pod { config, listener, pid_init, users })
}

fn null() -> rustix::io::Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn read_config() -> Result<ShimConfig, SetupError> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).at("configuration")?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(format!("it is longer than {MAX_CONFIG_BYTES} bytes")).at("configuration");
    }
    let config: ShimConfig = serde_json::from_slice(&bytes).at("configuration")?;
    if config.version == 0 || config.version > CONFIG_VERSION {
        let why = format!("it is of version {}, this shim knows up to {CONFIG_VERSION}", config.version);
        return Err(why).at("configuration");
    }
    if !config.pod_dir.is_absolute() {
        return Err(format!("the pod's folder {:?} is not absolute", config.pod_dir)).at("configuration");
    }
    null().and_then(rustix::stdio::dup2_stdin).at("standard input")?;
    Ok(config)
}

fn become_parent(config: &ShimConfig) -> Result<(), SetupError> {
    let _ = rustix::thread::set_name(c"pintle-shim");
    // Only fails for a process that leads a group already, as one does that was started from a shell.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at("subreaper")?;
    sys::process::set_dumpable(false).at("dumpable")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir("/").at("working directory")?;
    if let Some(score) = config.oom_score_adj {
        // Lowering it needs CAP_SYS_RESOURCE, which a shim can live without.
        if let Err(cause) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
            warning!("oom_score_adj stays as it is, {score} was refused: {cause}");
        }
    }
    Ok(())
}

/// Makes the pod's namespaces and enters those that a shim can be in; the user namespace and the first of the pid namespace, if any.
fn make_namespaces(config: &ShimConfig) -> Result<(Option<OwnedFd>, Option<Child>), SetupError> {
    let modes = config.namespaces;
    let shared = users::shared_kinds(config);
    let (users, pid_init) = match &config.users {
        Some(PodUsers { uids, gids }) => {
            let inside = users::make(config, uids, gids, shared)?;
            (Some(inside.namespace), inside.pid_init)
        }
        None => {
            if shared != 0 {
                sys::namespace::leave(shared).at("namespaces")?;
            }
            sysctl::apply(config)?;
            let own = modes.pid == PidMode::Pod;
            (None, own.then(|| pid_init::start(config.selinux.as_ref())).transpose().at("pid namespace")?)
        }
    };
    if modes.uts == NamespaceMode::New {
        rustix::system::sethostname(config.hostname.as_bytes()).at("host name")?;
        if let Some(domain) = &config.domainname {
            rustix::system::setdomainname(domain.as_bytes()).at("domain name")?;
        }
    }
    Ok((users, pid_init))
}

/// Listens on the pod's socket. What an earlier shim left is removed, a living one is not displaced.
fn listen(pod_dir: &Path) -> io::Result<OwnedFd> {
    let path = socket_path(pod_dir);
    let name = path.file_name().unwrap_or(OsStr::new("shim.sock"));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(pod_dir, flags, Mode::empty())?;
    let listen = || sys::socket::listen_in(directory.as_fd(), name, 64);
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let listener = listen().or_else(|error| {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        if sys::socket::connect_in(directory.as_fd(), name).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another shim serves this pod"));
        }
        rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty())?;
        listen()
    });
    rustix::process::umask(before);
    let listener = listener?;
    rustix::io::ioctl_fionbio(&listener, true)?;
    Ok(listener)
}

fn write_record(pod_dir: &Path) -> io::Result<()> {
    let pid = std::process::id();
    let start_time = sys::process::start_time(pid.cast_signed())?;
    let record = serde_json::to_vec(&ShimRecord { version: 1, pid, start_time })?;
    sys::file::write_atomic(&record_path(pod_dir), &record, 0o600, sys::file::Durability::Process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogLevel;

    #[test]
    fn a_living_shim_is_not_displaced_and_a_dead_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let first = listen(folder.path()).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(socket_path(folder.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(listen(folder.path()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(folder.path()).unwrap();
    }

    #[test]
    fn levels_are_ordered_from_grave_to_chatty() {
        assert!(LogLevel::Error < LogLevel::Warn && LogLevel::Info < LogLevel::Debug);
    }
}
