//! `pintle save`, `load`, `tag`, `push` and `images inspect`, as people use them: one node saves, another one that reaches no registry
//! loads and runs.

mod support;

use std::process::{Command, Output, Stdio};

use cri::runtime_v1 as v1;
use serde_json::Value;
use support::Daemon;

fn pintle(daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
    command.arg("--endpoint").arg(format!("unix://{}", daemon.socket().display())).args(args);
    command.stdin(Stdio::null());
    command
}

fn done(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    assert!(!status.success(), "{command:?}");
    String::from_utf8(stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_goes_from_node_to_node_through_a_pipe() {
    needs_a_node!();
    let (from, to) = (Daemon::start().await, Daemon::start().await);
    let name = from.image.clone();
    let id = from.pull(&name).await.unwrap();
    // Of its own it has the same one.
    let own = Some(v1::ImageSpec { image: to.image.clone(), ..Default::default() });
    to.images().remove_image(v1::RemoveImageRequest { image: own }).await.unwrap();
    // pintle save NAME | pintle load
    let mut save = pintle(&from, &["save", &name]).stdout(Stdio::piped()).spawn().unwrap();
    let mut load = pintle(&to, &["load"]);
    load.stdin(save.stdout.take().unwrap());
    assert_eq!(done(&mut load), format!("{name}\n"));
    assert!(save.wait().unwrap().success());
    // It runs there under its name, without a registry.
    let config = to.pod("carried");
    let pod = to.run_pod(&config).await.unwrap();
    let image = Some(v1::ImageSpec { image: name.clone(), ..Default::default() });
    let container = v1::ContainerConfig { image, ..to.container("c", "exec sleep 1000") };
    let container = to.create(&pod, &config, &container).await.unwrap();
    to.start_container(&container).await.unwrap();
    assert_eq!(to.sh(&container, "echo carried").await, "carried\n");
    to.remove_pod(&pod).await.unwrap();
    // Both know the same of it.
    let inspect = |daemon: &Daemon| -> Value {
        let mut value: Value =
            serde_json::from_str(&done(&mut pintle(daemon, &["images", "inspect", &name]))).unwrap();
        for layer in value["layers"].as_array_mut().unwrap() {
            layer["path"] = Value::Null;
            layer["blob"] = Value::Null;
        }
        value["pulledAt"] = Value::Null;
        value
    };
    let (here, there) = (inspect(&from), inspect(&to));
    assert_eq!(here, there);
    assert_eq!(here["id"], id.as_str());
    let config = done(&mut pintle(&to, &["images", "inspect", "--raw", "config", &name]));
    assert_eq!(registry::make::sha256(config.as_bytes()), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_folders_names_and_pushes() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let name = daemon.image.clone();
    let id = daemon.pull(&name).await.unwrap();
    let at = |name: &str| daemon.path(name).to_str().unwrap().to_owned();
    assert_eq!(done(&mut pintle(&daemon, &["save", "-o", &at("saved.tar"), &name])), "");
    done(&mut pintle(&daemon, &["save", "-o", &format!("{}/", at("layout")), &name]));
    assert!(daemon.path("layout").join("index.json").exists());
    // A name that moves is told.
    let tagged = done(&mut pintle(&daemon, &["tag", &name, "mine:1"]));
    assert_eq!(tagged, "docker.io/library/mine:1\n");
    let other = daemon.image_with("other", &[], serde_json::json!({})).await;
    let other_id = daemon.pull(&other).await.unwrap();
    let moved = done(&mut pintle(&daemon, &["tag", &other, "mine:1"]));
    assert_eq!(moved, format!("docker.io/library/mine:1 (before: {})\n", &id[7..19]));
    let loaded = done(&mut pintle(&daemon, &["load", "-i", &at("layout"), "--name", "mine:1"]));
    assert_eq!(loaded, format!("docker.io/library/mine:1 (before: {})\n", &other_id[7..19]));
    done(&mut pintle(&daemon, &["rmi", &id]));
    assert_eq!(done(&mut pintle(&daemon, &["load", "-i", &at("saved.tar")])), format!("{name}\n"));
    // To the registry that it came from, where its blobs are, it goes as it came.
    let host = name.split('/').next().unwrap();
    let before = done(&mut pintle(&daemon, &["images", "inspect", &name]));
    let before: Value = serde_json::from_str(&before).unwrap();
    let digest = before["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let pushed = done(&mut pintle(&daemon, &["push", &name, &format!("{host}/pushed/it:2")]));
    assert_eq!(pushed, format!("{host}/pushed/it:2 {digest}\n"));
    assert_eq!(daemon.pull(&format!("{host}/pushed/it:2")).await.unwrap(), id);
    // What is wrong is said in the client's words, and no half of a file stays.
    assert!(
        refused(&mut pintle(&daemon, &["save", "-o", &at("none.tar"), "absent"]))
            .contains("there is no image \"absent\"")
    );
    assert!(!daemon.path("none.tar").exists());
    std::fs::write(daemon.path("torn.tar"), &std::fs::read(at("saved.tar")).unwrap()[..100_000]).unwrap();
    assert!(refused(&mut pintle(&daemon, &["load", "-i", &at("torn.tar")])).contains("cannot be read"));
    assert!(refused(&mut pintle(&daemon, &["load", "-i", &at("nowhere")])).contains("No such file"));
    assert!(
        refused(&mut pintle(&daemon, &["load", "--from", "containerd", "--root", &at("empty")]))
            .contains("meta.db")
    );
    assert!(
        refused(&mut pintle(&daemon, &["save", "--platform", "linux/s390x", &name])).contains("linux/s390x")
    );
    assert!(
        refused(&mut pintle(&daemon, &["save", "--platform", "nonsense", &name]))
            .contains("is not a platform")
    );
}
