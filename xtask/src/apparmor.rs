//! The default AppArmor profile, compiled into what the daemon carries.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// Compiles the profile beside its source. It needs apparmor_parser; whether what is committed is current, the tests of `lsm` find out.
pub(crate) fn compile(workspace: &Path) -> Result<()> {
    let Some(parser) = command::find("apparmor_parser") else {
        println!("not compiled, for want of apparmor_parser (package apparmor): the AppArmor profile");
        return Ok(());
    };
    let folder = workspace.join("crates/lsm/policy");
    let mut compile = Command::new(parser);
    compile.args(["--skip-cache", "--skip-kernel-load", "--features-file"]).arg(folder.join("features"));
    compile.arg("--ofile").arg(folder.join("pintle-default.bin")).arg(folder.join("pintle-default.apparmor"));
    command::run(&mut compile).context("compiling the AppArmor profile")
}
