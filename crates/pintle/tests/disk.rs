//! Life on disk: what there is, who holds it, what goes, what is damaged, and a disk that is full.

mod support;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use cri::runtime_v1 as v1;
use registry::tar::Entry;
use serde_json::{Value, json};
use support::{Daemon, Setup};
use tonic::Code;

/// Runs the command line against a daemon.
fn pintle(daemon: &Daemon, args: &[&str]) -> Output {
    let endpoint = format!("unix://{}", daemon.socket().display());
    Command::new(env!("CARGO_BIN_EXE_pintle")).args(["--endpoint", &endpoint]).args(args).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json_of(daemon: &Daemon, args: &[&str]) -> Value {
    let output = pintle(daemon, args);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
}

fn summary<'a>(df: &'a Value, kind: &str) -> &'a Value {
    df["summary"].as_array().unwrap().iter().find(|sum| sum["type"] == kind).unwrap()
}

/// An image with a layer of its own.
async fn image(daemon: &Daemon, name: &str) -> String {
    daemon.image_with(name, &[Entry::file("own", 0o644, name.repeat(4000).into_bytes())], json!({})).await
}

/// The same, and not pulled yet.
fn offer(daemon: &Daemon, name: &str, bytes: Vec<u8>) -> String {
    let above = [Entry::file("own", 0o644, bytes)];
    daemon.contents.add(&format!("library/{name}"), "1", &support::busybox_with(&above, json!({})));
    format!("{}/library/{name}:1", daemon.registry.host())
}

async fn fs_info(daemon: &Daemon) -> v1::ImageFsInfoResponse {
    daemon.images().image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner()
}

async fn remove_image(daemon: &Daemon, name: &str) {
    let image = Some(v1::ImageSpec { image: name.into(), ..Default::default() });
    daemon.images().remove_image(v1::RemoveImageRequest { image }).await.unwrap();
}

fn layers(daemon: &Daemon) -> usize {
    std::fs::read_dir(daemon.path("root/layers")).unwrap().count()
}

/// Waits until something is so.
async fn becomes(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[test]
fn everything_on_disk_is_shown_explained_and_let_go() {
    needs_a_node!();
    support::in_own_network(async {
        let mut daemon = Daemon::start_as(Setup {
            config: "[image]\npinned = [\"*/pause*\"]\n".into(),
            ..Setup::default()
        })
        .await;
        let (unused, pause) = (image(&daemon, "unused").await, image(&daemon, "pause").await);
        daemon.pull(&unused).await.unwrap();
        daemon.pull(&pause).await.unwrap();
        let config = daemon.pod("disk");
        let pod = daemon.run_pod(&config).await.unwrap();
        let container = daemon.run(&pod, &config, "c", "exec sleep 1000").await;
        daemon.sh(&container, "dd if=/dev/zero of=/written bs=1k count=300 2>/dev/null").await;

        let df = json_of(&daemon, &["df", "-o", "json"]);
        let images = summary(&df, "images");
        assert_eq!((&images["count"], &images["inUse"]), (&json!(3), &json!(1)), "{df:#}");
        let unused_thing = df["things"].as_array().unwrap().iter().find(|t| t["name"] == *unused).unwrap();
        assert_eq!(images["reclaimableBytes"], unused_thing["aloneBytes"], "the pinned one stays");
        let containers = summary(&df, "containers");
        assert!(containers["sizeBytes"].as_u64().unwrap() >= 300 << 10, "{containers}");
        assert_eq!(summary(&df, "orphans")["count"], 0);
        let listed = pintle(&daemon, &["images", "-o", "json"]);
        assert!(said(&listed).contains("pinned"), "{}", said(&listed));

        let explained = said(&pintle(&daemon, &["gc", "--dry-run", "--explain"]));
        for part in [
            format!("held by container {container}"),
            format!("held by image {unused}"),
            "pinned by */pause*".to_owned(),
            "it goes when the kubelet or `pintle rmi` says so".to_owned(),
            "0 B would be freed".to_owned(),
        ] {
            assert!(explained.contains(&part), "{part}: {explained}");
        }

        // By hand an image in use is not removed without a word.
        let name = daemon.image.clone();
        let refused = pintle(&daemon, &["rmi", &name]);
        assert!(!refused.status.success() && said(&refused).contains("is used by c"), "{}", said(&refused));
        let before = layers(&daemon);
        assert!(pintle(&daemon, &["rmi", "--force", &name]).status.success());
        assert_eq!(daemon.sh(&container, "echo alive").await, "alive\n");
        assert!(pintle(&daemon, &["gc"]).status.success());
        assert_eq!(layers(&daemon), before, "a container stands on it");
        // Neither a restart nor a collection takes it from under the container.
        daemon.kill();
        daemon.launch().await;
        assert!(pintle(&daemon, &["gc"]).status.success());
        assert_eq!(daemon.sh(&container, "echo alive").await, "alive\n");
        daemon.stop_pod(&pod).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        remove_image(&daemon, &unused).await;
        let shared = format!("layers are {:?}", json_of(&daemon, &["df", "-o", "json"]));
        becomes(&shared, || layers(&daemon) == 2).await;
        let text = said(&pintle(&daemon, &["df", "--verbose"]));
        assert!(text.contains("RECLAIMABLE") && text.contains("pinned by */pause*"), "{text}");

        // Patterns change without a restart.
        let file = daemon.path("config.toml");
        let text = std::fs::read_to_string(&file).unwrap().replace("*/pause*", "*/other*");
        std::fs::write(&file, text).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap(),
            rustix::process::Signal::HUP,
        )
        .unwrap();
        let is_pinned = || said(&pintle(&daemon, &["images", "-o", "json"])).contains("\"pinned\": true");
        becomes("it is not pinned any more", || !is_pinned()).await;
        daemon.end();
    });
}

