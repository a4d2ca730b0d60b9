//! The container's seccomp filter: compiled once, kept beside the record for exec, loaded last of all.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};
use rustix::fs::{Mode, OFlags};

use crate::channel::Filter;
use crate::error::{At, Failure, Stage, Warning};
use crate::record::{Folder, Record, SECCOMP};

const TSYNC: u64 = 1;
const LOG: u64 = 2;
const SPEC_ALLOW: u64 = 4;
const LISTENER: u64 = 8;
const WAIT_KILLABLE: u64 = 16;

/// Compiles a profile. Names of calls that are unknown on this machine are warned of.
pub(crate) fn compile(profile: &LinuxSeccomp, warnings: &mut Vec<Warning>) -> Result<Filter, Failure> {
    let fail = |cause: String| Failure::new(Stage::Seccomp, "linux.seccomp", cause);
    let native = seccomp::Architecture::native()
        .ok_or_else(|| fail("filters cannot be compiled for this architecture".into()))?;
    let compiled = seccomp::compile(profile, native).map_err(|error| fail(error.to_string()))?;
    if !compiled.unknown.is_empty() {
        let message =
            format!("system calls unknown on this machine were left out: {}", compiled.unknown.join(", "));
        warnings.push(Warning { stage: Stage::Seccomp, message });
    }
    if compiled.listener {
        check_notify(profile)?;
    }
    let mut flags = 0;
    for (on, bit) in [
        (compiled.flags.tsync, TSYNC),
        (compiled.flags.log, LOG),
        (compiled.flags.spec_allow, SPEC_ALLOW),
        (compiled.flags.wait_killable, WAIT_KILLABLE),
        (compiled.listener, LISTENER),
    ] {
        flags |= if on { bit } else { 0 };
    }
    let program = compiled
        .instructions
        .iter()
        .flat_map(|i| {
            let [c0, c1] = i.code.to_ne_bytes();
            let [k0, k1, k2, k3] = i.k.to_ne_bytes();
            [c0, c1, i.jt, i.jf, k0, k1, k2, k3]
        })
        .collect();
    Ok(Filter { program, flags })
}

/// Notifying rules need a listener, and must not catch the calls that hand the listener over.
fn check_notify(profile: &LinuxSeccomp) -> Result<(), Failure> {
    let fail = |cause: &str| Err(Failure::new(Stage::Seccomp, "linux.seccomp", cause));
    if profile.listener_path().is_none() {
        return fail("a rule notifies (SCMP_ACT_NOTIFY) but there is no listenerPath");
    }
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return fail("SCMP_ACT_NOTIFY as default action would catch the calls that hand over the listener");
    }
    for rule in profile.syscalls().iter().flatten() {
        let own = ["sendmsg", "execve", "capset", "close"];
        if rule.action() == LinuxSeccompAction::ScmpActNotify
            && rule.names().iter().any(|n| own.contains(&n.as_str()))
        {
            return fail(
                "SCMP_ACT_NOTIFY on sendmsg, execve, capset or close would catch the runtime itself",
            );
        }
    }
    Ok(())
}

impl Filter {
    /// The same filter, loaded without asking for a listener: a second one is not possible, and init's is already watched.
    pub(crate) fn without_listener(&self) -> Filter {
        Filter { flags: self.flags & !LISTENER, ..self.clone() }
    }
}

/// Keeps the filter for exec.
pub(crate) fn save(folder: &Folder, filter: &Filter) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder.fd, SECCOMP, flags, Mode::from_raw_mode(0o600))?;
    std::io::Write::write_all(&mut std::fs::File::from(file), &filter.program)
}

/// The filter that create kept, if the container has one. A notifying filter is loaded without its listener, which init's holds.
pub(crate) fn read(folder: &Folder, record: &Record) -> Result<Option<Filter>, Failure> {
    let Some(flags) = record.seccomp_flags else { return Ok(None) };
    let file = rustix::fs::openat(&folder.fd, SECCOMP, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Stage::Seccomp, || SECCOMP)?;
    let mut program = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::from(file), 1 << 20), &mut program)
        .at(Stage::Seccomp, || SECCOMP)?;
    Ok(Some(Filter { program, flags }))
}

/// Loads the filter into this process. With a listener, sends it with `state` over `socket` (runtime-spec, "The Container Process
/// State").
pub(crate) fn load(filter: &Filter, listener: Option<(BorrowedFd<'_>, &[u8])>) -> Result<(), Failure> {
    let program: Vec<sys::seccomp::Instruction> = filter
        .program
        .chunks_exact(8)
        .map(|b| sys::seccomp::Instruction {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    let has = |bit| filter.flags & bit != 0;
    let flags = sys::seccomp::Flags {
        tsync: has(TSYNC),
        log: has(LOG),
        spec_allow: has(SPEC_ALLOW),
        new_listener: has(LISTENER),
        wait_killable: has(WAIT_KILLABLE) && has(LISTENER),
    };
    let made: Option<OwnedFd> =
        sys::seccomp::install(&program, flags).at(Stage::Seccomp, || "loading the filter")?;
    if let (Some(made), Some((socket, state))) = (made, listener) {
        sys::socket::send(socket, state, &[made.as_fd()])
            .at(Stage::Seccomp, || "sending the listener to linux.seccomp.listenerPath")?;
    }
    Ok(())
}
