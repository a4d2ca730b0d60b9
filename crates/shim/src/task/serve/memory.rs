//! Being told that memory has run out in a task's control group, while it happens.
//!
//! The server makes a descriptor that it waits for, and the helper that makes the group connects the two: in version 1 an eventfd that the
//! kernel writes to, in version 2 an inotify of the file that counts.

use super::Server;
use super::reap::Purpose;
use crate::messages::warning;
use crate::parent::handed::Handed;
use crate::parent::helper::Report;
use crate::parent::memory::Beside;
use crate::parent::poller::{READ, Token};
use crate::parent::work::look_at;
use rustix::event::EventfdFlags;
use rustix::fs::inotify;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use task::events::TaskOom;

/// What statfs(2) says of control groups of version 2.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// A descriptor that becomes readable when something has happened, and a copy of it for the helper.
pub(super) fn watch() -> Option<(OwnedFd, OwnedFd)> {
    let unified = rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type == CGROUP2_MAGIC);
    let ours = if unified {
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
    } else {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
    };
    let ours = ours.ok()?;
    let theirs = rustix::io::fcntl_dupfd_cloexec(&ours, 3).ok()?;
    Some((ours, theirs))
}

/// Connects the two. Runs in the helper. Without it the end of the task still says that memory had run out.
pub(super) fn begin(watch: BorrowedFd<'_>, cgroup: &Path) {
    let group = cgroup.to_str().and_then(|path| cgroup::Host::detect().ok()?.open(path).ok());
    if let Some(Err(cause)) = group.map(|group| group.notify_out_of_memory(watch)) {
        warning!("nobody will tell at once that memory has run out: {cause}");
    }
}

impl Server {
    /// Something has happened: a helper counts. Version 2 also tells of less grave things.
    pub(super) fn memory_ran_out(&mut self, serial: u32) {
        let Some((task, _)) = self.process(serial) else {
            return;
        };
        let (Some(memory), cgroup) = (task.memory.take(), task.cgroup.clone()) else {
            return;
        };
        let _ = rustix::io::read(&memory, &mut [0; 1024][..]);
        // Until the helper has counted nothing is waited for.
        self.poller.remove(&memory);
        let Some(cgroup) = cgroup else {
            return;
        };
        let told = task_of(self, serial).map_or(0, |task| task.told_oom_kills);
        if self
            .start_helper(Purpose::Count { task: serial }, Handed::default(), move |_| count(&cgroup, told))
            .is_ok()
            && let Some(task) = task_of(self, serial)
        {
            task.memory = Some(memory);
        }
    }

    /// What the helper counted while the task runs.
    pub(super) fn counted(&mut self, serial: u32, report: &Report) {
        if let Report::Looked { oom_kills, .. } = report {
            self.tell_out_of_memory(serial, *oom_kills);
        }
        let poller = &self.poller;
        if let Some(task) = self.tasks.iter_mut().find(|task| task.serial() == serial) {
            let waited_for = |memory: &OwnedFd| poller.add(memory, Token::Memory(serial), READ).is_ok();
            task.memory = task.memory.take().filter(waited_for);
        }
    }

    /// The end of a group is told as if memory had run out in it.
    pub(super) fn stop_watching_memory(&mut self, serial: u32) {
        if let Some(memory) = task_of(self, serial).and_then(|task| task.memory.take()) {
            self.poller.remove(&memory);
        }
    }

    /// Tells it if there were more kills than were told of.
    pub(super) fn tell_out_of_memory(&mut self, serial: u32, oom_kills: u64) {
        let Some(task) = task_of(self, serial).filter(|task| oom_kills > task.told_oom_kills) else {
            return;
        };
        task.told_oom_kills = oom_kills;
        let event = TaskOom { container_id: task.id.clone() };
        self.publisher.tell(&event);
    }
}

fn task_of(server: &mut Server, serial: u32) -> Option<&mut super::process::Task> {
    server.process(serial).map(|(task, _)| task)
}

/// Runs in the helper. Version 1 tells of an end before it has come, version 2 of what is none: a moment later it is known.
fn count(cgroup: &Path, told: u64) -> Report {
    let mut report = look_at(cgroup, false, &Beside::default());
    for _ in 0..10 {
        if matches!(report, Report::Looked { oom_kills, .. } if oom_kills > told) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        report = look_at(cgroup, false, &Beside::default());
    }
    report
}