#[test]
fn a_damaged_image_is_found_named_and_repaired() {
    needs_a_node!();
    support::in_own_network(async {
        let mut daemon = Daemon::start().await;
        let name = image(&daemon, "rotten").await;
        daemon.pull(&name).await.unwrap();
        let config = daemon.pod("rot");
        let pod = daemon.run_pod(&config).await.unwrap();
        assert!(pintle(&daemon, &["images", "verify", "--all"]).status.success());
        rot_layer(&daemon.path("root/layers"), "own", b"rotten");
        let found = pintle(&daemon, &["images", "verify", "--all"]);
        assert_eq!(found.status.code(), Some(1));
        assert!(said(&found).contains(&format!("of {name} is damaged")), "{}", said(&found));
        let df = said(&pintle(&daemon, &["df"]));
        assert!(df.contains("1 layers are damaged"), "{df}");
        // The mark outlives the daemon.
        daemon.kill();
        daemon.launch().await;
        daemon.contents.clear_log();
        let repaired = pintle(&daemon, &["images", "verify", "--repair", &name]);
        assert!(repaired.status.success(), "{}", said(&repaired));
        assert!(said(&repaired).contains("is repaired"), "{}", said(&repaired));
        let blobs = daemon.contents.log().iter().filter(|asked| asked.target.contains("/blobs/")).count();
        assert!(blobs <= 2, "the damaged layer, and the configuration: {:?}", daemon.contents.log());
        assert!(pintle(&daemon, &["images", "verify", "--all"]).status.success());
        let mut with = daemon.container("c", "exec sleep 1000");
        with.image = Some(v1::ImageSpec { image: name.clone(), ..Default::default() });
        let container = daemon.create(&pod, &config, &with).await.unwrap();
        daemon.start_container(&container).await.unwrap();
        assert_eq!(daemon.sh(&container, "head -c 6 /own").await, "rotten");
        daemon.empty().await;
        daemon.end();
    });
}

/// Damages the file `name` of a layer, which begins with `content`: in its directory, or within the layer's own file.
fn rot_layer(layers: &Path, name: &str, content: &[u8]) {
    for entry in std::fs::read_dir(layers).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let file = path.join(name);
            if file.exists() {
                return rot(&file);
            }
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(content.len()).position(|window| window == content) {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[content[0] ^ 1], at as u64).unwrap();
            return file.sync_all().unwrap();
        }
    }
    panic!("no layer has {name}");
}

/// Turns one bit in the middle of a file, and leaves its times alone.
fn rot(path: &Path) {
    let before = std::fs::metadata(path).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, before.size() / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], before.size() / 2).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn a_daemon_killed_while_it_lets_go_leaves_whole_images() {
    needs_a_node!();
    support::in_own_network(async {
        let mut daemon = Daemon::start().await;
        let mut names = Vec::new();
        for number in 0..8 {
            names.push(image(&daemon, &format!("image{number}")).await);
        }
        for round in 0..6_u64 {
            for name in &names {
                daemon.pull(name).await.unwrap();
            }
            let mut work = tokio::task::JoinSet::new();
            for name in names.clone() {
                let mut images = daemon.images();
                work.spawn(async move {
                    let image = Some(v1::ImageSpec { image: name, ..Default::default() });
                    let _ = images.remove_image(v1::RemoveImageRequest { image }).await;
                });
            }
            tokio::time::sleep(Duration::from_micros(round * 1700)).await;
            daemon.kill();
            drop(work);
            daemon.launch().await;
            let verified = pintle(&daemon, &["images", "verify", "--all"]);
            assert!(verified.status.success(), "round {round}: {}", said(&verified));
            assert!(pintle(&daemon, &["gc"]).status.success());
            let df = json_of(&daemon, &["df", "-o", "json"]);
            for kind in ["orphans", "unfinished"] {
                assert_eq!(summary(&df, kind)["count"], 0, "round {round}: {df:#}");
            }
            let known = summary(&df, "layers")["count"].as_u64().unwrap();
            assert_eq!(layers(&daemon) as u64, known, "round {round}");
        }
        daemon.end();
    });
}

