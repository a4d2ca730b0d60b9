//! The mounts that the daemon makes for a container: its root file system, and volumes made of images.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use lsm::selinux::relabel::{RelabelError, tree};
use model::digest::ImageId;
use model::id::{ContainerId, PodId};
use model::request::{ContainerRequest, UserNamespace};

use crate::checkpoint::RestoreFrom;
use crate::context::Context;
use crate::error::{CreateContainerError, Fault};

/// Each rides as a descriptor with the call to the shim, as the root file system does.
const MOST_VOLUMES: usize = shim::protocol::MAX_DESCRIPTORS - 1;

/// What a container's mounts are made from.
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a PodId,
    pub(crate) owner: &'a ContainerId,
    pub(crate) request: &'a ContainerRequest,
    pub(crate) image: &'a ImageId,
    /// The pod's own users, and the path of the namespace that maps them.
    pub(crate) users: Option<(&'a UserNamespace, std::path::PathBuf)>,
    /// The SELinux label of what is mounted.
    pub(crate) label: Option<&'a str>,
    /// What it had changed when it was saved.
    pub(crate) restore: Option<&'a RestoreFrom>,
}

/// Mounts that are attached nowhere.
pub(crate) struct Mounts {
    pub(crate) root: OwnedFd,
    /// Of the request's mounts that are made of images, in their order.
    pub(crate) volumes: Vec<OwnedFd>,
    /// The ids of their images.
    pub(crate) volume_images: Vec<ImageId>,
}

/// Makes them. What they need is held until the container's root file system is removed, also when this fails.
pub(crate) fn make(context: &Context, wanted: &Wanted<'_>) -> Result<Mounts, CreateContainerError> {
    let name = &wanted.request.name;
    let namespace = wanted.users.as_ref().map(|(_, path)| {
        File::open(path).map_err(|source| CreateContainerError::Failed {
            name: name.clone(),
            stage: "its pod's user namespace",
            fault: Fault::File { path: path.clone(), source },
        })
    });
    let namespace = namespace.transpose()?;
    let id_map = namespace.as_ref().map(AsFd::as_fd);
    let users = wanted.users.as_ref().map(|(users, _)| *users);
    let rootfs = context.images.rootfs();
    let root = rootfs
        .prepare_in(wanted.pod.as_str(), wanted.owner.as_str(), wanted.image, users)
        .and_then(|_| {
            wanted.restore.map_or(Ok(()), |from| from.import_changes(context, wanted.owner.as_str()))
        })
        .and_then(|()| rootfs.mount_labelled(wanted.owner.as_str(), id_map, wanted.label))
        .map_err(|source| CreateContainerError::Rootfs { name: name.clone(), source })?;
    let images = wanted.request.mounts.iter().filter(|mount| mount.image.is_some()).count();
    if images > MOST_VOLUMES {
        let why = format!("mounts: {images} of them are made of images; at most {MOST_VOLUMES} can be");
        return Err(CreateContainerError::Invalid { name: name.clone(), why });
    }
    let mut mounts = Mounts { root, volumes: Vec::new(), volume_images: Vec::new() };
    for (index, mount) in wanted.request.mounts.iter().enumerate() {
        let Some(choice) = &mount.image else { continue };
        let image = match context.images.find(&choice.image) {
            Ok(Some(image)) => image.id.clone(),
            Ok(None) => {
                let image = choice.image.clone();
                return Err(CreateContainerError::NoVolumeImage { name: name.clone(), index, image });
            }
            Err(ambiguous) => {
                let why = format!("mounts[{index}].image: {ambiguous}");
                return Err(CreateContainerError::Invalid { name: name.clone(), why });
            }
        };
        let volume = rootfs
            .mount_labelled_volume(wanted.owner.as_str(), &image, &mount.image_sub_path, id_map, wanted.label)
            .map_err(|source| CreateContainerError::Volume { name: name.clone(), index, source })?;
        mounts.volumes.push(volume);
        mounts.volume_images.push(image);
    }
    Ok(mounts)
}

/// Gives volumes that are to have the container's label that label.
pub(crate) fn relabel(request: &ContainerRequest, label: Option<&str>) -> Result<(), CreateContainerError> {
    let Some(label) = label else { return Ok(()) };
    for (index, mount) in request.mounts.iter().enumerate() {
        if !mount.selinux_relabel || mount.image.is_some() || !mount.host_path.exists() {
            // One that is missing is refused, in other words, when it is mounted.
            continue;
        }
        let name = request.name.clone();
        tree(&mount.host_path, label).map_err(|error| match error {
            RelabelError::Io { path, source } => CreateContainerError::Failed {
                name,
                stage: "relabelling a volume",
                fault: Fault::File { path, source },
            },
            refused => CreateContainerError::Invalid {
                name,
                why: format!("mounts[{index}].selinux_relabel: {refused}"),
            },
        })?;
    }
    Ok(())
}
