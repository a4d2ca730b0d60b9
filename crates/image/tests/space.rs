//! A disk that is full.

mod common;

use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{Place, image_of, names, skip_unless_root};
use image::PullCause;
use registry::tar::Entry;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_left_as_it_was() {
    if skip_unless_root() {
        return;
    }
    // A small file system that is attached nowhere.
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "size", "8m").unwrap();
    fsconfig_create(&context).unwrap();
    let disk = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let root = format!("/proc/self/fd/{}/images", disk.as_raw_fd());
    let place = Place::with(|config| config.root = root.clone().into()).await;
    let large = image_of(&[
        &[Entry::file("small", 0o644, vec![1; 4096])],
        &[Entry::file("large", 0o644, vec![1; 16 << 20])],
    ]);
    let small = image_of(&[&[Entry::file("a", 0o644, vec![1; 4 << 20])]]);
    place.registry.add("large", "1", &large);
    place.registry.add("small", "1", &small);
    let error = place.pull("large:1").await.unwrap_err();
    assert!(matches!(*error.cause, PullCause::NoSpace { .. }), "{error}");
    // What was begun makes room again, in the background.
    for attempt in 0.. {
        if names(format!("{root}/layers").as_ref()).is_empty()
            && names(format!("{root}/trash").as_ref()).is_empty()
        {
            break;
        }
        assert!(attempt < 200, "{:?}", names(format!("{root}/layers").as_ref()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let id = place.pull("small:1").await.unwrap();
    place.images.rootfs().prepare("c", &id, None).unwrap();
    drop(place.images.rootfs().mount("c", None).unwrap());
    place.images.rootfs().remove("c").unwrap();
    assert!(place.images.remove(id.as_str()).await.unwrap());
}
