//! Masked and read-only paths, verified by descriptor.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use sys::mount::{Change, Parameter, attribute};
use sys::root::Root;

use super::Plan;
use crate::error::{At, Failure, Stage};

/// Covers `linux.maskedPaths` and makes `linux.readonlyPaths` read-only. What does not exist needs neither.
pub(super) fn protect(plan: &Plan<'_>, root: &Root) -> Result<(), Failure> {
    for path in plan.linux.readonly_paths().iter().flatten() {
        read_only(root, Path::new(path)).at(Stage::Paths, || format!("read-only {path}"))?;
    }
    let mut covers = Covers::default();
    let mut seen = std::collections::BTreeSet::new();
    for path in plan.linux.masked_paths().iter().flatten().filter(|path| seen.insert(*path)) {
        covers.mask(root, Path::new(path)).at(Stage::Paths, || format!("masked {path}"))?;
    }
    Ok(())
}

fn find(root: &Root, path: &Path) -> io::Result<Option<OwnedFd>> {
    match root.open_at(path, OFlags::PATH, Mode::empty()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn read_only(root: &Root, path: &Path) -> io::Result<()> {
    let Some(place) = find(root, path)? else { return Ok(()) };
    let copy = sys::mount::clone_mount(place.as_fd(), true)?;
    sys::mount::set_attributes(copy.as_fd(), true, &Change { set: attribute::RDONLY, ..Change::default() })?;
    sys::mount::attach(copy.as_fd(), place.as_fd())
}

/// What lies over masked paths, made when the first one needs it.
#[derive(Default)]
struct Covers {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Covers {
    fn mask(&mut self, root: &Root, path: &Path) -> io::Result<()> {
        let Some(place) = find(root, path)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode);
        let (first, make): (_, fn() -> _) =
            if kind == FileType::Directory { (&mut self.empty, empty) } else { (&mut self.null, null) };
        // The first cover is attached as it was made; the others are copies of it, attributes and all.
        match first {
            Some(first) => {
                let cover = sys::mount::clone_mount(first.as_fd(), false)?;
                sys::mount::attach(cover.as_fd(), place.as_fd())
            }
            None => {
                let cover = make()?;
                sys::mount::attach(cover.as_fd(), place.as_fd())?;
                *first = Some(cover);
                Ok(())
            }
        }
    }
}

const ATTRIBUTES: u64 = attribute::RDONLY | attribute::NOSUID | attribute::NOEXEC;

/// An empty directory.
fn empty() -> io::Result<OwnedFd> {
    let parameters = [Parameter::Value("size", "0"), Parameter::Value("nr_inodes", "2")];
    sys::mount::new_filesystem("tmpfs", &parameters, ATTRIBUTES | attribute::NODEV)
}

/// The host's /dev/null, which is the null device by number: whatever the image has under that name plays no part
/// (CVE-2025-31133). Read-only, so that the container's root cannot change the mode or owner of the host's node.
fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&null)?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if !is_null {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "/dev/null of the host is not the null device",
        ));
    }
    let cover = sys::mount::clone_mount(null.as_fd(), false)?;
    sys::mount::set_attributes(cover.as_fd(), false, &Change { set: ATTRIBUTES, ..Change::default() })?;
    Ok(cover)
}
