//! Three nodes under a control plane: workloads, Services, configuration, kubectl's commands, and what `kubectl describe` says.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::super::images::{BOX, ELSEWHERE, PRIVATE, SECOND};
use super::super::manifests::{pod, shell, with};
use super::super::node::{said, until};
use super::super::plane::Cluster;
use super::super::table::Shown;

/// How long a step that involves several controllers may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(in crate::cluster) const TABLE: &[Shown] = &[
    Shown { name: "three nodes are Ready, with the runtime's name and version", shown: nodes },
    Shown {
        name: "a Deployment of 30 replicas: rolled out, changed, rolled back, scaled",
        shown: deployment,
    },
    Shown { name: "a Service and pods are reached from every node", shown: traffic },
    Shown { name: "ConfigMap, Secret, projected volume and the account's token", shown: configuration },
    Shown { name: "DaemonSet", shown: daemon_set },
    Shown { name: "StatefulSet, in order and with the same names", shown: stateful_set },
    Shown { name: "Jobs, one of which fails a few times first", shown: jobs },
    Shown { name: "CronJob every minute", shown: cron_job },
    Shown { name: "kubectl logs -f, exec, attach", shown: streams },
    Shown { name: "kubectl cp of 200 MB both ways", shown: copy },
    Shown { name: "kubectl port-forward", shown: forward },
    Shown { name: "kubectl debug: an ephemeral container among the target's processes", shown: debug },
    Shown { name: "in-place resize", shown: resize },
    Shown { name: "RuntimeClass: a second handler, and one that no node has", shown: runtime_class },
    Shown { name: "kubectl describe says what is wrong", shown: described },
    Shown { name: "60 pods at once: made, ready, deleted", shown: many },
];

fn web(name: &str) -> Value {
    with(
        shell(name, "mkdir -p /w; hostname >/w/name; httpd -f -h /w -p 80"),
        json!({
            "readinessProbe": { "httpGet": { "path": "/name", "port": 80 }, "periodSeconds": 1 }
        }),
    )
}

/// A template of pods with the label `app`.
fn template(app: &str, container: Value) -> Value {
    json!({ "metadata": { "labels": { "app": app } }, "spec": { "terminationGracePeriodSeconds": 1, "containers": [container] } })
}

fn object(api: &str, kind: &str, name: &str, rest: Value) -> Value {
    with(json!({ "apiVersion": api, "kind": kind, "metadata": { "name": name } }), rest)
}

/// A pod of one container, run and Ready.
fn run(cluster: &Cluster, one: &Value) -> Result<()> {
    cluster.apply(one)?;
    let name = one["metadata"]["name"].as_str().unwrap_or_default();
    cluster.kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &format!("pod/{name}")]).map(drop)
}

fn end(cluster: &Cluster, what: &[&str]) -> Result<()> {
    let args: Vec<&str> =
        ["delete", "--ignore-not-found", "--timeout=120s"].iter().chain(what).copied().collect();
    cluster.kubectl(&args).map(drop)
}

fn nodes(cluster: &Cluster) -> Result<()> {
    let nodes = cluster.get(&["nodes"])?;
    let nodes = nodes["items"].as_array().context("a list")?;
    ensure!(nodes.len() == 3, "{} nodes", nodes.len());
    for node in nodes {
        let runtime = &node["status"]["nodeInfo"]["containerRuntimeVersion"];
        ensure!(*runtime == format!("pintle://{}", env!("CARGO_PKG_VERSION")), "it says {runtime}");
    }
    Ok(())
}

