//! Images that leave a node in an archive and come to another: there and back, with other programs' archives, and with hostile ones.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use common::{Place, image_of, inside, read, skip_unless_root};
use image::{LoadError, LoadRequest, Loaded, PullCause, SaveError, SaveRequest};
use model::platform::Platform;
use registry::make::{Compression, Image, ImageBuilder, Layer, artifact, descriptor, sha256};
use registry::tar::{Entry, archive};
use serde_json::{Value, json};

async fn save(place: &Place, names: &[&str]) -> Result<Vec<u8>, SaveError> {
    let images = names.iter().map(|name| (*name).to_owned()).collect();
    let mut stream = place.images.save(SaveRequest { images, ..Default::default() }).await?.stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.recv().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

async fn load(place: &Place, bytes: &[u8]) -> Result<Vec<Loaded>, LoadError> {
    place.images.load(LoadRequest::default(), std::io::Cursor::new(bytes.to_vec())).await
}

fn layered() -> Image {
    layered_with(Compression::Zstd)
}

fn layered_with(second: Compression) -> Image {
    ImageBuilder::new()
        .layer(Layer::new(
            &[
                Entry::directory("./", 0o755),
                Entry::directory("etc/", 0o755),
                Entry::file("etc/motd", 0o644, b"first".to_vec()).xattr("user.a", b"b".to_vec()),
                Entry::file("etc/gone", 0o644, b"x".to_vec()),
                Entry::file("large", 0o600, vec![7; 3_000_000]).owner(7, 8),
            ],
            Compression::Gzip,
        ))
        .layer(Layer::new(
            &[
                Entry::file("etc/motd", 0o640, b"second".to_vec()),
                Entry::file("etc/.wh.gone", 0o644, b"".to_vec()),
                Entry::hard_link("etc/again", "large"),
            ],
            second,
        ))
        .run(json!({ "Cmd": ["sh"] }))
        .build()
}

/// What is in the archive, by name.
fn members(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    image::write_layout(bytes, folder.path()).unwrap();
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

/// Whether a program that a test needs is there.
fn lacks(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("SKIPPED: {program} is not installed");
    }
    found.is_err()
}

fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// The uncompressed layers come again byte for byte, the names and the id with them, and no byte of it is spooled.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_goes_to_another_node() {
    if skip_unless_root() {
        return;
    }
    let (from, to) = (Place::new().await, Place::new().await);
    let image = layered();
    from.registry.add("a/b", "v1", &image);
    from.pull("a/b:v1").await.unwrap();
    let name = from.name("a/b:v1");
    let bytes = save(&from, &[&name]).await.unwrap();
    for (name, content) in members(&bytes) {
        if let Some(digits) = name.strip_prefix("blobs/sha256/") {
            assert_eq!(sha256(&content), format!("sha256:{digits}"));
        }
    }
    let loaded = load(&to, &bytes).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].id.as_str(), image.id);
    let found = to.images.find(&name).unwrap().unwrap();
    assert_eq!(found.id.as_str(), image.id);
    assert_eq!(found.repo_tags, [name.as_str()]);
    // The digest that the image was pulled by leads to it on the other node as well, and the manifest is there to prove it.
    let by_digest = format!("{}@{}", from.name("a/b"), image.digest);
    assert!(found.repo_digests.contains(&by_digest), "{:?}", found.repo_digests);
    let details = to.images.details(&name).await.unwrap().unwrap();
    assert!(details.manifests.iter().any(|manifest| manifest.digest.as_str() == image.digest));
    assert_eq!(details.layers.len(), 2);
    let spool: Vec<_> = std::fs::read_dir(to.root().join("spool")).unwrap().collect();
    assert!(spool.is_empty());
    // What came in an archive leaves in one that is the same.
    assert!(save(&to, &[&name]).await.unwrap() == bytes);
    // A second time nothing moves, and nothing is unpacked.
    let again = load(&to, &bytes).await.unwrap();
    assert!(again[0].names.iter().all(|named| named.moved_from.is_none()));
}

