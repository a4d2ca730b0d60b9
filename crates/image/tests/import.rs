//! Images taken from the stores of other runtimes, made by those runtimes themselves.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, inside, read, skip_unless_root};
use image::{ImportRequest, Imported, OtherRuntime, SaveRequest};
use registry::make::{Compression, Image, ImageBuilder, Layer};
use registry::tar::Entry;

fn image() -> Image {
    ImageBuilder::new()
        .layer(Layer::new(
            &[
                Entry::directory("etc/", 0o755),
                Entry::file("etc/motd", 0o4755, b"first".to_vec()).owner(7, 8),
                Entry::file("gone", 0o644, vec![3; 70_000]),
                Entry::symlink("link", "etc/motd"),
            ],
            Compression::Gzip,
        ))
        .layer(Layer::new(
            &[
                Entry::file(".wh.gone", 0o644, b"".to_vec()),
                Entry::file("etc/more", 0o600, b"second".to_vec()),
            ],
            Compression::Gzip,
        ))
        .build()
}

async fn import(place: &Place, from: OtherRuntime, root: &Path, images: &[&str]) -> Imported {
    let request = ImportRequest {
        from,
        root: Some(root.to_owned()),
        namespace: None,
        images: images.iter().map(|name| (*name).to_owned()).collect(),
        platform: None,
    };
    place.images.import(request).await.unwrap()
}

