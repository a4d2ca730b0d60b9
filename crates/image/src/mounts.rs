//! Layers that are files, as mounts: attached nowhere, made when they are first needed, and shared by all stacks that they are in.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use sys::mount::{Parameter, attribute};

use crate::form::LayerFile;
use crate::overlay::{Lower, Stack, mount_stack};

/// How many mounts are kept for the next that needs them. Each is a descriptor; a stack holds its own.
const KEPT: usize = 256;

/// How this kernel mounts a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As it is: one mount for everybody, of which overlayfs takes copies (Linux 6.15).
    File,
    /// Through a loop device; a mount of the same device is the same file system again.
    Loop,
}

/// The mounts of this node's layers.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// Where a file may be made to find out what the kernel can.
    folder: PathBuf,
    way: OnceLock<Result<Way, String>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    mounts: HashMap<PathBuf, Slot>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Locked while it is mounted, so that this is done once.
    mount: Arc<Mutex<Option<Arc<OwnedFd>>>>,
    used: u64,
}

impl Mounts {
    pub(crate) fn new(folder: &Path) -> Mounts {
        Mounts { folder: folder.to_owned(), way: OnceLock::new(), kept: Mutex::default() }
    }

    /// Whether the kernel mounts what is written here, by trying it once.
    ///
    /// # Errors
    /// What it says of either way.
    pub(crate) fn way(&self) -> Result<Way, &str> {
        self.way.get_or_init(|| self.probe()).as_ref().copied().map_err(String::as_str)
    }

    /// A layer's file as something that is stacked.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn lower(&self, path: &Path) -> io::Result<Lower> {
        match self.way().map_err(io::Error::other)? {
            Way::Loop => Ok(Lower::Own(Arc::new(mount_by_loop(path)?))),
            Way::File => {
                let slot = self.slot(path);
                let mut mount = slot.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(mount) = &*mount {
                    return Ok(Lower::Shared(Arc::clone(mount)));
                }
                let made = Arc::new(mount_file(path)?);
                *mount = Some(Arc::clone(&made));
                Ok(Lower::Shared(made))
            }
        }
    }

    /// A file has another name now.
    pub(crate) fn rename(&self, from: &Path, to: &Path) {
        let mut kept = self.kept();
        if let Some(slot) = kept.mounts.remove(from) {
            kept.mounts.insert(to.to_owned(), slot);
        }
    }

    /// Lets go of a file that is about to be removed: as long as it is mounted, it takes its room.
    pub(crate) fn forget(&self, path: &Path) {
        let slot = self.kept().mounts.remove(path);
        // Here, and not under the lock: it may take the kernel a while.
        drop(slot);
    }

    fn slot(&self, path: &Path) -> Arc<Mutex<Option<Arc<OwnedFd>>>> {
        let mut kept = self.kept();
        kept.clock += 1;
        let now = kept.clock;
        let mut oldest = None;
        if !kept.mounts.contains_key(path) && kept.mounts.len() >= KEPT {
            let path = kept.mounts.iter().min_by_key(|(_, slot)| slot.used).map(|(path, _)| path.clone());
            oldest = path.and_then(|path| kept.mounts.remove(&path));
        }
        let slot = kept.mounts.entry(path.to_owned()).or_default();
        slot.used = now;
        let mount = Arc::clone(&slot.mount);
        drop(kept);
        drop(oldest);
        mount
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn probe(&self) -> Result<Way, String> {
        let path = self.folder.join(format!("probe.partial-{}.erofs", std::process::id()));
        let result = self.probe_with(&path);
        let _ = std::fs::remove_file(&path);
        result
    }

    /// Mounts a tiny image, stacks it as layers are stacked, and reads it.
    fn probe_with(&self, path: &Path) -> Result<Way, String> {
        write_probe(path).map_err(|error| format!("an image cannot be written: {error}"))?;
        let mut failures = Vec::new();
        for way in [Way::File, Way::Loop] {
            let attempt = || {
                let lower = match way {
                    Way::File => Lower::Shared(Arc::new(mount_file(path)?)),
                    Way::Loop => Lower::Own(Arc::new(mount_by_loop(path)?)),
                };
                // A mount that is shared is copied where owners are mapped.
                if let Lower::Shared(mount) = &lower {
                    sys::mount::clone_mount(std::os::fd::AsFd::as_fd(&**mount), false)?;
                }
                let lowers = vec![Lower::Directory(self.folder.clone()), lower];
                let stack = mount_stack(&Stack {
                    lowers,
                    upper: None,
                    user_xattr: false,
                    id_map: None,
                    label: None,
                })?;
                if way == Way::File {
                    // Containers stack mounts of their own on theirs, and file systems can be stacked only so high. A device is not one.
                    let lowers = vec![
                        Lower::Directory(self.folder.clone()),
                        Lower::Shared(Arc::new(stack.try_clone()?)),
                    ];
                    mount_stack(&Stack {
                        lowers,
                        upper: None,
                        user_xattr: false,
                        id_map: None,
                        label: None,
                    })?;
                }
                let text = std::fs::read(format!("/proc/self/fd/{}/{PROBE}", stack.as_raw_fd()))?;
                if text == PROBE.as_bytes() {
                    Ok(())
                } else {
                    Err(io::Error::other("it reads something else"))
                }
            };
            match attempt() {
                Ok(()) => return Ok(way),
                Err(error) => failures.push(match way {
                    Way::File => format!("straight from a file: {error}"),
                    Way::Loop => format!("through a loop device: {error}"),
                }),
            }
        }
        Err(failures.join("; "))
    }
}

/// The name and the contents of the probe's only file.
const PROBE: &str = "what-pintle-finds-out";

fn write_probe(path: &Path) -> io::Result<()> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let root = erofs::Attributes { mode: 0o755, ..Default::default() };
    let options = erofs::Options { uuid: *b"pintle's probe..", root, memory: 1 << 20 };
    let mut writer = erofs::Writer::new(LayerFile::new(file), options);
    let write = || -> Result<_, erofs::Error> {
        let root = writer.root();
        let attributes = erofs::Attributes { mode: 0o644, ..Default::default() };
        let mut probe = writer.file(root, PROBE.as_bytes(), &attributes, PROBE.len() as u64)?;
        if let Some(room) = probe.room()? {
            room.copy_from_slice(PROBE.as_bytes());
            probe.filled(PROBE.len());
        }
        probe.finish()?;
        writer.finish()
    };
    let finished = write().map_err(io::Error::other)?;
    finished.output.seal(&finished.first_block).map(drop)
}

fn mount_file(path: &Path) -> io::Result<OwnedFd> {
    let file = File::open(path)?;
    // By the descriptor: what a parameter says may be no longer than 255 bytes, as a path may.
    mount(&format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn mount_by_loop(path: &Path) -> io::Result<OwnedFd> {
    let device = sys::loop_device::of_file(path)?;
    mount(&format!("/dev/loop{}", device.number()))
}

fn mount(source: &str) -> io::Result<OwnedFd> {
    let parameters = [Parameter::Value("source", source), Parameter::Flag("ro")];
    sys::mount::new_filesystem("erofs", &parameters, attribute::RDONLY)
}