/// Where blobs are kept, what leaves is what came, bit for bit, and with it the manifest's digest.
#[tokio::test(flavor = "multi_thread")]
async fn kept_blobs_leave_under_the_manifest_they_came_with() {
    if skip_unless_root() {
        return;
    }
    let (from, to) = (Place::with(|config| config.keep_blobs = true).await, Place::new().await);
    let image = layered();
    from.registry.add("a/b", "v1", &image);
    from.pull("a/b:v1").await.unwrap();
    let bytes = save(&from, &[&from.name("a/b:v1")]).await.unwrap();
    let members = members(&bytes);
    let index: Value = serde_json::from_slice(&members["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["digest"], image.digest.as_str());
    for layer in &image.layers {
        assert!(members.contains_key(&format!("blobs/sha256/{}", &layer.digest[7..])));
    }
    let loaded = load(&to, &bytes).await.unwrap();
    assert_eq!(loaded[0].id.as_str(), image.id);
    // A kept blob that was damaged on the disk does not leave.
    let kept = from.root().join("blobs").join(image.layers[0].digest.replacen(':', "-", 1));
    let mut damaged = std::fs::read(&kept).unwrap();
    damaged[20] ^= 1;
    std::fs::write(&kept, damaged).unwrap();
    let error = save(&from, &[&from.name("a/b:v1")]).await.unwrap_err();
    assert!(matches!(error, SaveError::NoArchive { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_saved_is_refused_with_what_to_do() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = layered();
    place.registry.add("a/b", "v1", &image);
    let name = place.name("a/b:v1");
    assert!(matches!(save(&place, &[&name]).await, Err(SaveError::Absent { .. })));
    assert!(matches!(save(&place, &[]).await, Err(SaveError::Nothing)));
    place.pull("a/b:v1").await.unwrap();
    let wanted = Platform::parse("linux/riscv64").unwrap();
    let request = SaveRequest { images: vec![name.clone()], platform: Some(wanted) };
    let error = place.images.save(request).await.err().unwrap().to_string();
    assert!(error.contains("linux/riscv64") && error.contains("linux/amd64"), "{error}");
    // A file of the layer that changed on the disk is noticed, and nothing pretends to be an archive.
    if place.packed(&image, 0).is_some() {
        return;
    }
    std::fs::write(place.layer(&image, 0).join("etc/motd"), "xxxxx").unwrap();
    let error = save(&place, &[&name]).await.unwrap_err().to_string();
    assert!(error.contains("cannot be made again") && error.contains("pull it anew"), "{error}");
}

/// The archive of an artifact has its files as they are and its own manifest.
#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_goes_to_another_node() {
    if skip_unless_root() {
        return;
    }
    let (from, to) = (Place::new().await, Place::new().await);
    let titled = json!({ "org.opencontainers.image.title": "weights/part-1" });
    let made = artifact("application/x-model", None, &[("application/x-weights", b"0123", titled)]);
    from.registry.add("model", "1", &made);
    from.pull("model:1").await.unwrap();
    let name = from.name("model:1");
    let bytes = save(&from, &[&name]).await.unwrap();
    let index: Value = serde_json::from_slice(&members(&bytes)["index.json"]).unwrap();
    assert_eq!(index["manifests"][0]["digest"], made.digest.as_str());
    load(&to, &bytes).await.unwrap();
    let (here, there) = (from.images.find(&name).unwrap().unwrap(), to.images.find(&name).unwrap().unwrap());
    assert_eq!((here.id.clone(), &here.repo_digests), (there.id.clone(), &there.repo_digests));
    assert_eq!(
        read(
            &to.root()
                .join("layers")
                .join(there.layers[0].trim_start_matches("sha256:"))
                .join("weights/part-1")
        ),
        "0123"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_reads_what_is_saved_and_what_it_writes_is_loaded() {
    if skip_unless_root() || lacks("skopeo") {
        return;
    }
    let (from, to) = (Place::new().await, Place::new().await);
    // Docker archives of this skopeo cannot have zstd.
    let image = layered_with(Compression::Gzip);
    from.registry.add("a/b", "v1", &image);
    from.pull("a/b:v1").await.unwrap();
    let name = from.name("a/b:v1");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("saved.tar"), save(&from, &[&name]).await.unwrap()).unwrap();
    let skopeo = |from: &str, to: &str| {
        let plain = ["--insecure-policy", "copy", "--src-tls-verify=false"];
        run(Command::new("skopeo").args(plain).args([from, to]).env("TMPDIR", folder.path()))
    };
    let config = |layout: &str| {
        run(Command::new("skopeo")
            .args(["inspect", "--config", "--raw", layout])
            .env("TMPDIR", folder.path()))
    };
    // Both of its faces, and each configuration is the one that the image came with.
    skopeo(&format!("docker-archive:{}", at("saved.tar")), &format!("oci:{}:v1", at("one")));
    skopeo(&format!("oci-archive:{}", at("saved.tar")), &format!("oci:{}:v1", at("two")));
    assert_eq!(sha256(config(&format!("oci:{}:v1", at("two"))).as_bytes()), image.id);
    config(&format!("oci:{}:v1", at("one")));
    // And what it writes, in each form.
    let registry = format!("docker://{name}");
    skopeo(&registry, &format!("docker-archive:{}:r.example/docker:1", at("docker.tar")));
    skopeo(&registry, &format!("oci-archive:{}:r.example/oci:1", at("oci.tar")));
    skopeo(&registry, &format!("oci:{}:r.example/layout:1", at("layout")));
    let mut layout = Vec::new();
    image::read_layout(&folder.path().join("layout"), &mut layout).unwrap();
    for (bytes, name) in [
        (std::fs::read(at("docker.tar")).unwrap(), "r.example/docker:1"),
        (std::fs::read(at("oci.tar")).unwrap(), "r.example/oci:1"),
        (layout, "r.example/layout:1"),
    ] {
        let loaded = load(&to, &bytes).await.unwrap();
        assert_eq!(loaded[0].id.as_str(), image.id, "{name}");
        assert_eq!(to.images.find(name).unwrap().unwrap().id.as_str(), image.id, "{name}");
    }
    let found = to.images.find("r.example/oci:1").unwrap().unwrap();
    to.images.rootfs().prepare("carried", &found.id, None).unwrap();
    let mount = to.images.rootfs().mount("carried", None).unwrap();
    assert_eq!(read(&inside(&mount, "etc/motd")), "second");
    assert!(!inside(&mount, "etc/gone").exists());
    drop(mount);
    to.images.rootfs().remove("carried").unwrap();
}

/// A layout or a Docker archive made by hand.
struct Made {
    blobs: Vec<Vec<u8>>,
    manifests: Vec<Value>,
}

impl Made {
    fn new() -> Made {
        Made { blobs: Vec::new(), manifests: Vec::new() }
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.push(bytes.to_vec());
        descriptor(media_type, &sha256(bytes), bytes.len())
    }

    fn image(&mut self, architecture: &str, annotations: Value) {
        let layer = archive(&[Entry::file("a", 0o644, architecture.as_bytes().to_vec())]);
        let config = json!({
            "os": "linux",
            "architecture": architecture,
            "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] },
        });
        let layer = self.blob("application/vnd.oci.image.layer.v1.tar", &layer);
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let mut entry = self.blob(MANIFEST, manifest.to_string().as_bytes());
        entry["annotations"] = annotations;
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        self.manifests.push(entry);
    }

    /// With the index in front, or behind the blobs.
    fn archive(&self, in_front: bool) -> Vec<u8> {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests }).to_string().into_bytes();
        let file = |bytes: &Vec<u8>| {
            Entry::file(&format!("blobs/sha256/{}", &sha256(bytes)[7..]), 0o644, bytes.clone())
        };
        let mut entries: Vec<Entry> = self.blobs.iter().map(file).collect();
        let at = if in_front { 0 } else { entries.len() };
        entries.insert(at, Entry::file("index.json", 0o644, index));
        archive(&entries)
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const NAME: &str = "io.containerd.image.name";
const REF: &str = "org.opencontainers.image.ref.name";

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_is_chosen_and_names_are_given_only_validly() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let mut made = Made::new();
    for architecture in ["arm64", "amd64", "riscv64"] {
        made.image(architecture, json!({ NAME: "r.example/app:1", REF: "1" }));
    }
    let top = made.manifests[1]["digest"].as_str().unwrap().to_owned();
    for in_front in [true, false] {
        let loaded = load(&place, &made.archive(in_front)).await.unwrap();
        let names: Vec<&str> = loaded[0].names.iter().map(|named| named.name.as_str()).collect();
        assert_eq!(names, ["r.example/app:1", &format!("r.example/app@{top}")]);
    }
    let request =
        LoadRequest { platform: Some(Platform::parse("linux/arm64").unwrap()), name: Some("other:2".into()) };
    let bytes = made.archive(false);
    let loaded = place.images.load(request, std::io::Cursor::new(bytes)).await.unwrap();
    assert_eq!(loaded[0].names[0].name, "docker.io/library/other:2");
    let request = LoadRequest { platform: Some(Platform::parse("linux/s390x").unwrap()), name: None };
    let error =
        place.images.load(request, std::io::Cursor::new(made.archive(true))).await.unwrap_err().to_string();
    for offered in ["linux/arm64", "linux/amd64", "linux/riscv64", "linux/s390x"] {
        assert!(error.contains(offered), "{error}");
    }
    // A name that moves is told; one with a digest that is not the image's is not given; a tag alone is no name.
    let first = place.images.find(&format!("r.example/app@{top}")).unwrap().unwrap().id.to_string();
    let moved = load(&place, &made_other("r.example/app:1")).await.unwrap();
    assert_eq!(moved[0].names[0].moved_from.as_ref().unwrap().as_str(), first);
    for (annotations, count) in [
        (json!({ NAME: format!("r.example/app@sha256:{}", "0".repeat(64)) }), 0),
        (json!({ REF: "latest" }), 0),
        (json!({ REF: "../../etc" }), 0),
        (json!({ REF: "r.example/x:1" }), 2),
        (json!({ "io.pintle.image.repo-digests": format!("r.example/app@sha256:{}", "0".repeat(64)) }), 0),
    ] {
        let mut made = Made::new();
        made.image("amd64", annotations.clone());
        let loaded = load(&place, &made.archive(true)).await.unwrap();
        assert_eq!(loaded[0].names.len(), count, "{annotations}");
    }
}

fn made_other(name: &str) -> Vec<u8> {
    let layer = archive(&[Entry::file("other", 0o644, b"x".to_vec())]);
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [sha256(&layer)] } });
    let mut made = Made::new();
    let layer = made.blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let config = made.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
    let mut entry = made.blob(MANIFEST, manifest.to_string().as_bytes());
    entry["annotations"] = json!({ NAME: name });
    made.manifests.push(entry);
    made.archive(true)
}

/// As `docker save` wrote it before it wrote layouts: folders, a link for a layer that comes again, and the manifest last.
#[tokio::test(flavor = "multi_thread")]
async fn archives_of_older_dockers_are_loaded() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let layer = archive(&[Entry::file("a", 0o644, b"one".to_vec())]);
    let diff_id = sha256(&layer);
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [diff_id, diff_id] } }).to_string();
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let name = format!("{}.json", &sha256(config.as_bytes())[7..]);
    let layers = [format!("{first}/layer.tar"), format!("{second}/layer.tar")];
    let manifest =
        json!([{ "Config": name, "RepoTags": ["app:1", "../evil", "x@sha256:00"], "Layers": layers }])
            .to_string();
    let entries = [
        Entry::directory(&format!("{first}/"), 0o755),
        Entry::file(&format!("{first}/VERSION"), 0o644, b"1.0".to_vec()),
        Entry::file(&layers[0], 0o644, layer.clone()),
        Entry::symlink(&layers[1], &format!("../{first}/layer.tar")),
        Entry::file(&name, 0o644, config.clone().into_bytes()),
        Entry::file("manifest.json", 0o644, manifest.clone().into_bytes()),
        Entry::file("repositories", 0o644, b"{}".to_vec()),
    ];
    let bytes = archive(&entries);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&bytes).unwrap();
    for bytes in [bytes.clone(), packed.finish().unwrap()] {
        let loaded = load(&place, &bytes).await.unwrap();
        let names: Vec<&str> = loaded[0].names.iter().map(|named| named.name.as_str()).collect();
        assert_eq!(
            (loaded[0].id.as_str(), names),
            (sha256(config.as_bytes()).as_str(), vec!["docker.io/library/app:1"])
        );
    }
    // The link leads to a name of the archive, or nowhere.
    let mut evil = entries.to_vec();
    evil[3] = Entry::symlink(&layers[1], "../../../etc/passwd");
    let error = load(&place, &archive(&evil)).await.unwrap_err().to_string();
    assert!(error.contains("which is not there"), "{error}");
}

