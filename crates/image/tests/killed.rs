//! `kill -9` at random moments of a pull: what is listed afterwards is whole, and what was finished is not fetched again.
//!
//! A dozen moments by default; `PINTLE_TEST_KILLS=100` for more.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::{image_of, names, skip_unless_root};
use image::{ImageConfig, Images, PullRequest};
use registry::make::Image;
use registry::tar::Entry;
use registry::{Fault, Registry};
use store::Store;

const ROOT: &str = "PINTLE_TEST_KILLED_ROOT";
const REFERENCE: &str = "PINTLE_TEST_KILLED_REFERENCE";
/// Within so many milliseconds of the daemon's start it is killed. The slowed pull takes about as long.
const MOMENTS_MILLIS: u64 = 700;

/// Not a test of its own: the process that is killed. It says what it has, pulls, and says so.
#[test]
fn the_process_that_is_killed() {
    let (Ok(root), Ok(reference)) = (std::env::var(ROOT), std::env::var(REFERENCE)) else { return };
    let root = PathBuf::from(root);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Store::open(&root.join("pintle.db")).unwrap());
        let images = Images::open(ImageConfig::new(root.join("images")), store).unwrap();
        let listed: Vec<String> = images.list().iter().map(|image| image.id.to_string()).collect();
        println!("\nCHILD opened {}", listed.join(","));
        let id = images.pull(PullRequest { reference, ..Default::default() }).await.unwrap();
        println!("\nCHILD pulled {id}");
    });
}

struct Node<'a> {
    root: &'a Path,
    reference: &'a str,
}

impl Node<'_> {
    fn start(&self) -> (Child, impl Iterator<Item = String> + use<>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_process_that_is_killed", "--exact", "--nocapture"])
            .env(ROOT, self.root)
            .env(REFERENCE, self.reference)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        (child, lines.filter_map(|line| line.strip_prefix("CHILD ").map(str::to_owned)))
    }

    /// The layers that were finished, by their file names: published, or unpacked with a whole note beside them.
    fn finished(&self) -> Vec<String> {
        let folder = self.root.join("images/layers");
        if !folder.exists() {
            return Vec::new();
        }
        let is_whole = |name: &String| {
            let text = std::fs::read(folder.join(name)).unwrap_or_default();
            serde_json::from_slice::<serde_json::Value>(&text).is_ok()
        };
        let done = |name: String| match name.split_once(".partial-") {
            None => Some(name.trim_end_matches(".erofs").to_owned()),
            Some((layer, _)) if name.ends_with(".note") && is_whole(&name) => Some(layer.to_owned()),
            Some(_) => None,
        };
        names(&folder).into_iter().filter_map(done).collect()
    }

    fn assert_whole(&self, image: &Image, contents: &[Vec<Entry>], when: &str) {
        for (layer, entries) in image.layers.iter().zip(contents) {
            let folder = self.root.join("images/layers").join(layer.diff_id.trim_start_matches("sha256:"));
            let packed = folder.with_extension("erofs");
            let mount = packed.is_file().then(|| common::mount(&packed));
            let folder = mount.as_ref().map_or(folder, |mount| common::inside(mount, "."));
            let mut expected: BTreeMap<String, &[u8]> = BTreeMap::new();
            for entry in entries {
                expected.insert(String::from_utf8_lossy(&entry.name).into_owned(), &entry.data);
            }
            assert_eq!(names(&folder), expected.keys().cloned().collect::<Vec<_>>(), "{when}");
            for (name, data) in expected {
                assert!(std::fs::read(folder.join(&name)).unwrap() == data, "{when}: {name}");
            }
        }
    }
}

#[test]
fn whenever_it_is_killed_the_images_are_whole_and_nothing_is_fetched_twice() {
    if skip_unless_root() {
        return;
    }
    let kills: u32 = std::env::var("PINTLE_TEST_KILLS").map_or(12, |text| text.parse().unwrap());
    let mut random = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {random}");
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random >> 8
    };
    let contents: Vec<Vec<Entry>> = (0..8u64)
        .map(|layer| {
            let mut data = |size: usize| (0..size).map(|_| next() as u8).collect::<Vec<u8>>();
            (0..12)
                .map(|file| {
                    Entry::file(&format!("f{layer}-{file}"), 0o644, data(4096 * (layer as usize + 1)))
                })
                .collect()
        })
        .collect();
    let image = image_of(&contents.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = Registry::new();
    let listening = runtime.block_on(registry.listen()).unwrap();
    registry.add("a", "1", &image);
    let reference = format!("{}/a:1", listening.host());
    let (mut spared, mut listed) = (0, 0);
    for kill in 0..kills {
        let root = tempfile::tempdir().unwrap();
        let node = Node { root: root.path(), reference: &reference };
        registry.set_hook(|asked| {
            let slow = Fault::Trickle { bytes: 16 << 10, pause: Duration::from_millis(8) };
            asked.target.contains("/blobs/").then_some(slow)
        });
        let (mut child, mut says) = node.start();
        says.next().unwrap();
        let moment = Duration::from_micros(next() % (MOMENTS_MILLIS * 1000));
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        let when = format!("kill {kill} after {moment:?}");
        let finished = node.finished();
        registry.set_hook(|_| None);
        let asked = |layer: &registry::make::Layer| registry.count(&layer.digest);
        let before: Vec<usize> = image.layers.iter().map(asked).collect();
        let (mut child, mut says) = node.start();
        let opened = says.next().unwrap();
        // It is not over: what is listed must be whole from the first moment on.
        if opened.contains("sha256:") {
            listed += 1;
            node.assert_whole(&image, &contents, &when);
        }
        assert_eq!(says.next().as_deref(), Some(format!("pulled {}", image.id).as_str()), "{when}");
        assert!(child.wait().unwrap().success(), "{when}");
        node.assert_whole(&image, &contents, &when);
        for (layer, before) in image.layers.iter().zip(before) {
            let is_finished = finished.iter().any(|name| layer.diff_id.ends_with(name.as_str()));
            let again = asked(layer) - before;
            assert!(
                again <= usize::from(!is_finished),
                "{when}: a layer was fetched {again} times more, finished: {is_finished}"
            );
            spared += usize::from(is_finished);
        }
        let rest = names(&root.path().join("images/layers"));
        assert!(rest.iter().all(|name| !name.contains(".partial-")), "{when}: {rest:?}");
        assert_eq!(names(&root.path().join("images/trash")), [""; 0], "{when}");
    }
    println!(
        "{kills} kills: {spared} finished layers of {} were not fetched again, {listed} images were whole",
        kills * 8
    );
    assert!(spared > 0, "no kill came late enough to say anything");
}
