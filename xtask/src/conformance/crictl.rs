//! The everyday commands of crictl, in the order in which somebody would type them, each with its usual output.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::clients::Clients;
use super::daemon::Daemon;

pub(super) const IMAGE: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
const NAME: &str = "registry.k8s.io/e2e-test-images/busybox";

/// Runs every command; the first that answers otherwise than usual is the error.
pub(super) fn walk(clients: &Clients, daemon: &Daemon) -> Result<()> {
    let scratch = daemon.scratch()?;
    let walk = Walk {
        crictl: clients.crictl.clone(),
        endpoint: daemon.endpoint.clone(),
        scratch: scratch.path().to_owned(),
    };
    walk.runtime()?;
    walk.image()?;
    let events = walk.events()?;
    let pod = walk.pod()?;
    let container = walk.container(&pod)?;
    walk.inside(&container)?;
    walk.streams(&pod)?;
    walk.observed(&pod, &container)?;
    walk.stop_and_remove(&pod, &container)?;
    walk.told(events, &pod, &container)?;
    println!("crictl: every command answered as usual");
    Ok(())
}

/// Removes every pod that a run which failed has left. Where that fails too, what is left is listed at the end.
pub(super) fn remove_pods(clients: &Clients, daemon: &Daemon) {
    let mut crictl = Command::new(&clients.crictl);
    crictl.args(["--runtime-endpoint", &daemon.endpoint, "--timeout", "30s", "rmp", "-f", "-a"]);
    let _ = crictl.stdin(Stdio::null()).output();
}

pub(super) struct Walk {
    crictl: PathBuf,
    endpoint: String,
    pub(super) scratch: PathBuf,
}

