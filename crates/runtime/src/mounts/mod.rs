//! The mounts of a configuration, as far as they are prepared outside: options parsed, host sources opened as detached mounts.

pub(crate) mod options;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use sys::mount::{Change, Propagation};

use crate::error::{At, Failure, Stage};
use crate::idmap::IdMaps;
use options::Options;

/// Where a mount's content comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A copy of a tree of the host, detached, with all its attributes set; and, where it is to receive what the host mounts, how init
    /// binds it anew.
    Bind { tree: OwnedFd, directory: bool, live: Option<Live> },
    /// A new file system, which init makes in the container's namespaces.
    New { kind: String, source: String },
    /// What is at the destination already; its attributes change.
    Present,
    /// The container's own cgroup; which form depends on the host and the namespaces.
    Cgroup,
}

/// A bind that receives what is mounted on its source from now on. A detached mount receives nothing, so that something mounted between
/// its making and its attaching would never be seen: init binds it by one call instead, from its own copy of the host's tree.
#[derive(Debug)]
pub(crate) struct Live {
    /// Where the source is on the host.
    pub(crate) path: CString,
    pub(crate) recursive: bool,
}

/// One mount, ready to be attached.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Clean and absolute in the container.
    pub(crate) destination: PathBuf,
    pub(crate) source: Source,
    pub(crate) options: Options,
}

/// What mounts are made from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    /// Relative sources are below it.
    pub(crate) bundle: &'a Path,
    /// Detached mounts that the caller gave, each for one mount of type `descriptor`.
    pub(crate) volumes: Vec<Option<OwnedFd>>,
    pub(crate) id_maps: IdMaps<'a>,
}

/// Opens the sources of all mounts and parses their options.
pub(crate) fn prepare(mounts: &[Mount], mut sources: Sources<'_>) -> Result<Vec<Prepared>, Failure> {
    mounts.iter().map(|mount| prepare_one(mount, &mut sources)).collect()
}

fn prepare_one(mount: &Mount, sources: &mut Sources<'_>) -> Result<Prepared, Failure> {
    let destination = clean(mount.destination());
    let name = destination.display().to_string();
    if destination == Path::new("/") {
        return Err(Failure::new(Stage::Mounts, name, "a mount cannot replace the root file system")
            .remedy("set root.path instead"));
    }
    let options = Options::parse(mount.options().as_deref().unwrap_or_default())
        .map_err(|cause| Failure::new(Stage::Mounts, name.clone(), cause))?;
    let kind = mount.typ().as_deref().unwrap_or(if options.bind.is_some() { "bind" } else { "" });
    let source = if options.remount {
        Source::Present
    } else if kind == "descriptor" {
        given(mount, &destination, sources, &options)?
    } else if options.bind.is_some() || kind == "bind" || kind == "rbind" {
        bind(mount, &destination, sources, &options, kind)?
    } else {
        match kind {
            "" => return Err(Failure::new(Stage::Mounts, name, "a mount needs a type or the option bind")),
            "cgroup" | "cgroup2" => Source::Cgroup,
            kind => Source::New {
                kind: kind.into(),
                source: mount.source().as_ref().map_or(kind.into(), |source| source.display().to_string()),
            },
        }
    };
    Ok(Prepared { destination, source, options })
}

