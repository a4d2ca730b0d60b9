//! Writes the archive that a kernel unpacks as its first root: cpio, format `newc` (the kernel's driver-api/early-userspace/buffer-format).

/// An archive in the making.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

impl Archive {
    /// Adds an empty folder; those above it come first.
    pub(super) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, 2, &[]);
    }

    /// Adds a file that everybody may run.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, EXECUTABLE, 1, content);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, content: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(content.len()).expect("files in the first root are small");
        let name = u32::try_from(path.len() + 1).expect("paths are short");
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, owner, group, links, time, length, device and its kind (twice two numbers), length of the name, no checksum.
        for field in [self.entries, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name, 0] {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_stand_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/a", b"hello");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let at = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle).unwrap();
        assert_eq!(at(b"bin/a\0"), 110 + 6 + 110);
        assert_eq!(at(b"hello") % 4, 0);
        assert_eq!(&bytes[116 + 54..116 + 62], b"00000005");
        assert!(at(b"TRAILER!!!\0") > at(b"hello"));
    }
}