#[test]
fn on_a_full_disk_stopping_and_removing_work() {
    needs_a_node!();
    support::in_own_network(async {
        let mut daemon = Daemon::start_as(Setup { root_bytes: Some(48 << 20), ..Setup::default() }).await;
        let large = offer(&daemon, "large", vec![7; 20 << 20]);
        let small = offer(&daemon, "small", b"small".repeat(4000));
        let mut pods = Vec::new();
        for number in 0..5 {
            let config = daemon.pod(&format!("full{number}"));
            let pod = daemon.run_pod(&config).await.unwrap();
            let container = daemon.run(&pod, &config, "c", "exec sleep 1000").await;
            pods.push((pod, config, container));
        }
        daemon.sh(&pods[0].2, "dd if=/dev/zero of=/fill bs=64k 2>/dev/null; dd if=/dev/zero of=/more bs=1k 2>/dev/null; true").await;
        let refused = daemon.pull(&large).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let refused = daemon.pull(&small).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        let more = daemon.create(&pods[1].0, &pods[1].1, &daemon.container("more", "exec sleep 1000")).await;
        let refused = more.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        // What was begun takes no room.
        let df = json_of(&daemon, &["df", "-o", "json"]);
        assert_eq!(summary(&df, "unfinished")["count"], 0, "{df:#}");
        // The daemon may be started anew on a full disk, too.
        daemon.kill();
        daemon.launch().await;
        for (pod, _, container) in pods.iter().rev() {
            daemon.stop_container(container, 0).await.unwrap();
            daemon.remove_container(container).await.unwrap();
            daemon.stop_pod(pod).await.unwrap();
            daemon.remove_pod(pod).await.unwrap();
        }
        daemon.pull(&large).await.unwrap();
        daemon.end();
    });
}

#[test]
fn what_containers_write_may_be_in_another_file_system() {
    needs_a_node!();
    support::in_own_network(async {
        let other = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("test", other.path(), "tmpfs", flags, Some(c"size=32m")).unwrap();
        let config = format!("[image]\ncontainers_root = {:?}\n", other.path().join("written"));
        let mut daemon = Daemon::start_as(Setup { config, ..Setup::default() }).await;
        let config = daemon.pod("split");
        let pod = daemon.run_pod(&config).await.unwrap();
        let container = daemon.run(&pod, &config, "c", "exec sleep 1000").await;
        daemon.sh(&container, "dd if=/dev/zero of=/written bs=1k count=2000 2>/dev/null").await;
        assert!(other.path().join(format!("written/rootfs/{container}/upper/written")).exists());
        let info = fs_info(&daemon).await;
        let place = |usage: &v1::FilesystemUsage| usage.fs_id.clone().unwrap().mountpoint;
        let (images, containers) = (&info.image_filesystems[0], &info.container_filesystems[0]);
        assert_eq!(place(images), daemon.path("root").display().to_string());
        assert_eq!(place(containers), other.path().join("written").display().to_string());
        // What is said of both is what is there.
        assert!(containers.used_bytes.unwrap().value >= 2000 << 10, "{containers:?}");
        let told = images.used_bytes.unwrap().value;
        let output = Command::new("du").args(["-s", "-B1"]).arg(daemon.path("root/layers")).output().unwrap();
        let there: u64 = said(&output).split_whitespace().next().unwrap().parse().unwrap();
        assert!(told.abs_diff(there) * 20 < there, "{told} is told, and {there} is there");
        daemon.stop_pod(&pod).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        becomes("the other disk is empty", || {
            ["rootfs", "trash"]
                .iter()
                .all(|name| std::fs::read_dir(other.path().join("written").join(name)).unwrap().count() == 0)
        })
        .await;
        daemon.end();
        drop(daemon);
        rustix::mount::unmount(other.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}
