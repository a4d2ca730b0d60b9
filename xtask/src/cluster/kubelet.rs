//! The kubelet: how it is configured here, and its own API, which needs no control plane.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::node::{Node, pod_range, said, until};
use super::programs::{self, Release};

/// How long something that takes a kubelet seconds may take on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// The kubelet's configuration file, with `more` put over it: an object in an object goes into it, anything else replaces.
pub(super) fn configuration(node: &Node, more: &Value) -> Value {
    let number = node.name.trim_start_matches("node-").parse().unwrap_or(1);
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/pintle/pintle.sock",
        "staticPodPath": node.folder.join("manifests"),
        "fileCheckFrequency": "1s",
        "volumePluginDir": node.folder.join("plugins"),
        "address": node.address,
        "healthzBindAddress": node.address,
        // Nobody but this run is in these networks.
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.group),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": ["pods"],
        "podCIDR": pod_range(number),
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.test",
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        // What would be minutes.
        "crashLoopBackOff": { "maxContainerRestartPeriod": "2s" },
        "containerLogMaxSize": "64Ki",
        "containerLogMaxFiles": 4,
        "containerLogMonitorInterval": "3s",
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%" },
        "evictionPressureTransitionPeriod": "5s",
        "imageMinimumGCAge": "1s",
        "featureGates": { "PodAndContainerStatsFromCRI": true }
    });
    put_over(&mut config, more);
    if node.release == Release::Last22 {
        // It does not start with a gate that it does not know; of other fields it says so and goes on.
        config["featureGates"] = json!({});
    }
    config
}

/// An object in an object goes into it, anything else replaces.
pub(super) fn put_over(to: &mut Value, from: &Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                put_over(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from.clone(),
    }
}

/// Its command line.
pub(super) fn arguments(node: &Node) -> Vec<String> {
    let config = node.folder.join("kubelet.json").display().to_string();
    let words =
        ["--config", &config, "--hostname-override", &node.name, "--node-ip", &node.address, "--v", "4"];
    let mut words = words.map(str::to_owned).to_vec();
    if node.release == Release::Last22 {
        words.push("--container-runtime=remote".into());
        words.push("--container-runtime-endpoint=unix:///run/pintle/pintle.sock".into());
    }
    words
}

impl Node {
    /// A GET of the kubelet's API.
    pub(super) fn get(&self, path: &str) -> Result<String> {
        self.curl(&["--fail-with-body"], path)
    }

    fn curl(&self, how: &[&str], path: &str) -> Result<String> {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", "--max-time", "60"]).args(how).arg(self.url(path));
        said(&mut curl)
    }

