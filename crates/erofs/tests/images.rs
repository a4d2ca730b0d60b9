//! Images of every kind, judged by Debian's own programs: erofs-utils has to find nothing wrong with them, and to take out what was put in.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use erofs::{Attributes, BLOCK_SIZE, Device, Directory, Error, Finished, Options, Output, Writer};
use proptest::prelude::*;

/// An image in memory.
#[derive(Debug)]
struct Bytes(Vec<u8>);

impl Output for Bytes {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn read_back(&mut self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        to.copy_from_slice(&self.0[offset as usize..][..to.len()]);
        Ok(())
    }
}

fn writer() -> Writer<Bytes> {
    let root = Attributes { mode: 0o755, ..Attributes::default() };
    Writer::new(Bytes(vec![0; BLOCK_SIZE]), Options { uuid: [7; 16], root, memory: 64 << 20 })
}

fn finish(writer: Writer<Bytes>) -> Vec<u8> {
    let Finished { output, first_block, size, .. } = writer.finish().unwrap();
    let mut bytes = output.0;
    bytes[..BLOCK_SIZE].copy_from_slice(&first_block[..]);
    assert_eq!(bytes.len() as u64, size);
    bytes
}

fn put(writer: &mut Writer<Bytes>, parent: Directory, name: &str, attributes: &Attributes, data: &[u8]) {
    let mut file = writer.file(parent, name.as_bytes(), attributes, data.len() as u64).unwrap();
    let mut at = 0;
    while let Some(room) = file.room().unwrap() {
        // In odd pieces, as a decoder gives them.
        let length = room.len().min(10_007);
        room[..length].copy_from_slice(&data[at..at + length]);
        at += length;
        file.filled(length);
    }
    assert_eq!(at, data.len());
    file.finish().unwrap();
}

fn data(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 31 + seed * 7) % 251) as u8).collect()
}

/// None, with a word about it, where the programs are not installed.
fn checked(bytes: &[u8], folder: &Path) -> Option<PathBuf> {
    let image = folder.join("image.erofs");
    std::fs::write(&image, bytes).unwrap();
    let to = folder.join("out");
    let extract = format!("--extract={}", to.display());
    let fsck = Command::new("fsck.erofs").args([&extract, "--overwrite", "-d9"]).arg(&image).output();
    let output = match fsck {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("SKIPPED: fsck.erofs of the package erofs-utils is not installed");
            return None;
        }
        done => done.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fsck.erofs: {text}");
    let dump = Command::new("dump.erofs").args(["-s", "-S"]).arg(&image).stdout(Stdio::null()).status();
    assert!(dump.unwrap().success(), "dump.erofs");
    Some(to)
}

#[test]
fn files_of_all_sizes_come_out_as_they_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer();
    let root = writer.root();
    let sizes =
        [0, 1, 63, 4031, 4032, 4033, 4095, 4096, 4097, 8128, 8191, 8192, 100_000, (1 << 20) + 5, 5 << 20];
    for size in sizes {
        let attributes =
            Attributes { mode: 0o640, uid: 70_000, gid: 8, mtime: (1_600_000_000, 5), ..Default::default() };
        put(&mut writer, root, &format!("file-{size}"), &attributes, &data(size, size));
    }
    let bytes = finish(writer);
    let Some(out) = checked(&bytes, folder.path()) else { return };
    for size in sizes {
        assert!(std::fs::read(out.join(format!("file-{size}"))).unwrap() == data(size, size), "{size}");
    }
    // Whole blocks, and what is left packed behind inodes: little more than the data.
    let sum: usize = sizes.iter().sum();
    assert!(bytes.len() < sum + 64 * 1024, "{} for {sum}", bytes.len());
}

#[test]
fn what_is_small_is_packed() {
    let mut writer = writer();
    let root = writer.root();
    let mut sum = 0;
    for number in 0..20_000usize {
        let size = (number * 7919) % 6000;
        sum += size;
        put(&mut writer, root, &format!("{number}"), &Attributes::default(), &data(size, number));
    }
    assert!(writer.memory() < 4 << 20, "{} bytes of memory", writer.memory());
    let bytes = finish(writer);
    let per_file = (bytes.len() - sum) / 20_000;
    assert!(per_file < 400, "{per_file} bytes for each file beside its data");
    let folder = tempfile::tempdir().unwrap();
    checked(&bytes, folder.path());
}

