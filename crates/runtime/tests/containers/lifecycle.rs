//! From create to delete, and what is refused in which state.

use crate::bundle::bundle;

#[test]
fn a_container_lives_through_all_its_states() {
    let mut bundle = bundle!();
    bundle.shell("echo hello; exec sleep 100");
    bundle.create().ok();
    let state = bundle.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], bundle.id.as_str());
    assert!(bundle.oci(&["list", "-q"]).ok().contains(&bundle.id));
    assert!(bundle.create().failed().contains("container with given ID already exists"));
    bundle.start().ok();
    assert_eq!(bundle.state()["status"], "running");
    assert!(bundle.start().failed().contains("cannot start an already running container"));
    assert!(bundle.oci(&["delete", &bundle.id]).failed().contains("kill it first"));
    assert!(bundle.oci(&["ps", &bundle.id]).ok().contains("sleep 100"));
    bundle.oci(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.state()["status"], "paused");
    assert!(bundle.exec(&["true"]).failed().contains("cannot exec in a paused container"));
    bundle.oci(&["resume", &bundle.id]).ok();
    bundle.oci(&["update", "--pids-limit", "77", &bundle.id]).ok();
    assert_eq!(bundle.exec(&["true"]).code, 0);
    bundle.oci(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_for("stopped");
    assert!(bundle.oci(&["kill", &bundle.id, "KILL"]).failed().contains("container not running"));
    assert!(bundle.exec(&["true"]).failed().contains("cannot exec in a stopped container"));
    assert!(bundle.start().failed().contains("cannot start a container that has stopped"));
    bundle.oci(&["delete", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
    assert!(bundle.oci(&["state", &bundle.id]).failed().contains("container does not exist"));
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn run_gives_the_exit_code_and_leaves_nothing() {
    let mut bundle = bundle!();
    bundle.shell("echo out; echo err >&2; exit 42");
    let done = bundle.run();
    assert_eq!((done.code, done.text().as_str(), done.err.as_str()), (42, "out\n", "err\n"));
    bundle.shell("kill -9 $$; sleep 1");
    assert_eq!(bundle.run().code, 0, "init of a pid namespace ignores its own SIGKILL");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_paused_container_is_killed_and_deleted_by_force() {
    let mut bundle = bundle!();
    bundle.shell("sleep 100 & sleep 100");
    bundle.create().ok();
    bundle.start().ok();
    bundle.oci(&["pause", &bundle.id]).ok();
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn processes_of_a_shared_pid_namespace_end_with_the_container() {
    let mut bundle = bundle!();
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let marker = format!("100{}", std::process::id());
    bundle.shell(&format!("sleep {marker} & exit 3"));
    let done = bundle.run();
    assert_eq!(done.code, 3, "{}", done.err);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
    let alive = std::fs::read_dir("/proc").unwrap().any(|entry| {
        let line = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        line == format!("sleep\0{marker}\0").into_bytes()
    });
    assert!(!alive);
}

#[test]
fn ids_cannot_lead_out_of_the_state_directory() {
    let bundle = bundle!();
    bundle.save();
    let long = "x".repeat(300);
    for id in ["..", "../x", "a/b", ".hidden", "a b", "é", &long] {
        assert!(bundle.oci(&["create", id]).failed().contains("is not valid"), "{id}");
        assert!(bundle.oci(&["delete", id]).failed().contains("is not valid"), "{id}");
    }
    assert!(!bundle.path().join("x").exists());
}

#[test]
fn what_an_interrupted_create_left_does_not_block_the_next() {
    let mut bundle = bundle!();
    bundle.shell("true");
    let folder = bundle.states().join(&bundle.id);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("start.sock"), "").unwrap();
    std::fs::write(folder.join("config-of-the-caller"), "").unwrap();
    bundle.run().ok();
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["config-of-the-caller"]);
}

#[test]
fn logs_are_lines_that_an_engine_can_read() {
    let bundle = bundle!();
    let log = bundle.path().join("log.json");
    let done = bundle.oci(&["--log", log.to_str().unwrap(), "--log-format", "json", "start", "absent"]);
    assert_eq!(done.code, 1);
    let line: serde_json::Value = serde_json::from_str(std::fs::read_to_string(log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("container does not exist: \"absent\""));
    assert!(bundle.oci(&["features"]).ok().contains("ociVersionMax"));
    assert!(bundle.oci(&["--version"]).ok().contains("spec: 1."));
    assert!(bundle.oci(&["nonsense"]).failed().contains("no command"));
}

#[test]
fn a_fork_creates_on_a_detached_overlay_and_start_is_polled_for() {
    // The way of the shim, by the library: the example forks, hands over a detached overlay, and starts with and without waiting.
    let mut bundle = bundle!();
    bundle.shell("test $(id -u) = 0 && echo x > /written");
    bundle.config["linux"]["cgroupsPath"] = "".into();
    bundle.save();
    let mut command = std::process::Command::new(crate::bundle::oci().with_file_name("bench"));
    command.arg(bundle.path()).arg(bundle.states()).args(["4", "overlay"]);
    assert!(bundle.to_end(command).ok().contains("create+start"));
    assert!(bundle.path().join("upper/written").exists() && !bundle.rootfs().join("written").exists());
    assert_eq!(std::fs::read_dir(bundle.states()).unwrap().count(), 0);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}
