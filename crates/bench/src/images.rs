//! The images that are measured with, made here and served from a registry on loopback: no run depends on the Internet.

use anyhow::Result;
use registry::make::{Compression, ImageBuilder, Layer};
use registry::tar::Entry;
use registry::{Listening, Registry};
use serde_json::json;

/// The programs of busybox that are used.
const PROGRAMS: &[&str] = &["sh", "sleep", "true"];

/// Bytes of the one large file.
const LARGE: usize = 64 << 20;

/// Small files, and the bytes of each.
const SMALL: (usize, usize) = (5000, 4096);

/// A registry with the images.
pub(crate) struct Served {
    listening: Listening,
    has_busybox: bool,
}

impl Served {
    /// Makes the images and serves them until dropped.
    pub(crate) async fn start() -> Result<Served> {
        let registry = Registry::new();
        let busybox = busybox();
        if let Some(busybox) = &busybox {
            let mut entries = vec![
                Entry::directory("bin", 0o755),
                Entry::directory("etc", 0o755),
                Entry::directory("tmp", 0o1777),
                Entry::file("etc/passwd", 0o644, "root:x:0:0:root:/:/bin/sh\n"),
                Entry::file("bin/busybox", 0o755, busybox.clone()),
            ];
            entries.extend(PROGRAMS.iter().map(|name| Entry::symlink(&format!("bin/{name}"), "busybox")));
            let layer = Layer::new(&entries, Compression::Gzip);
            let run = |command: &[&str]| json!({ "Env": ["PATH=/bin"], "Cmd": command });
            let image = ImageBuilder::new().layer(layer);
            registry.add("bench/busybox", "1", &image.clone().run(run(&["sh"])).build());
            registry.add("bench/pause", "1", &image.run(run(&["sleep", "1000000000"])).build());
        }
        let large = [Entry::file("large", 0o644, noise(LARGE))];
        registry.add(
            "bench/large",
            "1",
            &ImageBuilder::new().layer(Layer::new(&large, Compression::Gzip)).build(),
        );
        let bytes = noise(SMALL.0 * SMALL.1);
        let small = bytes.chunks(SMALL.1).enumerate();
        let small: Vec<Entry> =
            small.map(|(number, bytes)| Entry::file(&format!("f{number}"), 0o644, bytes)).collect();
        registry.add(
            "bench/small",
            "1",
            &ImageBuilder::new().layer(Layer::new(&small, Compression::Gzip)).build(),
        );
        Ok(Served { listening: registry.listen().await?, has_busybox: busybox.is_some() })
    }

    /// An image with a shell; `None` where the machine has no busybox to make it of.
    pub(crate) fn busybox(&self) -> Option<String> {
        self.has_busybox.then(|| self.name("busybox"))
    }

    /// For runtimes that need an image to hold a pod's namespaces.
    pub(crate) fn pause(&self) -> String {
        self.name("pause")
    }

    /// What is pulled to be measured, with what it is.
    pub(crate) fn to_pull(&self) -> [(String, String); 2] {
        [
            (format!("one file of {} MiB", LARGE >> 20), self.name("large")),
            (format!("{} files of {} KiB", SMALL.0, SMALL.1 >> 10), self.name("small")),
        ]
    }

    fn name(&self, image: &str) -> String {
        format!("{}/bench/{image}:1", self.listening.host())
    }
}

/// This machine's busybox if it is linked to nothing.
fn busybox() -> Option<Vec<u8>> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let bytes = places.iter().find_map(|place| std::fs::read(place).ok())?;
    let dynamic = bytes.windows(7).take(4096).any(|window| window == b"/ld-lin" || window == b"/lib/ld");
    (!dynamic).then_some(bytes)
}

/// Bytes that pack about as well as programs do: every second one is random.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        // xorshift64: the same bytes in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length).map(|index| if index % 2 == 0 { 0 } else { next() as u8 }).collect()
}
