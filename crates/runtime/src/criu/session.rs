//! One run of `criu swrk`: started in a process that is prepared for it, asked one thing, answered where it asks back.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use prost::Message;
use sys::process::{Child, Cloned};

use super::messages::{Kind, Options, Request, Response};
use crate::channel::{Channel, Report};
use crate::error::{At, Failure, Stage};

/// CRIU calls `tar` and, for some sockets, `nft` or `iptables`.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A log's end that is searched for the reason of a failure.
const LOG_TAIL: u64 = 256 << 10;

/// How long CRIU may take to end once it has answered.
const ENDING_MILLIS: u64 = 5000;

/// A running CRIU. It ends with this process at the latest.
#[derive(Debug)]
pub(crate) struct Session {
    socket: OwnedFd,
    child: Child,
}

/// What CRIU tells while it works.
#[derive(Debug)]
pub(crate) struct Notice {
    /// The moment, by CRIU's name for it.
    pub(crate) what: String,
    /// The first process, as this process's pid namespace numbers it; 0 where it is not known yet.
    pub(crate) pid: i32,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// CRIU itself.
    pub(crate) criu: i32,
}

impl Session {
    /// Starts CRIU in a process that does `prepare` first. The caller must have one thread.
    pub(crate) fn start(
        criu: &Path,
        prepare: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<Session, Failure> {
        let (socket, theirs) = sys::socket::packet_pair().at(Stage::Criu, || "socket pair")?;
        let (channel, word) = Channel::pair()?;
        match sys::process::clone_process(0, None).at(Stage::Criu, || "its process")? {
            Cloned::Child => {
                drop((socket, channel));
                let failure = match prepare().and_then(|()| become_criu(criu, &theirs)) {
                    Ok(never) => match never {},
                    Err(failure) => failure,
                };
                let _ = word.report(&Report::Failed(failure));
                sys::process::exit_now(1)
            }
            Cloned::Parent(child) => {
                drop((theirs, word));
                let session = Session { socket, child };
                match channel.next_report()? {
                    Some(Report::Failed(failure)) => Err(failure),
                    _ => Ok(session),
                }
            }
        }
    }

    /// Has the processes saved, or their memory only.
    ///
    /// # Errors
    /// What CRIU says; that it took longer than `deadline`, after which it was killed and the processes go on.
    pub(crate) fn dump(
        self,
        memory_only: bool,
        options: Options,
        deadline: Option<Instant>,
    ) -> Result<(), Failure> {
        let kind = if memory_only { Kind::PreDump } else { Kind::Dump };
        self.ask(kind, options, deadline, |_| Ok(())).map(drop)
    }

    /// Has processes made of what was saved; `notice` is asked at each moment that CRIU tells of. The first process's pid.
    pub(crate) fn restore(
        self,
        options: Options,
        deadline: Option<Instant>,
        notice: impl FnMut(Notice) -> Result<(), Failure>,
    ) -> Result<i32, Failure> {
        let response = self.ask(Kind::Restore, options, deadline, notice)?;
        response
            .restore
            .map(|restored| restored.pid)
            .ok_or_else(|| Failure::new(Stage::Criu, "its answer", "does not name the process"))
    }

    fn ask(
        self,
        kind: Kind,
        options: Options,
        deadline: Option<Instant>,
        mut notice: impl FnMut(Notice) -> Result<(), Failure>,
    ) -> Result<Response, Failure> {
        self.send(&Request { kind: kind as i32, opts: Some(options), notify_success: None })?;
        let mut refused = None;
        loop {
            self.wait_readable(deadline)?;
            let (mut response, descriptors) = self.receive()?;
            let asked = response.notify.take().filter(|_| response.kind == Kind::Notify as i32);
            let Some(asked) = asked else {
                if let Some(failure) = refused {
                    return Err(failure);
                }
                // It has nothing more to do than to end.
                let _ = sys::process::wait_for_end(self.child.pidfd.as_fd(), ENDING_MILLIS);
                return if response.success { Ok(response) } else { Err(refusal(kind, &response)) };
            };
            let told = notice(Notice {
                what: asked.script.unwrap_or_default(),
                pid: asked.pid.unwrap_or(0),
                descriptors,
                criu: self.child.pid,
            });
            let success = told.is_ok();
            refused = refused.or(told.err());
            self.send(&Request { kind: Kind::Notify as i32, opts: None, notify_success: Some(success) })?;
        }
    }

    fn send(&self, request: &Request) -> Result<(), Failure> {
        sys::socket::send(self.socket.as_fd(), &request.encode_to_vec(), &[])
            .at(Stage::Criu, || "sending a request")
    }

    fn receive(&self) -> Result<(Response, Vec<OwnedFd>), Failure> {
        let mut buffer = [0; 16 << 10];
        let (length, descriptors) =
            sys::socket::receive(self.socket.as_fd(), &mut buffer).at(Stage::Criu, || "its answer")?;
        if length == 0 {
            return Err(Failure::new(Stage::Criu, "CRIU", "ended without an answer"));
        }
        let response = Response::decode(&buffer[..length])
            .map_err(|error| Failure::new(Stage::Criu, "its answer", error))?;
        Ok((response, descriptors))
    }

    fn wait_readable(&self, deadline: Option<Instant>) -> Result<(), Failure> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let left = left
                .map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], left.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Failure::io(Stage::Criu, "waiting for it", &error.into())),
                Ok(0) => {
                    return Err(Failure::new(Stage::Deadline, "CRIU", "did not finish in time"));
                }
                Ok(_) => return Ok(()),
            }
        }
    }
}

