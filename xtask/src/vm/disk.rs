//! The machine's disk: busybox, the kernel's modules, the test programs where they were built, and the repository's files where they stand.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::cache::{self, Cached};
use super::jobs::Job;
use super::modules::{Modules, alias};
use super::options::Options;
use super::suite::Outside;
use crate::command;
use crate::test::program::Built;

/// Tools that tests ask; taken from this machine where it has them. Where it does not, the tests say that they skip.
const TOOLS: &[&str] =
    &["sh", "bash", "true", "chown", "nft", "ip", "tc", "nsenter", "unshare", "setpriv", "iptables"];

const CRIU: &[&str] = &["criu", "libprotobuf-c1", "libnet1", "libnl-3-200"];

/// Seconds for one test program. Emulated, everything takes about ten times as long.
const SECONDS_EACH: u32 = 600;

/// Seconds for critest.
const SECONDS_SUITE: u32 = 7000;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";

const FOLDERS: &[&str] = &[
    "usr/bin",
    "usr/sbin",
    "usr/lib",
    "usr/lib64",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/lib",
    "var/log",
    "etc",
    "root",
];

/// Its features, for what pods may write and for layers that the kernel checks.
const FEATURES: &str = "^has_journal,quota,project,verity";

/// Free space on it, for what the tests write.
const ROOM: &str = "3G";

/// Makes `image`, an ext4 file system, from a folder beside it that is made anew.
pub(super) fn make(
    folder: &Path,
    image: &Path,
    cached: &Cached,
    built: &Built,
    jobs: &[Job],
    options: &Options,
    outside: Option<&Outside>,
) -> Result<()> {
    let root = Root(folder.join("root"));
    if root.0.exists() {
        fs::remove_dir_all(&root.0)?;
    }
    fs::create_dir_all(&root.0)?;
    if options.systemd {
        super::system::put(&root, &root.0)?;
        root.put(&cached.busybox, Path::new("usr/bin/busybox"))?;
        root.modules(cached)?;
        // Its modprobe(8) wants the indexes as well.
        let depmod = command::find("depmod").context("no depmod")?;
        command::run(Command::new(depmod).arg("-b").arg(&root.0).arg(&cached.version).stderr(Stdio::null()))?;
    } else {
        root.plain(cached)?;
    }
    root.criu()?;
    root.repository()?;
    for file in built.executables() {
        root.program(file, file.strip_prefix("/").unwrap_or(file))?;
    }
    root.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 pintle-vm\n")?;
    root.write("etc/resolv.conf", "nameserver 10.0.2.3\n")?;
    root.write("etc/hostname", "pintle-vm\n")?;
    root.write("etc/os-release", "ID=pintle-vm\nPRETTY_NAME=\"The machine of cargo xtask vm\"\n")?;
    root.write("payload/programs", &programs(jobs))?;
    root.write("payload/settings", &settings(options))?;
    root.script("payload/run", include_str!("run.sh"))?;
    if options.selinux {
        super::selinux::put(&root)?;
    }
    match (outside, &options.suite) {
        (Some(outside), Some(suite)) => outside.put(&root, built, suite, options.systemd)?,
        (None, Some(_)) => super::validation::put(&root, built)?,
        (_, None) => {}
    }

    if image.exists() {
        fs::remove_file(image)?;
    }
    let mke2fs = command::find("mke2fs").context("no mke2fs")?;
    let mut format = Command::new(mke2fs);
    format
        .args(["-q", "-t", "ext4", "-O", FEATURES, "-E", "root_owner=0:0,quotatype=prjquota", "-d"])
        .arg(&root.0)
        .arg(image)
        .arg(ROOM);
    command::run(format.stdout(Stdio::null()).stderr(Stdio::null()))?;
    fs::remove_dir_all(&root.0)?;
    Ok(())
}

/// A line for each: number, folder in which it runs, program and its words.
fn programs(jobs: &[Job]) -> String {
    let mut text = String::new();
    for (index, job) in jobs.iter().enumerate() {
        let (folder, program) = (job.folder.display(), job.program.display());
        let _ = writeln!(text, "{index} {folder} {program} {}", job.words.join(" "));
    }
    text
}

fn settings(options: &Options) -> String {
    let backtrace = std::env::var("RUST_BACKTRACE").is_ok_and(|value| value != "0");
    format!(
        "KEEP={}\nBACKTRACE={}\nSECONDS_EACH={}\n",
        u8::from(options.keep),
        u8::from(backtrace),
        if options.suite.is_some() { SECONDS_SUITE } else { SECONDS_EACH },
    )
}

