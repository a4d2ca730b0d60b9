//! `cargo xtask dist`: the release. One static file, with the shim inside it, packed with its unit, an example configuration and checksums.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{command, elf};

/// What goes into the archive beside the binary: source, name, mode.
const FILES: &[(&str, &str, &str)] = &[
    ("packaging/pintle.service", "pintle.service", "644"),
    ("packaging/config.toml", "config.toml", "644"),
    ("LICENSE", "LICENSE", "644"),
    ("README.md", "README.md", "644"),
];

/// Builds and packs; prints what was made and how large it is.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.first() {
        bail!("dist takes no argument, not `{unknown}`");
    }
    command::need("musl-gcc", "musl-tools")?;
    let target = format!("{ARCH}-unknown-linux-musl");
    if command::find("rustup").is_some() {
        command::run(
            Command::new("rustup")
                .args(["target", "add", &target])
                .current_dir(command::root())
                .stderr(Stdio::null()),
        )?;
    }
    let shim = build_shim(&target)?;
    let pintle = build_pintle(&target, &shim)?;
    let archive = pack(&pintle)?;
    for (what, file) in [("the shim, inside pintle", &shim), ("pintle", &pintle), ("the archive", &archive)] {
        let bytes = fs::metadata(file)?.len();
        println!("{:>9.3} MB  {what}: {}", bytes as f64 / 1e6, file.display());
    }
    Ok(())
}

/// Where the release's binary is, once it is built.
pub(crate) fn built() -> PathBuf {
    command::target_dir().join("dist").join(format!("{ARCH}-unknown-linux-musl")).join("dist/pintle")
}

/// The shim as its own small executable.
///
/// It is linked to a fixed address: a position-independent one would move itself when it starts, and so make private copies, once per pod, of pages
/// that all shims can share.
fn build_shim(target: &str) -> Result<PathBuf> {
    let dir = command::target_dir().join("dist-shim");
    let mut cargo = command::cargo(&[
        "build",
        "--locked",
        "--profile",
        "shim",
        "--package",
        "shim",
        "--bin",
        "pintle-shim",
    ]);
    cargo.args(["--target", target, "--target-dir"]).arg(&dir);
    cargo.env("RUSTFLAGS", flags("-C relocation-model=static -C target-feature=+crt-static"));
    command::run(&mut cargo)?;
    let file = dir.join(target).join("shim/pintle-shim");
    check(&file, elf::Linking { dynamic: false, position_independent: false })?;
    Ok(file)
}

/// The one binary, with the shim inside. It reads hostile bytes, so it stays position-independent.
fn build_pintle(target: &str, shim: &Path) -> Result<PathBuf> {
    let dir = command::target_dir().join("dist");
    let mut cargo =
        command::cargo(&["build", "--locked", "--profile", "dist", "--package", "pintle", "--bin", "pintle"]);
    cargo.args(["--target", target, "--target-dir"]).arg(&dir);
    // The addresses that such a program puts right when it starts are written down as a bitmap: 8 kB in place of a megabyte and more to read.
    let packed = "-C link-arg=-Wl,-z,pack-relative-relocs";
    cargo.env("RUSTFLAGS", flags(&format!("-C target-feature=+crt-static {packed}")));
    cargo.env("PINTLE_SHIM_ELF", shim);
    command::run(&mut cargo)?;
    let file = dir.join(target).join("dist/pintle");
    check(&file, elf::Linking { dynamic: false, position_independent: true })?;
    if !contains(&fs::read(&file)?, &fs::read(shim)?) {
        bail!("{}: does not have the shim inside", file.display());
    }
    Ok(file)
}

/// Whether `inner` stands in `outer`, byte by byte.
fn contains(outer: &[u8], inner: &[u8]) -> bool {
    let head = &inner[..inner.len().min(64)];
    let mut starts = outer.windows(head.len().max(1)).enumerate().filter(|(_, window)| *window == head);
    !inner.is_empty() && starts.any(|(at, _)| outer[at..].starts_with(inner))
}

/// The flags, and none of this machine's paths in what is built.
fn flags(more: &str) -> String {
    let mut flags = format!("{more} --remap-path-prefix={}=pintle", command::root().display());
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(cargo) = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"))) {
        flags += &format!(" --remap-path-prefix={}=cargo", cargo.display());
    }
    flags
}

fn check(file: &Path, wanted: elf::Linking) -> Result<()> {
    let bytes = fs::read(file).with_context(|| file.display().to_string())?;
    let found = elf::linking(&bytes).with_context(|| file.display().to_string())?;
    if found != wanted {
        bail!("{}: is linked as {found:?} and should be {wanted:?}", file.display());
    }
    Ok(())
}

/// `dist/pintle-VERSION-linux-ARCH.tar.gz` and `dist/SHA256SUMS`; the same inputs give the same bytes.
fn pack(pintle: &Path) -> Result<PathBuf> {
    let name = format!("pintle-{}-linux-{ARCH}", env!("CARGO_PKG_VERSION"));
    let dist = command::root().join("dist");
    let folder = dist.join(&name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let install = |from: &Path, to: &str, mode: &str| {
        command::run(Command::new("install").args(["-m", mode]).arg(from).arg(folder.join(to)))
    };
    install(pintle, "pintle", "755")?;
    for (from, to, mode) in FILES {
        install(&command::root().join(from), to, mode)?;
    }
    let archive = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.args([
        &format!("--mtime=@{}", commit_time()),
        "--use-compress-program=gzip -n -9",
        "--file",
        &archive,
        &name,
    ]);
    command::run(tar.current_dir(&dist))?;
    let sums = command::capture(
        Command::new("sha256sum").arg(&archive).arg(format!("{name}/pintle")).current_dir(&dist),
    )?;
    fs::write(dist.join("SHA256SUMS"), &sums)?;
    print!("{sums}");
    Ok(dist.join(archive))
}

/// When the commit was made, in seconds since 1970; 0 outside a repository.
fn commit_time() -> u64 {
    let mut git = Command::new("git");
    let output =
        git.args(["log", "-1", "--format=%ct"]).current_dir(command::root()).stderr(Stdio::null()).output();
    output.ok().and_then(|output| String::from_utf8_lossy(&output.stdout).trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::contains;

    #[test]
    fn what_is_inside_is_found() {
        let inner: Vec<u8> = (0..200).collect();
        let outer: Vec<u8> = [&inner[..70], &inner[..], b"tail"].concat();
        assert!(contains(&outer, &inner));
        assert!(!contains(&outer[..200], &inner));
        assert!(!contains(&outer, b""));
        assert!(!contains(b"", b"x"));
    }
}
