//! Id maps of mounts: the container's own user namespace, or user namespaces that exist only to carry the map of a mount.

use std::os::fd::OwnedFd;

use oci_spec::runtime::{LinuxIdMapping, Mount};
use sys::users::IdRange;

use crate::error::{At, Failure, Stage};

/// Makes and remembers the user namespaces of id-mapped mounts; equal maps share one.
#[derive(Debug)]
pub(crate) struct IdMaps<'a> {
    container: Users<'a>,
    made: Vec<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>, OwnedFd)>,
}

/// The users of the container: what `idmap` means on a mount without maps of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Users<'a> {
    Host,
    /// Of a namespace that is yet to be made.
    New(&'a [LinuxIdMapping], &'a [LinuxIdMapping]),
    /// Of a namespace that it joins.
    Joined(&'a OwnedFd),
}

impl<'a> IdMaps<'a> {
    pub(crate) fn new(container: Users<'a>) -> IdMaps<'a> {
        IdMaps { container, made: Vec::new() }
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
        let deep = asked.unwrap_or(false);
        let (uids, gids) = match (uids.is_empty(), gids.is_empty(), asked) {
            (true, true, None) => return Ok(None),
            (false, false, _) => (uids, gids),
            (true, true, Some(_)) => match self.container {
                Users::Joined(namespace) => return Ok(Some((namespace, deep))),
                Users::New(uids, gids) => (uids.into(), gids.into()),
                Users::Host => {
                    let cause = "the container has no user namespace of its own to take it from";
                    return Err(Failure::new(Stage::Mounts, name(), cause)
                        .remedy("set uidMappings and gidMappings of the mount"));
                }
            },
            _ => return Err(Failure::new(Stage::Mounts, name(), "uidMappings and gidMappings go together")),
        };
        let known = self.made.iter().position(|(u, g, _)| *u == uids && *g == gids);
        let index = match known {
            Some(index) => index,
            None => {
                let namespace = sys::users::new(&ranges(&uids), &ranges(&gids)).at(Stage::Mounts, name)?;
                self.made.push((uids, gids, namespace));
                self.made.len() - 1
            }
        };
        Ok(Some((&self.made[index].2, deep)))
    }
}

/// The mappings as the kernel takes them.
pub(crate) fn ranges(maps: &[LinuxIdMapping]) -> Vec<IdRange> {
    let range = |map: &LinuxIdMapping| IdRange {
        inside: map.container_id(),
        outside: map.host_id(),
        count: map.size(),
    };
    maps.iter().map(range).collect()
}