#[test]
fn kinds_links_and_replaced_entries() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer();
    let root = writer.root();
    let plain = Attributes { mode: 0o644, ..Attributes::default() };
    let etc = writer.directory(root, b"etc", Attributes { mode: 0o1755, ..Attributes::default() }).unwrap();
    put(&mut writer, etc, "replaced", &plain, &data(9000, 1));
    put(&mut writer, etc, "replaced", &plain, b"second");
    put(&mut writer, etc, "large", &plain, &data(9000, 2));
    assert!(writer.link((etc, b"large"), (root, b"also-large")).unwrap());
    assert!(writer.link((etc, b"replaced"), (root, b"one-of-two")).unwrap());
    assert!(!writer.link((root, b"etc"), (root, b"directory-link")).unwrap());
    assert!(!writer.link((root, b"nothing"), (root, b"x")).unwrap());
    // A link that is gone again leaves one name.
    assert!(writer.link((etc, b"large"), (etc, b"third")).unwrap());
    writer.remove(etc, b"third");
    writer.symlink(root, b"short", &plain, b"etc/large").unwrap();
    writer.symlink(root, b"long", &plain, &[b'x'; 4095]).unwrap();
    writer.device(root, b"null", &plain, Device::Character(1, 3)).unwrap();
    writer.device(root, b"far", &plain, Device::Block(4095, 1_048_575)).unwrap();
    writer.device(root, b"fifo", &plain, Device::Fifo).unwrap();
    writer.device(root, b"gone", &Attributes::default(), Device::Character(0, 0)).unwrap();
    let doomed = writer.directory(root, b"doomed", Attributes::default()).unwrap();
    put(&mut writer, doomed, "inside", &plain, b"unreachable");
    put(&mut writer, root, "doomed", &plain, b"a file now");
    let bytes = finish(writer);
    let Some(out) = checked(&bytes, folder.path()) else { return };
    assert_eq!(std::fs::read(out.join("etc/replaced")).unwrap(), b"second");
    assert_eq!(std::fs::read(out.join("one-of-two")).unwrap(), b"second");
    assert_eq!(std::fs::read(out.join("also-large")).unwrap(), data(9000, 2));
    assert_eq!(std::fs::read(out.join("doomed")).unwrap(), b"a file now");
    assert_eq!(std::fs::read_link(out.join("long")).unwrap().as_os_str().len(), 4095);
    assert_eq!(std::fs::metadata(out.join("etc")).unwrap().mode() & 0o7777, 0o1755);
    if is_root() {
        let far = std::fs::metadata(out.join("far")).unwrap();
        assert!(far.file_type().is_block_device());
        assert_eq!(far.rdev(), 0xffff_ffff, "major 4095, minor 1048575");
        assert!(std::fs::metadata(out.join("fifo")).unwrap().file_type().is_fifo());
    }
    assert!(!out.join("etc/third").exists());
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

#[test]
fn large_directories_are_sorted_with_odd_names_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = writer();
    let root = writer.root();
    let mut names: Vec<String> =
        (0..3000).map(|number| format!("{}-{number}", "n".repeat(number % 240))).collect();
    // Around "." and "..", and as long as a name can be.
    names.extend(["!", "-", ".\u{1}", ".a", "...", "\u{ff}"].map(String::from));
    names.push("x".repeat(255));
    for name in names.iter().rev() {
        put(&mut writer, root, name, &Attributes::default(), name.as_bytes());
    }
    for count in [0, 1, 14, 15, 16, 200] {
        let made = writer.directory(root, format!("dir{count}").as_bytes(), Attributes::default()).unwrap();
        for number in 0..count {
            put(&mut writer, made, &format!("{}{number:03}", "y".repeat(252)), &Attributes::default(), b"");
        }
    }
    let Some(out) = checked(&finish(writer), folder.path()) else { return };
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), names.len() + 6);
    for name in &names {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), name.as_bytes());
    }
    assert_eq!(std::fs::read_dir(out.join("dir200")).unwrap().count(), 200);
}