/// Nothing outside is touched, nothing of it stays, and each is named.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let canary = place.folder.path().join("canary");
    std::fs::write(&canary, "alive").unwrap();
    let mut good = Made::new();
    good.image("amd64", json!({ NAME: "r.example/app:1" }));
    let hex = |bytes: &[u8]| sha256(bytes)[7..].to_owned();
    let blob = |bytes: &[u8], name: &str| Entry::file(&format!("blobs/sha256/{name}"), 0o644, bytes.to_vec());
    let index = |manifests: Value| {
        Entry::file(
            "index.json",
            0o644,
            json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes(),
        )
    };
    let nested = |depth: usize| {
        let mut entries = Vec::new();
        let mut entry =
            json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", "0".repeat(64)), "size": 2 });
        for _ in 0..depth {
            let body = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] }).to_string();
            entry =
                descriptor("application/vnd.oci.image.index.v1+json", &sha256(body.as_bytes()), body.len());
            entries.push(blob(body.as_bytes(), &hex(body.as_bytes())));
        }
        entries.push(index(json!([entry])));
        archive(&entries)
    };
    let whole = good.archive(true);
    let mut no_layer = Made::new();
    no_layer.image("amd64", json!({}));
    no_layer.blobs.remove(0);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no archive", b"not an archive at all".to_vec(), "cannot be read"),
        ("empty", archive(&[]), "neither"),
        ("cut", whole[..whole.len() - 3000].to_vec(), "cannot be read"),
        ("wrong digest", archive(&[blob(b"x", &hex(b"y"))]), "has digest"),
        ("twice", archive(&[index(json!([])), index(json!([]))]), "comes twice"),
        (
            "a link for a blob",
            archive(&[Entry::symlink(&format!("blobs/sha256/{}", hex(b"")), "../canary")]),
            "is no file",
        ),
        ("a link for the index", archive(&[Entry::symlink("index.json", "/etc/passwd")]), "is no file"),
        ("a hard link", archive(&[Entry::hard_link("index.json", "canary")]), "is no file"),
        ("a FIFO", archive(&[Entry::fifo("index.json")]), "is no file"),
        ("no images", archive(&[index(json!([]))]), "no image in it"),
        (
            "a manifest for an index",
            archive(&[Entry::file(
                "index.json",
                0o644,
                br#"{"schemaVersion":2,"config":{"digest":"sha256:0","size":1},"layers":[]}"#.to_vec(),
            )]),
            "malformed",
        ),
        ("a missing layer", no_layer.archive(true), "needs sha256:"),
        ("indexes without end", nested(6), "deeper than"),
        ("a missing manifest", nested(1), "which is not there"),
        (
            "paths out",
            archive(&[
                Entry::file("../canary", 0o644, b"dead".to_vec()),
                Entry::file("/etc/pintle-canary", 0o644, b"x".to_vec()),
            ]),
            "neither",
        ),
        (
            "docker: a path out",
            archive(&[Entry::file(
                "manifest.json",
                0o644,
                br#"[{"Config":"../canary","Layers":[]}]"#.to_vec(),
            )]),
            "which is not there",
        ),
        ("docker: no JSON", archive(&[Entry::file("manifest.json", 0o644, b"[[".to_vec())]), "malformed"),
    ];
    for (what, bytes, said) in cases {
        let error = load(&place, &bytes).await.expect_err(what).to_string();
        assert!(error.contains(said), "{what}: {error}");
    }
    let lying = {
        let mut made = Made::new();
        let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": [sha256(b"else")] } });
        let layer = made.blob(
            "application/vnd.oci.image.layer.v1.tar",
            &archive(&[Entry::file("a", 0o644, b"x".to_vec())]),
        );
        let config = made.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let entry = made.blob(MANIFEST, manifest.to_string().as_bytes());
        made.manifests.push(entry);
        made
    };
    for in_front in [true, false] {
        let error = load(&place, &lying.archive(in_front)).await.unwrap_err();
        assert!(matches!(error, LoadError::Failed(PullCause::Layer { .. })), "{error}");
    }
    assert_eq!(read(&canary), "alive");
    assert!(place.images.list().is_empty());
    assert!(std::fs::read_dir(place.root().join("spool")).unwrap().next().is_none());
    assert!(!std::path::Path::new("/etc/pintle-canary").exists());
    load(&place, &whole).await.unwrap();
}

