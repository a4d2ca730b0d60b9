//! The demonstration's image: this very binary as the programs of the containers, with the libraries it was linked to, and a page to serve.

use crate::userland::APPLETS;
use registry::make::{Compression, Image, ImageBuilder, Layer};
use registry::tar::Entry;
use serde_json::json;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The page that is fetched, which is how it is known that the right server answered.
pub(super) const PAGE: &str = "Hello from a container of pintle!\n";

/// Port of the web server inside the pod.
pub(super) const PORT: u16 = 8080;

/// Makes the image: a layer with the binary, one with its libraries when it is linked to any, one with the page.
pub(super) fn make() -> io::Result<Image> {
    let binary = std::fs::read("/proc/self/exe")?;
    let mut programs = vec![
        Entry::directory("bin", 0o755),
        Entry::directory("tmp", 0o1777),
        Entry::directory("etc", 0o755),
        Entry::file("etc/passwd", 0o644, "root:x:0:0:root:/:/bin/false\n"),
    ];
    let interpreter = elf_interpreter(&binary);
    programs.push(Entry::file("bin/pintle", 0o755, binary));
    programs.extend(APPLETS.iter().map(|applet| Entry::symlink(&format!("bin/{applet}"), "pintle")));
    let mut image = ImageBuilder::new().layer(Layer::new(&programs, Compression::Zstd));
    if let Some(interpreter) = interpreter {
        image = image.layer(Layer::new(&libraries(&interpreter)?, Compression::Gzip));
    }
    let page = [Entry::directory("www", 0o755), Entry::file("www/index.html", 0o644, PAGE)];
    let image = image.layer(Layer::new(&page, Compression::Gzip));
    Ok(image.run(json!({ "Env": ["PATH=/bin"], "Cmd": ["sleep", "3600"] })).build())
}

/// The program that loads the libraries of a dynamically linked ELF file (PT_INTERP, elf(5)); `None` for a static one.
fn elf_interpreter(elf: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u32 = 3;
    let bytes = |at: usize, length: usize| elf.get(at..at.checked_add(length)?);
    let u16_at = |at| Some(usize::from(u16::from_le_bytes(bytes(at, 2)?.try_into().ok()?)));
    let u32_at = |at| Some(u32::from_le_bytes(bytes(at, 4)?.try_into().ok()?));
    let u64_at = |at| usize::try_from(u64::from_le_bytes(bytes(at, 8)?.try_into().ok()?)).ok();
    let (table, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    let headers = (0..count).map(|index| table.saturating_add(index * size));
    let header = headers.into_iter().find(|at| u32_at(*at) == Some(PT_INTERP))?;
    let path = bytes(u64_at(header + 8)?, u64_at(header + 32)?)?;
    Some(PathBuf::from(std::str::from_utf8(path).ok()?.trim_end_matches('\0')))
}

/// The libraries this process has loaded, at the paths it loaded them from and under the other names they have there.
fn libraries(interpreter: &Path) -> io::Result<Vec<Entry>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mapped = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    let is_library =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"));
    let mut files: BTreeSet<PathBuf> = mapped.filter(is_library).collect();
    files.insert(interpreter.to_owned());
    let loaded: Vec<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
    for directory in loaded.iter().filter_map(|file| file.parent()).collect::<BTreeSet<_>>() {
        let names = std::fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
        files.extend(
            names
                .filter(|name| name.is_symlink() && is_library(name))
                .filter(|name| name.canonicalize().is_ok_and(|target| loaded.contains(&target))),
        );
    }
    let mut directories = BTreeSet::new();
    let mut entries = Vec::new();
    for file in &files {
        let inside = |path: &Path| path.strip_prefix("/").map(|path| path.display().to_string()).ok();
        let parents: Vec<&Path> =
            file.ancestors().skip(1).filter(|parent| *parent != Path::new("/")).collect();
        for parent in parents.into_iter().rev() {
            if directories.insert(parent.to_owned()) {
                entries.extend(inside(parent).map(|name| Entry::directory(&name, 0o755)));
            }
        }
        let data = std::fs::read(file)?;
        entries.extend(inside(file).map(|name| Entry::file(&name, 0o755, data)));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_this_test_is_found_when_it_has_one() {
        let elf = std::fs::read("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        match elf_interpreter(&elf) {
            Some(loader) => assert!(loader.exists(), "{}", loader.display()),
            None => assert!(!maps.contains("/ld-"), "{maps}"),
        }
    }

    #[test]
    fn broken_files_have_no_loader() {
        assert_eq!(elf_interpreter(b""), None);
        assert_eq!(elf_interpreter(&[0xff; 4096]), None);
    }

    #[test]
    fn the_image_holds_every_program() {
        let image = make().unwrap();
        assert!(image.layers.len() >= 2);
        assert!(image.layers.iter().all(|layer| layer.packed.len() > 100));
    }
}
