//! The mounts that a request names: checked, sorted, and in the words of the runtime spec.

use std::path::{Path, PathBuf};

use model::request::{Mount as Asked, Propagation, UserNamespace};
use oci_spec::runtime::Mount;

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

/// All mounts of the request, parents before children, otherwise in the order asked. `users` are the pod's own, if it has any.
pub(super) fn all(asked: &[Asked], users: Option<&UserNamespace>) -> Result<Vec<Requested>, SpecError> {
    let volume = |index: usize| asked[..index].iter().filter(|mount| mount.image.is_some()).count();
    let mut requested = asked
        .iter()
        .enumerate()
        .map(|(index, mount)| one(index, mount, volume(index), users))
        .collect::<Result<Vec<_>, _>>()?;
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

/// `volume` is how many mounts before this one are made of images: they are handed to the runtime in this order.
fn one(
    index: usize,
    asked: &Asked,
    volume: usize,
    users: Option<&UserNamespace>,
) -> Result<Requested, SpecError> {
    let target =
        clean_absolute(&asked.container_path).map_err(|path| SpecError::MountTarget { index, path })?;
    may_be_covered(index, &target)?;
    let maps = is_mapped(index, asked, &target, users)?;
    let mut options = options(index, asked, &target, users)?;
    let mut mount = Mount::default();
    if asked.image.is_some() {
        check_image_volume(index, asked, &target)?;
        // Its ids are mapped already, whether that is asked for or not.
        mount.set_typ(Some("descriptor".into())).set_source(Some(volume.to_string().into()));
    } else {
        let source = clean_absolute(&asked.host_path).map_err(|path| SpecError::MountSource {
            index,
            target: target.clone(),
            path,
        })?;
        if maps {
            // The mount is recursive, and so is the mapping of its ids.
            options.push("ridmap".into());
        }
        mount.set_typ(Some("bind".into())).set_source(Some(source));
    }
    mount.set_destination(target);
    mount.set_options(Some(options));
    Ok(Requested { index, propagation: asked.propagation, mount })
}

fn check_image_volume(index: usize, asked: &Asked, target: &Path) -> Result<(), SpecError> {
    let refuse = |why| Err(SpecError::ImageVolume { index, target: target.to_owned(), why });
    if !asked.readonly {
        return refuse("it must be readonly: an image cannot be written to");
    }
    if !asked.host_path.as_os_str().is_empty() {
        return refuse("it names a host_path too");
    }
    if asked.propagation != Propagation::Private {
        return refuse("its propagation must be private");
    }
    Ok(())
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

fn options(
    index: usize,
    asked: &Asked,
    target: &Path,
    users: Option<&UserNamespace>,
) -> Result<Vec<String>, SpecError> {
    if users.is_some() && asked.propagation == Propagation::Bidirectional {
        // What the pod's superuser mounts would appear on the host, whose superuser he is not.
        return Err(SpecError::MountPropagation { index, target: target.to_owned() });
    }
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

/// Whether the owners of the files are to be those of the pod's user namespace: no other is possible.
fn is_mapped(
    index: usize,
    asked: &Asked,
    target: &Path,
    users: Option<&UserNamespace>,
) -> Result<bool, SpecError> {
    let refuse = |why| Err(SpecError::MountIdMapping { index, target: PathBuf::from(target), why });
    match (asked.uids.is_empty(), asked.gids.is_empty()) {
        (true, true) => return Ok(false),
        (false, false) => {}
        (true, false) | (false, true) => return refuse("needs both uids and gids"),
    }
    match users {
        None => refuse("needs a pod with a user namespace"),
        Some(users) if asked.uids != users.uids || asked.gids != users.gids => {
            refuse("differs from that of the pod's user namespace")
        }
        Some(_) => Ok(true),
    }
}
