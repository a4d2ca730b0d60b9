//! A network's state on disk: which attachment has which addresses and host ports, under one lock.
//!
//! `addresses/<ip>` is a symbolic link whose target is the owner, so that taking an address is one atomic system call.
//! `attachments/<owner>` says what an owner has; it is written before its addresses are taken and removed after they are let go.
//! `lock` is held while any of it changes, and holds the address that was given last of each subnet.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sys::file::{Durability, write_atomic};

use crate::cni::error::{CniError, code};
use crate::pod::PortMapping;

/// The form of the files written here.
const FORMAT: u32 = 1;

/// What one interface of one container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) format: u32,
    pub(crate) container_id: String,
    pub(crate) interface: String,
    /// The host's end of the veth pair.
    pub(crate) host_interface: String,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) ports: Vec<PortMapping>,
    /// The interface that shapes what the pod sends, where there is a limit.
    #[serde(default)]
    pub(crate) shaper: Option<String>,
}

impl Attachment {
    pub(crate) fn new(container_id: &str, interface: &str, host_interface: String) -> Attachment {
        Attachment {
            format: FORMAT,
            container_id: container_id.into(),
            interface: interface.into(),
            host_interface,
            addresses: Vec::new(),
            ports: Vec::new(),
            shaper: None,
        }
    }

    pub(crate) fn owner(&self) -> String {
        owner(&self.container_id, &self.interface)
    }

    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == ip)
    }
}

/// Who has an address. `@` is in no container id.
pub(crate) fn owner(container_id: &str, interface: &str) -> String {
    format!("{container_id}@{interface}")
}

/// The state of one network, locked.
#[derive(Debug)]
pub(crate) struct State {
    folder: PathBuf,
    lock: File,
    fresh: bool,
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(io::Error) -> CniError {
    let message = format!("{what} {}", path.display());
    move |source| CniError { code: code::IO, message, details: source.to_string() }
}

/// Where the state of the network `name` is.
pub(crate) fn folder_of(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join("networks").join(name)
}

impl State {
    /// Locks the network's state, making its folder where it is missing. Waits for whoever has the lock.
    pub(crate) fn lock(state_dir: &Path, name: &str) -> Result<State, CniError> {
        let folder = folder_of(state_dir, name);
        let path = folder.join("lock");
        loop {
            let lock = open_lock(&folder, &path).map_err(io_error("cannot open", &path))?;
            rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
                .map_err(|errno| io_error("cannot lock", &path)(errno.into()))?;
            let held = lock.metadata().map_err(io_error("cannot read", &path))?;
            // While this waited the network may have been removed, and the file with it.
            if !std::fs::metadata(&path).is_ok_and(|found| found.ino() == held.ino()) {
                continue;
            }
            // Whoever has the lock of a new network first makes the rest.
            let fresh = held.len() == 0;
            if fresh {
                for inner in ["addresses", "attachments"] {
                    let inner = folder.join(inner);
                    make_folder(&inner).map_err(io_error("cannot make the state folder", &inner))?;
                }
            }
            return Ok(State { folder, lock, fresh });
        }
    }

    /// Whether nothing was written here before.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The same where the network has state; `None` where it has none, so that a DEL makes no folders.
    pub(crate) fn lock_existing(state_dir: &Path, name: &str) -> Result<Option<State>, CniError> {
        if !folder_of(state_dir, name).join("lock").exists() {
            return Ok(None);
        }
        State::lock(state_dir, name).map(Some)
    }

