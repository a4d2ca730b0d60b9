//! A pull takes the same memory whatever the layers are: large, many at once, or packed with a large window.

mod common;

use std::process::Command;
use std::sync::Arc;

use common::skip_unless_root;
use image::{ImageConfig, Images, PullRequest};
use registry::Registry;
use registry::make::{Compression, ImageBuilder, Layer, sha256};
use registry::tar::{Entry, archive};
use store::Store;

const ROOT: &str = "PINTLE_TEST_MEMORY_ROOT";
const REFERENCE: &str = "PINTLE_TEST_MEMORY_REFERENCE";

/// The most memory that this process has had, in KiB (proc_pid_status(5)).
fn peak_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Not a test of its own: the process that is measured.
#[test]
fn the_process_that_is_measured() {
    let (Ok(root), Ok(reference)) = (std::env::var(ROOT), std::env::var(REFERENCE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(Store::open(format!("{root}/pintle.db").as_ref()).unwrap());
        let images = Images::open(ImageConfig::new(format!("{root}/images")), store).unwrap();
        let before = peak_kib();
        images.pull(PullRequest { reference, ..Default::default() }).await.unwrap();
        println!("\nPEAK {}", peak_kib() - before);
    });
}

fn noise(size: usize, mut state: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        bytes.extend_from_slice(&state.to_be_bytes());
    }
    bytes
}

/// What pulling this image adds to the memory of a process.
fn measure(name: &str, layers: impl Iterator<Item = Layer>) -> u64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let registry = Registry::new();
    let listening = runtime.block_on(registry.listen()).unwrap();
    registry.add(name, "1", &layers.fold(ImageBuilder::new(), ImageBuilder::layer).build());
    let root = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["the_process_that_is_measured", "--exact", "--nocapture"])
        .env(ROOT, root.path())
        .env(REFERENCE, format!("{}/{name}:1", listening.host()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let peak =
        text.lines().find_map(|line| line.strip_prefix("PEAK ")).unwrap_or_else(|| panic!("{output:?}"));
    println!("{name}: {peak} KiB more");
    peak.parse().unwrap()
}

#[test]
fn it_does_not_grow_with_the_layers() {
    if skip_unless_root() {
        return;
    }
    let files = |number: u64, size: usize| {
        archive(&[Entry::file(&format!("f{number}"), 0o644, noise(size, number + 1))])
    };
    let plain = (0..6).map(|n| Layer::from_archive(&files(n, 24 << 20), Compression::Plain));
    let peak = measure("plain", plain);
    assert!(peak < 32 << 10, "144 MiB in six layers take {peak} KiB");
    // At the same time their windows alone would hold 80 MiB.
    let wide = (0..4).map(|number| {
        let archive = files(number, 20 << 20);
        let mut packer = zstd::Encoder::new(Vec::new(), 1).unwrap();
        packer.window_log(26).unwrap();
        std::io::Write::write_all(&mut packer, &archive).unwrap();
        let packed = packer.finish().unwrap();
        let (digest, diff_id) = (sha256(&packed), sha256(&archive));
        Layer { digest, diff_id, packed: packed.into(), compression: Compression::Zstd }
    });
    let peak = measure("wide", wide);
    assert!(peak < 60 << 10, "four layers with windows of 64 MiB take {peak} KiB");
}