impl Drop for Session {
    /// A dead CRIU lets go of what it traced, and what it had injected into a process returns to where the process was.
    fn drop(&mut self) {
        self.child.kill_and_reap();
    }
}

enum Never {}

fn become_criu(criu: &Path, socket: &OwnedFd) -> Result<Never, Failure> {
    use std::os::fd::AsRawFd;
    let object = || criu.display().to_string();
    sys::signal::reset_all().at(Stage::Criu, || "signals")?;
    let kill = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(kill).at(Stage::Criu, || "death signal")?;
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).at(Stage::Criu, || "its socket")?;
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Failure::new(Stage::Criu, object(), "holds a NUL byte"))
    };
    let program = text(criu.as_os_str().as_bytes())?;
    let number = text(socket.as_raw_fd().to_string().as_bytes())?;
    let arguments = [program.clone(), c"swrk".into(), number];
    let environment = [text(format!("PATH={PATH}").as_bytes())?];
    let error = sys::process::exec(&program, &arguments, &environment);
    Err(Failure::io(Stage::Criu, object(), &error))
}

fn refusal(kind: Kind, response: &Response) -> Failure {
    let what = match kind {
        Kind::Dump | Kind::PreDump => "saving the processes",
        Kind::Restore | Kind::Notify => "restoring the processes",
    };
    let why = response.cr_errmsg.as_deref().map(str::trim).filter(|why| !why.is_empty());
    let number = response.cr_errno.filter(|number| *number != 0);
    let why = match (why, number) {
        (Some(why), _) => why.to_owned(),
        (None, Some(number)) => std::io::Error::from_raw_os_error(number).to_string(),
        (None, None) => "failed".into(),
    };
    Failure { errno: number, ..Failure::new(Stage::Criu, what, why) }
}

/// Adds the first error that CRIU wrote to its log to a failure that is CRIU's.
pub(crate) fn with_log(failure: Failure, log: &Path) -> Failure {
    use std::io::{Read, Seek, SeekFrom};
    if failure.stage != Stage::Criu {
        return failure;
    }
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    // What CRIU could not do for itself, and that it failed after it said why, tells nobody anything.
    let idle = ["rlimit:", "tun: Unable to create", "Dumping FAILED", "Restoring FAILED"];
    let errors: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once("Error (").and_then(|(_, rest)| rest.split_once("): ")))
        .map(|(_, what)| what.trim())
        .filter(|what| !idle.iter().any(|word| what.starts_with(word)))
        .take(3)
        .collect();
    if errors.is_empty() {
        return failure;
    }
    Failure { cause: errors.join("; "), ..failure }
}
