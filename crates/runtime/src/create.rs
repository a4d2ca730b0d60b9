//! Create: makes a container up to the point where its init waits for start.

use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::Spec;

use crate::console::Console;
use crate::error::{CreateError, Failure, Stage, Warning};

/// What to create.
#[derive(Debug)]
pub struct CreateRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle: a relative `root.path` is below it, and hooks are told of it.
    pub bundle: &'a Path,
    /// The configuration; `None` reads `config.json` of the bundle.
    pub spec: Option<Spec>,
    /// The state of the container goes to `<state_root>/<id>`, which may exist if it holds no record.
    pub state_root: &'a Path,
    /// The root file system as a detached mount; `None` takes `root.path` of the configuration.
    pub rootfs: Option<OwnedFd>,
    /// Where the terminal goes if `process.terminal` is set.
    pub console: Option<Console>,
    /// A file to write init's pid to.
    pub pid_file: Option<&'a Path>,
    /// How many descriptors from 3 on the command inherits.
    pub preserve_fds: u32,
    /// `cgroupsPath` is `slice:prefix:name` and the cgroup is made by systemd.
    pub systemd_cgroup: bool,
}

/// A container that waits for start.
#[derive(Debug)]
pub struct Created {
    /// Init's pid in the caller's pid namespace. Init is the caller's child.
    pub pid: i32,
    /// Init's pidfd.
    pub pidfd: OwnedFd,
    /// What was asked for and could not be had in full.
    pub warnings: Vec<Warning>,
}

/// Creates a container whose standard streams are the caller's. The caller must have one thread; see the crate's documentation.
///
/// # Errors
/// The first step that failed; all earlier steps were taken back.
pub fn create(request: CreateRequest<'_>) -> Result<Created, CreateError> {
    let failure = Box::new(Failure::new(Stage::Configuration, "create", "is not finished in this version"));
    Err(CreateError::Failed { id: request.id.into(), failure, left: Vec::new() })
}
