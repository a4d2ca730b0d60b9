//! Registries as this machine's files describe them: what the daemon asks is what `pintle registry explain` shows, and a changed or a broken
//! file counts at once.

mod support;

use std::process::Command;

use cri::runtime_v1 as v1;
use registry::{Auth, Registry};
use serde_json::Value;
use support::Daemon;
use tonic::Code;

fn write(daemon: &Daemon, name: &str, text: &str) {
    let path = daemon.path(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// What `pintle registry explain` says, with more words.
fn explain(daemon: &Daemon, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pintle"));
    command.args(["registry", "explain", "--config"]).arg(daemon.path("config.toml")).args(words);
    let output = command.output().unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    let text = String::from_utf8(text).unwrap().replace(&format!("{}/", daemon.path("").display()), "");
    (output.status.success(), text.replace(&format!("{}/", daemon.path("x").parent().unwrap().display()), ""))
}

async fn is_here(daemon: &Daemon, name: &str) -> bool {
    let image = Some(v1::ImageSpec { image: name.into(), ..Default::default() });
    let request = v1::ImageStatusRequest { image, ..Default::default() };
    daemon.images().image_status(request).await.unwrap().into_inner().image.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_others_count_and_are_explained() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let (mirror, empty) = (Registry::new(), Registry::new());
    let (mirror_at, empty_at) = (mirror.listen().await.unwrap(), empty.listen().await.unwrap());
    let (mirror_host, host) = (mirror_at.host(), daemon.registry.host());
    mirror.set_auth(Auth::Basic { username: "node".into(), password: "s3cret".into() });
    // A mirror that asks for credentials, and the registry behind it.
    write(
        &daemon,
        "d/example.com/hosts.toml",
        &format!(
            "server = \"http://{host}\"\n\n[host.\"http://{mirror_host}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        ),
    );
    write(
        &daemon,
        "a",
        &format!(
            "{{\n\"auths\": {{\n\"{mirror_host}\": {{\"username\": \"node\", \"password\": \"s3cret\"}}}}}}"
        ),
    );
    let name = "example.com/library/busybox:1";
    daemon.pull(name).await.unwrap();
    let asked: Vec<_> = mirror.log().into_iter().map(|asked| asked.target).collect();
    assert!(
        asked.iter().all(|target| target == "/v2/library/busybox/manifests/1?ns=example.com"),
        "{asked:?}"
    );
    assert!(mirror.log().last().unwrap().authorization.is_some(), "it was given what the file has for it");
    assert!(is_here(&daemon, name).await);
    let (_, shown) = explain(&daemon, &[name]);
    for part in [
        format!("1  http://{mirror_host}/v2/library/busybox/manifests/1?ns=example.com"),
        format!("2  http://{host}/v2/library/busybox/manifests/1?ns=example.com"),
        "d/example.com/hosts.toml:3".into(),
        "d/example.com/hosts.toml:1".into(),
        format!("those for {mirror_host} in a:3"),
    ] {
        assert!(shown.contains(&part), "{part} is not in\n{shown}");
    }
    let (_, json) = explain(&daemon, &[name, "-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["candidates"][0]["endpoints"][0]["credentials"][0]["key"], mirror_host.as_str());
    assert!(!shown.contains("s3cret") && !json.to_string().contains("s3cret"));

    // Changes need no restart: a short name, a registry that is another one, one that is blocked.
    write(
        &daemon,
        "r",
        &format!(
            "[aliases]\ntool = \"moved.example/library/busybox\"\n[[registry]]\nprefix = \"moved.example\"\nlocation = \"{host}\"\ninsecure = true\n[[registry]]\nlocation = \"evil.example\"\nblocked = true\n"
        ),
    );
    assert!(!is_here(&daemon, "tool:1").await);
    daemon.pull("tool:1").await.unwrap();
    assert!(is_here(&daemon, "tool:1").await && is_here(&daemon, "moved.example/library/busybox:1").await);
    assert!(!is_here(&daemon, "docker.io/library/tool:1").await);
    let blocked = daemon.pull("evil.example/a:1").await.unwrap_err();
    assert_eq!(blocked.code(), Code::FailedPrecondition, "{blocked}");
    assert!(blocked.message().contains("is blocked by") && blocked.message().contains("/r:7"), "{blocked}");
    let (ok, shown) = explain(&daemon, &["evil.example/a:1"]);
    assert!(!ok && shown.contains("is blocked by"), "{shown}");

    // A broken file fails what needs it, by its line, and nothing else.
    write(&daemon, "d/example.com/hosts.toml", "server = \"https://x.example\"\nca = 5\n");
    let broken = daemon.pull(name).await.unwrap_err();
    assert!(broken.message().contains("hosts.toml:2: ca takes"), "{broken}");
    daemon.pull("tool:1").await.unwrap();

    // Everybody who was asked stands in the error, in order.
    write(
        &daemon,
        "d/example.com/hosts.toml",
        &format!(
            "server = \"http://{host}\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n",
            empty_at.host()
        ),
    );
    let absent = daemon.pull("example.com/absent:1").await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound, "{absent}");
    let tried = absent.message().split_once("; tried, in this order: ").unwrap().1.to_owned();
    let at = |part: &str| tried.find(part).unwrap_or_else(|| panic!("{part} is not in {tried}"));
    assert!(at("(1) http://127.0.0.1:1/") < at(&format!("(2) http://{}/", empty_at.host())), "{tried}");
    assert!(at("404 MANIFEST_UNKNOWN") < at(&format!("(3) http://{host}/")), "{tried}");
    daemon.end();
}
