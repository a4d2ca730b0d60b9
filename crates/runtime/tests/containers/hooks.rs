//! Hooks: when they run, what they get, and what happens when they fail.

use serde_json::{Value, json};

use crate::bundle::{Bundle, bundle};

/// A hook that appends its name and its input to `trace` of the bundle.
fn hook(bundle: &Bundle, name: &str) -> Value {
    let script = format!("echo {name} $(cat) >> {}/trace", bundle.path().display());
    json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 5}])
}

fn trace(bundle: &Bundle) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(bundle.path().join("trace")).unwrap_or_default();
    let parse = |line: &str| {
        let (name, state) = line.split_once(' ').unwrap();
        (name.to_string(), serde_json::from_str(state).unwrap())
    };
    text.lines().map(parse).collect()
}

#[test]
fn all_hooks_run_in_order_with_the_state() {
    let mut bundle = bundle!();
    let names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    bundle.config["hooks"] = names.iter().map(|name| (name.to_string(), hook(&bundle, name))).collect();
    let inside = json!([{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/startContainer"]}]);
    bundle.config["hooks"]["startContainer"] = inside;
    bundle.shell("cat /tmp/startContainer");
    bundle.create().ok();
    let pid = bundle.pid();
    bundle.start().ok();
    bundle.wait_for("stopped");
    bundle.oci(&["delete", &bundle.id]).ok();
    let trace = trace(&bundle);
    assert_eq!(trace.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
    for (name, state) in &trace {
        assert_eq!(state["id"], bundle.id.as_str(), "{name}");
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap());
    }
    let statuses: Vec<_> = trace.iter().map(|(_, state)| state["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["creating", "creating", "creating", "running", "stopped"]);
    assert_eq!(trace[1].1["pid"], pid);
    let inside = std::fs::read_to_string(bundle.rootfs().join("tmp/startContainer")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&inside).unwrap()["status"], "created");
}

#[test]
fn a_hook_inside_gets_the_environment_of_the_process_unless_it_names_one() {
    let mut bundle = bundle!();
    bundle.config["process"]["env"] = json!(["PATH=/bin:/usr/bin", "OF=process"]);
    let hook =
        |file: &str| json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo $OF$ITS > /tmp/{file}")]});
    let (plain, mut own) = (hook("plain"), hook("own"));
    own["env"] = json!(["ITS=own"]);
    bundle.config["hooks"] = json!({"startContainer": [plain, own]});
    bundle.shell("cat /tmp/plain /tmp/own");
    assert_eq!(bundle.run().ok(), "process\nown\n");
}

#[test]
fn a_failing_hook_stops_create_with_its_words_and_leaves_nothing() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = bundle!();
        bundle.config["hooks"] =
            json!({kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 7"]}]});
        bundle.shell("true");
        let message = bundle.create().failed();
        assert!(message.contains(kind) && message.contains("because") && message.contains('7'), "{message}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
    let mut bundle = bundle!();
    bundle.config["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]});
    bundle.shell("true");
    bundle.create().ok();
    assert!(bundle.start().failed().contains("startContainer hook /bin/false"));
}

#[test]
fn a_hook_is_killed_at_its_timeout() {
    let mut bundle = bundle!();
    bundle.config["hooks"] =
        json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]});
    bundle.shell("true");
    let started = std::time::Instant::now();
    assert!(bundle.create().failed().contains("killed after its timeout of 1 s"));
    assert!(started.elapsed().as_secs() < 5);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_missing_hook_is_named_and_poststop_failures_do_not_stop_delete() {
    let mut bundle = bundle!();
    bundle.config["hooks"] = json!({"prestart": [{"path": "/absent/hook"}]});
    bundle.shell("true");
    assert!(bundle.create().failed().contains("/absent/hook"));
    bundle.config["hooks"] = json!({"poststop": [{"path": "/bin/false"}]});
    bundle.create().ok();
    let done = bundle.oci(&["delete", "--force", &bundle.id]);
    assert!(done.code == 0 && done.err.contains("poststop"), "{}", done.err);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}