#[test]
fn what_is_too_much_is_refused() {
    let big =
        |size| Attributes { xattrs: vec![(b"user.a".to_vec(), vec![1; size])], ..Attributes::default() };
    let mut one = writer();
    let root = one.root();
    assert!(matches!(one.directory(root, b"d", big(65_536)), Err(Error::Attribute { .. })));
    assert!(matches!(one.directory(root, &[b'n'; 256], Attributes::default()), Err(Error::Name)));
    // The root's inode is in the first block.
    one.set_attributes(root, big(4000)).unwrap();
    assert!(matches!(one.finish(), Err(Error::Attribute { .. })));
    let mut wasteful = writer();
    let root = wasteful.root();
    for _ in 0..70 {
        put(&mut wasteful, root, "again", &Attributes::default(), &vec![0; 1 << 20]);
    }
    assert!(matches!(wasteful.finish(), Err(Error::Waste { .. })));
    let mut full = Writer::new(
        Bytes(vec![0; BLOCK_SIZE]),
        Options { uuid: [0; 16], root: Attributes::default(), memory: 1 << 20 },
    );
    let root = full.root();
    let refused = (0..1_000_000u32)
        .find_map(|number| full.directory(root, format!("{number}").as_bytes(), big(1000)).err());
    assert!(matches!(refused, Some(Error::Memory { .. })));
}

#[test]
fn the_same_calls_make_the_same_image() {
    let make = || {
        let mut writer = writer();
        let root = writer.root();
        for number in 0..200 {
            put(&mut writer, root, &format!("f{number}"), &Attributes::default(), &data(number * 50, number));
            writer
                .link((root, format!("f{number}").as_bytes()), (root, format!("l{number}").as_bytes()))
                .unwrap();
        }
        finish(writer)
    };
    assert!(make() == make());
}

/// One thing that is done to an image, with two names from a small set.
#[derive(Debug, Clone)]
enum Step {
    File(usize, usize, usize),
    Directory(usize, usize),
    Link(usize, usize, usize, usize),
    Remove(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..6usize;
    prop_oneof![
        4 => (name.clone(), name.clone(), 0..12_000usize).prop_map(|(d, n, size)| Step::File(d, n, size)),
        2 => (name.clone(), name.clone()).prop_map(|(d, n)| Step::Directory(d, n)),
        2 => (name.clone(), name.clone(), name.clone(), name.clone()).prop_map(|(a, b, c, d)| Step::Link(a, b, c, d)),
        1 => (name.clone(), name).prop_map(|(d, n)| Step::Remove(d, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against a model: directories of the first level, with files in them.
    #[test]
    fn an_image_has_what_was_last_put_into_it(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer();
        let root = writer.root();
        let tops: Vec<Directory> = (0..6)
            .map(|top| writer.directory(root, format!("top{top}").as_bytes(), Attributes::default()).unwrap())
            .collect();
        // None: a directory.
        let mut model: BTreeMap<(usize, usize), Option<Vec<u8>>> = BTreeMap::new();
        let name = |name: usize| format!("name{name}");
        for (seed, step) in steps.into_iter().enumerate() {
            match step {
                Step::File(top, file, size) => {
                    let bytes = data(size, seed);
                    put(&mut writer, tops[top], &name(file), &Attributes::default(), &bytes);
                    model.insert((top, file), Some(bytes));
                }
                Step::Directory(top, made) => {
                    writer.directory(tops[top], name(made).as_bytes(), Attributes::default()).unwrap();
                    model.insert((top, made), None);
                }
                Step::Link(from, a, to, b) => {
                    let (old, new) = (name(a), name(b));
                    let linked = writer.link((tops[from], old.as_bytes()), (tops[to], new.as_bytes())).unwrap();
                    let target = model.get(&(from, a)).cloned().flatten();
                    prop_assert_eq!(linked, target.is_some());
                    if target.is_some() {
                        model.insert((to, b), target);
                    }
                }
                Step::Remove(top, file) => {
                    writer.remove(tops[top], name(file).as_bytes());
                    model.remove(&(top, file));
                }
            }
        }
        let Some(out) = checked(&finish(writer), folder.path()) else { return Ok(()) };
        for top in 0..6 {
            let there = std::fs::read_dir(out.join(format!("top{top}"))).unwrap().count();
            prop_assert_eq!(there, model.keys().filter(|(of, _)| *of == top).count());
        }
        for ((top, file), content) in model {
            let path = out.join(format!("top{top}")).join(name(file));
            match content {
                Some(content) => prop_assert!(std::fs::read(path).unwrap() == content),
                None => prop_assert!(path.is_dir()),
            }
        }
    }
}