/// The folder that becomes the disk.
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let file = self.0.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&self.0))?;
        fs::write(&file, text).with_context(|| file.display().to_string())
    }

    /// A file that can be run.
    pub(super) fn script(&self, path: &str, text: &str) -> Result<()> {
        let file = self.0.join(path);
        // A link would lead to busybox, which would be written over.
        if file.is_symlink() {
            fs::remove_file(&file)?;
        }
        self.write(path, text)?;
        Ok(fs::set_permissions(file, fs::Permissions::from_mode(0o755))?)
    }

    /// Copies a file of this machine to `to`, a path without its first `/`.
    pub(super) fn put(&self, file: &Path, to: &Path) -> Result<()> {
        let to = self.0.join(to);
        fs::create_dir_all(to.parent().unwrap_or(&self.0))?;
        if to.is_symlink() {
            fs::remove_file(&to)?;
        }
        fs::copy(file, &to).with_context(|| file.display().to_string())?;
        Ok(())
    }

    /// Copies a program that was built here to `to`, without what only a debugger wants, and the libraries that it needs.
    pub(super) fn program(&self, file: &Path, to: &Path) -> Result<()> {
        self.libraries(file)?;
        self.put(file, to)?;
        let Some(strip) = command::find("strip") else { return Ok(()) };
        command::run(Command::new(strip).arg(self.0.join(to)))
    }

    /// Copies a folder of this machine to `to`.
    pub(super) fn put_tree(&self, folder: &Path, to: &Path) -> Result<()> {
        let to = self.0.join(to);
        fs::create_dir_all(&to)?;
        command::run(Command::new("cp").arg("-a").arg(folder.join(".")).arg(&to))
    }

    /// Copies a file of this machine to the same path; a symbolic link's target takes the link's place.
    fn copy(&self, file: &Path) -> Result<()> {
        self.put(file, file.strip_prefix("/").unwrap_or(file))
    }

    /// A root with what the tests need and no more.
    fn plain(&self, cached: &Cached) -> Result<()> {
        for folder in FOLDERS {
            fs::create_dir_all(self.0.join(folder))?;
        }
        for folder in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(folder), self.0.join(folder))?;
        }
        fs::set_permissions(self.0.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        self.busybox(cached)?;
        self.modules(cached)?;
        self.tools(TOOLS)?;
        self.write("etc/passwd", PASSWD)?;
        self.write("etc/group", GROUP)?;
        self.script("sbin/init", include_str!("init.sh"))
    }

    /// Debian's CRIU, which fits Debian's kernel, with what it needs and this machine may not have; and GNU's tar, with options that
    /// busybox's has not.
    fn criu(&self) -> Result<()> {
        self.tools(&["tar", "gzip"])?;
        for package in CRIU {
            self.put_tree(&cache::package(package)?.join("usr"), Path::new("usr"))?;
        }
        self.libraries(&cache::package(CRIU[0])?.join("usr/sbin/criu"))
    }

    /// Where tests look for it, and a link for each of its programs.
    fn busybox(&self, cached: &Cached) -> Result<()> {
        fs::copy(&cached.busybox, self.0.join("bin/busybox"))?;
        let applets = command::capture(Command::new(&cached.busybox).arg("--list"))?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", self.0.join("bin").join(applet))?;
        }
        // The kernel starts it to load a module.
        symlink("../bin/busybox", self.0.join("sbin/modprobe"))?;
        Ok(())
    }

    fn modules(&self, cached: &Cached) -> Result<()> {
        let folder = format!("lib/modules/{}", cached.version);
        let modules = Modules::read(cached)?;
        let files = modules.all();
        for file in &files {
            let to = self.0.join(&folder).join(file);
            fs::create_dir_all(to.parent().unwrap_or(&self.0))?;
            fs::copy(cached.modules.join(file), to)?;
        }
        self.write("payload/modules", &modules.names().join("\n"))?;
        self.write(&format!("{folder}/modules.dep"), &modules.dep())?;
        self.write(&format!("{folder}/modules.alias"), &alias(cached, &files)?)
    }

    /// Programs of this machine, with their libraries, as far as they are not there.
    pub(super) fn tools(&self, tools: &[&str]) -> Result<()> {
        for tool in tools.iter().filter_map(|tool| command::find(tool)).filter(|tool| self.lacks(tool)) {
            self.libraries(&tool)?;
            self.copy(&tool)?;
        }
        Ok(())
    }

    /// The libraries that ldd(1) names.
    pub(super) fn libraries(&self, program: &Path) -> Result<()> {
        let needs =
            command::capture(Command::new("ldd").arg(program).stderr(Stdio::null())).unwrap_or_default();
        let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
        libraries
            .map(Path::new)
            .filter(|library| library.is_file() && self.lacks(library))
            .try_for_each(|file| self.copy(file))
    }

    /// Whether there is no program or library of that name; one of busybox's is none.
    fn lacks(&self, file: &Path) -> bool {
        let there = self.0.join(file.strip_prefix("/").unwrap_or(file));
        let Ok(target) = fs::read_link(&there) else { return !there.exists() };
        target.as_os_str() == "busybox"
    }

    /// Tests read files of the repository beside them.
    fn repository(&self) -> Result<()> {
        let files = command::capture(Command::new("git").arg("ls-files").current_dir(command::root()))?;
        for file in files.lines().map(|file| command::root().join(file)).filter(|file| file.is_file()) {
            self.copy(&file)?;
        }
        Ok(())
    }
}
