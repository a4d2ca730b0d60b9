//! The log against a model: what the records of all files say, put together, is what the container wrote.

use super::*;
use proptest::prelude::*;
use std::path::Path;

/// Parses a log file and appends the content of its records to the streams.
fn read_back(path: &Path, stdout: &mut Vec<u8>, stderr: &mut Vec<u8>) {
    let text = std::fs::read(path).unwrap();
    assert!(text.is_empty() || text.ends_with(b"\n"), "a record is torn");
    for line in text.split_inclusive(|b| *b == b'\n') {
        let line = &line[..line.len() - 1];
        assert_eq!(line[STAMP_BYTES], b' ');
        assert!(line.starts_with(b"20") && line[STAMP_BYTES - 1] == b'Z');
        let out = match &line[STAMP_BYTES + 1..STAMP_BYTES + 7] {
            b"stdout" => &mut *stdout,
            b"stderr" => &mut *stderr,
            other => panic!("{other:?}"),
        };
        let content = &line[STAMP_BYTES + 10..];
        assert!(content.len() <= MAX_CONTENT);
        out.extend_from_slice(content);
        match &line[STAMP_BYTES + 7..STAMP_BYTES + 10] {
            b" F " => out.push(b'\n'),
            b" P " => {}
            other => panic!("{other:?}"),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(bool, Vec<u8>),
    Rotate,
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![
        prop::collection::vec(prop_oneof![4 => Just(b'\n'), 1 => Just(b'\r'), 6 => any::<u8>()], 0..300),
        (0usize..40_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
        Just(vec![b'\n'; 200]),
    ];
    prop_oneof![6 => (any::<bool>(), bytes).prop_map(|(err, bytes)| Step::Write(err, bytes)), 1 => Just(Step::Rotate)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn nothing_is_lost_doubled_or_divided_by_rotations(steps in prop::collection::vec(step(), 0..30)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut file = LogFile::open(&path, 0).unwrap();
        let mut lines = [Line::new(Stream::Stdout, false), Line::new(Stream::Stderr, false)];
        let mut expected = [Vec::new(), Vec::new()];
        let mut rotated = 0;
        for step in steps {
            match step {
                Step::Write(err, bytes) => {
                    expected[usize::from(err)].extend_from_slice(&bytes);
                    lines[usize::from(err)].feed(&bytes, 1_700_000_000_000_000_000, &mut file);
                }
                Step::Rotate => {
                    std::fs::rename(&path, folder.path().join(format!("rotated.{rotated}"))).unwrap();
                    rotated += 1;
                    file.reopen().unwrap();
                }
            }
            for line in &lines {
                prop_assert!(line.held.len() <= MAX_CONTENT);
            }
        }
        for line in &mut lines {
            line.finish(1_700_000_000_000_000_000, &mut file);
        }
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        for number in 0..rotated {
            read_back(&folder.path().join(format!("rotated.{number}")), &mut stdout, &mut stderr);
        }
        read_back(&path, &mut stdout, &mut stderr);
        prop_assert_eq!(file.dropped(), 0);
        prop_assert!(stdout == expected[0]);
        prop_assert!(stderr == expected[1]);
    }
}

#[test]
fn a_record_looks_as_the_kubelet_expects() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut file = LogFile::open(&path, 0).unwrap();
    let mut line = Line::new(Stream::Stdout, false);
    line.feed(b"The content of the log entry\nhalf", 1_475_713_029_669_794_202, &mut file);
    // The clock was set back: the order of the records must not be.
    line.finish(1_475_713_000_000_000_000, &mut file);
    let expected = "2016-10-06T00:17:09.669794202Z stdout F The content of the log entry\n\
                    2016-10-06T00:17:09.669794202Z stdout P half\n";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn links_and_other_things_are_refused_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("real")).unwrap();
    std::os::unix::fs::symlink(at("real"), at("folder-link")).unwrap();
    std::os::unix::fs::symlink(at("elsewhere"), at("real/file-link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("real/fifo"), rustix::fs::Mode::RWXU).unwrap();
    assert!(matches!(LogFile::open(&at("folder-link/0.log"), 0), Err(OpenLogError::Folder { .. })));
    assert!(matches!(LogFile::open(&at("real/file-link"), 0), Err(OpenLogError::File { .. })));
    assert!(LogFile::open(&at("real/fifo"), 0).is_err());
    assert!(LogFile::open(&at("real"), 0).is_err());
    assert!(matches!(LogFile::open(Path::new("0.log"), 0), Err(OpenLogError::BadPath { .. })));
    assert!(!at("real/0.log").exists() && !at("elsewhere").exists());
}

#[test]
fn a_failed_reopening_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let mut file = LogFile::open(&logs.join("0.log"), 0).unwrap();
    let mut line = Line::new(Stream::Stderr, false);
    std::fs::rename(&logs, folder.path().join("moved")).unwrap();
    assert!(file.reopen().is_err());
    line.feed(b"still here\n", 0, &mut file);
    assert!(
        std::fs::read_to_string(folder.path().join("moved/0.log"))
            .unwrap()
            .ends_with("stderr F still here\n")
    );
    assert!(!logs.exists());
}

#[test]
fn a_limit_drops_whole_records_until_the_file_is_rotated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.log");
    let mut file = LogFile::open(&path, 120).unwrap();
    let mut line = Line::new(Stream::Stdout, false);
    line.feed(b"0123456789\n0123456789\n0123456789\n0123456789\n", 1_700_000_000_000_000_000, &mut file);
    assert_eq!(file.dropped(), 2);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 102);
    std::fs::remove_file(&path).unwrap();
    file.reopen().unwrap();
    line.feed(b"again\n", 0, &mut file);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
}

/// A file system of one page: the write that fills it ends in the middle of a record.
#[test]
fn a_full_disk_drops_whole_records_and_recovers() {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let small = || -> rustix::io::Result<std::os::fd::OwnedFd> {
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, "size", "8192")?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    let Ok(mount) = small() else {
        println!("SKIPPED: no permission to make a tmpfs");
        return;
    };
    use std::os::fd::AsRawFd;
    rustix::fs::mkdirat(&mount, "logs", rustix::fs::Mode::RWXU).unwrap();
    // The mount is in no tree, so it is named through its descriptor: a magic link, which the log rightly refuses.
    let by_link = format!("/proc/self/fd/{}/logs", mount.as_raw_fd());
    assert!(LogFile::open(&Path::new(&by_link).join("0.log"), 0).is_err());
    let fd = rustix::fs::openat(
        &mount,
        "logs/0.log",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::APPEND,
        rustix::fs::Mode::RWXU,
    )
    .unwrap();
    let mut file = LogFile::of_descriptor(fd);
    let mut line = Line::new(Stream::Stdout, false);
    let text = [&[b'x'; 999][..], b"\n"].concat();
    for _ in 0..20 {
        line.feed(&text, 1_700_000_000_000_000_000, &mut file);
    }
    assert!(file.dropped() >= 12, "{}", file.dropped());
    let path = Path::new(&by_link).join("0.log");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    read_back(&path, &mut stdout, &mut stderr);
    assert_eq!(stdout.len() as u64, (20 - file.dropped()) * 1000);
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    line.feed(b"room again\n", 0, &mut file);
    assert!(std::fs::read_to_string(&path).unwrap().ends_with("stdout F room again\n"));
}
