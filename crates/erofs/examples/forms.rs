//! What a layer costs as a directory and as an EROFS image: written, synced, mounted, read, removed.
//!
//! `cargo run --release -p erofs --example forms -- FOLDER FILES BYTES` with FOLDER on the file system that is to be measured, as root.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use erofs::{Attributes, BLOCK_SIZE, Options, Output, Writer};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Files in one directory.
const IN_ONE: usize = 100;

struct ToFile(File, u64);

impl Output for ToFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, self.1)?;
        self.1 += bytes.len() as u64;
        Ok(())
    }

    fn read_back(&mut self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(to, offset)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, files, bytes] = arguments.as_slice() else { return Err("FOLDER FILES BYTES".into()) };
    let (folder, files, bytes) = (PathBuf::from(folder), files.parse()?, bytes.parse()?);
    for form in ["directory", "erofs", "directory", "erofs"] {
        let path = folder.join(format!("forms-{form}"));
        let begun = Instant::now();
        match form {
            "directory" => directory(&path, files, bytes)?,
            _ => image(&path, files, bytes)?,
        }
        let written = begun.elapsed();
        rustix::fs::syncfs(File::open(&folder)?)?;
        let synced = begun.elapsed() - written;
        let begun = Instant::now();
        let mount = if form == "erofs" { Some(mount(&path)?) } else { None };
        let mounted = begun.elapsed();
        let begun = Instant::now();
        let root = match &mount {
            Some(mount) => PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd())),
            None => path.clone(),
        };
        let read = read(&root)?;
        let reading = begun.elapsed();
        drop(mount);
        let begun = Instant::now();
        if form == "erofs" {
            std::fs::remove_file(&path)?
        } else {
            std::fs::remove_dir_all(&path)?
        };
        let removed = begun.elapsed();
        println!(
            "{form}: written {written:?}, synced {synced:?}, mounted {mounted:?}, {read} bytes read {reading:?}, removed {removed:?}"
        );
    }
    Ok(())
}

fn directory(path: &Path, files: usize, bytes: usize) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
    let data = vec![7; bytes];
    std::fs::create_dir(path)?;
    let time = Timespec { tv_sec: 1, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for group in 0..files.div_ceil(IN_ONE) {
        let path = path.join(format!("directory-{group}"));
        std::fs::create_dir(&path)?;
        let parent = File::open(&path)?;
        for file in 0..IN_ONE.min(files - group * IN_ONE) {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file =
                rustix::fs::openat(&parent, format!("file-{file}"), flags, Mode::from_raw_mode(0o644))?;
            rustix::io::write(&file, &data)?;
            rustix::fs::futimens(&file, &times)?;
        }
    }
    Ok(())
}

fn image(path: &Path, files: usize, bytes: usize) -> Result<(), Box<dyn std::error::Error>> {
    let data = vec![7; bytes];
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let look = |mode| Attributes { mode, mtime: (1, 0), ..Attributes::default() };
    let options = Options { uuid: [1; 16], root: look(0o755), memory: 64 << 20 };
    let mut writer = Writer::new(ToFile(file, BLOCK_SIZE as u64), options);
    for group in 0..files.div_ceil(IN_ONE) {
        let parent = writer.directory(writer.root(), format!("directory-{group}").as_bytes(), look(0o755))?;
        for file in 0..IN_ONE.min(files - group * IN_ONE) {
            let (name, attributes) = (format!("file-{file}"), look(0o644));
            let mut file = writer.file(parent, name.as_bytes(), &attributes, bytes as u64)?;
            let mut at = 0;
            while let Some(room) = file.room()? {
                let length = room.len();
                room.copy_from_slice(&data[at..at + length]);
                at += length;
                file.filled(length);
            }
            file.finish()?;
        }
    }
    let memory = writer.memory();
    let finished = writer.finish()?;
    finished.output.0.write_all_at(&finished.first_block[..], 0)?;
    println!("image: {} bytes for {} of data, {memory} bytes of memory", finished.size, files * bytes);
    Ok(())
}

fn mount(path: &Path) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", path)?;
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

fn read(path: &Path) -> io::Result<u64> {
    let mut sum = 0;
    let mut buffer = vec![0; 256 << 10];
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sum += read(&entry.path())?;
            continue;
        }
        let mut file = File::open(entry.path())?;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => sum += read as u64,
            }
        }
    }
    Ok(sum)
}
