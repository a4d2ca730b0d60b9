//! Processes that a test left behind: they become children of this one, which is how they are found, whoever else works on the machine.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, wait, waitpid};

/// The adoption of whatever the tests leave behind.
pub(crate) struct Orphans {
    /// Children from before, which are nobody's leftovers.
    known: Vec<Pid>,
}

impl Orphans {
    /// From now on a descendant whose parent ends becomes a child of this process.
    pub(crate) fn adopt() -> Result<Orphans> {
        set_child_subreaper(Some(getpid())).context("becoming the reaper of the tests' processes")?;
        Ok(Orphans { known: children() })
    }

    /// Names, after a moment in which they may still end, the processes that are left, and ends them.
    ///
    /// To be called when no child that this process started since [`Orphans::adopt`] is running.
    pub(crate) fn collect(&mut self) -> Vec<String> {
        let start = Instant::now();
        let mut left = self.left();
        while !left.is_empty() && start.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(20));
            reap();
            left = self.left();
        }
        let named = left.iter().map(|pid| described(*pid)).collect();
        // A killed process's own children come here next.
        while !left.is_empty() && start.elapsed() < Duration::from_secs(10) {
            for pid in &left {
                // It may have ended by itself.
                let _ = kill_process(*pid, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
            reap();
            left = self.left();
        }
        named
    }

    fn left(&self) -> Vec<Pid> {
        children().into_iter().filter(|pid| !self.known.contains(pid)).collect()
    }
}

/// Reaps what came here and has ended while `child` still runs, whose status is somebody else's to take.
///
/// It cannot wait for the end of a test: the first process of a pid namespace ends only after all of the namespace's processes have
/// been reaped, and those that were sent into it from outside come here.
pub(crate) fn reap_beside(child: Pid) {
    for pid in parented().filter(|pid| *pid != child) {
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}

fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// The children of this process that have not ended.
fn children() -> Vec<Pid> {
    reap();
    parented().collect()
}

/// The children of this process, ended or not.
fn parented() -> impl Iterator<Item = Pid> {
    let own = getpid().as_raw_nonzero().get();
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    pids.filter(move |pid| parent(*pid) == Some(own)).filter_map(Pid::from_raw)
}

/// The parent in proc_pid_stat(5): the second field after the name, which is in parentheses and may hold anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok()
}

fn described(pid: Pid) -> String {
    let number = pid.as_raw_nonzero();
    let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
    let line: Vec<u8> = line.into_iter().map(|byte| if byte == 0 { b' ' } else { byte }).take(200).collect();
    format!("{number} {}", String::from_utf8_lossy(&line).trim())
}