fn deployment(cluster: &Cluster) -> Result<()> {
    let spec = json!({ "spec": { "replicas": 30, "selector": { "matchLabels": { "app": "web" } }, "template": template("web", web("c")) } });
    cluster.apply(&object("apps/v1", "Deployment", "web", spec))?;
    let rolled = || cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=180s"]).map(drop);
    rolled()?;
    cluster.kubectl(&["set", "image", "deployment/web", &format!("c={SECOND}")])?;
    rolled()?;
    let image = |wanted: &str| -> Result<()> {
        let pods = cluster.get(&["pods", "-l", "app=web", "--field-selector", "status.phase=Running"])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let wrong = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let wrong = wrong.filter(|pod| pod["spec"]["containers"][0]["image"] != wanted).count();
        ensure!(wrong == 0, "{wrong} pods do not have {wanted}");
        Ok(())
    };
    image(SECOND)?;
    cluster.kubectl(&["rollout", "undo", "deployment/web"])?;
    rolled()?;
    image(BOX)?;
    cluster.kubectl(&["scale", "deployment/web", "--replicas=6"])?;
    until("six pods", PATIENCE, || {
        let pods = cluster.get(&["pods", "-l", "app=web"])?;
        Ok((pods["items"].as_array().map(Vec::len) == Some(6)).then_some(()))
    })
}

fn traffic(cluster: &Cluster) -> Result<()> {
    let service = json!({ "spec": { "type": "NodePort", "selector": { "app": "web" }, "ports": [{ "port": 80, "nodePort": 30080 }] } });
    cluster.apply(&object("v1", "Service", "web", service))?;
    let service = cluster.get(&["service", "web"])?;
    let address = service["spec"]["clusterIP"].as_str().context("an address")?.to_owned();
    let pods = cluster.get(&["pods", "-l", "app=web"])?;
    let pods: Vec<String> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| pod["status"]["podIP"].as_str().map(str::to_owned))
        .collect();
    for node in &cluster.nodes {
        let name = format!("client-{}", node.name);
        let mut client = pod(&name, json!({ "containers": [shell("c", "sleep 1000")] }));
        client["spec"]["nodeName"] = node.name.as_str().into();
        run(cluster, &client)?;
        let fetch = |host: &str| {
            cluster.kubectl(&["exec", &name, "--", "wget", "-q", "-O", "-", &format!("http://{host}/name")])
        };
        for pod in &pods {
            ensure!(fetch(pod)?.starts_with("web-"), "{pod} from {}", node.name);
        }
        until(&format!("the Service from a pod of {}", node.name), PATIENCE, || Ok(fetch(&address).ok()))?;
        let from_node =
            || said(node.inside("curl").args(["-s", "--max-time", "5", &format!("http://{address}/name")]));
        until(&format!("the Service from {}", node.name), PATIENCE, || Ok(from_node().ok()))?;
        let port = || {
            said(Command::new("curl").args([
                "-s",
                "--max-time",
                "5",
                &format!("http://{}:30080/name", node.address),
            ]))
        };
        until(&format!("the port of {}", node.name), PATIENCE, || Ok(port().ok()))?;
        end(cluster, &["pod", &name])?;
    }
    end(cluster, &["deployment/web", "service/web"])
}

