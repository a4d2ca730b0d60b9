//! What the specification has had since 1.0: listeners for seccomp, memory policies, processors of executed processes, and the like.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::bundle::bundle;

#[test]
fn a_seccomp_listener_goes_to_who_asked_with_the_state_and_the_metadata() {
    let mut bundle = bundle!();
    let path = bundle.path().join("agent.sock");
    let agent = UnixListener::bind(&path).unwrap();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "listenerMetadata": "who asks",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    });
    bundle.shell("mkdir /tmp/made || echo refused");
    bundle.create().ok();
    let state = bundle.state();
    bundle.start().ok();
    let (socket, _) = agent.accept().unwrap();
    let mut buffer = [0; 8192];
    let (length, descriptors) = sys::socket::receive(socket.as_fd(), &mut buffer).unwrap();
    let said: Value = serde_json::from_slice(&buffer[..length]).unwrap();
    assert_eq!((&said["fds"], &said["metadata"]), (&json!(["seccompFd"]), &json!("who asks")));
    assert_eq!(
        (&said["pid"], &said["state"]["pid"]),
        (&state["pid"], &state["pid"]),
        "as the runtime sees it"
    );
    assert_eq!((&said["state"]["id"], &said["state"]["status"]), (&state["id"], &json!("creating")));
    assert_eq!(descriptors.len(), 1);
    // Nobody answers any more: the call fails, and the process goes on.
    drop(descriptors);
    bundle.wait_for("stopped");
    assert!(!bundle.rootfs().join("tmp/made").exists());
}

#[test]
fn a_memory_policy_is_the_processs() {
    let mut bundle = bundle!();
    if !std::path::Path::new("/proc/self/numa_maps").exists() {
        println!("SKIPPED: this kernel has no memory policies");
        return;
    }
    bundle.config["linux"]["memoryPolicy"] =
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
    bundle.shell("cat /proc/self/numa_maps");
    let text = bundle.run().ok();
    assert!(text.contains("bind=static:0"), "{text}");
    bundle.shell("sleep 100");
    bundle.config["linux"]["personality"] = json!({"domain": "LINUX32"});
    bundle.create().ok();
    bundle.start().ok();
    let text = bundle.exec(&["sh", "-c", "cat /proc/self/numa_maps; cat /proc/self/personality"]).ok();
    assert!(
        text.contains("bind=static:0") && text.contains("00000008"),
        "executed processes are no others: {text}"
    );
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
    bundle.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "1000"});
    assert!(bundle.create().failed().contains("memoryPolicy"));
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn an_executed_process_runs_on_the_processors_that_are_named() {
    let mut bundle = bundle!();
    bundle.shell("sleep 100");
    bundle.create().ok();
    bundle.start().ok();
    let file = bundle.path().join("process.json");
    let mut process = json!({
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"], "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
        "execCPUAffinity": {"initial": "0", "final": "0"},
    });
    let run = |process: &Value| {
        std::fs::write(&file, process.to_string()).unwrap();
        bundle.oci(&["exec", "--process", file.to_str().unwrap(), &bundle.id])
    };
    assert!(run(&process).ok().trim().ends_with("\t0"));
    for bad in ["", "x", "1-0", "99999"] {
        process["execCPUAffinity"]["final"] = bad.into();
        assert!(run(&process).failed().contains("execCPUAffinity"), "{bad:?}");
    }
}

#[test]
fn the_domain_is_named_and_a_mount_changes_what_is_there() {
    let mut bundle = bundle!();
    bundle.config["domainname"] = "example.org".into();
    bundle.mount(json!({"destination": "/dev/shm", "type": "none", "options": ["remount", "ro", "noexec"]}));
    bundle.shell("cat /proc/sys/kernel/domainname; touch /dev/shm/x || echo refused; grep -c ' /dev/shm ' /proc/self/mountinfo");
    assert_eq!(bundle.run().ok(), "example.org\nrefused\n1\n");
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "uts");
    bundle.config.as_object_mut().unwrap().remove("hostname");
    assert!(bundle.create().failed().contains("domainname: needs a uts namespace"));
}

#[test]
fn hooks_run_in_the_namespaces_that_the_specification_names() {
    let mut bundle = bundle!();
    let script = |place: &std::path::Path, file: &str, to: &str| {
        let text =
            format!("#!/bin/sh\nreadlink /proc/self/ns/mnt > {to}\nreadlink /proc/self/ns/uts >> {to}\n");
        let path = place.join(file);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let outside = bundle.path().to_path_buf();
    let mut hooks = json!({});
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let path = script(&outside, kind, outside.join(format!("{kind}.said")).to_str().unwrap());
        hooks[kind] = json!([{"path": path}]);
    }
    // This one's path is the container's, and it sees what the command will see.
    script(&bundle.rootfs().join("bin"), "startContainer", "/tmp/startContainer.said");
    hooks["startContainer"] = json!([{"path": "/bin/startContainer", "env": ["PATH=/bin"]}]);
    bundle.config["hooks"] = hooks;
    bundle.shell("readlink /proc/self/ns/mnt; readlink /proc/self/ns/uts");
    let container = bundle.run().ok();
    let said = |path: std::path::PathBuf| {
        std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()))
    };
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let host = format!("{}\n{}\n", own("mnt"), own("uts"));
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        assert_eq!(said(outside.join(format!("{kind}.said"))), host, "{kind}");
    }
    assert_eq!(said(outside.join("createContainer.said")), container);
    assert_eq!(said(bundle.rootfs().join("tmp/startContainer.said")), container);
}
