//! The mounts that a request names: checked, sorted, and in the words of the runtime spec.

use std::path::{Path, PathBuf};

use model::request::{IdMapping, Mount as Asked, Propagation};
use oci_spec::runtime::{LinuxIdMapping, Mount};

use crate::error::SpecError;
use crate::path::clean_absolute;

/// A mount of the request, and where it stands there.
pub(super) struct Requested {
    index: usize,
    propagation: Propagation,
    pub(super) mount: Mount,
}

impl Requested {
    /// Whether a mount made below it appears on the host too.
    pub(super) fn is_shared(&self) -> bool {
        self.propagation == Propagation::Bidirectional
    }
}

/// Files of procfs that may be covered, as lxcfs does to show a container its own limits. Everything else there may not: writes to a
/// fake procfs are how labels and sysctls were misled (CVE-2019-19921 and its successors).
const COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// All mounts of the request, parents before children, otherwise in the order asked.
pub(super) fn all(asked: &[Asked]) -> Result<Vec<Requested>, SpecError> {
    let mut requested =
        asked.iter().enumerate().map(|(index, asked)| one(index, asked)).collect::<Result<Vec<_>, _>>()?;
    requested.sort_by_key(|requested| requested.mount.destination().components().count());
    let mut by_target: Vec<&Requested> = requested.iter().collect();
    by_target.sort_by_key(|requested| (requested.mount.destination(), requested.index));
    let twice = by_target.windows(2).find(|pair| pair[0].mount.destination() == pair[1].mount.destination());
    if let Some([first, second]) = twice {
        return Err(SpecError::MountTwice {
            first: first.index,
            index: second.index,
            target: second.mount.destination().clone(),
        });
    }
    Ok(requested)
}

/// A mount that is to see what the host mounts below it needs a root that is not private itself; the strongest wish wins.
pub(super) fn rootfs_propagation(requested: &[Requested]) -> Option<&'static str> {
    let has = |wanted| requested.iter().any(|requested| requested.propagation == wanted);
    if has(Propagation::Bidirectional) {
        return Some("rshared");
    }
    has(Propagation::HostToContainer).then_some("rslave")
}

fn one(index: usize, asked: &Asked) -> Result<Requested, SpecError> {
    let target =
        clean_absolute(&asked.container_path).map_err(|path| SpecError::MountTarget { index, path })?;
    may_be_covered(index, &target)?;
    if asked.image.is_some() {
        return Err(SpecError::ImageVolume { index, target });
    }
    let source = clean_absolute(&asked.host_path).map_err(|path| SpecError::MountSource {
        index,
        target: target.clone(),
        path,
    })?;
    let mut options = options(index, asked, &target)?;
    let mut mount = Mount::default();
    if let Some((uids, gids)) = id_mappings(index, asked, &target)? {
        // The mount is recursive, and so is the mapping of its ids.
        options.push("ridmap".into());
        mount.set_uid_mappings(Some(uids)).set_gid_mappings(Some(gids));
    }
    mount.set_destination(target).set_typ(Some("bind".into())).set_source(Some(source));
    mount.set_options(Some(options));
    Ok(Requested { index, propagation: asked.propagation, mount })
}

fn may_be_covered(index: usize, target: &Path) -> Result<(), SpecError> {
    let forbid = |why| Err(SpecError::MountTargetForbidden { index, target: target.to_owned(), why });
    if target == Path::new("/") {
        return forbid("it is the root of the container, which is its image");
    }
    if target.starts_with("/proc") && !COVERABLE.iter().any(|file| target == Path::new(file)) {
        return forbid("the container's security rests on its /proc being real");
    }
    Ok(())
}

fn options(index: usize, asked: &Asked, target: &Path) -> Result<Vec<String>, SpecError> {
    let propagation = match asked.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    let needs = |needs| Err(SpecError::RecursiveReadOnly { index, target: target.to_owned(), needs });
    let access = match (asked.recursive_read_only, asked.readonly, asked.propagation) {
        (false, false, _) => "rw",
        (false, true, _) => "ro",
        (true, false, _) => return needs("readonly"),
        (true, true, Propagation::HostToContainer | Propagation::Bidirectional) => {
            return needs("private propagation");
        }
        (true, true, Propagation::Private) => "rro",
    };
    let mut options: Vec<String> = ["rbind", propagation, access].map(String::from).into();
    for option in &asked.options {
        if !matches!(option.as_str(), "noexec" | "nodev" | "nosuid") {
            let option = option.chars().take(64).collect();
            return Err(SpecError::MountOption { index, target: target.to_owned(), option });
        }
        if !options.contains(option) {
            options.push(option.clone());
        }
    }
    Ok(options)
}

type Mappings = (Vec<LinuxIdMapping>, Vec<LinuxIdMapping>);

fn id_mappings(index: usize, asked: &Asked, target: &Path) -> Result<Option<Mappings>, SpecError> {
    let refuse = |why| SpecError::MountIdMapping { index, target: PathBuf::from(target), why };
    match (asked.uids.is_empty(), asked.gids.is_empty()) {
        (true, true) => return Ok(None),
        (false, false) => {}
        (true, false) | (false, true) => return Err(refuse("needs both uids and gids")),
    }
    check_mappings(&asked.uids).map_err(refuse)?;
    check_mappings(&asked.gids).map_err(refuse)?;
    let linux = |mappings: &[IdMapping]| mappings.iter().map(linux_mapping).collect();
    Ok(Some((linux(&asked.uids), linux(&asked.gids))))
}

fn linux_mapping(mapping: &IdMapping) -> LinuxIdMapping {
    oci_spec::runtime::LinuxIdMappingBuilder::default()
        .host_id(mapping.host_id)
        .container_id(mapping.container_id)
        .size(mapping.length)
        .build()
        .unwrap_or_default()
}

/// What user_namespaces(7) asks of a map: ranges that hold something, end below 2^32, and do not overlap.
pub(crate) fn check_mappings(mappings: &[IdMapping]) -> Result<(), &'static str> {
    let overlap = |a: (u32, u32), b: (u32, u32)| {
        u64::from(a.0) < u64::from(b.0) + u64::from(b.1) && u64::from(b.0) < u64::from(a.0) + u64::from(a.1)
    };
    for (at, mapping) in mappings.iter().enumerate() {
        if mapping.length == 0 {
            return Err("has length 0");
        }
        if mapping.host_id.checked_add(mapping.length).is_none()
            || mapping.container_id.checked_add(mapping.length).is_none()
        {
            return Err("ends above the highest id, 4294967294");
        }
        for other in &mappings[..at] {
            if overlap((mapping.host_id, mapping.length), (other.host_id, other.length))
                || overlap((mapping.container_id, mapping.length), (other.container_id, other.length))
            {
                return Err("overlaps another");
            }
        }
    }
    Ok(())
}
