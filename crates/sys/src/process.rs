//! Processes: clone3 of a single-threaded process, exec, identity that survives reuse of a pid, scheduling and dumpability.

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, WaitId, WaitIdOptions};

/// `CLONE_PARENT`: the child becomes a sibling of its maker.
pub const CLONE_PARENT: u64 = libc::CLONE_PARENT as u64;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a [`clone_process`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The maker, with the child's pid as seen from here and a descriptor of it.
    Parent(Child),
    /// The new process, with a copy of the memory.
    Child,
}

/// A process made by [`clone_process`].
#[derive(Debug)]
pub struct Child {
    /// Its pid in the maker's pid namespace.
    pub pid: i32,
    /// Its pidfd: names this process also after its pid was given to another.
    pub pidfd: OwnedFd,
}

impl Child {
    /// Sends SIGKILL and reaps the child; a child that is gone already is no error.
    pub fn kill_and_reap(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = self.wait();
    }

    /// Waits for the child's end, see [`wait_child`].
    pub fn wait(&self) -> io::Result<i32> {
        wait_child(self.pidfd.as_fd())
    }
}

/// Waits for the end of the child of `pidfd` and reaps it: its exit code, or 128 + signal number.
pub fn wait_child(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    loop {
        // A child made with CLONE_PARENT announces its end with no signal; `__WALL` waits for it too.
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WALL) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(None) => return Ok(0),
            Ok(Some(status)) => {
                return Ok(status
                    .exit_status()
                    .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0)));
            }
        }
    }
}

/// `__WALL` of waitid(2), which rustix does not name.
const WALL: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// clone3(2) without shared memory: as fork(2), with the namespaces of `flags` (`CLONE_NEW*`) and, on cgroup v2, directly inside the
/// cgroup whose directory is `cgroup`.
///
/// # Errors
/// `EBUSY` if this process has more than one thread, since the child would inherit locks held by threads it does not have; else the
/// kernel's.
pub fn clone_process(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    if !is_single_threaded()? {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    let sibling = flags & CLONE_PARENT != 0;
    let mut args = CloneArgs {
        flags,
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        ..CloneArgs::default()
    };
    if let Some(directory) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
    }
    // SAFETY: the check above upholds that no other thread's locks are copied in a held state.
    unsafe { clone3(args) }
}

/// Makes a process in the new namespaces of `flags` that does nothing until it is killed, or until the thread that made it ends. Unlike
/// with [`clone_process`] this process may have threads.
pub fn clone_idle(flags: u64) -> io::Result<Child> {
    let args = CloneArgs { flags, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    // SAFETY: the copy of a process with threads may have any lock held for ever. The child takes none and touches no memory but its
    // stack: it makes two system calls by their numbers and does not return.
    match unsafe { clone3(args)? } {
        Cloned::Parent(child) => Ok(child),
        Cloned::Child => loop {
            // SAFETY: neither call reads or writes memory.
            unsafe {
                libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
            }
        },
    }
}

/// clone3(2) with a pidfd of the child.
///
/// # Safety
/// If this process has threads, the child must not rely on anything that one of them may have been changing, such as the allocator.
unsafe fn clone3(mut args: CloneArgs) -> io::Result<Cloned> {
    let mut pidfd: c_int = -1;
    args.flags |= libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // SAFETY: args is a valid clone_args of the given size and pidfd outlives the call. Without CLONE_VM the child runs on a copy of this
    // stack.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel stored a new descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Child { pid: pid as i32, pidfd }))
        }
    }
}

/// Whether this process has one thread: a directory of tasks has two links and one for each task (proc_pid_task(5)).
pub fn is_single_threaded() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/task")?.st_nlink == 3)
}

