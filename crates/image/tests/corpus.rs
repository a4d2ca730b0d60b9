//! The corpus of hostile images and answers (`registry::corpus`), in every form in which layers are kept.

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Place, names, skip_unless_root};
use image::{ImageConfig, Snapshotter};
use registry::corpus::{self, Case, Expected, LOW, Seen, What};

/// Beside the folder of images, a canary that no image is to reach, and how everything there was before.
struct Canary {
    folder: std::path::PathBuf,
    before: Vec<String>,
}

impl Canary {
    fn new(place: &Place) -> Canary {
        let folder = place.folder.path().to_owned();
        fs::create_dir(folder.join("outside")).unwrap();
        fs::write(folder.join("outside/canary"), "alive").unwrap();
        let before = state(&folder);
        Canary { folder, before }
    }

    /// What was touched, if anything was.
    fn complaint(&self) -> Option<String> {
        let now = state(&self.folder);
        (now != self.before).then(|| format!("outside was {:?} and is {now:?}", self.before))
    }
}

/// Everything beside and directly below the folder of images, with all that an image could have changed of it.
fn state(folder: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    for below in ["", "outside", "root"] {
        for name in names(&folder.join(below)).into_iter().filter(|name| !name.starts_with("pintle.db")) {
            let path = folder.join(below).join(&name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
            let mut line = format!("{below}/{name} {mode:o} {owner:?}");
            if below == "outside" {
                line += &format!(" {} {} {:?}", meta.nlink(), meta.mtime_nsec(), fs::read(&path).ok());
            }
            seen.push(line);
        }
    }
    seen
}

/// All that an image shows when it is mounted.
fn tree(folder: &Path, below: &Path, seen: &mut Vec<Seen>) {
    use std::os::unix::ffi::OsStrExt;
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, own) = (entry.path(), below.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        let what = if kind.is_dir() {
            tree(&path, &own, seen);
            What::Directory
        } else if kind.is_symlink() {
            What::Link(fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            What::File(bytes.len() as u64, bytes)
        } else {
            assert!(kind.is_fifo() || kind.is_char_device() || kind.is_block_device());
            What::Other
        };
        seen.push(Seen { path: own.as_os_str().as_bytes().to_vec(), what });
    }
}

fn is_as_expected(seen: &[Seen], expected: &[Seen]) -> bool {
    let same = |(seen, expected): (&Seen, &Seen)| {
        let what = match (&seen.what, &expected.what) {
            // Only the beginning is said.
            (What::File(size, bytes), What::File(wanted, begin)) => {
                size == wanted && bytes.starts_with(begin)
            }
            (seen, expected) => seen == expected,
        };
        what && seen.path == expected.path
    };
    seen.len() == expected.len() && seen.iter().zip(expected).all(same)
}

/// Pulls the image of a case and says what is wrong with what came of it.
async fn try_case(place: &Place, case: &Case) -> Result<(), String> {
    place.registry.clear_log();
    place.registry.add("hostile", "1", &case.image);
    place.registry.set_rules(case.rules.clone());
    let pulled = place.pull("hostile:1").await;
    let text = pulled.as_ref().map_or_else(|error| error.to_string(), ToString::to_string);
    let outcome = match (&case.expected, &pulled) {
        (Expected::Harmless, _) => Ok(()),
        (Expected::Refused { says, .. }, Err(_)) => match says.iter().find(|part| !text.contains(*part)) {
            Some(part) => Err(format!("{part:?} is not said")),
            None => Ok(()),
        },
        (Expected::Unpacked(expected), Ok(id)) => {
            let owner = format!("owner-{}", id.digest().hex());
            place.images.rootfs().prepare(&owner, id, None).map_err(|error| error.to_string())?;
            let mount = place.images.rootfs().mount(&owner, None).map_err(|error| error.to_string())?;
            let mut seen = Vec::new();
            tree(&common::inside(&mount, ""), Path::new(""), &mut seen);
            drop(mount);
            place.images.rootfs().remove(&owner).map_err(|error| error.to_string())?;
            seen.sort();
            let mut expected = expected.clone();
            expected.sort();
            match is_as_expected(&seen, &expected) {
                true => Ok(()),
                false => Err(format!("it shows {seen:?}, not {expected:?}")),
            }
        }
        (expected, _) => Err(format!("it should be {expected:?}")),
    };
    let refused = pulled.is_err();
    if let Ok(id) = pulled {
        place.images.remove(id.as_str()).await.map_err(|error| error.to_string())?;
    }
    outcome.map_err(|why| format!("{why}: {}", shorten(&text)))?;
    if text.len() > 8192 {
        return Err(format!("the message has {} bytes", text.len()));
    }
    if text.contains("s3cret") {
        return Err(format!("a secret is shown: {}", shorten(&text)));
    }
    if refused && !place.images.list().is_empty() {
        return Err("a refused image is listed".into());
    }
    nothing_begun_is_left(place).await
}

/// What was begun and not finished goes; layers that were finished may stay for the next try.
async fn nothing_begun_is_left(place: &Place) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let begun: Vec<_> =
            place.layer_folders().into_iter().filter(|name| name.contains("partial")).collect();
        let trash = names(&place.root().join("trash"));
        if begun.is_empty() && trash.is_empty() {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(5) {
            return Err(format!("left behind: {begun:?} {trash:?}"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(500).collect()
}

fn low(config: &mut ImageConfig) {
    config.limits.entries = LOW.entries;
    config.limits.layer_bytes = LOW.layer_bytes;
    config.limits.ratio = LOW.ratio;
    config.limits.ratio_floor_bytes = LOW.ratio_floor_bytes;
    config.limits.config_bytes = LOW.config_bytes;
    config.timeouts.tries = 2;
    config.timeouts.stall = Duration::from_millis(300);
    config.timeouts.backoff = Duration::from_millis(1);
}

/// Runs the cases whose names contain one of `only`, and lists what went wrong with any.
async fn run(place: &Place, only: impl Fn(&Case) -> bool) {
    let canary = Canary::new(place);
    let outside = place.folder.path().join("outside").display().to_string();
    let mut failures = Vec::new();
    for case in corpus::cases(&outside).iter().filter(|case| only(case)) {
        let tried = try_case(place, case).await;
        if let Some(why) = tried.err().or_else(|| canary.complaint()) {
            failures.push(format!("{}: {why}", case.name));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_images_touch_nothing_and_are_told_apart() {
    if skip_unless_root() {
        return;
    }
    let place = Place::in_memory(|config| {
        low(config);
        config.snapshotter = Snapshotter::Overlayfs;
    })
    .await;
    run(&place, |_| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_layers_are_files() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| {
        low(config);
        config.snapshotter = Snapshotter::Erofs;
    })
    .await;
    let good = common::image_of(&[&[registry::tar::Entry::file("a", 0o644, "x")]]);
    place.registry.add("good", "1", &good);
    let id = place.pull("good:1").await.unwrap();
    place.images.rootfs().prepare("good", &id, None).unwrap();
    if let Err(error) = place.images.rootfs().mount("good", None) {
        println!("SKIPPED: this kernel does not mount EROFS images: {error}");
        return;
    }
    place.images.rootfs().remove("good").unwrap();
    place.images.remove(id.as_str()).await.unwrap();
    // How registries answer has nothing to do with it.
    run(&place, |case| case.rules.is_empty()).await;
}

/// File systems on disk are narrower than memory.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_disk_refuses_is_told_apart() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| {
        low(config);
        config.snapshotter = Snapshotter::Overlayfs;
    })
    .await;
    run(&place, |case| case.name.contains("attribute") || case.name.contains("bytes")).await;
}
