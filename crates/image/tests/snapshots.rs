//! Root file systems beyond the usual: copies where nothing can be stacked, five hundred layers, what pods may write, and layers that the
//! kernel checks.

mod common;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use image::{ImageConfig, Images, OpenError, Snapshotter};
use registry::tar::Entry;
use store::Store;

/// What a path is: mode, owner, whether it has further names, time, and contents or target.
type Seen = (u32, (u32, u32), bool, i64, Vec<u8>);

fn look(top: &Path, path: &Path, seen: &mut BTreeMap<Vec<u8>, Seen>) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let contents = match metadata.file_type() {
        kind if kind.is_file() => std::fs::read(path).unwrap(),
        kind if kind.is_symlink() => std::fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec(),
        _ => Vec::new(),
    };
    // How many they are may count names in layers that are hidden.
    let links = !metadata.is_dir() && metadata.nlink() > 1;
    // What has no entry of its own has the time of its unpacking.
    let time = if metadata.mtime() == 1_600_000_000 { 1_600_000_000 } else { 0 };
    let about = (metadata.mode(), (metadata.uid(), metadata.gid()), links, time, contents);
    seen.insert(path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec(), about);
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            look(top, &entry.unwrap().path(), seen);
        }
    }
}

fn tree(mount: &OwnedFd) -> BTreeMap<Vec<u8>, Seen> {
    let top = inside(mount, ".");
    let mut seen = BTreeMap::new();
    look(&top, &top, &mut seen);
    seen
}