/// execve(2); returns only if it failed.
pub fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: both arrays end with a null pointer and point to C strings which `arguments` and `environment` keep alive.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of the open file `program` itself (`AT_EMPTY_PATH`); returns only if it failed.
pub fn exec_descriptor(program: BorrowedFd<'_>, arguments: &[CString], environment: &[CString]) -> io::Error {
    let argv = pointers(arguments);
    let envp = pointers(environment);
    // SAFETY: as in `exec`; the descriptor is borrowed for the call and the path is an empty C string.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            envp.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Ends this process at once, without running destructors or flushing (`_exit(2)`).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

/// Marks every descriptor from `first` on as close-on-exec (close_range(2)), so that an exec closes all of them.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC closes nothing now, so that no descriptor owned elsewhere becomes invalid.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether each of the descriptors `first..first + count` is open and would stay open over an exec, as those do that the maker of this
/// process left for it to pass on; else the first that does not. Nothing that this program opens itself is ever such a one.
pub fn missing_to_inherit(first: i32, count: u32) -> Option<i32> {
    (first..first.saturating_add_unsigned(count)).find(|number| {
        // SAFETY: F_GETFD on a number reads a flag of whatever is open there; a closed number gives EBADF.
        let flags = unsafe { libc::fcntl(*number, libc::F_GETFD) };
        flags != 0
    })
}

/// Clears close-on-exec on the descriptors `first..first + count`, which the maker of this process left open for us to pass on.
///
/// # Errors
/// `EBADF` when one of them is not open.
pub fn inherit_descriptors(first: i32, count: u32) -> io::Result<()> {
    for number in first..first.saturating_add_unsigned(count) {
        // SAFETY: F_SETFD on a number changes a flag of whatever is open there and closes nothing; a closed number gives EBADF.
        if unsafe { libc::fcntl(number, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes this process (not) traceable and its /proc entries (not) its own (`PR_SET_DUMPABLE`, prctl(2)).
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    use rustix::process::DumpableBehavior::{Dumpable, NotDumpable};
    Ok(rustix::process::set_dumpable_behavior(if dumpable { Dumpable } else { NotDumpable })?)
}

/// When the process started, in clock ticks since boot: with the pid it names one process for ever (field 22 of proc_pid_stat(5)).
///
/// # Errors
/// `NotFound` if there is no such process; zombies are found.
pub fn start_time(pid: i32) -> io::Result<u64> {
    stat_fields(pid).map(|stat| stat.1)
}

/// 52 numbers and a name are not so long.
const LONGEST_STAT: u64 = 4096;

/// The state letter of proc_pid_stat(5) and the start time.
pub fn stat_fields(pid: i32) -> io::Result<(char, u64)> {
    let text = match crate::file::read(format!("/proc/{pid}/stat"), LONGEST_STAT) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(io::ErrorKind::NotFound.into()),
        other => other,
    }?;
    parse_stat(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

fn parse_stat(text: &[u8]) -> Option<(char, u64)> {
    // The name may hold spaces and parentheses: the fields are counted from the last ')'.
    let after = text.iter().rposition(|b| *b == b')')? + 1;
    let mut fields = std::str::from_utf8(&text[after..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A pidfd of `pid` if that is still the process which started at `start_time`, else `NotFound`.
pub fn open_pidfd(pid: i32, started: u64) -> io::Result<OwnedFd> {
    let number = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = match rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()) {
        // Older kernels say EINVAL for the number of a process that is gone while others are still in the group or session of that
        // number.
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Err(io::ErrorKind::NotFound.into()),
        other => other?,
    };
    // The check follows the open, so that the descriptor is of a process that was alive when its start time was read.
    if start_time(pid)? != started {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(pidfd)
}

/// Whether the process of `pidfd` has ended (a pidfd is readable then, also as a zombie).
pub fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    wait_for_end(pidfd, 0)
}

/// Waits at most `millis` for the end of the process of `pidfd`; whether it has ended.
pub fn wait_for_end(pidfd: BorrowedFd<'_>, millis: u64) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let deadline = std::time::Instant::now() + std::time::Duration::from_millis(millis);
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut set = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
        match poll(&mut set, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(ready) => return ready > 0,
            Err(_) => return false,
        }
    }
}

/// What sched_setattr(2) takes.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub struct SchedulerAttributes {
    /// Size of this structure; set by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// sched_setattr(2) for this process.
pub fn set_scheduler(mut attributes: SchedulerAttributes) -> io::Result<()> {
    attributes.size = size_of::<SchedulerAttributes>() as u32;
    // SAFETY: the structure is the first published version of sched_attr and says its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attributes, 0) })
}

/// ioprio_set(2) for this process; `class` is 1 (real time), 2 (best effort) or 3 (idle), `priority` 0 to 7.
pub fn set_io_priority(class: u32, priority: u32) -> io::Result<()> {
    const WHO_PROCESS: c_int = 1;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, (class << 13) | priority) })
}

/// personality(2).
pub fn set_personality(persona: u32) -> io::Result<()> {
    // SAFETY: plain number; persona changes how later execs see the machine and touches no memory of ours.
    check(unsafe { libc::personality(libc::c_ulong::from(persona)) }.into())
}

/// set_mempolicy(2): `mode` with its flags, and the set of NUMA nodes as a bit mask.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> io::Result<()> {
    let (pointer, bits) =
        if nodes.is_empty() { (std::ptr::null(), 0) } else { (nodes.as_ptr(), nodes.len() * 64 + 1) };
    // SAFETY: the mask is readable for bits - 1 bits (the kernel takes the number of bits plus one), or null with none.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
}

fn check(result: c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_parsed_behind_hostile_names() {
        let mut text = b"12 (a) R 9 (x) S 1".to_vec();
        for _ in 0..17 {
            text.extend_from_slice(b" 0");
        }
        text.extend_from_slice(b" 777 5\n");
        assert_eq!(parse_stat(&text), Some(('S', 777)));
        assert_eq!(parse_stat(b"12 (a"), None);
    }

    #[test]
    fn a_pid_with_another_start_time_is_not_found() {
        let pid = std::process::id() as i32;
        let started = start_time(pid).unwrap();
        assert!(!has_ended(open_pidfd(pid, started).unwrap().as_fd()));
        assert_eq!(open_pidfd(pid, started + 1).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_process_with_threads_is_not_cloned() {
        let (send, receive) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receive.recv());
        assert_eq!(clone_process(0, None).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        drop(send);
        let _ = thread.join();
    }

    #[test]
    fn a_process_whose_group_outlives_it_is_not_found() {
        use std::os::unix::process::CommandExt;
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "sleep 30 & exit 0"]).process_group(0);
        let mut shell = shell.stdout(std::process::Stdio::null()).spawn().unwrap();
        let pid = shell.id() as i32;
        shell.wait().unwrap();
        let found = open_pidfd(pid, 1).map_err(|error| error.kind());
        let group = Pid::from_raw(pid).unwrap();
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        assert_eq!(found.unwrap_err(), io::ErrorKind::NotFound);
    }
}