    pub(crate) fn attachment(&self, owner: &str) -> Result<Option<Attachment>, CniError> {
        let path = self.folder.join("attachments").join(owner);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("cannot read", &path)(error)),
        };
        let parsed = serde_json::from_slice::<Attachment>(&bytes).map_err(|error| error.to_string());
        match parsed {
            Ok(attachment) if attachment.format <= FORMAT => Ok(Some(attachment)),
            Ok(_) => Err(CniError::new(code::IO, format!("{} is from a newer version", path.display()))),
            Err(why) => Err(CniError {
                code: code::IO,
                message: format!("{} is damaged", path.display()),
                details: why,
            }),
        }
    }

    /// Every attachment; what cannot be read is left out.
    pub(crate) fn attachments(&self) -> Vec<Attachment> {
        let owners = names(&self.folder.join("attachments"));
        owners.iter().filter_map(|owner| self.attachment(owner).ok().flatten()).collect()
    }

    pub(crate) fn has_attachments(&self) -> bool {
        !names(&self.folder.join("attachments")).is_empty()
    }

    pub(crate) fn write(&self, attachment: &Attachment) -> Result<(), CniError> {
        let path = self.folder.join("attachments").join(attachment.owner());
        let bytes = serde_json::to_vec(attachment).map_err(|e| CniError::new(code::IO, e.to_string()))?;
        write_atomic(&path, &bytes, 0o600, Durability::Process).map_err(io_error("cannot write", &path))
    }

    /// Removes an attachment and lets its addresses go; what is gone already is fine.
    pub(crate) fn remove(&self, owner: &str) -> Result<(), CniError> {
        let known = self.attachment(owner);
        match &known {
            Ok(Some(attachment)) => {
                for address in &attachment.addresses {
                    self.release(address.addr(), owner)?;
                }
            }
            // A damaged file does not say what to let go: look at every address.
            Ok(None) | Err(_) => {
                for (ip, _) in self.owners().into_iter().filter(|(_, of)| of == owner) {
                    self.release(ip, owner)?;
                }
            }
        }
        remove_file(&self.folder.join("attachments").join(owner))
    }

    /// Whose the address is.
    pub(crate) fn owner_of(&self, ip: IpAddr) -> Option<String> {
        let target = std::fs::read_link(self.folder.join("addresses").join(ip.to_string())).ok()?;
        target.into_os_string().into_string().ok()
    }

    /// Every address that is taken, with its owner.
    pub(crate) fn owners(&self) -> Vec<(IpAddr, String)> {
        names(&self.folder.join("addresses"))
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter_map(|ip| Some((ip, self.owner_of(ip)?)))
            .collect()
    }

    /// Takes `ip` for `owner`; false where it is somebody else's.
    pub(crate) fn take(&self, ip: IpAddr, owner: &str) -> Result<bool, CniError> {
        let path = self.folder.join("addresses").join(ip.to_string());
        match symlink(owner, &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(self.owner_of(ip).as_deref() == Some(owner))
            }
            Err(error) => Err(io_error("cannot take the address", &path)(error)),
        }
    }

    /// Lets `ip` go if it is `owner`'s.
    pub(crate) fn release(&self, ip: IpAddr, owner: &str) -> Result<(), CniError> {
        if self.owner_of(ip).as_deref() == Some(owner) {
            remove_file(&self.folder.join("addresses").join(ip.to_string()))?;
        }
        Ok(())
    }

    /// The address of each subnet that was given last. A torn write only makes the search begin elsewhere.
    pub(crate) fn last_given(&mut self) -> Vec<IpAddr> {
        let mut text = String::new();
        let read = self.lock.rewind().and_then(|()| (&self.lock).take(4096).read_to_string(&mut text));
        if read.is_err() {
            return Vec::new();
        }
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    pub(crate) fn set_last_given(&mut self, last: &[IpAddr]) -> Result<(), CniError> {
        let text: String = last.iter().map(|ip| format!("{ip}\n")).collect();
        let mut write = || -> io::Result<()> {
            self.lock.rewind()?;
            self.lock.write_all(text.as_bytes())?;
            self.lock.set_len(text.len() as u64)
        };
        write().map_err(io_error("cannot write", &self.folder.join("lock")))
    }

    /// What [`crate::plugin::remove_network`] must know of a network whose configuration may be gone.
    pub(crate) fn describe(&self, bridge: &str, table: &str) -> Result<(), CniError> {
        let path = self.folder.join("network");
        let text = format!("{bridge}\n{table}\n");
        if std::fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
            return Ok(());
        }
        write_atomic(&path, text.as_bytes(), 0o600, Durability::Process)
            .map_err(io_error("cannot write", &path))
    }

    /// The bridge and the table of the network.
    pub(crate) fn description(&self) -> Option<(String, String)> {
        let text = std::fs::read_to_string(self.folder.join("network")).ok()?;
        let mut lines = text.lines();
        Some((lines.next()?.to_string(), lines.next()?.to_string()))
    }

    /// Removes the network's state altogether.
    pub(crate) fn destroy(self) -> Result<(), CniError> {
        std::fs::remove_dir_all(&self.folder).map_err(io_error("cannot remove", &self.folder))
    }
}

fn open_lock(folder: &Path, path: &Path) -> io::Result<File> {
    let open =
        || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(folder)?;
            open()
        }
        done => done,
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

fn remove_file(path: &Path) -> Result<(), CniError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", path)(error)),
        _ => Ok(()),
    }
}
