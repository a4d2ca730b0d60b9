//! A set of changes to control files of which all happen or none.

use std::io;

use oci_spec::runtime::LinuxResources;
use rustix::io::Errno;

use crate::directory::{Directory, Writer};
use crate::error::{ApplyError, Warning};
use crate::host::{Controller, Mode};
use crate::systemd::{self, Unit};

/// Changes made so far to one group.
#[derive(Debug)]
pub(crate) struct Changes<'a> {
    path: &'a str,
    undo: Vec<Undo<'a>>,
    pub(crate) warnings: Vec<Warning>,
    /// Of the last change: a list is written line by line.
    writer: Option<Writer<'a>>,
}

#[derive(Debug)]
struct Undo<'a> {
    directory: &'a Directory,
    file: String,
    /// Written one by one.
    values: Vec<String>,
}

/// Where a value goes: an open directory and the controller it belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) controller: Controller,
    /// Whether the version 2 name of the controller is the one to show.
    pub(crate) version2: bool,
}

impl Place<'_> {
    fn controller_name(&self) -> String {
        if self.version2 && self.controller == Controller::Io {
            return "io".into();
        }
        self.controller.name().into()
    }

    /// Whether a group of version 2 was given the controller by the groups above it.
    fn has_controller(&self, name: &str) -> bool {
        self.directory
            .read("cgroup.controllers", |t| t.split_whitespace().any(|c| c == name))
            .unwrap_or(false)
    }
}

impl<'a> Changes<'a> {
    pub(crate) fn new(path: &'a str) -> Changes<'a> {
        Changes { path, undo: Vec::new(), warnings: Vec::new(), writer: None }
    }

    pub(crate) fn path(&self) -> &'a str {
        self.path
    }

    pub(crate) fn warn(&mut self, field: &'static str, why: impl Into<String>) {
        self.warnings.push(Warning { field, why: why.into() });
    }

    /// Writes `value` to `file`; undone by writing what the file held before, line by line.
    pub(crate) fn write(&mut self, place: Place<'a>, file: &str, value: &str) -> Result<(), ApplyError> {
        match place.directory.exchange(file, value) {
            Ok(old) => {
                let values = old.lines().map(str::to_string).collect();
                self.undo.push(Undo { directory: place.directory, file: file.into(), values });
                Ok(())
            }
            Err(source) => Err(self.error(place, file, value, source)),
        }
    }

    /// Writes `value` to `file`; undone by writing the second part of `undo` to the file that is its first.
    pub(crate) fn write_undone_by(
        &mut self,
        place: Place<'a>,
        file: &str,
        value: &str,
        undo: (&str, String),
    ) -> Result<(), ApplyError> {
        if !self.writer.as_ref().is_some_and(|writer| writer.is_of(place.directory, file)) {
            self.writer = Some(place.directory.writer(file).map_err(|e| self.error(place, file, value, e))?);
        }
        match self.writer.as_ref().map_or(Ok(()), |writer| writer.write(value)) {
            Ok(()) => {
                let (undo_file, undo_value) = undo;
                self.undo.push(Undo {
                    directory: place.directory,
                    file: undo_file.into(),
                    values: vec![undo_value],
                });
                Ok(())
            }
            Err(source) => Err(self.error(place, file, value, source)),
        }
    }

    /// Tells systemd what the limits of `unit` are.
    pub(crate) fn tell(
        &self,
        unit: Unit<'_>,
        mode: Mode,
        resources: &LinuxResources,
    ) -> Result<(), ApplyError> {
        systemd::limit(unit, mode, resources)
            .map_err(|source| ApplyError::Systemd { path: self.path.into(), source })
    }

    /// Reads `file` with `parse`.
    pub(crate) fn read<R>(
        &self,
        place: Place<'a>,
        file: &str,
        parse: impl FnOnce(&str) -> R,
    ) -> Result<R, ApplyError> {
        place.directory.read(file, parse).map_err(|source| ApplyError::Read {
            path: self.path.into(),
            file: file.into(),
            source,
        })
    }

    fn error(&self, place: Place<'a>, file: &str, value: &str, source: io::Error) -> ApplyError {
        let (path, file) = (self.path.to_string(), file.to_string());
        if source.kind() == io::ErrorKind::NotFound {
            let controller = place.controller_name();
            if place.version2 && !place.has_controller(&controller) {
                return ApplyError::NoController { path, file, controller };
            }
            return ApplyError::NoFile { path, file, controller };
        }
        ApplyError::Write { path, file, value: value.into(), source }
    }

    /// Ends the changes: keeps them all if `result` is good, else puts everything back, newest first.
    pub(crate) fn settle(self, result: Result<(), ApplyError>) -> Result<Vec<Warning>, ApplyError> {
        let Err(error) = result else { return Ok(self.warnings) };
        let mut files = Vec::new();
        for undo in self.undo.iter().rev() {
            for value in &undo.values {
                if let Err(e) = undo.directory.write(&undo.file, value) {
                    files.push(format!("{} ({value:?}: {e})", undo.file));
                }
            }
        }
        if files.is_empty() {
            return Err(error);
        }
        Err(ApplyError::NotRestored { error: Box::new(error), files })
    }
}

impl ApplyError {
    /// Whether the kernel said `errno` to a write.
    pub(crate) fn is(&self, errno: Errno) -> bool {
        matches!(self, ApplyError::Write { source, .. } if Errno::from_io_error(source) == Some(errno))
    }
}
