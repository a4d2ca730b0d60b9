//! The same files read by skopeo (containers/image) and by containerd: they ask the same hosts in the same order.

use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::*;

/// Registries that have nothing, and one log of all of them in the order of the requests.
struct Empty {
    listening: Vec<Listening>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Empty {
    async fn new(count: usize) -> Empty {
        let asked = Arc::new(Mutex::new(Vec::<String>::new()));
        let mut listening = Vec::new();
        for at in 0..count {
            let (registry, log) = (Registry::new(), Arc::clone(&asked));
            registry.set_hook(move |request| {
                if request.target.contains("/manifests/") {
                    let mut log = log.lock().unwrap();
                    let line = format!("{at} {}", request.target);
                    // HEAD and then GET are one question.
                    if log.last() != Some(&line) {
                        log.push(line);
                    }
                }
                None
            });
            listening.push(registry.listen().await.unwrap());
        }
        Empty { listening, asked }
    }

    fn host(&self, at: usize) -> String {
        self.listening[at].host()
    }

    /// What was asked since the last time.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// What our own plan would ask.
    fn planned(
        &self,
        machine: &Machine,
        reference: &str,
        capability: distribution::Capability,
    ) -> Vec<String> {
        let plan = machine.sources.plan(reference).unwrap();
        let mut planned = Vec::new();
        for candidate in plan.candidates {
            for endpoint in candidate.endpoints.iter().filter(|e| e.capabilities.has(capability)) {
                let at = self.listening.iter().position(|one| one.host() == endpoint.authority).unwrap();
                let url = endpoint.url(&format!("manifests/{}", candidate.reference.manifest()));
                let target = url.split_once("://").unwrap().1;
                planned.push(format!("{at} {}", &target[target.find('/').unwrap()..]));
            }
        }
        planned
    }
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        println!("SKIPPED: needs {program}");
    }
    found.is_ok()
}

const DIGEST: &str = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_asks_whom_we_ask() {
    if !has("skopeo") {
        return;
    }
    let machine = Machine::new();
    let empty = Empty::new(5).await;
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|at| empty.host(at));
    machine.write(
        "registries.conf",
        &format!(
            r#"
[[registry]]
prefix = "example.com/foo"
location = "{a}/bar"
insecure = true
[[registry.mirror]]
location = "{b}/mirror"
insecure = true
[[registry.mirror]]
location = "{c}"
insecure = true
[[registry]]
prefix = "example.com"
location = "{d}"
insecure = true
mirror-by-digest-only = true
[[registry.mirror]]
location = "{c}/digests"
insecure = true
[[registry]]
prefix = "*.wild.example"
location = "{e}/wild"
insecure = true
[[registry]]
prefix = "blocked.example"
location = "blocked.example"
blocked = true
"#
        ),
    );
    for reference in [
        "example.com/foo/app:1".to_owned(),
        format!("example.com/foo/app{DIGEST}"),
        "example.com/food/app:1".into(),
        "example.com/app:1".into(),
        format!("example.com/app{DIGEST}"),
        "a.b.wild.example/x/app:1".into(),
        "blocked.example/app:1".into(),
    ] {
        let skopeo = Command::new("skopeo")
            .arg("--registries-conf")
            .arg(machine.path("registries.conf"))
            .arg("inspect")
            .arg(format!("docker://{reference}"))
            .env("HOME", machine.folder.path())
            .env("XDG_RUNTIME_DIR", machine.folder.path())
            .output();
        let skopeo = tokio::task::spawn_blocking(move || skopeo).await.unwrap().unwrap();
        assert!(!skopeo.status.success());
        let theirs = empty.take();
        if reference.starts_with("blocked") {
            assert_eq!(theirs.len(), 0);
            assert!(machine.sources.plan(&reference).unwrap_err().to_string().contains("is blocked by"));
            continue;
        }
        let said = String::from_utf8_lossy(&skopeo.stderr);
        assert!(!theirs.is_empty(), "{said}");
        assert_eq!(
            theirs,
            empty.planned(&machine, &reference, distribution::Capability::Pull),
            "{reference}: {said}"
        );
        // And what is planned is what is asked.
        let session = machine.session(&reference, None);
        let tag = reference.split_once('@').map_or("1", |(_, digest)| digest);
        assert!(manifest(&session, tag).await.is_err());
        assert_eq!(empty.take(), theirs, "{reference}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_asks_whom_we_ask() {
    if !has("containerd") || !has("ctr") {
        return;
    }
    let machine = Machine::new();
    let empty = Empty::new(4).await;
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| empty.host(at));
    machine.write(
        "certs.d/docker.io/hosts.toml",
        &format!(
            "server = \"http://{d}\"\n[host.\"http://{c}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{b}/sub\"]\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"http://{a}/v2/raw\"]\noverride_path = true\n"
        ),
    );
    machine.write(
        "certs.d/ported.example_5000_/hosts.toml",
        &format!("server = \"http://{b}\"\n[host.\"http://{a}\"]\n"),
    );
    machine
        .write("certs.d/_default/hosts.toml", &format!("server = \"http://{c}\"\n[host.\"http://{d}\"]\n"));
    let socket = machine.path("containerd.sock");
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
        machine.path("root"),
        machine.path("state"),
        machine.path("ttrpc.sock")
    );
    machine.write("containerd.toml", &config);
    let mut daemon = Command::new("containerd")
        .arg("--config")
        .arg(machine.path("containerd.toml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..300 {
        if socket.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut compared = Vec::new();
    for reference in ["docker.io/library/app:1", "ported.example:5000/x/app:1", "other.example/app:1"] {
        let ctr = Command::new("ctr")
            .arg("--address")
            .arg(&socket)
            .args(["images", "pull", "--hosts-dir"])
            .arg(machine.path("certs.d"))
            .arg(reference)
            .output();
        let ctr = tokio::task::spawn_blocking(move || ctr).await.unwrap().unwrap();
        let planned = empty.planned(&machine, reference, distribution::Capability::Resolve);
        compared.push((reference, empty.take(), planned, String::from_utf8_lossy(&ctr.stderr).into_owned()));
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    for (reference, theirs, ours, said) in compared {
        assert!(!theirs.is_empty(), "{said}");
        assert_eq!(theirs, ours, "{reference}: {said}");
    }
}
