//! A disk that is full.

mod common;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use common::{Place, image_of, inside, names, skip_unless_root};
use image::{Images, PullCause};
use registry::Registry;
use registry::tar::Entry;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen,
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

/// A file system in memory of which only so much is left as a test says. Only this test's threads see it.
struct Small {
    folder: tempfile::TempDir,
}

impl Small {
    /// Makes it for the calling thread, and those that it starts from here on.
    fn new() -> Small {
        sys::namespace::leave(sys::namespace::kind::MOUNT).unwrap();
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        rustix::mount::mount_change("/", private).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let options = Some(c"size=48m,nr_inodes=4000");
        rustix::mount::mount("small", folder.path(), "tmpfs", MountFlags::empty(), options).unwrap();
        let small = Small { folder };
        std::fs::create_dir(small.path("filler")).unwrap();
        small
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves this many bytes.
    fn leave_bytes(&self, bytes: u64) {
        let _ = std::fs::remove_file(self.path("filler/bytes"));
        let free = rustix::fs::statvfs(self.folder.path()).unwrap();
        let file = std::fs::File::create(self.path("filler/bytes")).unwrap();
        let taken = (free.f_bavail * free.f_frsize).saturating_sub(bytes);
        if taken > 0 {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, taken).unwrap();
        }
    }

    /// Leaves this many files.
    fn leave_files(&self, files: u64) {
        for name in names(&self.path("filler")) {
            std::fs::remove_file(self.path("filler").join(name)).unwrap();
        }
        let free = rustix::fs::statvfs(self.folder.path()).unwrap().f_favail;
        for number in 0..free.saturating_sub(files) {
            std::fs::File::create(self.path("filler").join(number.to_string())).unwrap();
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}

async fn settled(root: &Path, layers: &[String]) {
    for attempt in 0.. {
        let rest = names(&root.join("trash"));
        let now = names(&root.join("layers"));
        if rest.is_empty() && now == layers {
            return;
        }
        assert!(attempt < 300, "left behind: {rest:?} {now:?}, and before {layers:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The disk ends at every step of a pull once, that of the database included. A pull that fails says so by its code, leaves nothing, and keeps
/// nobody from stopping and removing.
async fn sweep(small: &Small, name: &str, steps: impl Iterator<Item = u64>, leave: impl Fn(&Small, u64)) {
    let root = small.path("images");
    let mut config = common::config(root.clone());
    config.timeouts.backoff = Duration::from_millis(1);
    let store = Arc::new(store::Store::open(&small.path("pintle.db")).unwrap());
    let images = Images::open(config, store).unwrap();
    let registry = Registry::new();
    let listening = registry.listen().await.unwrap();
    registry.add("base", "1", &image_of(&[&[Entry::file("a", 0o644, vec![1; 9000])]]));
    let data = |byte: u8, size: usize| (0..size).map(|at| (at as u8).wrapping_mul(byte)).collect::<Vec<u8>>();
    registry.add(
        "app",
        "1",
        &image_of(&[
            &[Entry::directory("d", 0o755), Entry::file("d/a", 0o644, data(3, 60_000))],
            &[Entry::file("b", 0o644, data(5, 30_000)), Entry::symlink("l", "b")],
            // Needs a graft.
            &[Entry::hard_link("again", "d/a"), Entry::file("d/c", 0o644, data(7, 10_000))],
        ]),
    );
    let pull = |name: &str| {
        let reference = format!("{}/{name}:1", listening.host());
        images.pull(image::PullRequest { reference, ..Default::default() })
    };
    let base = pull("base").await.unwrap();
    let (mut failed, mut done) = (0, 0);
    let before = names(&root.join("layers"));
    for (number, step) in steps.enumerate() {
        let owner = format!("c{number}");
        images.rootfs().prepare(&owner, &base, None).unwrap();
        let mount = images.rootfs().mount(&owner, None).unwrap();
        leave(small, step);
        match pull("app").await {
            Ok(id) => {
                done += 1;
                assert!(images.remove(id.as_str()).await.unwrap(), "{name} {step}");
            }
            Err(error) => {
                failed += 1;
                assert!(matches!(*error.cause, PullCause::NoSpace { .. }), "{name} {step}: {error}");
            }
        }
        drop(mount);
        images.rootfs().remove(&owner).unwrap_or_else(|error| panic!("{name} {step}: {error}"));
        // What a failed pull had finished is kept for the next try only where there was room.
        leave(small, u64::MAX >> 1);
        images.collect_garbage().await.unwrap();
        settled(&root, &before).await;
        assert!(names(&root.join("rootfs")).is_empty(), "{name} {step}");
        assert_eq!(images.list().len(), 1, "{name} {step}");
    }
    println!("{name}: {failed} pulls failed and {done} did not");
    assert!(failed > 3 && done > 0, "{name}: the steps do not lead from nothing to enough");
    // And with room all is as if nothing had been.
    let id = pull("app").await.unwrap();
    images.rootfs().prepare("last", &id, None).unwrap();
    let mount = images.rootfs().mount("last", None).unwrap();
    assert_eq!(std::fs::read(inside(&mount, "again")).unwrap(), data(3, 60_000));
}

#[test]
fn bytes_run_out_at_every_step() {
    if skip_unless_root() {
        return;
    }
    let small = Small::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(sweep(&small, "bytes", (0..75).map(|step| step * 6144), Small::leave_bytes));
}

#[test]
fn files_run_out_at_every_step() {
    if skip_unless_root() {
        return;
    }
    let small = Small::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(sweep(&small, "files", 0..40, Small::leave_files));
}
