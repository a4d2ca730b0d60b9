//! The images that are measured with, made here and served from a registry on loopback: no run depends on the Internet.

use crate::content::Content;
use anyhow::Result;
use cri::runtime_v1 as v1;
use registry::make::{Compression, ImageBuilder, Layer};
use registry::tar::Entry;
use registry::{Listening, Registry};
use serde_json::json;

/// The programs of busybox that are used.
const PROGRAMS: &[&str] = &["sh", "sleep", "true"];

/// Bytes of the image of large files, in how many layers, and bytes of each file.
const LARGE: (usize, usize, usize) = (1 << 30, 10, 4 << 20);

/// Files of the image of small ones, in how many layers, how many to a directory, and less than how many bytes each.
const SMALL: (usize, usize, usize, usize) = (100_000, 40, 25, 8 << 10);

/// Bytes of the image that comes through the slow link, in how many layers, and the link's bytes per second.
const LINKED: (usize, usize, usize) = (256 << 20, 4, 20_000_000);

/// An image to pull.
pub(crate) struct ToPull {
    /// What it is.
    pub(crate) what: String,
    pub(crate) name: String,
    /// How long the link alone takes for its blobs, where there is one worth speaking of.
    pub(crate) link_secs: Option<f64>,
}

impl ToPull {
    /// How a request names it.
    pub(crate) fn spec(&self) -> v1::ImageSpec {
        v1::ImageSpec { image: self.name.clone(), ..Default::default() }
    }
}

/// A registry with the images.
pub(crate) struct Served {
    listening: Listening,
    has_busybox: bool,
    to_pull: Vec<ToPull>,
    /// Behind the slow link.
    far: Listening,
}

impl Served {
    /// Makes the images and serves them until dropped; those to pull only if `pulls`.
    pub(crate) async fn start(pulls: bool) -> Result<Served> {
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
        let listening = registry.listen().await?;
        let far = Registry::new();
        far.set_rate(Some(LINKED.2 as u64));
        let far_listening = far.listen().await?;
        let mut to_pull = Vec::new();
        if pulls {
            eprintln!("making the images to pull");
            let name = |host: &str, image: &str| format!("{host}/bench/{image}:1");
            add(&registry, "large", large(LARGE, 1));
            to_pull.push(ToPull {
                what: format!("{} MiB in {} layers", LARGE.0 >> 20, LARGE.1),
                name: name(&listening.host(), "large"),
                link_secs: None,
            });
            add(&registry, "small", small());
            to_pull.push(ToPull {
                what: format!("{} files in {} layers", SMALL.0, SMALL.1),
                name: name(&listening.host(), "small"),
                link_secs: None,
            });
            let packed = add(&far, "linked", large((LINKED.0, LINKED.1, LARGE.2), 2));
            to_pull.push(ToPull {
                what: format!("{} MiB through {} MB/s", LINKED.0 >> 20, LINKED.2 / 1_000_000),
                name: name(&far_listening.host(), "linked"),
                link_secs: Some(packed as f64 / LINKED.2 as f64),
            });
        }
        Ok(Served { listening, has_busybox: busybox.is_some(), to_pull, far: far_listening })
    }

    /// An image with a shell; `None` where the machine has no busybox to make it of.
    pub(crate) fn busybox(&self) -> Option<String> {
        self.has_busybox.then(|| self.name("busybox"))
    }

    /// For runtimes that need an image to hold a pod's namespaces.
    pub(crate) fn pause(&self) -> String {
        self.name("pause")
    }

    /// What is pulled to be measured.
    pub(crate) fn to_pull(&self) -> &[ToPull] {
        &self.to_pull
    }

    /// `HOST:PORT` of the registries that all images come from.
    pub(crate) fn hosts(&self) -> [String; 2] {
        [self.listening.host(), self.far.host()]
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

/// Serves an image of these layers, and says how many bytes they have packed.
fn add(registry: &Registry, image: &str, layers: impl Iterator<Item = Layer>) -> usize {
    let layers: Vec<Layer> = layers.collect();
    let packed = layers.iter().map(|layer| layer.packed.len()).sum();
    let image_of = |builder: ImageBuilder, layer: Layer| builder.layer(layer);
    registry.add(
        &format!("bench/{image}"),
        "1",
        &layers.into_iter().fold(ImageBuilder::new(), image_of).build(),
    );
    packed
}

/// Layers of large files.
fn large((bytes, layers, file): (usize, usize, usize), seed: u64) -> impl Iterator<Item = Layer> {
    (0..layers).map(move |number| {
        let mut content = Content::new(seed << 32 | number as u64);
        let whole = content.bytes(bytes / layers);
        let files = whole.chunks(file).enumerate();
        let mut entries = vec![Entry::directory(&format!("usr{number}"), 0o755)];
        entries.extend(
            files.map(|(file, bytes)| Entry::file(&format!("usr{number}/lib{file}.so"), 0o755, bytes)),
        );
        Layer::new(&entries, Compression::Gzip)
    })
}

/// Layers of many small files.
fn small() -> impl Iterator<Item = Layer> {
    let (files, layers, per_directory, size) = SMALL;
    (0..layers).map(move |number| {
        let mut content = Content::new(3 << 32 | number as u64);
        let mut entries = Vec::new();
        for file in 0..files / layers {
            let directory = format!("app{number}/d{}", file / per_directory);
            if file % per_directory == 0 {
                entries.push(Entry::directory(&directory, 0o755));
            }
            let length = content.below(size);
            entries.push(Entry::file(&format!("{directory}/f{file}"), 0o644, content.bytes(length)));
        }
        Layer::new(&entries, Compression::Gzip)
    })
}