/// Images in one archive share their layers there, and one name for several is refused.
#[tokio::test(flavor = "multi_thread")]
async fn several_images_go_in_one_archive() {
    if skip_unless_root() {
        return;
    }
    let (from, to) = (Place::new().await, Place::new().await);
    let base: &[Entry] = &[Entry::file("base", 0o644, vec![1; 100_000])];
    let (one, two) = (image_of(&[base]), image_of(&[base, &[Entry::file("more", 0o644, b"m".to_vec())]]));
    from.registry.add("one", "1", &one);
    from.registry.add("two", "1", &two);
    from.pull("one:1").await.unwrap();
    from.pull("two:1").await.unwrap();
    let bytes = save(&from, &[&from.name("one:1"), &from.name("two:1")]).await.unwrap();
    assert!(bytes.len() < 200_000, "the layer that both have is in it once");
    let request = LoadRequest { name: Some("x:1".into()), ..Default::default() };
    let error = to.images.load(request, std::io::Cursor::new(bytes.clone())).await.unwrap_err();
    assert!(matches!(error, LoadError::SeveralForOneName { count: 2 }), "{error}");
    let mut ids: Vec<String> =
        load(&to, &bytes).await.unwrap().into_iter().map(|one| one.id.to_string()).collect();
    ids.sort();
    let mut expected = [one.id, two.id];
    expected.sort();
    assert_eq!(ids, expected);
}

