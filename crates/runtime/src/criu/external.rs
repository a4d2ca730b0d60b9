//! The mounts of a container that CRIU does not save, because what they show is the host's: which they are, and where each comes from
//! when the container is restored. Written beside CRIU's images, and not trusted when it is read.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::error::{At, Failure, Stage};
use crate::mounts::{clean, is_bind};

/// The file of what only this runtime knows, beside CRIU's images.
const SAVED: &str = "pintle.json";
const VERSION: u32 = 1;
const LARGEST: u64 = 4 << 20;
/// Mounts of one container, and more than any has.
const MOST: usize = 100_000;

/// A mount, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct External {
    /// Where it is in the container.
    pub(crate) at: PathBuf,
    pub(crate) origin: Origin,
}

/// Where the content of an external mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// The bind mount of the configuration that goes to `mount`, and of that what is `below` it.
    Bind { mount: PathBuf, below: PathBuf },
    /// The container's own cgroup, in the hierarchy of this name; none is the only one.
    Cgroup(Option<String>),
    /// A device node below the host's /dev.
    Device(PathBuf),
    /// Nothing, over a masked directory.
    Nothing,
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    version: u32,
    pub(crate) external: Vec<External>,
    /// By which names CRIU knows the ends of the pipes that were the standard streams; none where the stream was something else.
    pub(crate) streams: [Option<String>; 3],
}

impl Saved {
    pub(crate) fn new(external: Vec<External>, streams: [Option<String>; 3]) -> Saved {
        Saved { version: VERSION, external, streams }
    }
}

/// The external mounts of the process `pid`, which is in the container of `spec`.
pub(crate) fn find(pid: i32, spec: &Spec) -> Result<Vec<External>, Failure> {
    let path = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read(&path).at(Stage::Criu, || path)?;
    let binds = binds(spec);
    let masked: Vec<PathBuf> = spec
        .linux()
        .iter()
        .flat_map(|linux| linux.masked_paths().iter().flatten())
        .map(|path| clean(Path::new(path)))
        .collect();
    // A mount that lies under another at the same place is not seen, and CRIU knows the upper one by the name.
    let mut found = BTreeMap::new();
    for mount in text.split(|b| *b == b'\n').filter_map(Mount::parse) {
        if let Some(origin) = mount.origin(&binds, &masked) {
            found.insert(mount.at, origin);
        }
    }
    Ok(found.into_iter().map(|(at, origin)| External { at, origin }).collect())
}

/// The destinations of all mounts of the configuration, and whether each is a bind mount. The last one wins, as it lies on top.
fn binds(spec: &Spec) -> BTreeMap<PathBuf, bool> {
    let mounts = spec.mounts().iter().flatten();
    mounts.map(|mount| (clean(mount.destination()), is_bind(mount))).collect()
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mount {
    root: PathBuf,
    at: PathBuf,
    kind: String,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|b| *b == b' ');
        let (root, at) = (fields.nth(3)?, fields.next()?);
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        let path = |field| PathBuf::from(OsString::from_vec(unescape(field)));
        Some(Mount { root: path(root), at: path(at), kind: String::from_utf8_lossy(kind).into_owned() })
    }

    fn origin(&self, binds: &BTreeMap<PathBuf, bool>, masked: &[PathBuf]) -> Option<Origin> {
        if self.at == Path::new("/") {
            return None;
        }
        if self.kind == "cgroup" {
            return Some(Origin::Cgroup(Some(self.at.file_name()?.to_str()?.to_owned())));
        }
        if self.kind == "cgroup2" {
            // Beside the hierarchies of version 1 it is one more of them.
            let name = self.at.file_name()?.to_str()?;
            return Some(Origin::Cgroup((name == "unified").then(|| name.to_owned())));
        }
        let above = self.at.ancestors().find_map(|path| binds.get_key_value(path));
        if let Some((mount, true)) = above {
            let below = self.at.strip_prefix(mount).ok()?.to_owned();
            return Some(Origin::Bind { mount: mount.clone(), below });
        }
        if self.kind == "devtmpfs" {
            return Some(Origin::Device(self.root.strip_prefix("/").ok()?.to_owned()));
        }
        if masked.contains(&self.at) {
            // A masked file shows a null device, also where the host's is not in a file system of devices.
            let null = self.root.file_name().is_some_and(|name| name == "null");
            return Some(if null { Origin::Device("null".into()) } else { Origin::Nothing });
        }
        None
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut left = field;
    while let Some((first, rest)) = left.split_first() {
        let digits = rest.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                left = &rest[3..];
            }
            None => {
                plain.push(*first);
                left = rest;
            }
        }
    }
    plain
}

/// Writes what is not in CRIU's images into their folder.
pub(crate) fn write_saved(folder: &Path, saved: &Saved) -> Result<(), Failure> {
    let path = folder.join(SAVED);
    let object = || path.display().to_string();
    let bytes = serde_json::to_vec(saved).map_err(|error| Failure::new(Stage::Criu, object(), error))?;
    sys::file::write_atomic(&path, &bytes, 0o600, sys::file::Durability::Process).at(Stage::Criu, object)
}