fn configuration(cluster: &Cluster) -> Result<()> {
    cluster.apply(&object("v1", "ConfigMap", "settings", json!({ "data": { "color": "blue" } })))?;
    cluster.apply(&object("v1", "Secret", "password", json!({ "stringData": { "word": "hush" } })))?;
    let script = "echo $COLOR $(cat /all/color) $(cat /all/word) $(wc -c </all/token | awk '{print ($1 > 100)}'); \
                  until grep -q red /all/color; do sleep 0.5; done; echo now red; sleep 1000";
    let container = with(
        shell("c", script),
        json!({
            "env": [{ "name": "COLOR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "color" } } }],
            "volumeMounts": [{ "name": "all", "mountPath": "/all" }]
        }),
    );
    let sources = json!([{ "configMap": { "name": "settings" } }, { "secret": { "name": "password" } }, { "serviceAccountToken": { "path": "token" } }]);
    run(
        cluster,
        &pod(
            "configured",
            json!({ "containers": [container], "volumes": [{ "name": "all", "projected": { "sources": sources } }] }),
        ),
    )?;
    logs_have(cluster, "configured", "blue blue hush 1\n")?;
    cluster.apply(&object("v1", "ConfigMap", "settings", json!({ "data": { "color": "red" } })))?;
    logs_have(cluster, "configured", "now red\n")?;
    end(cluster, &["pod/configured", "configmap/settings", "secret/password"])
}

fn logs_have(cluster: &Cluster, pod: &str, text: &str) -> Result<()> {
    let mut log = String::new();
    until(&format!("{text:?} in the log of {pod}"), PATIENCE, || {
        log = cluster.kubectl(&["logs", pod])?;
        Ok(log.contains(text).then_some(()))
    })
    .with_context(|| format!("it says {log:?}"))
}

fn daemon_set(cluster: &Cluster) -> Result<()> {
    let spec = json!({ "spec": { "selector": { "matchLabels": { "app": "each" } }, "template": template("each", shell("c", "sleep 1000")) } });
    cluster.apply(&object("apps/v1", "DaemonSet", "each", spec))?;
    cluster.kubectl(&["rollout", "status", "daemonset/each", "--timeout=120s"])?;
    let pods = cluster.get(&["pods", "-l", "app=each"])?;
    let on: std::collections::BTreeSet<_> = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|pod| pod["spec"]["nodeName"].to_string())
        .collect();
    ensure!(on.len() == 3, "they are on {on:?}");
    end(cluster, &["daemonset/each"])
}

fn stateful_set(cluster: &Cluster) -> Result<()> {
    let spec = json!({ "spec": { "serviceName": "st", "replicas": 3, "selector": { "matchLabels": { "app": "st" } }, "template": template("st", shell("c", "hostname; sleep 1000")) } });
    cluster.apply(&object("apps/v1", "StatefulSet", "st", spec))?;
    cluster.kubectl(&["rollout", "status", "statefulset/st", "--timeout=120s"])?;
    let before = cluster.get(&["pod", "st-1"])?["metadata"]["uid"].clone();
    end(cluster, &["pod", "st-1"])?;
    until("st-1 again", PATIENCE, || {
        let Ok(pod) = cluster.get(&["pod", "st-1"]) else { return Ok(None) };
        Ok((pod["metadata"]["uid"] != before && pod["status"]["phase"] == "Running").then_some(()))
    })?;
    logs_have(cluster, "st-1", "st-1\n")?;
    end(cluster, &["statefulset/st"])
}

fn jobs(cluster: &Cluster) -> Result<()> {
    let job = |name: &str, script: &str, more: Value| {
        let spec = json!({ "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [shell("c", script)] } } } });
        object("batch/v1", "Job", name, with(spec, json!({ "spec": more })))
    };
    cluster.apply(&job("many", "echo done", json!({ "completions": 12, "parallelism": 6 })))?;
    cluster.apply(&job("bad", "exit 2", json!({ "backoffLimit": 1 })))?;
    cluster.kubectl(&["wait", "--for=condition=Complete", "--timeout=120s", "job/many"])?;
    cluster.kubectl(&["wait", "--for=condition=Failed", "--timeout=120s", "job/bad"])?;
    end(cluster, &["job/many", "job/bad"])
}

fn cron_job(cluster: &Cluster) -> Result<()> {
    let template = json!({ "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [shell("c", "echo tick")] } } } });
    cluster.apply(&object(
        "batch/v1",
        "CronJob",
        "tick",
        json!({ "spec": { "schedule": "* * * * *", "jobTemplate": template } }),
    ))?;
    until("a run of the CronJob", PATIENCE, || {
        let job = cluster.get(&["cronjob", "tick"])?;
        Ok((!job["status"]["lastSuccessfulTime"].is_null()).then_some(()))
    })?;
    end(cluster, &["cronjob/tick"])
}

fn streams(cluster: &Cluster) -> Result<()> {
    let script = "for i in 1 2 3; do echo line $i; sleep 0.3; done; while read line; do echo got $line; done; echo end of input";
    let reader = with(shell("c", script), json!({ "stdin": true, "stdinOnce": true }));
    run(cluster, &pod("reader", json!({ "restartPolicy": "Never", "containers": [reader] })))?;
    let following = cluster.kubectl_command(&["logs", "-f", "reader"]).stdout(Stdio::piped()).spawn()?;
    for (script, code) in [("exit 0", 0), ("exit 42", 42)] {
        let status = cluster
            .kubectl_command(&["exec", "reader", "--", "sh", "-c", script])
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.code() == Some(code), "kubectl exec of {script:?} ended with {status}");
    }
    let mut attach = cluster.kubectl_command(&["attach", "-i", "reader"]);
    let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    std::io::Write::write_all(&mut attach.stdin.take().context("a pipe")?, b"words\n")?;
    let attached = attach.wait_with_output()?;
    ensure!(String::from_utf8_lossy(&attached.stdout).contains("got words\nend of input\n"), "{attached:?}");
    let log = following.wait_with_output()?.stdout;
    ensure!(
        log == b"line 1\nline 2\nline 3\ngot words\nend of input\n",
        "kubectl logs -f says {:?}",
        String::from_utf8_lossy(&log)
    );
    end(cluster, &["pod/reader"])
}

fn copy(cluster: &Cluster) -> Result<()> {
    run(cluster, &pod("copies", json!({ "containers": [shell("c", "sleep 1000")] })))?;
    let folder = tempfile::tempdir()?;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    let mut random = fs::File::open("/dev/urandom")?;
    std::io::copy(
        &mut std::io::Read::by_ref(&mut std::io::Read::take(&mut random, 200_000_000)),
        &mut fs::File::create(&there)?,
    )?;
    let [there_name, back_name] = [&there, &back].map(|path| path.display().to_string());
    cluster.kubectl(&["cp", &there_name, "copies:/tmp/file"])?;
    cluster.kubectl(&["cp", "copies:/tmp/file", &back_name])?;
    ensure!(Command::new("cmp").args([&there, &back]).status()?.success(), "the file came back otherwise");
    end(cluster, &["pod/copies"])
}

fn forward(cluster: &Cluster) -> Result<()> {
    run(cluster, &pod("web-one", json!({ "containers": [web("c")] })))?;
    let mut child = cluster
        .kubectl_command(&["port-forward", "pod/web-one", "18080:80"])
        .stdout(Stdio::null())
        .spawn()?;
    let page = until("the page", PATIENCE, || {
        Ok(said(Command::new("curl").args(["-s", "http://127.0.0.1:18080/name"])).ok())
    });
    child.kill()?;
    child.wait()?;
    ensure!(page? == "web-one\n", "another page");
    end(cluster, &["pod/web-one"])
}

fn debug(cluster: &Cluster) -> Result<()> {
    run(cluster, &pod("bugged", json!({ "containers": [shell("c", "sleep 12345")] })))?;
    cluster.kubectl(&[
        "debug",
        "bugged",
        "--image",
        BOX,
        "--target",
        "c",
        "--container",
        "look",
        "--",
        "sh",
        "-c",
        "ps -o args; sleep 1000",
    ])?;
    until("what the debugger sees", PATIENCE, || {
        let log = cluster.kubectl(&["logs", "bugged", "-c", "look"]).unwrap_or_default();
        Ok(log.contains("sleep 12345").then_some(()))
    })?;
    end(cluster, &["pod/bugged"])
}

fn resize(cluster: &Cluster) -> Result<()> {
    let limits = |cpu: &str, memory: &str| json!({ "limits": { "cpu": cpu, "memory": memory }, "requests": { "cpu": cpu, "memory": memory } });
    let container = with(shell("c", "sleep 1000"), json!({ "resources": limits("100m", "64Mi") }));
    run(cluster, &pod("grows", json!({ "containers": [container] })))?;
    let patch = json!({ "spec": { "containers": [{ "name": "c", "resources": limits("200m", "128Mi") }] } })
        .to_string();
    cluster.kubectl(&["patch", "pod", "grows", "--subresource", "resize", "--patch", &patch])?;
    let pod = until("the new limits", PATIENCE, || {
        let pod = cluster.get(&["pod", "grows"])?;
        let now = &pod["status"]["containerStatuses"][0]["resources"]["limits"];
        Ok((now["memory"] == "128Mi" && now["cpu"] == "200m").then_some(pod.clone()))
    })?;
    ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "it was started again");
    let inside = cluster.kubectl(&[
        "exec",
        "grows",
        "--",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes",
    ])?;
    ensure!(inside.trim() == "134217728", "its control group says {inside:?}");
    end(cluster, &["pod/grows"])
}

fn runtime_class(cluster: &Cluster) -> Result<()> {
    for name in ["second", "nobodys"] {
        cluster.apply(&with(
            object("node.k8s.io/v1", "RuntimeClass", name, json!({})),
            json!({ "handler": name }),
        ))?;
    }
    let of = |class: &str| {
        pod(
            &format!("class-{class}"),
            json!({ "runtimeClassName": class, "containers": [shell("c", "echo up; sleep 1000")] }),
        )
    };
    run(cluster, &of("second"))?;
    logs_have(cluster, "class-second", "up\n")?;
    cluster.apply(&of("nobodys"))?;
    says(cluster, "class-nobodys", &["nobodys", "second"])?;
    end(cluster, &["pod/class-second", "pod/class-nobodys", "runtimeclass/second", "runtimeclass/nobodys"])
}

/// `kubectl describe` has all of these in one line of the events.
fn says(cluster: &Cluster, name: &str, words: &[&str]) -> Result<()> {
    let mut text = String::new();
    until(&format!("{words:?} in kubectl describe"), PATIENCE, || {
        text = cluster.kubectl(&["describe", "pod", name])?;
        Ok(text.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(()))
    })
    .with_context(|| text.split("Events:").nth(1).unwrap_or_default().to_owned())
}

fn described(cluster: &Cluster) -> Result<()> {
    let image = |name: &str, image: &str| {
        pod(name, json!({ "containers": [with(shell("c", "sleep 1"), json!({ "image": image }))] }))
    };
    let none = with(shell("c", ""), json!({ "command": ["/no/such/program"] }));
    let pods = [
        image("d-private", PRIVATE),
        image("d-elsewhere", ELSEWHERE),
        pod("d-command", json!({ "containers": [none] })),
    ];
    pods.iter().try_for_each(|pod| cluster.apply(pod))?;
    says(cluster, "d-private", &["Failed", "private.test", "credentials"])?;
    says(cluster, "d-elsewhere", &["Failed", "linux/arm64", "linux/amd64"])?;
    says(cluster, "d-command", &["Failed", "/no/such/program"])?;
    cluster.kubectl(&[
        "create",
        "secret",
        "docker-registry",
        "login",
        "--docker-server=private.test",
        "--docker-username=somebody",
        "--docker-password=secret",
    ])?;
    let with_secret =
        with(image("d-secret", PRIVATE), json!({ "spec": { "imagePullSecrets": [{ "name": "login" }] } }));
    cluster.apply(&with_secret)?;
    says(cluster, "d-secret", &["Successfully pulled image"])?;
    end(cluster, &["pod/d-private", "pod/d-elsewhere", "pod/d-command", "pod/d-secret"])?;
    end(cluster, &["secret/login"])
}

fn many(cluster: &Cluster) -> Result<()> {
    let spec = json!({ "spec": { "replicas": 60, "selector": { "matchLabels": { "app": "crowd" } }, "template": template("crowd", shell("c", "sleep 10000")) } });
    let begun = Instant::now();
    cluster.apply(&object("apps/v1", "Deployment", "crowd", spec))?;
    cluster.kubectl(&["rollout", "status", "deployment/crowd", "--timeout=240s"])?;
    let ready = begun.elapsed();
    let begun = Instant::now();
    end(cluster, &["deployment/crowd"])?;
    until("the end of all", PATIENCE, || {
        let pods = cluster.get(&["pods", "-l", "app=crowd"])?;
        Ok(pods["items"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;
    println!(
        "                60 pods: Ready after {:.1} s, gone {:.1} s after they were deleted",
        ready.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    if let Err(error) = cluster.all_run() {
        bail!("{error}");
    }
    Ok(())
}
