//! Unpacking against somebody who swaps parts of paths for links that lead out, all the while. Nobody reaches a layer that is being
//! unpacked; it holds even so, since nothing rests on a name that was looked at before.

use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::digest::Digest;
use registry::make::sha256;
use registry::tar::{Entry, archive};
use rustix::fs;

use super::{Expected, Options, Target, unpack};
use crate::config::Limits;
use crate::tree;

/// What is swapped, below the layer's root and below `outside`.
const NAMES: [&str; 13] =
    ["d", "d/e", "d/p", "d/n", "d/e/f", "d/h", "d/p", "d/n", "d/l", "gone", "a", "link", "canary"];

/// Each of these would change something outside if a name led there.
fn entries() -> Vec<Entry> {
    let file = |name: &str| Entry::file(name, 0o4777, b"owned".to_vec()).owner(7, 7).xattr("user.a", "b");
    let whiteout = |name: &str| Entry::file(name, 0, b"".to_vec());
    vec![
        Entry::directory("d/", 0o777).owner(7, 7),
        Entry::directory("d/e/", 0o777),
        file("d/e/f"),
        Entry { mode: 0o777, ..Entry::fifo("d/p").owner(7, 7) },
        Entry { mode: 0o777, ..Entry::device("d/n", 1, 3).xattr("user.a", "b") },
        Entry { mode: 0o777, ..Entry::fifo("d/p").owner(7, 7) },
        Entry { mode: 0o777, ..Entry::device("d/n", 1, 3).xattr("user.a", "b") },
        Entry::hard_link("d/h", "d/e/f"),
        Entry::symlink("d/l", "e").owner(7, 7),
        file("d/l/f"),
        whiteout("d/.wh.gone"),
        whiteout("d/e/.wh..wh..opq"),
        // In the place of a whole directory, which is removed for it.
        file("d/e"),
        Entry::directory("d/e", 0o700),
        file("d/e/f"),
        Entry::hard_link("gone", "d/e/f"),
        Entry::directory("d/", 0o711).mtime(1),
    ]
}

/// What is unpacked in turn, and what it has to be: the entries above again and again, so that there is time to be in the way, and the
/// corpus.
fn blobs(outside: &Path) -> Vec<(Vec<u8>, Expected)> {
    let own = archive(&vec![entries(); 20].concat());
    let cases = registry::corpus::cases(&outside.display().to_string());
    let layers = cases.iter().filter_map(|case| Some(case.image.layers.first()?.packed.to_vec()));
    std::iter::once(own)
        .chain(layers.filter(|blob| blob.len() < 16 << 10))
        .map(|blob| {
            let digest = Digest::parse(&sha256(&blob)).unwrap();
            let size = blob.len() as u64;
            (blob, Expected { blob: digest.clone(), size, diff_id: digest, file: None })
        })
        .collect()
}

/// Everything outside, with all that could be changed of it.
fn state(outside: &Path) -> Vec<String> {
    let mut seen = Vec::new();
    let mut todo = vec![outside.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let (mode, times) = (meta.mode(), (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()));
        seen.push(format!("{path:?} {mode:o} {} {} {times:?} {content:?}", meta.uid(), meta.nlink()));
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    seen.sort();
    seen
}

/// Exchanges parts of paths for links that lead out, and back, until it is told to stop. Returns how often it could.
fn swap(root: &Path, outside: &Path, staged: &Path, stop: &AtomicBool) -> u64 {
    let (mut swapped, mut turn) = (0, 0usize);
    let exchange =
        |one: &Path, other: &Path| fs::renameat_with(fs::CWD, one, fs::CWD, other, fs::RenameFlags::EXCHANGE);
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let name = NAMES[turn / 16 % NAMES.len()];
        let (place, link) = (root.join(name), staged.join(name.replace('/', "-")));
        // The unpacker may have put something else in the link's place, which is now here.
        if std::fs::read_link(&link).is_err() {
            let _ = std::fs::remove_file(&link).or_else(|_| std::fs::remove_dir_all(&link));
            // Not while the unpacker still fills it.
            let _ = symlink(outside.join(name), &link);
        }
        if exchange(&place, &link).is_ok() {
            swapped += 1;
            // As long as a few system calls take, so that the link is there about half of the time.
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(turn as u64 % 40) {
                std::hint::spin_loop();
            }
            let _ = exchange(&place, &link);
        }
    }
    swapped
}

#[test]
fn whoever_swaps_names_for_links_gains_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("SKIPPED: needs root for owners and devices");
        return;
    }
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(place).unwrap();
    let (outside, root) = (folder.path().join("outside"), folder.path().join("root"));
    for name in ["d", "d/e", "d/gone"] {
        std::fs::create_dir_all(outside.join(name)).unwrap();
    }
    for name in ["d/e/f", "d/p", "d/n", "d/h", "d/l", "gone"] {
        std::fs::write(outside.join(name), "alive").unwrap();
        std::fs::set_permissions(outside.join(name), std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    std::fs::create_dir(&root).unwrap();
    let staged = folder.path().join("staged");
    std::fs::create_dir(&staged).unwrap();
    std::fs::write(outside.join("canary"), "alive").unwrap();
    let before = state(&outside);
    let blobs = blobs(&outside);
    let limits = Limits { layer_bytes: 8 << 20, entries: 2000, ..Limits::default() };
    let options = Options { limits, user_xattr: false, for_copies: false };
    let stop = AtomicBool::new(false);
    let (mut whole, mut broken) = (0u32, 0u32);
    let swapped = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap(&root, &outside, &staged, &stop));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            let directory = std::fs::File::open(&root).unwrap();
            // Every other time the one that is made for this.
            let tries = (whole + broken) as usize;
            let blob = if tries.is_multiple_of(2) { &blobs[0] } else { &blobs[tries / 2 % blobs.len()] };
            match unpack(&blob.0[..], Target::Directory(directory.as_fd()), &blob.1, &options) {
                Ok(_) => whole += 1,
                Err(_) => broken += 1,
            }
            // As it is thrown away: also by descriptors.
            for entry in std::fs::read_dir(&root).unwrap().flatten() {
                let name = CString::new(entry.file_name().into_encoded_bytes()).unwrap();
                let _ = tree::remove(directory.as_fd(), &name);
            }
            if (whole + broken) % 64 == 0 {
                assert_eq!(state(&outside), before);
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap()
    });
    assert_eq!(state(&outside), before);
    println!("{whole} went through, {broken} did not; {swapped} swaps");
    assert!(swapped > 500, "nobody was in the way: {whole} {broken} {swapped}");
}