/// Reads it again. Paths in it are plain: none climbs.
pub(crate) fn read_saved(folder: &Path) -> Result<Saved, Failure> {
    let path = folder.join(SAVED);
    let object = || path.display().to_string();
    let file = sys::root::Root::open(folder)
        .and_then(|root| root.regular_file(Path::new(SAVED)))
        .at(Stage::Criu, object)
        .map_err(|failure| failure.remedy("only checkpoints that this runtime made can be restored"))?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).at(Stage::Criu, object)?;
    let bad = |why: String| Failure::new(Stage::Criu, object(), why);
    if bytes.len() as u64 > LARGEST {
        return Err(bad(format!("is larger than {LARGEST} bytes")));
    }
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if saved.version != VERSION {
        return Err(bad(format!("is of version {}, this program knows {VERSION}", saved.version)));
    }
    if saved.external.len() > MOST || !saved.external.iter().all(External::is_plain) {
        return Err(bad("holds a path that cannot be one of a mount".into()));
    }
    Ok(saved)
}

impl External {
    /// The name by which CRIU's images have it.
    pub(crate) fn key(&self) -> String {
        self.at.display().to_string()
    }

    fn is_plain(&self) -> bool {
        let relative =
            |path: &Path| path.components().all(|component| matches!(component, Component::Normal(_)));
        let absolute = |path: &Path| path.strip_prefix("/").is_ok_and(relative);
        let origin = match &self.origin {
            Origin::Bind { mount, below } => absolute(mount) && relative(below),
            Origin::Cgroup(name) => name
                .as_deref()
                .is_none_or(|name| relative(Path::new(name)) && Path::new(name).components().count() == 1),
            Origin::Device(path) => relative(path),
            Origin::Nothing => true,
        };
        absolute(&self.at) && origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(line: &str) -> Option<Origin> {
        let binds = [("/data", true), ("/data/tmp", false), ("/proc", false), ("/dev", false)];
        let binds = binds.map(|(path, bind)| (PathBuf::from(path), bind)).into();
        Mount::parse(line.as_bytes()).unwrap().origin(&binds, &["/proc/kcore".into(), "/proc/acpi".into()])
    }

    #[test]
    fn what_the_host_shows_is_external_and_what_is_the_containers_is_not() {
        let bind = |below: &str| Some(Origin::Bind { mount: "/data".into(), below: below.into() });
        for (line, expected) in [
            ("1 0 0:9 / / rw - overlay overlay rw", None),
            ("2 1 0:9 /x /data rw master:1 - ext4 /dev/vda rw", bind("")),
            ("3 1 0:9 / /data/a\\040b rw - ext4 /dev/vda rw", bind("a b")),
            ("4 1 0:9 / /data/tmp rw - tmpfs tmpfs rw", None),
            ("5 1 0:9 / /proc rw - proc proc rw", None),
            ("6 1 0:9 /null /proc/kcore ro - devtmpfs dev rw", Some(Origin::Device("null".into()))),
            ("7 1 0:9 /null /proc/kcore ro - tmpfs dev rw", Some(Origin::Device("null".into()))),
            ("8 1 0:9 / /proc/acpi ro - tmpfs tmpfs rw", Some(Origin::Nothing)),
            (
                "9 1 0:9 /pod /sys/fs/cgroup/cpu,cpuacct ro - cgroup c rw,cpu",
                Some(Origin::Cgroup(Some("cpu,cpuacct".into()))),
            ),
            ("9 1 0:9 /pod /sys/fs/cgroup ro - cgroup2 c rw", Some(Origin::Cgroup(None))),
        ] {
            assert_eq!(origin(line), expected, "{line}");
        }
    }

    #[test]
    fn paths_that_climb_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let put = |at: &str, origin: Origin| {
            let saved = Saved::new(vec![External { at: at.into(), origin }], [None, None, None]);
            write_saved(folder.path(), &saved).unwrap();
            read_saved(folder.path())
        };
        put("/a b", Origin::Bind { mount: "/a b".into(), below: "c/d".into() }).unwrap();
        for (at, origin) in [
            ("/x/../y", Origin::Nothing),
            ("x", Origin::Nothing),
            ("/x", Origin::Device("../etc/shadow".into())),
            ("/x", Origin::Device("/etc/shadow".into())),
            ("/x", Origin::Cgroup(Some("../..".into()))),
            ("/x", Origin::Cgroup(Some("a/b".into()))),
            ("/x", Origin::Bind { mount: "/x".into(), below: "../y".into() }),
        ] {
            assert!(put(at, origin.clone()).is_err(), "{at} {origin:?}");
        }
        std::fs::remove_file(folder.path().join(SAVED)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join(SAVED)).unwrap();
        assert!(read_saved(folder.path()).is_err());
    }
}
