//! CRIU: the program that writes the state of processes into files and makes processes of such files.
//!
//! It is driven as runc drives it, by `criu swrk` and messages over a socket. It runs inside the namespaces that a container shares with
//! its pod: what CRIU and the processes have in common it neither saves nor makes anew (criu(8)), so that restored processes find
//! themselves in the namespaces of the pod that restores them.

mod external;
mod messages;
mod session;

pub(crate) use external::{External, Origin, Saved, find, read_saved, write_saved};
pub(crate) use messages::{InheritFd, Options, PIDS, PRE_RESUME, SETUP_NAMESPACES, TERMINAL};
pub(crate) use session::{Notice, Session, with_log};

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What else CRIU can be asked for, in its words (criu(8)); nothing of it by default.
#[derive(Debug, Default, Clone, Copy)]
pub struct CriuOptions<'a> {
    /// The images of an earlier dump of memory, relative to the images of this one.
    pub parent: Option<&'a str>,
    /// Memory only, while the container goes on; a later checkpoint takes it as its parent.
    pub memory_only: bool,
    /// Address and port of a page server that keeps the memory.
    pub page_server: Option<(&'a str, u16)>,
    /// Memory follows when it is touched.
    pub lazy_pages: bool,
    /// The number of a descriptor that tells when memory can be asked for.
    pub status_fd: Option<i32>,
    /// Memory that a later image has too is taken out of the parent's.
    pub auto_dedup: bool,
    /// The network namespace is made without what was in it.
    pub empty_network: bool,
    /// Connections that are being opened are left out.
    pub tcp_skip_in_flight: bool,
    /// Another security profile than the saved one, as `TYPE:NAME`.
    pub lsm_profile: Option<&'a str>,
    /// Another context of mounts than the saved one.
    pub lsm_mount_context: Option<&'a str>,
}

impl CriuOptions<'_> {
    /// Puts what is asked for into a request.
    pub(crate) fn ask(&self, options: &mut Options) {
        const NETWORK: u32 = 0x4000_0000;
        let yes = |wish: bool| wish.then_some(true);
        options.parent_img = self.parent.map(str::to_owned);
        options.track_mem = yes(self.memory_only);
        options.ps = self.page_server.map(|(address, port)| messages::PageServer {
            address: Some(address.into()),
            port: Some(port.into()),
        });
        options.lazy_pages = yes(self.lazy_pages);
        options.status_fd = self.status_fd;
        options.auto_dedup = yes(self.auto_dedup);
        options.empty_ns = self.empty_network.then_some(NETWORK);
        options.tcp_skip_in_flight = yes(self.tcp_skip_in_flight);
        options.lsm_profile = self.lsm_profile.map(str::to_owned);
        options.lsm_mount_context = self.lsm_mount_context.map(str::to_owned);
    }
}

/// How long `criu check` may take.
const CHECK: Duration = Duration::from_secs(20);

/// The program as an absolute path: a name without a slash is looked for where programs are.
pub fn locate(name: &Path) -> PathBuf {
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).unwrap_or_else(|_| name.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(std::env::split_paths(session::PATH));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// Whether `criu` can be executed and says that this kernel has what it needs.
///
/// # Errors
/// What it says, or why it could not be asked, as a sentence that goes on with what to do.
pub fn check(criu: &Path) -> Result<(), String> {
    let name = criu.display();
    let mut child = Command::new(criu)
        .arg("check")
        .env_clear()
        .env("PATH", session::PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!(
                "there is no program {name}; install CRIU 3.17 or later (package criu), or set checkpoint.criu to where it is"
            ),
            _ => format!("{name} cannot be executed: {error}"),
        })?;
    let deadline = Instant::now() + CHECK;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{name} check did not end within {CHECK:?}"));
            }
            Err(error) => return Err(format!("{name} check: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = std::io::Read::read_to_string(&mut std::io::Read::take(stderr, 1 << 16), &mut said);
    }
    let first = said.lines().find(|line| line.contains("Error")).unwrap_or("it gives no reason").trim();
    Err(format!(
        "{name} check fails: {first}; this kernel lacks what CRIU needs, or the version of CRIU is too old for it"
    ))
}