/// A crictl that goes on until it is ended.
struct Reader(std::process::Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command said.
pub(super) struct Said {
    line: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn has(&self, words: &[&str]) -> Result<()> {
        for word in words {
            ensure!(
                self.out.contains(word),
                "`{}` does not say {word:?}:\n{}{}",
                self.line,
                self.out,
                self.err
            );
        }
        Ok(())
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .with_context(|| format!("`{}` says no JSON:\n{}", self.line, self.out))
    }

    /// The only line: an id of 64 hexadecimal digits.
    pub(super) fn id(&self) -> Result<String> {
        let id = self.out.trim();
        let hex = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(hex, "`{}` does not answer with an id:\n{}{}", self.line, self.out, self.err);
        Ok(id.to_owned())
    }
}

impl Walk {
    /// crictl, told where everything is.
    pub(super) fn command(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(&self.crictl);
        command.args([
            "--runtime-endpoint",
            &self.endpoint,
            "--image-endpoint",
            &self.endpoint,
            "--timeout",
            "30s",
        ]);
        // A missing configuration file is a warning on every call.
        let config = self.scratch.join("crictl.yaml");
        if !config.exists() {
            fs::write(&config, "")?;
        }
        command.arg("--config").arg(config).args(args).stdin(Stdio::null());
        Ok(command)
    }

    fn crictl(&self, args: &[&str]) -> Result<Said> {
        let mut command = self.command(args)?;
        let output = command.output().context("cannot start crictl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = format!("crictl {}", args.join(" "));
        Ok(Said { line, code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// A command that has to succeed.
    pub(super) fn ok(&self, args: &[&str]) -> Result<Said> {
        let start = Instant::now();
        let said = self.crictl(args)?;
        ensure!(
            said.code == Some(0),
            "`{}` ended with {:?}:\n{}{}",
            said.line,
            said.code,
            said.out,
            said.err
        );
        println!("ok {:7.1} ms  {}", start.elapsed().as_secs_f64() * 1e3, said.line);
        Ok(said)
    }

    /// A command that has to fail, saying `word` in whatever case and spacing.
    fn refused(&self, args: &[&str], word: &str) -> Result<()> {
        let plain = |text: &str| text.to_lowercase().replace(' ', "");
        let said = self.crictl(args)?;
        let text = format!("{}{}", said.out, said.err);
        ensure!(said.code != Some(0), "`{}` should fail:\n{text}", said.line);
        ensure!(
            plain(&text).contains(&plain(word)),
            "`{}` fails, and does not say {word:?}:\n{text}",
            said.line
        );
        println!("ok             {} (refused)", said.line);
        Ok(())
    }

    pub(super) fn file(&self, name: &str, value: &Value) -> Result<String> {
        let path = self.scratch.join(name);
        fs::write(&path, value.to_string())?;
        Ok(path.display().to_string())
    }

    fn runtime(&self) -> Result<()> {
        self.ok(&["version"])?.has(&["RuntimeName:", "RuntimeApiVersion:  v1"])?;
        let info = self.ok(&["info"])?.json()?;
        let conditions = info["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for kind in ["RuntimeReady", "NetworkReady"] {
            let ready =
                conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == true);
            ensure!(ready, "`crictl info` does not have {kind}: {conditions:?}");
        }
        Ok(())
    }

    fn image(&self) -> Result<()> {
        self.ok(&["pull", IMAGE])?.has(&["Image is up to date for "])?;
        self.ok(&["images"])?.has(&["IMAGE", "TAG", "IMAGE ID", "SIZE", NAME, "1.29-2"])?;
        let inspected = self.ok(&["inspecti", IMAGE])?.json()?;
        ensure!(inspected["status"]["repoTags"][0] == IMAGE, "`crictl inspecti` has no tag: {inspected}");
        ensure!(
            inspected["status"]["id"].as_str().is_some_and(|id| id.starts_with("sha256:")),
            "no id: {inspected}"
        );
        self.ok(&["imagefsinfo"])?.has(&["usedBytes"])?;
        self.refused(&["pull", &format!("{NAME}:no-such-tag")], "not found")?;
        Ok(())
    }

    fn pod(&self) -> Result<String> {
        let logs = self.scratch.join("logs");
        fs::create_dir_all(&logs)?;
        let config = json!({
            "metadata": { "name": "walk", "namespace": "default", "uid": "walk-uid", "attempt": 1 },
            "hostname": "walk-host",
            "log_directory": logs,
            "dns_config": { "servers": ["10.0.0.53"], "searches": ["walk.test"] },
            "labels": { "app": "walk" },
            "linux": {}
        });
        let pod = self.ok(&["runp", &self.file("pod.json", &config)?])?.id()?;
        self.ok(&["pods"])?.has(&["POD ID", &pod[..13], "Ready", "walk", "default"])?;
        self.ok(&["pods", "--label", "app=walk", "-q"])?.has(&[&pod])?;
        let inspected = self.ok(&["inspectp", &pod])?.json()?;
        ensure!(inspected["status"]["state"] == "SANDBOX_READY", "the pod is not ready: {inspected}");
        let address = inspected["status"]["network"]["ip"].as_str().unwrap_or_default();
        ensure!(address.parse::<std::net::IpAddr>().is_ok(), "the pod has no address: {inspected}");
        Ok(pod)
    }

    fn container(&self, pod: &str) -> Result<String> {
        let config = json!({
            "metadata": { "name": "talker", "attempt": 0 },
            "image": { "image": IMAGE },
            "command": ["/bin/sh", "-c", "echo to-stdout; echo to-stderr >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done"],
            "envs": [{ "key": "WALK", "value": "yes" }],
            "log_path": "talker.log",
            "linux": { "resources": { "memory_limit_in_bytes": 67_108_864 } }
        });
        let container = self.file("container.json", &config)?;
        let pod_config = self.scratch.join("pod.json").display().to_string();
        let id = self.ok(&["create", pod, &container, &pod_config])?.id()?;
        self.ok(&["ps", "-a"])?.has(&[&id[..13], "Created", "talker"])?;
        self.ok(&["start", &id])?.has(&[&id])?;
        self.ok(&["ps"])?.has(&[
            "CONTAINER",
            "IMAGE",
            "STATE",
            "POD ID",
            &id[..13],
            "Running",
            "talker",
            &pod[..13],
        ])?;
        let inspected = self.ok(&["inspect", &id])?.json()?;
        ensure!(inspected["status"]["state"] == "CONTAINER_RUNNING", "it does not run: {inspected}");
        ensure!(
            inspected["info"]["pid"].as_i64().is_some_and(|pid| pid > 1),
            "no pid in the info: {}",
            inspected["info"]
        );
        Ok(id)
    }

    fn inside(&self, container: &str) -> Result<()> {
        self.ok(&[
            "exec",
            "-s",
            container,
            "sh",
            "-c",
            "echo $WALK $(hostname) $(tail -n1 /etc/resolv.conf | wc -l)",
        ])?
        .has(&["yes walk-host 1"])?;
        self.refused(&["exec", "-s", container, "sh", "-c", "echo to-err >&2; exit 3"], "3")?;
        self.refused(&["exec", "-s", container, "no-such-program"], "no-such-program")?;

        let logs = self.settles(|| {
            let said = self.crictl(&["logs", container])?;
            Ok((said.out.contains("to-stdout") && said.err.contains("to-stderr")).then_some(said))
        });
        logs.context("`crictl logs` does not have what the container wrote")?;
        println!("ok             crictl logs");
        let log = fs::read_to_string(self.scratch.join("logs/talker.log"))?;
        ensure!(
            log.lines().any(|line| line.ends_with(" stdout F to-stdout")),
            "the log is no CRI log:\n{log}"
        );

        let stats = self.settles(|| {
            let stats = self.ok(&["stats", "-o", "json", container])?.json()?;
            let used = &stats["stats"][0]["memory"]["workingSetBytes"]["value"];
            let used = used.as_str().and_then(|text| text.parse::<u64>().ok()).or(used.as_u64());
            Ok(used.filter(|used| *used > 0))
        });
        stats.context("`crictl stats` counts no memory")?;
        self.ok(&["stats"])?.has(&["CONTAINER", "CPU %", "MEM", "DISK", "INODES", &container[..13]])?;
        self.ok(&["update", "--cpu-share", "512", container])?;
        Ok(())
    }

    fn observed(&self, pod: &str, container: &str) -> Result<()> {
        self.ok(&["statsp"])?.has(&["POD", "CPU %", "MEM", &pod[..13]])?;
        let stats = self.ok(&["statsp", "-o", "json", pod])?.json()?;
        let linux = &stats["stats"][0]["linux"];
        ensure!(linux["network"]["defaultInterface"]["name"] == "eth0", "no network: {linux}");
        ensure!(linux["process"]["processCount"]["value"] != "0", "no processes: {linux}");
        let described = self.ok(&["metricdescs"])?.json()?;
        let names = described["descriptors"].as_array().map_or(0, Vec::len);
        ensure!(names >= 56, "{names} metrics are described");
        let metrics = self.ok(&["metricsp"])?.json()?;
        let of_pod = &metrics["podMetrics"][0];
        ensure!(of_pod["podSandboxId"] == pod, "no metrics of the pod: {of_pod}");
        let measured = of_pod["containerMetrics"].as_array().cloned().unwrap_or_default();
        ensure!(
            measured.iter().any(|metrics| metrics["containerId"] == container),
            "no metrics of the container: {of_pod}"
        );
        Ok(())
    }

    /// Begins to read events, into a file.
    fn events(&self) -> Result<Reader> {
        let output = fs::File::create(self.scratch.join("events.json"))?;
        let mut command = Command::new(&self.crictl);
        command.args(["--runtime-endpoint", &self.endpoint, "events", "-o", "json"]);
        command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null());
        Ok(Reader(command.spawn().context("cannot start crictl")?))
    }

    /// The whole life of pod and container has been told.
    fn told(&self, reader: Reader, pod: &str, container: &str) -> Result<()> {
        let events = self.settles(|| {
            let text = fs::read_to_string(self.scratch.join("events.json"))?;
            let events: Vec<Value> =
                serde_json::Deserializer::from_str(&text).into_iter().map_while(Result::ok).collect();
            let deleted = |event: &Value| {
                event["containerId"] == pod && event["containerEventType"] == "CONTAINER_DELETED_EVENT"
            };
            Ok(events.iter().any(deleted).then_some(events))
        });
        drop(reader);
        let events = events.context("`crictl events` does not tell that the pod was removed")?;
        for id in [pod, container] {
            let of = events.iter().filter(|event| event["containerId"] == id);
            let kinds: Vec<&str> = of.filter_map(|event| event["containerEventType"].as_str()).collect();
            let life =
                ["CREATED", "STARTED", "STOPPED", "DELETED"].map(|step| format!("CONTAINER_{step}_EVENT"));
            ensure!(kinds == life, "of {id} `crictl events` tells {kinds:?}");
        }
        println!("ok             crictl events");
        Ok(())
    }

    fn stop_and_remove(&self, pod: &str, container: &str) -> Result<()> {
        self.refused(&["rmi", "no-such-image"], "no such image")?;
        self.ok(&["stop", "--timeout", "10", container])?.has(&[container])?;
        self.ok(&["stop", container])?;
        self.ok(&["ps", "-a"])?.has(&[&container[..13], "Exited"])?;
        let inspected = self.ok(&["inspect", container])?.json()?;
        ensure!(inspected["status"]["exitCode"] == 7, "its exit code was 7, and not: {inspected}");
        self.ok(&["logs", container])?;
        self.ok(&["rm", container])?.has(&[container])?;
        ensure!(
            !self.ok(&["ps", "-a", "-q"])?.out.contains(container),
            "the removed container is still listed"
        );
        self.ok(&["stopp", pod])?.has(&["Stopped sandbox", pod])?;
        self.ok(&["pods"])?.has(&["NotReady"])?;
        self.ok(&["rmp", pod])?.has(&["Removed sandbox", pod])?;
        ensure!(!self.ok(&["pods", "-q"])?.out.contains(pod), "the removed pod is still listed");
        self.refused(&["inspectp", pod], "not found")?;
        self.ok(&["rmi", IMAGE])?.has(&["Deleted: "])?;
        ensure!(!self.ok(&["images"])?.out.contains(NAME), "the removed image is still listed");
        Ok(())
    }

    /// Asks until there is an answer, for what comes a moment later.
    fn settles<T>(&self, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if start.elapsed() > Duration::from_secs(10) {
                bail!("not within 10 s");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
