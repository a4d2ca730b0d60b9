//! Id maps: writing those of a user namespace, and user namespaces that exist only to carry the map of a mount.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::{LinuxIdMapping, Mount};
use sys::process::Cloned;

use crate::error::{At, Failure, Stage};

/// Makes and remembers the user namespaces of id-mapped mounts; equal maps share one.
#[derive(Debug, Default)]
pub(crate) struct IdMaps {
    container: Option<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>)>,
    made: Vec<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>, OwnedFd)>,
}

impl IdMaps {
    /// `container` are the maps of the container's new user namespace: what `idmap` means on a mount without maps of its own.
    pub(crate) fn new(container: Option<(&[LinuxIdMapping], &[LinuxIdMapping])>) -> IdMaps {
        IdMaps { container: container.map(|(u, g)| (u.into(), g.into())), made: Vec::new() }
    }

    /// The user namespace for a mount, and whether its whole tree is mapped; `None` if it is not mapped.
    pub(crate) fn of_mount(
        &mut self,
        mount: &Mount,
        asked: Option<bool>,
    ) -> Result<Option<(&OwnedFd, bool)>, Failure> {
        let name = || format!("id map of {}", mount.destination().display());
        let uids = mount.uid_mappings().clone().unwrap_or_default();
        let gids = mount.gid_mappings().clone().unwrap_or_default();
        let (uids, gids) = match (uids.is_empty(), gids.is_empty(), asked) {
            (true, true, None) => return Ok(None),
            (false, false, _) => (uids, gids),
            (true, true, Some(_)) => self.container.clone().ok_or_else(|| {
                Failure::new(
                    Stage::Mounts,
                    name(),
                    "the container has no user namespace of its own to take it from",
                )
                .remedy("set uidMappings and gidMappings of the mount")
            })?,
            _ => return Err(Failure::new(Stage::Mounts, name(), "uidMappings and gidMappings go together")),
        };
        let known = self.made.iter().position(|(u, g, _)| *u == uids && *g == gids);
        let index = match known {
            Some(index) => index,
            None => {
                let namespace = user_namespace(&uids, &gids).at(Stage::Mounts, name)?;
                self.made.push((uids, gids, namespace));
                self.made.len() - 1
            }
        };
        Ok(Some((&self.made[index].2, asked.unwrap_or(false))))
    }
}

/// A user namespace with these maps. The process that made it lives only until the namespace is open.
fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> io::Result<OwnedFd> {
    let (ours, theirs) = sys::socket::packet_pair()?;
    match sys::process::clone_process(sys::namespace::kind::USER, None)? {
        Cloned::Child => {
            drop(ours);
            let _ = sys::socket::receive(theirs.as_fd(), &mut [0]);
            sys::process::exit_now(0)
        }
        Cloned::Parent(child) => {
            let opened = write_maps(child.pid, uids, gids)
                .and_then(|()| Ok(std::fs::File::open(format!("/proc/{}/ns/user", child.pid))?.into()));
            child.kill_and_reap();
            opened
        }
    }
}

/// Writes the maps of the user namespace that `pid` has just made (user_namespaces(7)).
pub(crate) fn write_maps(pid: i32, uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> io::Result<()> {
    let write = |file: &str, text: String| {
        std::fs::write(format!("/proc/{pid}/{file}"), &text)
            .map_err(|error| io::Error::new(error.kind(), format!("{file} {:?}: {error}", text.trim_end())))
    };
    write("uid_map", lines(uids))?;
    if !rustix::process::geteuid().is_root() {
        // Without privilege a group map is allowed only after groups were given up.
        write("setgroups", "deny".into())?;
    }
    write("gid_map", lines(gids))
}

fn lines(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}
