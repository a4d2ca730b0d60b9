//! What strace(1) wrote: which calls were made when, and by which kind of process.

use std::collections::{BTreeMap, BTreeSet};

/// Waiting and memory: how often a thread waits is chance, and what an allocator asks of the kernel is its own affair.
const CHANCE: &[&str] = &[
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "futex",
    "wait4",
    "waitid",
    "nanosleep",
    "clock_nanosleep",
    "restart_syscall",
    "sched_yield",
    "rt_sigreturn",
    "mmap",
    "munmap",
    "mremap",
    "madvise",
    "mprotect",
    "brk",
];
const SYNCS: &[&str] = &["fsync", "fdatasync", "sync", "syncfs", "msync", "sync_file_range"];
const CLONES: &[&str] = &["clone", "clone3", "fork", "vfork"];

/// The calls of a daemon and of what it starts.
#[derive(Debug, Default)]
pub(crate) struct Trace(Vec<Call>);

#[derive(Debug)]
struct Call {
    at: f64,
    by: By,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Daemon,
    Pod,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Process,
    Program,
    Sync,
    Other,
}

/// What happened in a stretch of time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) processes: u64,
    pub(crate) programs: u64,
    pub(crate) syncs: u64,
    pub(crate) daemon: u64,
    pub(crate) pod: u64,
}

/// What is known of the processes while the lines are read.
#[derive(Debug, Default)]
struct Processes {
    /// The first process and its threads.
    daemon: BTreeSet<u32>,
    /// Those that execute once: what they do later is the container's own program.
    executing: BTreeSet<u32>,
    over: BTreeSet<u32>,
    /// The beginning of a call that another process's line came into.
    unfinished: BTreeMap<u32, (f64, String)>,
}

impl Trace {
    /// Reads the lines of `strace -f -ttt -y`; what is no call, such as the end of a process, is left out.
    pub(crate) fn parse(text: &str) -> Trace {
        let (mut known, mut calls) = (Processes::default(), Vec::new());
        for line in text.lines() {
            if let Some((pid, at, call)) = known.whole(line) {
                calls.extend(known.understand(pid, at, &call));
            }
        }
        Trace(calls)
    }

    /// What was called from one moment to another, both in seconds since 1970.
    pub(crate) fn between(&self, from: f64, to: f64) -> Counts {
        let mut counts = Counts::default();
        for call in self.0.iter().filter(|call| (from..to).contains(&call.at)) {
            match call.kind {
                Kind::Process => counts.processes += 1,
                Kind::Program => counts.programs += 1,
                Kind::Sync => counts.syncs += 1,
                Kind::Other => {}
            }
            match call.by {
                By::Daemon => counts.daemon += 1,
                By::Pod => counts.pod += 1,
            }
        }
        counts
    }
}

impl Processes {
    /// A call from its name to its result, as soon as its last line has come.
    fn whole(&mut self, line: &str) -> Option<(u32, f64, String)> {
        let (pid, rest) = line.split_once(char::is_whitespace)?;
        let (at, rest) = rest.trim_start().split_once(' ')?;
        let (pid, at): (u32, f64) = (pid.parse().ok()?, at.parse().ok()?);
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            self.unfinished.insert(pid, (at, begun.to_owned()));
            return None;
        }
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, end) = resumed.split_once(" resumed>")?;
            let (at, begun) = self.unfinished.remove(&pid)?;
            return Some((pid, at, begun + end));
        }
        Some((pid, at, rest.to_owned()))
    }

    fn understand(&mut self, pid: u32, at: f64, call: &str) -> Option<Call> {
        let (name, arguments) = call.split_once('(')?;
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return None;
        }
        if self.daemon.is_empty() {
            self.daemon.insert(pid);
        }
        let by = if self.daemon.contains(&pid) { By::Daemon } else { By::Pod };
        if self.over.contains(&pid) {
            return None;
        }
        let result = arguments.rsplit_once(" = ").map(|(_, result)| result.trim());
        let succeeded = result.is_some_and(|result| !result.starts_with('-') && !result.starts_with('?'));
        let mut kind = Kind::Other;
        if CLONES.contains(&name) {
            let child = result.and_then(|result| result.split_whitespace().next()?.parse().ok())?;
            if arguments.contains("CLONE_THREAD") {
                // How many threads the daemon has at a time is chance.
                if by == By::Daemon {
                    self.daemon.insert(child);
                }
                return None;
            }
            kind = Kind::Process;
            if by == By::Pod {
                self.executing.insert(child);
            }
        } else if name == "execve" || name == "execveat" {
            // The daemon's own is the first line of all.
            kind = if succeeded { Kind::Program } else { Kind::Other };
            if succeeded && self.executing.contains(&pid) {
                self.over.insert(pid);
            }
        } else if SYNCS.contains(&name) {
            kind = Kind::Sync;
        } else if CHANCE.contains(&name)
            || call.contains("anon_inode:[eventfd]")
            || result.is_some_and(|result| result.contains("EAGAIN"))
        {
            return None;
        }
        Some(Call { at, by, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"10 100.000001 execve("/bin/pintle", ["pintle", "serve"], 0x7ffe /* 9 vars */) = 0
10 100.100000 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_FS|CLONE_SIGHAND|CLONE_THREAD, parent_tid=[11]) = 11
11 101.000000 openat(AT_FDCWD</>, "a = b (x", O_RDONLY) = 5</a>
11 101.000002 write(4<anon_inode:[eventfd]>, "\1", 8) = 8
11 101.000003 recvfrom(9<UNIX-STREAM:[1]>, 0x7f, 8192, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)
11 101.000004 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88 <unfinished ...>
12 101.000005 execve("/proc/self/fd/18", ["pintle-shim"], 0x7f /* 0 vars */) = 0
11 101.000006 <... clone3 resumed>) = 12
12 101.000007 clone3({flags=CLONE_PIDFD, exit_signal=SIGCHLD} => {pidfd=[15<pid:13>]}, 88) = 13
13 101.000008 fsync(3</x>) = 0
13 101.000009 epoll_wait(3, [], 1, 0) = 0
13 101.000010 execve("/bin/sleep", ["sleep"], 0x7f /* 1 var */) = 0
13 101.000011 getuid() = 0
13 101.000012 +++ exited with 0 +++
12 102.000000 close(3</x>) = 0
"#;

    #[test]
    fn calls_are_attributed_and_what_is_chance_is_left_out() {
        let trace = Trace::parse(LOG);
        // openat and clone3; execve, clone3, fsync and execve.
        let expected = Counts { processes: 2, programs: 2, syncs: 1, daemon: 2, pod: 4 };
        assert_eq!(trace.between(101.0, 102.0), expected);
        assert_eq!(trace.between(102.0, 103.0), Counts { pod: 1, ..Counts::default() });
        assert_eq!(trace.between(0.0, 1.0), Counts::default());
    }

    #[test]
    fn no_line_is_too_odd() {
        for line in [
            "",
            "1",
            "1 2",
            "x y z",
            "1 2.0 <... read resumed>",
            "1 2.0 (",
            "1 2.0 clone3(",
            "1 2.0 a b(c) = 1",
        ] {
            assert_eq!(Trace::parse(line).between(0.0, 9.0).processes, 0, "{line}");
        }
    }
}
