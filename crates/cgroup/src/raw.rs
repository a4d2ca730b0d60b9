//! The kernel's own files of a group, for who has to pass on all that stands in them; and being told that memory has run out.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::inotify;

use crate::directory::Directory;
use crate::error::{CgroupError, is_gone};
use crate::group::{Cgroup, Group};
use crate::host::Controller;
use crate::stats;

impl Cgroup {
    /// Calls `each` with the lines `key value` of a file of `controller`, such as `memory.stat`. A file that is not there has none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pairs(
        &self,
        controller: Controller,
        file: &str,
        each: impl FnMut(&str, u64),
    ) -> Result<(), CgroupError> {
        let Some(directory) = self.directory(controller) else { return Ok(()) };
        absent(directory.read(file, |text| stats::pairs(text, each)))
            .map(drop)
            .map_err(|e| self.failed(file, e))
    }

    /// The number that is the content of a file of `controller`; `None` if there is no such file or it says `max`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn number(&self, controller: Controller, file: &str) -> Result<Option<u64>, CgroupError> {
        let Some(directory) = self.directory(controller) else { return Ok(None) };
        let number = absent(directory.number(file)).map_err(|e| self.failed(file, e))?;
        Ok(number.flatten())
    }

    /// The numbers that are the content of a file of `controller`, such as `cpuacct.usage_percpu`; none if there is no such file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn numbers(&self, controller: Controller, file: &str) -> Result<Vec<u64>, CgroupError> {
        let Some(directory) = self.directory(controller) else { return Ok(Vec::new()) };
        let numbers = |text: &str| text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        Ok(absent(directory.read(file, numbers)).map_err(|e| self.failed(file, e))?.unwrap_or_default())
    }

    /// Lets the kernel say by `watch` when memory runs out in the group: it is an eventfd(2) in version 1, and an inotify(7) in version 2,
    /// where less grave things are told too.
    ///
    /// # Errors
    /// The group has no memory controller, or the kernel refuses.
    pub fn notify_out_of_memory(&self, watch: BorrowedFd<'_>) -> io::Result<()> {
        let directory = self.directory(Controller::Memory).ok_or(io::ErrorKind::NotFound)?;
        match self.group() {
            Group::V1(_) => {
                let control = directory.file("memory.oom_control")?;
                let line = format!("{} {}", watch.as_raw_fd(), control.as_raw_fd());
                directory.write("cgroup.event_control", &line)?;
            }
            Group::V2(_) => {
                let path = directory.path()?.join("memory.events");
                inotify::add_watch(watch, path, inotify::WatchFlags::MODIFY)?;
            }
        }
        Ok(())
    }

    fn directory(&self, controller: Controller) -> Option<&Directory> {
        match self.group() {
            Group::V1(group) => group.find(controller),
            Group::V2(group) => Some(group.directory()),
        }
    }

    fn failed(&self, file: &str, source: io::Error) -> CgroupError {
        CgroupError::Io { doing: "measure", path: self.path().into(), place: file.into(), source }
    }
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if is_gone(&e) => Ok(None),
        other => other.map(Some),
    }
}
