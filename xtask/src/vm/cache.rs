//! The packages that the machine is made of: fetched once, and kept outside the repository.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::command;

/// Depends on the newest kernel of the distribution that is built for virtual machines.
const KERNEL: &str = "linux-image-cloud-amd64";
const BUSYBOX: &str = "busybox-static";

/// Where the parts are.
pub(super) struct Cached {
    /// The kernel's image.
    pub(super) kernel: PathBuf,
    /// The folder of its modules, with `modules.dep` and `modules.alias`.
    pub(super) modules: PathBuf,
    /// The kernel's version, which is the last part of that folder's path in the machine.
    pub(super) version: String,
    /// A busybox that needs no library.
    pub(super) busybox: PathBuf,
}

impl Cached {
    /// Finds the parts, or fetches and unpacks them.
    pub(super) fn get() -> Result<Cached> {
        let folder = place()?;
        if !folder.exists() {
            fetch(&folder).context(
                "fetching the machine's packages; it takes apt and Debian's archive, once for all later runs",
            )?;
        }
        Cached::find(&folder).with_context(|| {
            format!("{} is not complete; remove it, and it will be made again", folder.display())
        })
    }

    fn find(folder: &Path) -> Result<Cached> {
        let modules = fs::read_dir(folder.join("lib/modules"))?.next().context("no modules")??.path();
        let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kernel = folder.join(format!("boot/vmlinuz-{version}"));
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| folder.join(path));
        let busybox = busybox.into_iter().find(|path| path.is_file()).context("no busybox")?;
        if !kernel.is_file() {
            bail!("no kernel");
        }
        Ok(Cached { kernel, modules, version, busybox })
    }
}

/// What a package unpacks to, fetched once.
pub(super) fn package(name: &str) -> Result<PathBuf> {
    let folder = place()?.with_file_name("vm-packages").join(name);
    if !folder.exists() {
        let parent = folder.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(parent)?;
        let making = tempfile::Builder::new().prefix(".package-").tempdir_in(parent)?;
        println!("xtask: fetching {name} into {}", folder.display());
        unpack(&[name], making.path())?;
        fs::rename(making.path(), &folder)?;
    }
    Ok(folder)
}

/// `$PINTLE_CACHE/vm`, or `pintle/vm` in the user's cache.
pub(super) fn place() -> Result<PathBuf> {
    if let Some(cache) = env::var_os("PINTLE_CACHE") {
        return Ok(PathBuf::from(cache).join("vm"));
    }
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither PINTLE_CACHE nor HOME is set")?.join("pintle/vm"))
}

fn fetch(folder: &Path) -> Result<()> {
    let parent = folder.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
    // Made beside its place and renamed, so that what is there is complete.
    let making = tempfile::Builder::new().prefix(".vm-").tempdir_in(parent)?;
    let kernel = newest_kernel()?;
    println!("xtask: fetching {kernel} and {BUSYBOX} into {}", folder.display());
    unpack(&[&kernel, BUSYBOX], making.path())?;
    let version = Cached::find(making.path())?.version;
    let depmod = command::find("depmod").context("no depmod")?;
    command::run(Command::new(depmod).arg("-b").arg(making.path()).arg(version))?;
    fs::rename(making.path(), folder)?;
    Ok(())
}

/// Fetches packages and unpacks them into `folder`, which is empty.
fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    for package in packages {
        let mut download = Command::new("apt-get");
        download.args(["download", package]).current_dir(folder);
        command::run(download.stdout(Stdio::null()).stderr(Stdio::null()))?;
    }
    for entry in fs::read_dir(folder)? {
        let archive = entry?.path();
        command::run(Command::new("dpkg").arg("-x").arg(&archive).arg(folder))?;
        fs::remove_file(archive)?;
    }
    Ok(())
}

/// The package that holds the kernel, by what the one that always depends on the newest depends on.
fn newest_kernel() -> Result<String> {
    let depends = || command::capture(Command::new("apt-cache").args(["depends", "--important", KERNEL]));
    let name = |text: String| {
        let found = text.lines().find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned));
        found.filter(|name| name.starts_with("linux-image-"))
    };
    if let Some(kernel) = depends().ok().and_then(name) {
        return Ok(kernel);
    }
    if command::is_root() {
        command::run(Command::new("apt-get").arg("update").stdout(Stdio::null()))?;
    }
    depends()
        .ok()
        .and_then(name)
        .with_context(|| format!("apt knows no package {KERNEL} (`apt-get update`?)"))
}
