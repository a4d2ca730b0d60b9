//! What goes from the disk, when, and why: layers, blobs, what containers wrote, and what has no record.

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{Place, image_of, inside, names, skip_unless_root};
use image::{Cause, Containers, Hold, Images, Item, Kind, Verdict};
use registry::Fault;
use registry::tar::Entry;

const HOUR: Duration = Duration::from_secs(3600);

fn unknown() -> Containers {
    Box::new(|| None)
}

fn only(containers: &'static [&str]) -> Containers {
    Box::new(|| Some(containers.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>()))
}

fn of(items: &[Item], kind: Kind) -> Vec<&Item> {
    items.iter().filter(|item| item.kind == kind).collect()
}

async fn let_go(images: &Arc<Images>, older_than: Duration, containers: Containers) -> Vec<Item> {
    images.let_go(older_than, containers).await.unwrap()
}

/// Waits until what was thrown away is off the disk.
async fn settled(folder: &Path) {
    for _ in 0..200 {
        if names(folder).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", names(folder));
}

fn plain(names: &[&str]) -> registry::make::Image {
    let layers: Vec<Vec<Entry>> =
        names.iter().map(|name| vec![Entry::file(name, 0o644, vec![7; 9000])]).collect();
    image_of(&layers.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_image_frees_its_layers_at_once_and_a_failed_pull_waits_for_its_retry() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let (app, broken) = (plain(&["base", "app"]), plain(&["other", "broken"]));
    place.registry.add("app", "1", &app);
    place.registry.add("broken", "1", &broken);
    let missing = broken.layers[1].digest.clone();
    // It is missed only when the other layer is here.
    let absent = move |asked: &registry::Asked| {
        asked.target.contains(&missing).then(|| {
            std::thread::sleep(Duration::from_millis(300));
            Fault::status(404)
        })
    };
    place.registry.set_hook(absent.clone());
    place.pull("broken:1").await.unwrap_err();
    let id = place.pull("app:1").await.unwrap();
    assert_eq!(place.layer_folders().len(), 3);
    let items = let_go(&place.images, HOUR, unknown()).await;
    let young = items.iter().find(|item| item.name == broken.layers[0].diff_id).unwrap();
    assert!(
        matches!(&young.verdict, Verdict::Stays(holds) if matches!(holds[0], Hold::Young { .. })),
        "{young:?}"
    );
    place.images.remove(id.as_str()).await.unwrap();
    for attempt in 0.. {
        if place.layer_folders().len() == 1 {
            break;
        }
        assert!(attempt < 100, "{:?}", place.layer_folders());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The retry needs the one layer alone.
    place.registry.set_hook(|_| None);
    place.registry.clear_log();
    let id = place.pull("broken:1").await.unwrap();
    assert_eq!(place.registry.count(&broken.layers[0].digest), 0);
    place.images.remove(id.as_str()).await.unwrap();
    settled(&place.root().join("layers")).await;
    // With no retry it goes in time.
    place.registry.set_hook(absent);
    place.pull("broken:1").await.unwrap_err();
    let items = let_go(&place.images, Duration::ZERO, unknown()).await;
    let gone = items.iter().find(|item| item.name == broken.layers[0].diff_id).unwrap();
    assert!(matches!(gone.verdict, Verdict::Goes(Cause::Unneeded { .. })), "{gone:?}");
    assert_eq!(place.images.fs_info().usage.bytes, 0);
    settled(&place.root().join("trash")).await;
    assert!(place.layer_folders().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_says_who_holds_it() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| config.pinned = image::Pinned::new(["*/pause*"])).await;
    place.registry.add("app", "1", &plain(&["base", "app"]));
    place.registry.add("pause", "3", &plain(&["base"]));
    let app = place.pull("app:1").await.unwrap();
    let pause = place.pull("pause:3").await.unwrap();
    assert!(place.images.find(pause.as_str()).unwrap().unwrap().pinned);
    place.images.rootfs().prepare("c1", &app, None).unwrap();
    let items = place.images.survey(HOUR, only(&["c1"])).await.unwrap().items;
    let images = of(&items, Kind::Image);
    assert_eq!(images[0].verdict, Verdict::Stays(vec![Hold::Container("c1".into())]));
    assert_eq!(images[1].verdict, Verdict::Stays(vec![Hold::Pinned("*/pause*".into())]));
    let base = of(&items, Kind::Layer).into_iter().find(|item| match &item.verdict {
        Verdict::Stays(holds) => holds.len() == 3,
        Verdict::Goes(_) => false,
    });
    let Verdict::Stays(holds) = &base.unwrap().verdict else { unreachable!() };
    assert!(
        holds.contains(&Hold::Image(place.name("pause:3"))) && holds.contains(&Hold::Container("c1".into()))
    );
    let container = of(&items, Kind::Container)[0];
    assert!(container.usage.inodes >= 3, "{container:?}");
    // Without the patterns the next removal by the kubelet would take it.
    place.images.pin_like(image::Pinned::default()).await.unwrap();
    assert!(!place.images.find(pause.as_str()).unwrap().unwrap().pinned);
    // And a container that is not there any more holds nothing.
    place.images.remove(app.as_str()).await.unwrap();
    let items = let_go(&place.images, HOUR, only(&[])).await;
    assert_eq!(of(&items, Kind::Container)[0].verdict, Verdict::Goes(Cause::NoContainer));
    assert_eq!(place.layer_folders().len(), 1, "the layer of the pause image");
    assert!(names(&place.root().join("rootfs")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_wrote_stays_while_somebody_has_it_mounted() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    place.registry.add("app", "1", &plain(&["a"]));
    let id = place.pull("app:1").await.unwrap();
    place.images.rootfs().prepare("c1", &id, None).unwrap();
    let mount = place.images.rootfs().mount("c1", None).unwrap();
    let items = let_go(&place.images, Duration::ZERO, only(&[])).await;
    assert_eq!(of(&items, Kind::Container)[0].verdict, Verdict::Stays(vec![Hold::Mounted]));
    std::fs::write(inside(&mount, "written"), "x").unwrap();
    drop(mount);
    let items = let_go(&place.images, Duration::ZERO, only(&[])).await;
    assert_eq!(of(&items, Kind::Container)[0].verdict, Verdict::Goes(Cause::NoContainer));
}

/// The database is lost with the records of images: nothing says any more what the containers stand on, except the kernel and the notes.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_database_nothing_goes_from_under_a_container() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    place.registry.add("app", "1", &plain(&["used"]));
    place.registry.add("other", "1", &plain(&["idle"]));
    let app = place.pull("app:1").await.unwrap();
    place.pull("other:1").await.unwrap();
    place.images.rootfs().prepare("c1", &app, None).unwrap();
    place.images.rootfs().prepare("ended", &app, None).unwrap();
    let mount = place.images.rootfs().mount("c1", None).unwrap();
    std::fs::remove_dir_all(place.root().join("images")).unwrap();
    std::fs::write(place.folder.path().join("pintle.db"), "no database at all ".repeat(1000)).unwrap();
    let _ = std::fs::remove_file(place.folder.path().join("pintle.db-wal"));
    let lost = place.reopen();
    assert!(lost.list().is_empty());
    drop(lost);
    // The next daemon does not know that it was lost.
    let images = place.reopen();
    assert_eq!(place.layer_folders().len(), 2);
    let items = let_go(&images, Duration::ZERO, only(&[])).await;
    let orphans = of(&items, Kind::Orphan);
    assert_eq!(orphans.len(), 4, "{orphans:?}");
    let going = orphans.iter().filter(|item| matches!(item.verdict, Verdict::Goes(Cause::NoRecord)));
    assert_eq!(going.count(), 2, "{orphans:?}");
    assert!(!of(&items, Kind::Database).is_empty());
    assert_eq!(names(&place.root().join("rootfs")), ["c1"]);
    assert_eq!(place.layer_folders().len(), 1, "{:?} {items:#?}", place.layer_folders());
    assert_eq!(std::fs::read(inside(&mount, "used")).unwrap(), vec![7; 9000]);
    // A note of an earlier release does not say on what it stands: everything stays.
    std::fs::write(place.root().join("rootfs/c1/image"), app.as_str()).unwrap();
    let items = let_go(&images, Duration::ZERO, only(&[])).await;
    assert!(
        of(&items, Kind::Orphan).iter().all(|item| matches!(item.verdict, Verdict::Stays(_))),
        "{items:?}"
    );
    drop(mount);
    let_go(&images, Duration::ZERO, only(&[])).await;
    assert!(place.layer_folders().is_empty() && names(&place.root().join("rootfs")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_may_write_elsewhere() {
    if skip_unless_root() {
        return;
    }
    // Another file system, as what is attached nowhere.
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_create(&context).unwrap();
    let disk = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let elsewhere = inside(&disk, "containers");
    let place = Place::with(|config| config.containers_root = Some(elsewhere.clone())).await;
    place.registry.add("app", "1", &plain(&["a"]));
    let id = place.pull("app:1").await.unwrap();
    place.images.rootfs().prepare("c1", &id, None).unwrap();
    let mount = place.images.rootfs().mount("c1", None).unwrap();
    std::fs::write(inside(&mount, "written"), "x").unwrap();
    assert!(elsewhere.join("rootfs/c1/upper/written").exists());
    drop(mount);
    place.images.rootfs().remove("c1").unwrap();
    settled(&elsewhere.join("trash")).await;
    assert!(names(&elsewhere.join("rootfs")).is_empty());
}

/// Pulls, removals, containers and collections at the same time: whatever was said to be there is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn collecting_meets_pulls_and_containers() {
    if skip_unless_root() {
        return;
    }
    let place = Arc::new(Place::new().await);
    for number in 0..4 {
        place.registry.add("app", &number.to_string(), &plain(&["base", &format!("own{number}")]));
    }
    let until = std::time::Instant::now() + Duration::from_secs(3);
    let mut work = tokio::task::JoinSet::new();
    for number in 0..4 {
        let place = Arc::clone(&place);
        work.spawn(async move {
            let mut made = 0;
            while std::time::Instant::now() < until {
                let id = place.pull(&format!("app:{number}")).await.unwrap();
                let owner = format!("c{number}-{made}");
                let rootfs = place.images.rootfs();
                match rootfs.prepare(&owner, &id, None) {
                    // Somebody's removal was quicker.
                    Err(image::RootfsError::NoImage { .. }) => continue,
                    prepared => drop(prepared.unwrap()),
                }
                let mount = rootfs.mount(&owner, None).unwrap();
                place.images.remove(id.as_str()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
                for file in ["base".to_owned(), format!("own{number}")] {
                    assert_eq!(std::fs::read(inside(&mount, &file)).unwrap().len(), 9000);
                }
                drop(mount);
                rootfs.remove(&owner).unwrap();
                made += 1;
            }
            made
        });
    }
    let collector = Arc::clone(&place);
    let collecting = tokio::spawn(async move {
        let mut rounds = 0;
        while std::time::Instant::now() < until {
            let_go(&collector.images, Duration::ZERO, unknown()).await;
            rounds += 1;
        }
        rounds
    });
    while let Some(made) = work.join_next().await {
        assert!(made.unwrap() > 0);
    }
    assert!(collecting.await.unwrap() > 0);
    let_go(&place.images, Duration::ZERO, unknown()).await;
    assert!(place.layer_folders().is_empty(), "{:?}", place.layer_folders());
}
