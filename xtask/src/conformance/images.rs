//! The images that the suites use, made here, and a registry that serves them under the names of the real ones.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::clients::{self, Clients};
use crate::command;

/// An address of loopback that nobody else listens on.
pub(super) const REGISTRY: &str = "127.77.0.80:80";

/// The registries whose names it answers to.
pub(crate) const HOSTS: &[&str] = &["registry.k8s.io", "k8s.gcr.io", "gcr.io"];

fn tool() -> PathBuf {
    command::root().join("conformance/mkimages.py")
}

fn layout(cache: &Path) -> PathBuf {
    cache.join("critest-images")
}

/// critest with the digest of the image that was built here; the real one cannot be made again.
pub(crate) fn patched_critest(clients: &Clients) -> PathBuf {
    clients.critest.with_extension("offline")
}

/// Makes the images, unless the cache has them.
pub(super) fn build(clients: &Clients) -> Result<()> {
    let layout = layout(&clients.cache);
    build_set(&layout, "critest")?;
    let mut patch = python("patch-critest");
    patch
        .arg("--layout")
        .arg(&layout)
        .arg("--in")
        .arg(&clients.critest)
        .arg("--out")
        .arg(patched_critest(clients));
    command::run(patch.stdout(Stdio::null()))
}

/// Makes the images of one set of the tool's in the folder `layout`, unless they are there.
pub(crate) fn build_set(layout: &Path, set: &str) -> Result<()> {
    if layout.join("index.json").is_file() {
        return Ok(());
    }
    let mut make = python("build");
    make.arg("--out").arg(layout).args(["--sets", set, "--quiet"]);
    if let Some(busybox) = busybox(&clients::cache()?)? {
        make.arg("--busybox").arg(busybox);
    }
    command::run(&mut make)
}

fn python(task: &str) -> Command {
    let mut python = Command::new("python3");
    python.arg(tool()).arg(task);
    python
}

/// Debian's dynamically linked busybox. The static one runs its applets without looking them up, which a spec takes for a hole.
fn busybox(cache: &Path) -> Result<Option<PathBuf>> {
    if command::find("apt-get").is_none() {
        return Ok(None);
    }
    let folder = cache.join("busybox");
    let binary = folder.join("bin/busybox");
    if binary.is_file() {
        return Ok(Some(binary));
    }
    fs::create_dir_all(&folder)?;
    let mut apt = Command::new("apt-get");
    // As root, apt would rather download as a user who cannot write here, and says so.
    apt.args(["download", "-q", "-o", "APT::Sandbox::User=root", "busybox"]).current_dir(&folder);
    command::run(apt.stdout(Stdio::null()))?;
    let package = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    let package =
        package.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    command::run(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(package.context("apt-get download left no package")?)
            .arg(&folder),
    )?;
    let usr = folder.join("usr/bin/busybox");
    Ok([binary, usr].into_iter().find(|file| file.is_file()))
}

/// The registry, while it serves.
pub(crate) struct Registry {
    child: Child,
    /// Where it listens.
    pub(crate) address: String,
}

impl Registry {
    /// Starts it and waits until it answers.
    pub(super) fn start() -> Result<Registry> {
        Registry::start_at(REGISTRY)
    }

    /// The same at another address.
    pub(crate) fn start_at(address: &str) -> Result<Registry> {
        let cache = clients::built()?.cache;
        Registry::of(&layout(&cache), address, None, &cache.join("registry.log"))
    }

    /// One that serves the images of a folder, to everybody or to those with `name:password`.
    pub(crate) fn of(layout: &Path, address: &str, user: Option<&str>, log_file: &Path) -> Result<Registry> {
        let mut serve = python("serve");
        serve.arg("--layout").arg(layout).args(["--listen", address]);
        if let Some(user) = user {
            serve.args(["--auth", "basic", "--user", user]);
        }
        let log = fs::File::create(log_file)?;
        let child =
            serve.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn().context("python3")?;
        let mut registry = Registry { child, address: address.to_owned() };
        let start = Instant::now();
        while !answers(address) {
            if let Some(status) = registry.child.try_wait()? {
                bail!("the registry ended with {status}; its words are in {}", log_file.display());
            }
            if start.elapsed() > Duration::from_secs(20) {
                bail!("the registry does not answer at {address}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Nothing is lost if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1"))
    };
    ask().unwrap_or(false)
}