    /// The URL of a part of the kubelet's API.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}:10250{path}", self.address)
    }

    /// The pods that the kubelet has, with their status.
    pub(super) fn pods(&self) -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.get("/pods")?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The full name of a static pod on this node.
    pub(super) fn full(&self, pod: &str) -> String {
        format!("{pod}-{}", self.name)
    }

    /// A pod by the name in its manifest.
    pub(super) fn pod(&self, name: &str) -> Result<Option<Value>> {
        let full = self.full(name);
        Ok(self.pods()?.into_iter().find(|pod| pod["metadata"]["name"] == full.as_str()))
    }

    /// Waits until the pod is as wanted, and returns it.
    pub(super) fn when(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = until(&format!("{name}: {what}"), PATIENCE, || {
            // A kubelet that is busy may refuse once.
            last = self.pod(name).ok().flatten().unwrap_or(Value::Null);
            Ok(is(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("its status was {}", last["status"]))
    }

    /// Waits until all containers of the pod run and are ready, and returns it.
    pub(super) fn ready(&self, name: &str) -> Result<Value> {
        self.when(name, "ready", |pod| {
            let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        })
    }

    /// Waits until the kubelet has nothing of the pod any more.
    pub(super) fn gone(&self, name: &str) -> Result<()> {
        until(&format!("{name}: gone"), PATIENCE, || {
            let running = self.get("/runningpods/").unwrap_or_else(|_| self.full(name));
            Ok((!running.contains(&format!("\"{}\"", self.full(name)))).then_some(()))
        })
    }

    /// A container's log as the kubelet serves it, which is `kubectl logs`.
    pub(super) fn log(&self, pod: &str, container: &str) -> Result<String> {
        self.get(&format!("/containerLogs/default/{}/{container}", self.full(pod)))
    }

    /// Waits until the log has all of these.
    pub(super) fn says(&self, pod: &str, container: &str, words: &[&str]) -> Result<String> {
        let mut log = String::new();
        let said = until(&format!("{pod}: {container} says {words:?}"), PATIENCE, || {
            log = self.log(pod, container).unwrap_or_default();
            Ok(words.iter().all(|word| log.contains(word)).then(|| log.clone()))
        });
        said.with_context(|| {
            let lines: Vec<&str> = log.lines().collect();
            format!("the end of its log is:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"))
        })
    }

    /// Runs a command in a container, as probes do, and returns its output.
    pub(super) fn run(&self, pod: &str, container: &str, command: &str) -> Result<String> {
        let path = format!("/run/default/{}/{container}?cmd={}", self.full(pod), encoded(command));
        self.curl(&["--fail-with-body", "--request", "POST"], &path)
    }

    /// The client of our own, which streams as kubectl does.
    pub(super) fn agent(&self, args: &[&str], input: &[u8]) -> Result<std::process::Output> {
        use std::io::Write;
        let mut agent = Command::new(programs::agent()?);
        let agent = agent.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = agent.spawn().context("the agent")?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output()?;
        // One that ends early reads no further.
        let _ = writer.join();
        Ok(output)
    }

    /// Waits until an event of the pod, which a kubelet without API server logs, has all of these words; returns the event's line.
    pub(super) fn event(&self, pod: &str, words: &[&str]) -> Result<String> {
        let object = format!("object=\"default/{}\"", self.full(pod));
        let mut all = Vec::new();
        let found = until(&format!("{pod}: an event with {words:?}"), PATIENCE, || {
            all = events(&self.kubelet_log());
            all.retain(|event| event.contains(&object));
            Ok(all.iter().find(|event| words.iter().all(|word| event.contains(word))).cloned())
        });
        found.with_context(|| {
            format!("its last events are:\n{}", all[all.len().saturating_sub(6)..].join("\n"))
        })
    }

    /// The statistics of one pod.
    pub(super) fn summary(&self, pod: &str) -> Result<Value> {
        let summary: Value = serde_json::from_str(&self.get("/stats/summary")?)?;
        let pods = summary["pods"].as_array().cloned().unwrap_or_default();
        let full = self.full(pod);
        let found = pods.into_iter().find(|stats| stats["podRef"]["name"] == full.as_str());
        found.with_context(|| format!("/stats/summary does not have {pod}"))
    }
}

/// The events in a kubelet's log, a line each. A message of several lines stands between `<` and `>` in lines of its own.
fn events(log: &str) -> Vec<String> {
    let mut events: Vec<String> = Vec::new();
    let mut open = false;
    for line in log.lines() {
        if line.contains("Event occurred") {
            events.push(line.to_owned());
            open = line.ends_with("=<");
        } else if let Some(last) = events.last_mut().filter(|_| open) {
            open = line != " >";
            last.push_str(line);
        }
    }
    events
}

/// For a query of a URL.
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A part of the pod's status, or an error that shows all of it.
pub(super) fn part<'a>(pod: &'a Value, pointer: &str) -> Result<&'a Value> {
    match pod.pointer(pointer) {
        Some(value) => Ok(value),
        None => bail!("there is no {pointer} in {pod}"),
    }
}

/// Fails unless the part is equal.
pub(super) fn is(pod: &Value, pointer: &str, wanted: impl Into<Value>) -> Result<()> {
    let (found, wanted) = (part(pod, pointer)?, wanted.into());
    ensure!(*found == wanted, "{pointer} is {found} and not {wanted}; the status is {}", pod["status"]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_put_over_another() {
        let mut config = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
        put_over(&mut config, &json!({ "a": { "c": 3 }, "d": [], "e": 4 }));
        assert_eq!(config, json!({ "a": { "b": 1, "c": 3 }, "d": [], "e": 4 }));
    }

    #[test]
    fn events_are_read_from_the_log() {
        let log = "I1 x] \"Event occurred\" a message=<\n\tone\n\ttwo\n >\nI2 y\nI3 \"Event occurred\" message=\"b\"\nI4 z";
        assert_eq!(
            events(log),
            ["I1 x] \"Event occurred\" a message=<\tone\ttwo >", "I3 \"Event occurred\" message=\"b\""]
        );
    }

    #[test]
    fn a_command_is_a_query() {
        assert_eq!(encoded("ls -l /a&b"), "ls%20-l%20%2Fa%26b");
    }
}