/// Straight from a registry: another platform's image, bit for bit, and nothing of it stays on this node.
#[tokio::test(flavor = "multi_thread")]
async fn another_platforms_image_is_saved_from_its_registry() {
    if skip_unless_root() {
        return;
    }
    let (from, to) = (Place::new().await, Place::new().await);
    let arm = ImageBuilder::new()
        .architecture("arm64")
        .layer(Layer::new(&[Entry::file("arm", 0o644, vec![4; 500_000])], Compression::Gzip))
        .build();
    let both = registry::make::index(&[("linux/amd64", layered()), ("linux/arm64/v8", arm.clone())]);
    from.registry.add("multi", "1", &both);
    let name = from.name("multi:1");
    let wanted = Platform::parse("linux/arm64").unwrap();
    let request = SaveRequest { images: vec![name.clone()], platform: Some(wanted.clone()) };
    let mut stream = from.images.save_from_registry(request, None).await.unwrap().stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.recv().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert!(from.images.list().is_empty());
    let layout = members(&bytes);
    let top: Value = serde_json::from_slice(&layout["index.json"]).unwrap();
    assert_eq!(top["manifests"][0]["digest"], arm.digest.as_str());
    let error = load(&to, &bytes).await.unwrap_err().to_string();
    assert!(error.contains("linux/amd64") && error.contains("linux/arm64"), "{error}");
    let request = LoadRequest { platform: Some(wanted), name: None };
    let loaded = to.images.load(request, std::io::Cursor::new(bytes)).await.unwrap();
    assert_eq!(loaded[0].id.as_str(), arm.id);
    let found = to.images.find(&name).unwrap().unwrap();
    assert!(found.repo_digests.contains(&format!("{}@{}", from.name("multi"), both.digest)), "{found:?}");
    // A registry that lies about a layer ends the archive with an error.
    from.registry.set_rules(vec![registry::Rule::always(&arm.layers[0].digest, registry::Fault::Corrupt)]);
    let request = SaveRequest { images: vec![name], platform: Platform::parse("linux/arm64").ok() };
    let mut stream = from.images.save_from_registry(request, None).await.unwrap().stream();
    let mut last = None;
    while let Some(piece) = stream.recv().await {
        last = Some(piece);
    }
    assert!(last.unwrap().is_err());
}
