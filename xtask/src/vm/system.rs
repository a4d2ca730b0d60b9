//! The root of a machine whose init is systemd: Debian's packages, put together once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cache;
use super::disk::Root;
use crate::command;

/// Beside what is essential to Debian.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,kmod,iproute2,nftables,iptables,procps";

/// This machine's own release: what is built here runs with the libraries that are there.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let value =
        |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"'));
    match (value("ID="), value("VERSION_CODENAME=")) {
        (Some("debian"), Some(name)) => Ok(name.to_owned()),
        (other, _) => {
            bail!("a machine with systemd is made on Debian, for Debian's libraries; this is {other:?}")
        }
    }
}

/// Unpacks everything that systemd needs to start into `root`, which is empty, and makes the tests what it starts.
pub(super) fn put(root: &Root, folder: &Path) -> Result<()> {
    let archive = archive()?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&archive).arg("-C").arg(folder).arg("--exclude=./dev/*");
    command::run(&mut unpack)?;
    root.write("etc/systemd/system/pintle-vm.service", include_str!("pintle-vm.service"))?;
    // Debian's own of this name empties /tmp, where the repository may be.
    root.write("etc/tmpfiles.d/tmp.conf", "# Nothing is removed at the start.\n")?;
    // As libpam-systemd does it, of which the machine has nothing else to expect.
    root.write(
        "etc/systemd/system/user@.service.d/vm.conf",
        "[Service]\nEnvironment=XDG_RUNTIME_DIR=/run/user/%i\n",
    )?;
    // It would come to be at the first start, which is every start.
    root.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
}

/// The archive of the root, made where it is not there yet.
fn archive() -> Result<PathBuf> {
    let release = release()?;
    let folder = cache::place()?.with_file_name("vm-system");
    let archive = folder.join(format!("{release}.tar"));
    if !archive.exists() {
        fs::create_dir_all(&folder)?;
        command::need("mmdebstrap", "mmdebstrap")?;
        println!("xtask: making {} of Debian's packages, once for all later runs", archive.display());
        let making = tempfile::Builder::new().prefix(".making-").tempdir_in(&folder)?;
        let new = making.path().join("root.tar");
        let mut make = Command::new("mmdebstrap");
        make.args(["--variant=essential", "--include", PACKAGES]);
        for path in ["doc", "man", "locale", "info"] {
            make.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
        }
        make.arg(&release).arg(&new).stdout(Stdio::null());
        command::run(&mut make).context("it takes Debian's archive and, without root, user namespaces")?;
        fs::rename(new, &archive)?;
    }
    Ok(archive)
}
