//! Where threads of the daemon and of shims wait in the kernel and cannot be interrupted: what hangs on a disk or a server that is gone.

use std::fs;
use std::path::Path;

/// The names of processes that are looked at (comm, proc_pid_comm(5)), besides this one.
const SHIM: &str = "pintle-shim";
/// How much of each stack is said.
const FRAMES: usize = 12;

/// One line for each thread that waits uninterruptibly (state D): its process, its name and its kernel stack, innermost first. Empty where
/// none does.
pub(super) fn waiting() -> String {
    let mut lines = of_process(Path::new("/proc/self"));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let process = entry.path();
        let is_shim = || fs::read_to_string(process.join("comm")).is_ok_and(|comm| comm.starts_with(SHIM));
        if entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) && is_shim() {
            lines.extend(of_process(&process));
        }
    }
    lines.join("; ")
}

fn of_process(process: &Path) -> Vec<String> {
    let tasks = fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| of_thread(&task.path())).collect()
}

fn of_thread(task: &Path) -> Option<String> {
    let stat = fs::read_to_string(task.join("stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    if after.split_ascii_whitespace().next()? != "D" {
        return None;
    }
    let stack = fs::read_to_string(task.join("stack")).unwrap_or_default();
    let frames = stack.lines().take(FRAMES).map(|line| line.rsplit(' ').next().unwrap_or_default());
    Some(format!("{before}): {}", frames.collect::<Vec<_>>().join(" < ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_is_not_waiting() {
        let own = std::process::id().to_string();
        assert!(!of_process(Path::new("/proc/self")).iter().any(|line| line.starts_with(&own)));
    }
}