fn bind(
    mount: &Mount,
    destination: &Path,
    sources: &mut Sources<'_>,
    options: &Options,
    kind: &str,
) -> Result<Source, Failure> {
    let given = mount.source().as_ref().ok_or_else(|| {
        Failure::new(Stage::Mounts, destination.display().to_string(), "a bind mount needs a source")
    })?;
    let source = sources.bundle.join(given);
    let name = || format!("source {} of {}", source.display(), destination.display());
    let path = CString::new(source.as_os_str().as_bytes())
        .map_err(|_| Failure::new(Stage::Mounts, name(), "holds a NUL byte"))?;
    let recursive = options.bind.unwrap_or(kind == "rbind");
    let tree = sys::mount::clone_mount_at(rustix::fs::CWD, &path, recursive).map_err(|error| {
        let failure = Failure::io(Stage::Mounts, name(), &error);
        match error.kind() {
            std::io::ErrorKind::NotFound => failure.remedy("create it on the host, or correct the mount"),
            std::io::ErrorKind::InvalidInput => failure.remedy("an unbindable mount cannot be bound"),
            _ => failure,
        }
    })?;
    let stat = rustix::fs::fstat(&tree).at(Stage::Mounts, name)?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    set_tree_attributes(&tree, recursive, options).at(Stage::Mounts, name)?;
    // What a mount with shared propagation is for is sending: being a peer of the host's from the start, it cannot be a copy of a slave.
    let receives = matches!(options.propagation, Some((Propagation::Slave, _)));
    let mut live = receives.then_some(Live { path, recursive });
    if let Some((namespace, deep)) = sources.id_maps.of_mount(mount, options.id_map)? {
        // Only a detached mount can be given an id map.
        live = None;
        let change = Change { id_map: Some(namespace.as_fd()), ..Change::default() };
        sys::mount::set_attributes(tree.as_fd(), deep, &change).map_err(|error| {
            Failure::io(Stage::Mounts, format!("id map on the {}", name()), &error)
                .remedy("the file system of the source must support id-mapped mounts")
        })?;
    }
    Ok(Source::Bind { tree, directory, live })
}

/// A mount that the caller made and gave along.
fn given(
    mount: &Mount,
    destination: &Path,
    sources: &mut Sources<'_>,
    options: &Options,
) -> Result<Source, Failure> {
    let name = || format!("source of {}", destination.display());
    let number = mount.source().as_ref().and_then(|source| source.to_str()?.parse::<usize>().ok());
    let tree = number.and_then(|number| sources.volumes.get_mut(number)?.take()).ok_or_else(|| {
        Failure::new(Stage::Mounts, name(), "it is not the number of a mount that came along")
    })?;
    let stat = rustix::fs::fstat(&tree).at(Stage::Mounts, name)?;
    let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
    set_tree_attributes(&tree, false, options).at(Stage::Mounts, name)?;
    Ok(Source::Bind { tree, directory, live: None })
}

/// Attributes of a copied tree. Without a wish for propagation it is private: what is mounted or unmounted on either side stays there.
pub(crate) fn set_tree_attributes(tree: &OwnedFd, recursive: bool, options: &Options) -> std::io::Result<()> {
    let (propagation, deep) = options.propagation.unwrap_or((Propagation::Private, true));
    let deep = deep && recursive;
    let top = Change { set: options.set, clear: options.clear, ..Change::default() };
    let spread = Change { propagation: Some(propagation), ..Change::default() };
    if deep && (top.set | top.clear) != 0 {
        sys::mount::set_attributes(tree.as_fd(), false, &top)?;
        sys::mount::set_attributes(tree.as_fd(), true, &spread)?;
    } else {
        sys::mount::set_attributes(tree.as_fd(), deep, &Change { propagation: Some(propagation), ..top })?;
    }
    options.set_recursive(tree)
}

/// Whether what the mount shows is a part of the host's tree.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let by_type = mount.typ().as_deref().is_some_and(|kind| ["bind", "rbind", "descriptor"].contains(&kind));
    let by_option = mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
    by_type || by_option
}

/// The absolute form of a path in the container, without `.`, `..` and double slashes; `..` is taken by the letter, as other runtimes do.
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_clean_and_absolute() {
        for (given, expected) in
            [("proc", "/proc"), ("/a/../../etc//x/.", "/etc/x"), ("..", "/"), ("/dev/shm/", "/dev/shm")]
        {
            assert_eq!(clean(Path::new(given)), Path::new(expected));
        }
    }
}
