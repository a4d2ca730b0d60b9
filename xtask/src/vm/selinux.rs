//! The policy of a machine with SELinux: Debian's base policy, with types for containers, which that has not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache;
use super::disk::Root;
use crate::command;

/// The format that every kernel since 5.12 reads.
const VERSION: &str = "33";

/// Puts the compiled policy on the machine's disk, for its init to load, and the files that name the labels of containers.
pub(super) fn put(root: &Root) -> Result<()> {
    let package = cache::package("selinux-policy-default")?;
    let scratch = tempfile::tempdir()?;
    let policy = compile(&package, scratch.path())?;
    root.put(&policy, Path::new("payload/policy"))?;
    root.write("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=default\n")?;
    let contexts = Path::new("etc/selinux/default/contexts/lxc_contexts");
    root.put(&package.join(contexts), contexts)
}

fn compile(package: &Path, scratch: &Path) -> Result<PathBuf> {
    let [packed, base, own, policy, files] =
        ["base.pp", "base.cil", "container.cil", "policy", "files"].map(|name| scratch.join(name));
    let module = package.join("usr/share/selinux/default/base.pp.bz2");
    command::need("bunzip2", "bzip2")?;
    let unpacked = Command::new("bunzip2").arg("-c").arg(&module).output().context("cannot start bunzip2")?;
    fs::write(&packed, unpacked.stdout)?;
    let translate = cache::package("policycoreutils")?.join("usr/libexec/selinux/hll/pp");
    command::run(Command::new(translate).arg(&packed).arg(&base))?;
    // Who logs in as whom is no part of the policy, and names users of modules that are not there.
    let text = fs::read_to_string(&base)?;
    let text: String =
        text.lines().filter(|line| !line.starts_with("(selinuxuser")).flat_map(|line| [line, "\n"]).collect();
    fs::write(&base, text)?;
    fs::write(&own, include_str!("container.cil"))?;
    let compiler = cache::package("secilc")?.join("usr/bin/secilc");
    let mut compile = Command::new(compiler);
    compile.args(["--disable-neverallow", "--disable-dontaudit", "--mls", "true", "--policyvers", VERSION]);
    compile.arg("--output").arg(&policy).arg("--filecontext").arg(files).arg(base).arg(own);
    command::run(&mut compile)?;
    Ok(policy)
}
