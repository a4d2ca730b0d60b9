//! `cargo xtask vm oci`: the OCI's validation programs in the machine, whose control groups are others than the usual host's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::disk::Root;
use super::jobs::Job;
use super::options::Suite;
use crate::command;
use crate::conformance;
use crate::test::program::Built;

const PINTLE: &str = "/usr/bin/pintle";
/// This program, which runs the programs and knows which of them fail.
const XTASK: &str = "/payload/xtask";

/// Programs that these need, and the runtime that they are also run with.
const TOOLS: &[&str] = &["timeout", "runc", "tar", "mount", "umount"];

/// Builds the programs, or finds them in the cache, and puts everything on the machine's disk.
pub(super) fn put(root: &Root, built: &Built) -> Result<()> {
    let pintle = built.executables().next().context("no pintle was built")?;
    root.program(pintle, Path::new(PINTLE.trim_start_matches('/')))?;
    let own = std::env::current_exe().context("this program's own file")?;
    root.program(&own, Path::new(XTASK.trim_start_matches('/')))?;
    root.tools(TOOLS)?;
    let programs = conformance::validation_programs()?;
    let name = programs.file_name().context("the folder of the programs has no name")?;
    // Where the machine's root has its cache.
    root.put_tree(&programs, &Path::new("root/.cache/pintle").join(name))
}

/// What is run there.
pub(super) fn job(suite: &Suite) -> Job {
    let focus = suite.focus.iter().flat_map(|focus| ["--focus", focus.as_str()]);
    let words = ["conformance", "oci", "--binary", PINTLE].into_iter().chain(focus);
    Job::validation(command::root().to_owned(), PathBuf::from(XTASK), words.map(str::to_owned).collect())
}
