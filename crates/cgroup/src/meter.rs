//! Measuring a group again and again: its files stay open, so that a look at it is a handful of reads.

use std::io;

use crate::directory::{Directory, File};
use crate::error::{CgroupError, io_error, is_gone};
use crate::path::CgroupPath;
use crate::stats::{Stalls, Usage, pressure};
use crate::{v1, v2};

/// The open files of one group. Dropping it closes them; a group can be removed while they are open.
#[derive(Debug)]
pub struct Meter {
    path: CgroupPath,
    files: Files,
    stalls: StallFiles,
    /// The directory that tells who is in the group.
    census: Option<Directory>,
}

#[derive(Debug)]
pub(crate) enum Files {
    V1(v1::UsageFiles),
    V2(v2::UsageFiles),
}

/// The `*.pressure` files, those that there are.
#[derive(Debug, Default)]
pub(crate) struct StallFiles {
    cpu: Option<File>,
    memory: Option<File>,
    io: Option<File>,
}

impl Meter {
    pub(crate) fn new(
        path: CgroupPath,
        files: Files,
        stalls: StallFiles,
        census: Option<&Directory>,
    ) -> Meter {
        // Without it nobody is counted, which is what a group that is just being removed has.
        Meter { path, files, stalls, census: census.and_then(|directory| directory.open(".").ok()) }
    }

    /// What the group has used until now.
    ///
    /// # Errors
    /// [`CgroupError::NotFound`] if the group was removed.
    pub fn read(&self) -> Result<Usage, CgroupError> {
        let read = match &self.files {
            Files::V1(files) => files.read(),
            Files::V2(files) => files.read(),
        };
        let usage = read.map_err(|source| {
            if is_gone(&source) {
                return CgroupError::NotFound { path: self.path.as_str().into() };
            }
            io_error("measure", &self.path, "statistics", source)
        })?;
        Ok(Usage { pressure: self.stalls.read(), ..usage })
    }

    /// How many processes are in the group and below.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn processes(&self) -> Result<u64, CgroupError> {
        let Some(census) = &self.census else { return Ok(0) };
        let processes = census.processes(true);
        processes
            .map(|processes| processes.len() as u64)
            .map_err(|e| io_error("list the processes of", &self.path, "cgroup.procs", e))
    }
}

impl StallFiles {
    /// A kernel without pressure accounting has no such files, or refuses to read them (`EOPNOTSUPP`).
    pub(crate) fn open(directory: Option<&Directory>) -> StallFiles {
        let open = |name| File::open(directory?, name).ok();
        StallFiles { cpu: open("cpu.pressure"), memory: open("memory.pressure"), io: open("io.pressure") }
    }

    pub(crate) fn read(&self) -> Stalls {
        let read = |file: &Option<File>| file.as_ref()?.read(pressure).ok().flatten();
        Stalls { cpu: read(&self.cpu), memory: read(&self.memory), io: read(&self.io) }
    }
}

/// What is not there is not measured.
pub(crate) fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