/// Everything that layers can do to each other.
fn entangled() -> registry::make::Image {
    let data = |byte: u8, size: usize| vec![byte; size];
    image_of(&[
        &[
            Entry::directory("./", 0o1751).owner(3, 4),
            Entry::directory("etc", 0o700).owner(5, 6),
            Entry::file("etc/passwd", 0o640, data(1, 5000)).owner(7, 8),
            Entry::file("etc/gone", 0o644, data(2, 10)),
            Entry::directory("opaque", 0o755),
            Entry::file("opaque/below", 0o644, data(3, 10)),
            Entry::directory("usr", 0o755),
            Entry::directory("usr/lib", 0o711).owner(9, 9),
            Entry::file("usr/lib/a", 0o4755, data(4, 100_000)),
            Entry::symlink("lib", "usr/lib"),
            Entry::file("was-file", 0o600, data(5, 3)),
            Entry::directory("was-directory", 0o755),
            Entry::file("was-directory/inner", 0o600, data(6, 3)),
            Entry::fifo("pipe").owner(1, 1),
        ],
        &[
            Entry::file("etc/.wh.gone", 0o644, vec![]),
            Entry::file("opaque/.wh..wh..opq", 0o644, vec![]),
            Entry::file("opaque/above", 0o644, data(7, 9)),
            // Without an entry for the directory, which is a link below.
            Entry::file("lib/b", 0o644, data(8, 70_000)).xattr("user.note", b"kept".to_vec()),
            Entry::hard_link("lib/b2", "lib/b"),
            // To a file of the layer below.
            Entry::hard_link("passwd-too", "etc/passwd"),
            Entry::directory("was-file", 0o750).owner(2, 2),
            Entry::file("was-file/inner", 0o600, data(9, 1)),
            Entry::symlink("was-directory", "usr"),
        ],
        &[Entry::file("usr/lib/.wh.a", 0o644, vec![]), Entry::directory("etc", 0o755).owner(1, 2)],
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_looks_as_what_is_stacked() {
    if skip_unless_root() {
        return;
    }
    let stacked = Place::new().await;
    let copied = Place::with(|config| config.snapshotter = Snapshotter::Native).await;
    let mut trees = Vec::new();
    for place in [&stacked, &copied] {
        place.registry.add("app", "1", &entangled());
        let id = place.pull("app:1").await.unwrap();
        place.images.rootfs().prepare("c", &id, None).unwrap();
        place.images.rootfs().prepare("other", &id, None).unwrap();
        let mount = place.images.rootfs().mount("c", None).unwrap();
        trees.push(tree(&mount));
        let volume = place.images.rootfs().mount_volume("other", &id, Path::new("usr/lib"), None).unwrap();
        assert_eq!(std::fs::read(inside(&volume, "b")).unwrap(), vec![8; 70_000]);
        assert!(std::fs::write(inside(&volume, "b"), "x").is_err(), "a volume is read-only");
        // What one writes is nobody else's.
        std::fs::write(inside(&mount, "etc/passwd"), "changed").unwrap();
        std::fs::write(inside(&mount, "usr/lib/b"), "changed").unwrap();
        std::fs::remove_file(inside(&mount, "pipe")).unwrap();
        let other = place.images.rootfs().mount("other", None).unwrap();
        assert_eq!(tree(&other), trees[trees.len() - 1]);
        assert_eq!(std::fs::read(inside(&volume, "b")).unwrap(), vec![8; 70_000]);
        drop((mount, other, volume));
        for owner in ["c", "other"] {
            place.images.rootfs().remove(owner).unwrap();
        }
        assert!(names(&place.root().join("rootfs")).is_empty());
    }
    let (copied, stacked) = (trees.pop().unwrap(), trees.pop().unwrap());
    let show = |tree: &BTreeMap<Vec<u8>, Seen>| {
        tree.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(show(&copied), show(&stacked));
    for (path, seen) in &stacked {
        let path = String::from_utf8_lossy(path);
        let about =
            |(mode, owner, links, time, contents): &Seen| (*mode, *owner, *links, *time, contents.len());
        let copy = &copied[path.as_bytes()];
        assert!(copy == seen, "{path}: {:?}, and copied {:?}", about(seen), about(copy));
    }
    assert!(stacked.contains_key(&b"usr/lib/b"[..]) && !stacked.contains_key(&b"etc/gone"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_with_users_of_their_own_have_copies_too() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| config.snapshotter = Snapshotter::Native).await;
    if !place.images.rootfs().can_map_ids() {
        println!("SKIPPED: this kernel or file system cannot map ids");
        return;
    }
    place.registry.add("app", "1", &entangled());
    let id = place.pull("app:1").await.unwrap();
    let range = |outside| [sys::users::IdRange { inside: 0, outside, count: 2000 }];
    let users = sys::users::new(&range(300_000), &range(400_000)).unwrap();
    place.images.rootfs().prepare("c", &id, None).unwrap();
    let mount = place.images.rootfs().mount("c", Some(users.as_fd())).unwrap();
    let passwd = std::fs::metadata(inside(&mount, "etc/passwd")).unwrap();
    assert_eq!((passwd.uid(), passwd.gid()), (300_007, 400_008));
}

/// A root folder in a file system that overlayfs cannot write to: another overlay.
#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_stacked_copies_are_made() {
    if skip_unless_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (lower, upper, work) = (path("lower"), path("upper"), path("work"));
    let value = |key, value| sys::mount::Parameter::Value(key, value);
    let parameters = [value("lowerdir", &lower), value("upperdir", &upper), value("workdir", &work)];
    let overlay = sys::mount::new_filesystem("overlay", &parameters, 0).unwrap();
    if sys::mount::clone_mount(std::fs::File::open(inside(&overlay, ".")).unwrap().as_fd(), false).is_err() {
        println!("SKIPPED: this kernel takes no copies of mounts that are attached nowhere");
        return;
    }
    let open = |snapshotter| {
        let mut config = ImageConfig::new(inside(&overlay, "root"));
        config.snapshotter = snapshotter;
        let store = Arc::new(Store::open(&folder.path().join("pintle.db")).unwrap());
        Images::open(config, store)
    };
    for (snapshotter, name) in [(Snapshotter::Overlayfs, "overlayfs"), (Snapshotter::Erofs, "erofs")] {
        let Err(OpenError::Images { cause, .. }) = open(snapshotter) else { panic!("{name} is possible") };
        assert!(cause.to_string().contains(&format!("image.snapshotter is {name:?}")), "{cause}");
    }
    let images = open(Snapshotter::Auto).unwrap();
    let place = Place::new().await;
    place.registry.add("app", "1", &entangled());
    let reference = place.name("app:1");
    let id = images.pull(image::PullRequest { reference, ..Default::default() }).await.unwrap();
    images.rootfs().prepare("c", &id, None).unwrap();
    let mount = images.rootfs().mount("c", None).unwrap();
    assert_eq!(std::fs::read(inside(&mount, "usr/lib/b")).unwrap(), vec![8; 70_000]);
    let error = images.rootfs().export_changes("c", image::Deletions::Listed, std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("neither saved nor restored"), "{error}");
}

fn many(count: u32) -> registry::make::Image {
    let layers: Vec<Vec<Entry>> = (0..count)
        .map(|number| {
            let text = number.to_string();
            vec![
                Entry::file(&format!("own-{text}"), 0o644, text.clone().into_bytes()),
                Entry::file("common", 0o644, text.into_bytes()),
            ]
        })
        .collect();
    image_of(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// Where files are mounted through loop devices, one for each layer, finding a layer's device takes the longer the more there are.
fn mounts_files() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

/// How many containers are made at the same moment.
const AT_ONCE: usize = 4;

/// Five hundred layers of either form.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_layers_work_from_the_registry_to_the_root() {
    if skip_unless_root() {
        return;
    }
    // As the daemon does: before Linux 6.7 each layer is held open while it is stacked.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit { current: files.maximum, ..files };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all).unwrap();
    for snapshotter in [Snapshotter::Overlayfs, Snapshotter::Erofs] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = ImageConfig::new(folder.path().join("root"));
        config.snapshotter = snapshotter;
        let store = Arc::new(Store::open(&folder.path().join("pintle.db")).unwrap());
        let images = match Images::open(config, store) {
            Ok(images) => images,
            Err(error) => {
                println!("SKIPPED: {error}");
                continue;
            }
        };
        let place = Place::new().await;
        let count = if snapshotter == Snapshotter::Erofs && !mounts_files() { 60 } else { 500 };
        place.registry.add("many", "1", &many(count));
        let begun = Instant::now();
        let reference = place.name("many:1");
        let id = images.pull(image::PullRequest { reference, ..Default::default() }).await.unwrap();
        let pulled = begun.elapsed();
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
        let mut making = tokio::task::JoinSet::new();
        for number in 0..AT_ONCE {
            let (images, id) = (Arc::clone(&images), id.clone());
            making.spawn_blocking(move || {
                let owner = format!("c{number}");
                images.rootfs().prepare(&owner, &id, None).unwrap();
                let begun = Instant::now();
                (images.rootfs().mount(&owner, None).unwrap(), begun.elapsed())
            });
        }
        let mut slowest = Duration::ZERO;
        let mut mounts = Vec::new();
        while let Some(made) = making.join_next().await {
            let (mount, took) = made.unwrap();
            slowest = slowest.max(took);
            mounts.push(mount);
        }
        for mount in &mounts {
            assert_eq!(
                read(&inside(mount, "common")),
                (count - 1).to_string(),
                "the last layer is the highest"
            );
            assert_eq!(read(&inside(mount, "own-0")), "0");
            assert_eq!(std::fs::read_dir(inside(mount, ".")).unwrap().count(), count as usize + 1);
            std::fs::write(inside(mount, "own-7"), "written").unwrap();
        }
        let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!after.contains(folder.path().to_str().unwrap()), "a mount is attached to the host's tree");
        println!(
            "{snapshotter:?}, {count} layers: pulled in {pulled:?}, the slowest of {AT_ONCE} mounts took {slowest:?}; {before} mounts in the table before, {} after",
            after.lines().count()
        );
        // What a container stands on is not pulled from under it, nor kept when it has gone.
        images.remove(id.as_str()).await.unwrap();
        assert_eq!(read(&inside(&mounts[0], "own-59")), "59");
        drop(mounts);
        for number in 0..AT_ONCE {
            images.rootfs().remove(&format!("c{number}")).unwrap();
        }
        images.collect_garbage().await.unwrap();
        assert!(names(&folder.path().join("root/layers")).is_empty());
    }
}

fn is_quota(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::DQUOT.raw_os_error())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_writes_as_much_as_it_may() {
    if skip_unless_root() {
        return;
    }
    const LIMIT: u64 = 8 << 20;
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let mut config = config(folder.path().join("root"));
        config.pod_write_limit = Some(LIMIT);
        let store = Arc::new(Store::open(&folder.path().join("pintle.db")).unwrap());
        Images::open(config, store)
    };
    let images = match open() {
        Ok(images) => images,
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("image.pod_write_limit") && text.contains("prjquota"), "{text}");
            println!("SKIPPED: {text}");
            return;
        }
    };
    let place = Place::new().await;
    place.registry.add("app", "1", &image_of(&[&[Entry::file("f", 0o644, vec![1; 9000])]]));
    let reference = place.name("app:1");
    let id = images.pull(image::PullRequest { reference, ..Default::default() }).await.unwrap();
    let write = |mount: &OwnedFd, name: &str, mebibytes: usize| {
        std::fs::write(inside(mount, name), vec![7; mebibytes << 20])
    };
    images.rootfs().prepare_in("pod", "one", &id, None).unwrap();
    let one = images.rootfs().mount("one", None).unwrap();
    write(&one, "a", 5).unwrap();
    // Alone in its pod, it need not be walked to be measured.
    let used = images.rootfs().usage("one").unwrap();
    assert!((5 << 20..6 << 20).contains(&used.bytes), "{used:?}");
    images.rootfs().prepare_in("pod", "two", &id, None).unwrap();
    images.rootfs().prepare_in("other", "three", &id, None).unwrap();
    let two = images.rootfs().mount("two", None).unwrap();
    let three = images.rootfs().mount("three", None).unwrap();
    let refused = write(&two, "b", 5).unwrap_err();
    assert!(is_quota(&refused), "{refused}");
    write(&three, "c", 5).unwrap();
    // Changing a file of the image counts, and what is removed counts no more.
    std::fs::remove_file(inside(&one, "a")).unwrap();
    write(&two, "b", 5).unwrap();
    assert!(is_quota(&write(&one, "f", 5).unwrap_err()));
    // The next daemon goes on where this one was.
    drop(images);
    let images = open().unwrap();
    images.rootfs().prepare_in("pod", "late", &id, None).unwrap();
    let late = images.rootfs().mount("late", None).unwrap();
    assert!(is_quota(&write(&late, "d", 5).unwrap_err()));
    images.rootfs().prepare_in("new", "fresh", &id, None).unwrap();
    write(&images.rootfs().mount("fresh", None).unwrap(), "e", 7).unwrap();
    drop((one, two, three, late));
    for owner in ["one", "two", "three", "late", "fresh"] {
        images.rootfs().remove(owner).unwrap();
    }
    images.rootfs().prepare_in("pod", "again", &id, None).unwrap();
    write(&images.rootfs().mount("again", None).unwrap(), "f", 7).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_checks_layers_that_are_files() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| {
        config.snapshotter = Snapshotter::Auto;
    })
    .await;
    let probe = tempfile::NamedTempFile::new_in(place.root()).unwrap();
    let probed = std::fs::File::open(probe.path()).unwrap();
    if let Err(error) = sys::verity::digest(probed.as_fd()) {
        println!("SKIPPED: no fs-verity in {}: {error}", place.root().display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let mut config = ImageConfig::new(folder.path().join("root"));
        config.snapshotter = Snapshotter::Erofs;
        let store = Arc::new(Store::open(&folder.path().join("pintle.db")).unwrap());
        Images::open(config, store)
    };
    let images = match open() {
        Ok(images) => images,
        Err(error) => {
            println!("SKIPPED: {error}");
            return;
        }
    };
    let image = image_of(&[&[Entry::file("f", 0o644, vec![1; 900_000])]]);
    place.registry.add("app", "1", &image);
    let reference = place.name("app:1");
    let id = images.pull(image::PullRequest { reference, ..Default::default() }).await.unwrap();
    let layer = folder.path().join("root/layers").join(&names(&folder.path().join("root/layers"))[0]);
    let until = Instant::now() + Duration::from_secs(8);
    let digest = loop {
        if let Some(digest) = sys::verity::digest(std::fs::File::open(&layer).unwrap().as_fd()).unwrap() {
            break digest;
        }
        assert!(Instant::now() < until, "the kernel was not told to check the layer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    println!("{digest}");
    assert!(std::fs::File::options().write(true).open(&layer).is_err(), "nobody can write to it");
    images.rootfs().prepare("c", &id, None).unwrap();
    let mount = images.rootfs().mount("c", None).unwrap();
    assert_eq!(std::fs::read(inside(&mount, "f")).unwrap(), vec![1; 900_000]);
    let layers = images.layers_of(&images.list());
    for (layer, of) in layers {
        let checked = images.check_layer(layer, of).await.unwrap();
        assert_eq!(checked.finding, image::Finding::Whole);
    }
    drop(mount);
    images.rootfs().remove("c").unwrap();
    images.remove(id.as_str()).await.unwrap();
    images.collect_garbage().await.unwrap();
    assert!(names(&folder.path().join("root/layers")).is_empty(), "such a file can be removed");
}