fn is_whole(place: &Place, image: &Image, name: &str) {
    let found = place.images.find(name).unwrap().unwrap();
    assert_eq!(found.id.as_str(), image.id);
    place.images.rootfs().prepare("imported", &found.id, None).unwrap();
    let mount = place.images.rootfs().mount("imported", None).unwrap();
    assert_eq!(read(&inside(&mount, "link")), "first");
    assert_eq!(read(&inside(&mount, "etc/more")), "second");
    assert!(!inside(&mount, "gone").exists());
    let motd = std::fs::metadata(inside(&mount, "etc/motd")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((motd.mode() & 0o7777, motd.uid(), motd.gid()), (0o4755, 7, 8));
    drop(mount);
    place.images.rootfs().remove("imported").unwrap();
}

fn done(command: &mut Command) -> bool {
    let Ok(done) = command.output() else {
        println!("SKIPPED: {:?} is not installed", command.get_program());
        return false;
    };
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_crio_and_podman_are_taken() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = image();
    place.registry.add("a/b", "v1", &image);
    let name = place.name("a/b:v1");
    let (root, run) = (place.folder.path().join("storage"), place.folder.path().join("run"));
    let store = format!("containers-storage:[overlay@{}+{}]{name}", root.display(), run.display());
    let from = format!("docker://{name}");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--src-tls-verify=false", &from, &store]);
    let copied = done(&mut skopeo);
    // It leaves a mount of its own folder behind.
    let unmounted = || drop(Command::new("umount").arg(root.join("overlay")).stderr(Stdio::null()).status());
    unmounted();
    if !copied {
        return;
    }
    place.registry.clear_log();
    let imported = import(&place, OtherRuntime::ContainersStorage, &root, &[]).await;
    assert!(imported.failed.is_empty(), "{:?}", imported.failed);
    assert!(imported.loaded[0].names.iter().any(|named| named.name == name), "{:?}", imported.loaded);
    assert!(place.registry.log().is_empty(), "nothing is asked of a registry");
    is_whole(&place, &image, &name);
    let found = place.images.find(&name).unwrap().unwrap();
    assert!(found.repo_digests.contains(&format!("{}@{}", place.name("a/b"), image.digest)), "{found:?}");
    // A name that it has not fails alone, and a file that was changed is noticed.
    let imported = import(&place, OtherRuntime::ContainersStorage, &root, &["absent", &name]).await;
    assert_eq!((imported.loaded.len(), imported.failed.len()), (1, 1));
    let other = Place::new().await;
    let changed = walk(&root.join("overlay")).into_iter().find(|path| path.ends_with("etc/motd")).unwrap();
    std::fs::write(changed, "FIRST").unwrap();
    let imported = import(&other, OtherRuntime::ContainersStorage, &root, &[&name]).await;
    let why = imported.failed[0].1.to_string();
    assert!(why.contains("digest"), "{why}");
    assert!(other.images.list().is_empty());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(walk(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// containerd with everything of its own, stopped by its process.
struct Containerd {
    child: Child,
    folder: PathBuf,
}

impl Containerd {
    fn start(folder: &Path) -> Option<Containerd> {
        let config = folder.join("containerd.toml");
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            folder.join("root"),
            folder.join("state"),
            folder.join("sock")
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("SKIPPED: containerd is not installed");
            return None;
        };
        let containerd = Containerd { child, folder: folder.to_owned() };
        let until = Instant::now() + Duration::from_secs(9);
        while !containerd.ctr(&["version"]).output().is_ok_and(|done| done.status.success()) {
            assert!(Instant::now() < until, "containerd does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(containerd)
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.folder.join("sock")).args(["--namespace", "k8s.io"]).args(args);
        ctr
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_to_containerd_and_come_from_it() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let Some(containerd) = Containerd::start(place.folder.path()) else { return };
    let image = image();
    place.registry.add("a/b", "v1", &image);
    place.pull("a/b:v1").await.unwrap();
    let name = place.name("a/b:v1");
    // What is saved here is imported there, and what is exported there is loaded here.
    let saving = place.images.save(SaveRequest { images: vec![name.clone()], platform: None }).await.unwrap();
    let mut stream = saving.stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.recv().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let at = |name: &str| place.folder.path().join(name).to_str().unwrap().to_owned();
    // As a folder it is a layout that umoci unpacks.
    image::write_layout(&bytes[..], &place.folder.path().join("layout")).unwrap();
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image", &format!("{}:v1", at("layout")), &at("bundle")]);
    if done(&mut umoci) {
        let rootfs = place.folder.path().join("bundle/rootfs");
        assert_eq!(read(&rootfs.join("etc/more")), "second");
        assert!(rootfs.join("etc/motd").exists() && !rootfs.join("gone").exists());
    }
    std::fs::write(at("saved.tar"), bytes).unwrap();
    assert!(done(&mut containerd.ctr(&["images", "import", "--no-unpack", &at("saved.tar")])));
    assert!(done(&mut containerd.ctr(&["images", "export", &at("exported.tar"), &name])));
    let other = Place::new().await;
    let exported = std::fs::File::open(at("exported.tar")).unwrap();
    let loaded = other.images.load(image::LoadRequest::default(), exported).await.unwrap();
    assert_eq!(loaded[0].id.as_str(), image.id);
    is_whole(&other, &image, &name);
    // As its CRI plugin does.
    assert!(done(&mut containerd.ctr(&["images", "tag", &name, &image.id])));
    // And from its store, while it runs and after it has ended.
    let root = place.folder.path().join("root");
    let running = Place::new().await;
    let imported = import(&running, OtherRuntime::Containerd, &root, &[]).await;
    assert!(imported.failed.is_empty(), "{:?}", imported.failed);
    is_whole(&running, &image, &name);
    assert_eq!(running.images.find(&name).unwrap().unwrap().repo_tags, [name.as_str()]);
    drop(containerd);
    let stopped = Place::new().await;
    let imported = import(&stopped, OtherRuntime::Containerd, &root, &[&name]).await;
    assert_eq!((imported.loaded.len(), imported.failed.len()), (1, 0), "{:?}", imported.failed);
    is_whole(&stopped, &image, &name);
    // A policy that admits nothing admits nothing from there either.
    let policy = place.folder.path().join("policy.json");
    std::fs::write(&policy, r#"{"default":[{"type":"reject"}]}"#).unwrap();
    let strict = Place::with(|config| config.trust.policy = Some(policy)).await;
    let imported = import(&strict, OtherRuntime::Containerd, &root, &[&name]).await;
    assert!(imported.failed[0].1.to_string().contains("policy.json"), "{:?}", imported.failed);
    // A blob that is not what its name says, and a namespace that is not there.
    let blobs = root.join("io.containerd.content.v1.content/blobs/sha256");
    let config = blobs.join(&image.id[7..]);
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("linux", "LINUX")).unwrap();
    let imported = import(&Place::new().await, OtherRuntime::Containerd, &root, &[&name]).await;
    assert!(imported.failed[0].1.to_string().contains("has digest"), "{:?}", imported.failed);
    let request = ImportRequest {
        from: OtherRuntime::Containerd,
        root: Some(root),
        namespace: Some("moby".into()),
        images: Vec::new(),
        platform: None,
    };
    let error = stopped.images.import(request).await.unwrap_err().to_string();
    assert!(error.contains("\"moby\"") && error.contains("k8s.io"), "{error}");
}
