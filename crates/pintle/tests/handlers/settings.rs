//! What else a handler says of its pods: annotations, a base spec, devices, networks; and what is told of it.

use cri::runtime_v1 as v1;
use tonic::Code;

use crate::needs_a_node;
use crate::support;
use crate::{daemon_with, info, run_pod, runtimes};

fn privileged(daemon: &support::Daemon, name: &str) -> v1::PodSandboxConfig {
    let mut config = daemon.pod(name);
    let context = v1::LinuxSandboxSecurityContext { privileged: true, ..Default::default() };
    config.linux.get_or_insert_default().security_context = Some(context);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_shapes_the_specs_of_its_pods() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.json");
    std::fs::write(&base, r#"{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":333,"soft":333}]}}"#)
        .unwrap();
    for (handler, config) in runtimes() {
        let more = format!(
            "pod_annotations = ['dev.example.*']\ncontainer_annotations = ['io.example/one']\nbase_spec = {base:?}\n\
             privileged = 'without-host-devices'\n[runtimes.strict]\nprivileged = 'refuse'\n"
        );
        let daemon = daemon_with(&(config + &more)).await;
        let mut sandbox = privileged(&daemon, "shaped");
        let note = |key: &str| (key.to_owned(), "--evil; rm -rf /".to_owned());
        sandbox.annotations = [note("dev.example.x"), note("dev.other.y")].into();
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let mut asked = daemon.container("one", "exec sleep 1000");
        asked.annotations = [note("io.example/one"), note("io.example/two")].into();
        let context = v1::LinuxContainerSecurityContext { privileged: true, ..Default::default() };
        asked.linux.get_or_insert_default().security_context = Some(context);
        let id = daemon.create(&pod, &sandbox, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        let spec = info(&daemon, &id).await["runtimeSpec"].clone();
        let annotations = spec["annotations"].as_object().unwrap();
        let passed: Vec<_> =
            annotations.keys().filter(|key| !key.starts_with("io.kubernetes.cri.")).collect();
        assert_eq!(passed, ["dev.example.x", "io.example/one"]);
        assert_eq!(daemon.sh(&id, "ulimit -n").await, "333\n");
        // The host's loop devices are not there, and what every container has is.
        assert_eq!(
            daemon.sh(&id, "ls /dev | grep -c loop || true; echo > /dev/null && echo fine").await,
            "0\nfine\n"
        );
        let refused = run_pod(&daemon, &privileged(&daemon, "strict"), "strict").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("[runtimes.strict]"), "{refused}");
        std::fs::write(&base, "{").unwrap();
        let refused = daemon.create(&pod, &sandbox, &daemon.container("two", "true")).await.unwrap_err();
        assert!(refused.message().contains("base.json: it is no OCI spec"), "{refused}");
        std::fs::write(&base, r#"{"process":{"rlimits":[{"type":"RLIMIT_NOFILE","hard":333,"soft":333}]}}"#)
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_can_do_is_what_its_program_says() {
    needs_a_node!();
    let all = runtimes();
    let config: String = all.iter().map(|(_, config)| config.as_str()).collect();
    let none =
        "[runtimes.none]\nkind = 'oci'\npath = '/bin/false'\n[runtimes.plain]\nprivileged = 'refuse'\n";
    let daemon = daemon_with(&format!("{config}{none}")).await;
    let status = daemon.runtime().status(v1::StatusRequest::default()).await.unwrap().into_inner();
    let features = |name: &str| {
        let found = status.runtime_handlers.iter().find(|handler| handler.name == name);
        let features = found.unwrap_or_else(|| panic!("no handler {name:?}")).features.unwrap();
        (features.recursive_read_only_mounts, features.user_namespaces)
    };
    let builtin = features("");
    assert!(builtin.0);
    assert_eq!(features("plain"), builtin);
    assert_eq!(features("none"), (false, false));
    assert_eq!(features("own"), builtin, "the same program, asked by its command line");
    if all.iter().any(|(name, _)| *name == "runc") {
        let said = std::process::Command::new("runc").arg("features").output().unwrap().stdout;
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        let rro = said["mountOptions"].as_array().unwrap().iter().any(|option| option == "rro");
        let maps = said["linux"]["mountExtensions"]["idmap"]["enabled"].as_bool().unwrap_or(false);
        assert_eq!(features("runc"), (rro, maps && builtin.1));
    }
    // What it cannot do is refused, and not left out.
    let mut users = daemon.pod("users");
    let map = || vec![v1::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
    let options = v1::NamespaceOption {
        userns_options: Some(v1::UserNamespace {
            mode: v1::NamespaceMode::Pod.into(),
            uids: map(),
            gids: map(),
        }),
        ..Default::default()
    };
    users.linux.get_or_insert_default().security_context.get_or_insert_default().namespace_options =
        Some(options);
    let refused = run_pod(&daemon, &users, "none").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("pods with users of their own"), "{refused}");
    let sandbox = daemon.pod("rro");
    let pod = run_pod(&daemon, &sandbox, "none").await.unwrap();
    let mut asked = daemon.container("one", "true");
    asked.mounts = vec![v1::Mount {
        container_path: "/there".into(),
        host_path: "/tmp".into(),
        readonly: true,
        recursive_read_only: true,
        ..Default::default()
    }];
    let refused = daemon.create(&pod, &sandbox, &asked).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("RROUnsupported: "), "{refused}");
    let mut raw = daemon.container("raw", "true");
    raw.envs = vec![v1::KeyValue { key: "RAW".into(), value: vec![0xff, 0xfe] }];
    let refused = daemon.create(&pod, &sandbox, &raw).await.unwrap_err();
    assert!(refused.code() == Code::FailedPrecondition && refused.message().contains("\"RAW\""), "{refused}");
}

/// A pod that names no handler is run by the default one, and stays what it is when that changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_handler_runs_pods_that_name_none() {
    needs_a_node!();
    let (name, config) = runtimes().pop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("net.d");
    std::fs::create_dir(&other).unwrap();
    let list = r#"{"cniVersion":"1.0.0","name":"lo-only","plugins":[{"type":"no-such-plugin"}]}"#;
    std::fs::write(other.join("1.conflist"), list).unwrap();
    let config = format!(
        "[runtime]\ndefault_handler = {name:?}\n{config}[runtimes.apart]\ncni_conf_dir = {other:?}\n"
    );
    let mut daemon = daemon_with(&config).await;
    let sandbox = daemon.pod("plain");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    assert_eq!(daemon.pods().await[0].runtime_handler, "");
    let id = daemon.run(&pod, &sandbox, "one", "exec sleep 1000").await;
    let root = info(&daemon, &id).await["runtimeSpec"]["root"]["path"].as_str().unwrap().to_owned();
    assert!(root.contains("/roots/"), "{root}");
    // A handler's own networks are used, and only for its pods.
    let refused = run_pod(&daemon, &daemon.pod("apart"), "apart").await.unwrap_err();
    assert!(refused.message().contains("no-such-plugin"), "{refused}");
    // A checkpoint is not made of what this runtime does not run.
    let request = v1::CheckpointContainerRequest {
        container_id: id.clone(),
        location: folder.path().join("c.tar").display().to_string(),
        timeout: 5,
    };
    let refused = daemon.runtime().checkpoint_container(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("built-in runtime only"), "{refused}");
    // Without its handler the pod goes on, and gets no further containers.
    daemon.kill();
    let file = daemon.path("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        text.replace(&format!("default_handler = {name:?}"), "")
            .replace(&format!("[runtimes.{name}]"), "[runtimes.renamed]"),
    )
    .unwrap();
    daemon.launch().await;
    assert_eq!(daemon.sh(&id, "echo there").await, "there\n");
    let refused = daemon.create(&pod, &sandbox, &daemon.container("two", "true")).await.unwrap_err();
    assert!(refused.message().contains("is not configured any more"), "{refused}");
    daemon.stop_container(&id, 0).await.unwrap();
    daemon.remove_pod(&pod).await.unwrap();
    assert_eq!(daemon.remains(), [""; 0]);
}
