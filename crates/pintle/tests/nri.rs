//! NRI plugins at a running daemon: what they are told, what they change, and what their refusal takes back.

#[path = "../../nri/tests/support/mod.rs"]
mod plugin;
mod support;

use std::time::Duration;

use cri::runtime_v1 as v1;
use nri::api;
use plugin::{Answer, Handler, Plugin, with};
use prost::Message;
use support::{Daemon, in_own_network};

async fn connect(daemon: &Daemon, index: &str, handler: Handler) -> Plugin {
    let plugin = Plugin::connect(&daemon.path("nri.sock"), index, "test", handler).await;
    plugin.hears("Synchronize").await;
    plugin
}

fn on(method: &'static str, answer: impl Fn(&[u8]) -> Answer + Send + Sync + 'static) -> Handler {
    Box::new(move |called, payload| (called == method).then(|| answer(payload)))
}

fn quiet() -> Handler {
    Box::new(|_, _| None)
}

/// What was heard of one container, without what validators are asked.
fn heard_of(plugin: &Plugin, id: &str) -> Vec<String> {
    let heard = plugin.heard.lock().unwrap();
    let about = |payload: &[u8]| {
        api::StopContainerRequest::decode(payload)
            .is_ok_and(|request| request.container.is_some_and(|container| container.id == id))
    };
    let of_it = heard.iter().filter(|(method, payload)| {
        !["Configure", "Synchronize", "ValidateContainerAdjustment"].contains(&method.as_str())
            && about(payload)
    });
    of_it.map(|(method, _)| method.clone()).collect()
}

#[test]
fn a_plugin_hears_a_life_from_its_beginning_to_its_end() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let plugin = connect(&daemon, "10", quiet()).await;
        let config = daemon.pod("life");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "exit 3").await;
        daemon.exited(&id).await;
        // Nobody stopped it, and it is told as stopped all the same.
        plugin.hears("StopContainer").await;
        let limits = v1::LinuxContainerResources { memory_limit_in_bytes: 1 << 26, ..Default::default() };
        let update = v1::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(limits),
            ..Default::default()
        };
        daemon.runtime().update_container_resources(update).await.unwrap();
        daemon.remove_container(&id).await.unwrap();
        daemon.stop_pod(&pod).await.unwrap();
        daemon.stop_pod(&pod).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        let life = [
            "CreateContainer",
            "PostCreateContainer",
            "StartContainer",
            "PostStartContainer",
            "StopContainer",
            "UpdateContainer",
            "PostUpdateContainer",
            "RemoveContainer",
        ];
        assert_eq!(heard_of(&plugin, &id), life);
        let pods = plugin.methods().into_iter().filter(|method| method.ends_with("PodSandbox"));
        assert_eq!(pods.collect::<Vec<_>>(), ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]);
        let told = plugin.heard.lock().unwrap();
        let run = told.iter().find(|(method, _)| method == "RunPodSandbox").unwrap();
        let told_pod = api::RunPodSandboxRequest::decode(&run.1[..]).unwrap().pod.unwrap();
        assert_eq!((told_pod.id, told_pod.name, told_pod.ips.len()), (pod, "life".into(), 1));
        let stop = told.iter().find(|(method, _)| method == "StopContainer").unwrap();
        let container = api::StopContainerRequest::decode(&stop.1[..]).unwrap().container.unwrap();
        assert_eq!((container.state(), container.exit_code), (api::ContainerState::ContainerStopped, 3));
        drop(told);
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

/// One of everything that a container shows from inside.
fn adjustment(folder: &std::path::Path) -> api::ContainerAdjustment {
    let number = |value| Some(api::OptionalInt64 { value });
    let hook = api::Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), format!("cat > {}", folder.join("hooked").display())],
        ..Default::default()
    };
    api::ContainerAdjustment {
        env: vec![api::KeyValue { key: "ADDED".into(), value: "by a plugin".into() }],
        annotations: [("plugin.test/a".to_owned(), "b".to_owned())].into(),
        mounts: vec![api::Mount {
            destination: "/from-host".into(),
            source: folder.display().to_string(),
            options: vec!["rbind".into(), "ro".into()],
            ..Default::default()
        }],
        rlimits: vec![api::PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 77, soft: 77 }],
        hooks: Some(api::Hooks { create_runtime: vec![hook], ..Default::default() }),
        linux: Some(api::LinuxContainerAdjustment {
            devices: vec![api::LinuxDevice {
                path: "/dev/nothing".into(),
                r#type: "c".into(),
                major: 1,
                minor: 3,
                ..Default::default()
            }],
            oom_score_adj: Some(api::OptionalInt { value: 345 }),
            resources: Some(api::LinuxResources {
                memory: Some(api::LinuxMemory { limit: number(50 << 20), ..Default::default() }),
                pids: Some(api::LinuxPids { limit: 44 }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn what_plugins_adjust_is_what_the_container_has() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let folder = daemon.path("shared");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("file"), "hello").unwrap();
        let wanted = adjustment(&folder);
        let creates = on("CreateContainer", move |_| {
            with(&api::CreateContainerResponse { adjust: Some(wanted.clone()), ..Default::default() })
        });
        let _plugin = connect(&daemon, "10", creates).await;
        let config = daemon.pod("adjusted");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "sleep 600").await;
        let inside = daemon
            .sh(&id, "cat /from-host/file; echo; tr '\\0' '\\n' < /proc/$(pidof sleep)/environ | grep ADDED; grep 'open files' /proc/$(pidof sleep)/limits; cat /proc/$(pidof sleep)/oom_score_adj; echo x > /dev/nothing && echo written; touch /from-host/y 2>/dev/null || echo readonly")
            .await;
        let lines: Vec<_> =
            inside.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            ["hello", "ADDED=by a plugin", "Max open files 77 77 files", "345", "written", "readonly"]
        );
        let hooked = std::fs::read_to_string(folder.join("hooked")).unwrap();
        assert!(hooked.contains(&id) && hooked.contains("plugin.test/a"), "{hooked}");
        let resources = daemon.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!(resources.memory_limit_in_bytes, 50 << 20);
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn a_refusal_takes_everything_back_and_a_retry_works() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let refusals = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(3));
        let left = refusals.clone();
        let refuses: Handler = Box::new(move |method, _| {
            let first = std::sync::atomic::Ordering::Relaxed;
            let wanted = ["RunPodSandbox", "CreateContainer", "StartContainer"].contains(&method);
            // The first of each is refused.
            let which = ["RunPodSandbox", "CreateContainer", "StartContainer"]
                .iter()
                .position(|name| *name == method);
            let due = which.is_some_and(|which| left.load(first) as usize == 3 - which);
            (wanted && due).then(|| {
                left.fetch_sub(1, first);
                Answer::Refuse(2, "not now")
            })
        });
        let plugin = connect(&daemon, "10", refuses).await;
        let config = daemon.pod("refused");
        let refused = daemon.run_pod(&config).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        assert!(refused.message().contains("NRI plugin 10-test refused RunPodSandbox: not now"), "{refused}");
        plugin.hears("RemovePodSandbox").await;
        let pod = daemon.run_pod(&config).await.unwrap();
        let container = daemon.container("c", "sleep 600");
        let refused = daemon.create(&pod, &config, &container).await.unwrap_err();
        assert!(refused.message().contains("refused CreateContainer: not now"), "{refused}");
        plugin.hears("RemoveContainer").await;
        let id = daemon.create(&pod, &config, &container).await.unwrap();
        let refused = daemon.start_container(&id).await.unwrap_err();
        assert!(refused.message().contains("refused StartContainer: not now"), "{refused}");
        daemon.start_container(&id).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn plugins_change_and_evict_containers_and_come_back_after_a_restart() {
    needs_a_node!();
    in_own_network(async {
        let mut daemon = Daemon::start().await;
        let plugin = connect(&daemon, "10", quiet()).await;
        let config = daemon.pod("changed");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "trap 'exit 5' TERM; while :; do sleep 0.1; done").await;
        let limit =
            api::LinuxMemory { limit: Some(api::OptionalInt64 { value: 40 << 20 }), ..Default::default() };
        let resources = Some(api::LinuxResources { memory: Some(limit), ..Default::default() });
        let update = |id: &str| api::ContainerUpdate {
            container_id: id.into(),
            linux: Some(api::LinuxContainerUpdate { resources: resources.clone() }),
            ignore_failure: false,
        };
        let request = api::UpdateContainersRequest {
            update: vec![update(&id), update("absent")],
            ..Default::default()
        };
        let answer = plugin.ask("UpdateContainers", &request).await.unwrap();
        let failed = api::UpdateContainersResponse::decode(&answer.payload[..]).unwrap().failed;
        assert_eq!(failed.iter().map(|update| update.container_id.as_str()).collect::<Vec<_>>(), ["absent"]);
        let now = daemon.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!(now.memory_limit_in_bytes, 40 << 20);

        daemon.kill();
        plugin.is_over().await;
        daemon.launch().await;
        let plugin = connect(&daemon, "10", quiet()).await;
        let told = plugin.heard.lock().unwrap()[1].1.clone();
        let told = api::SynchronizeRequest::decode(&told[..]).unwrap();
        assert_eq!((told.pods.len(), told.containers.len()), (1, 1));
        let container = &told.containers[0];
        assert_eq!(
            (container.id.as_str(), container.state()),
            (id.as_str(), api::ContainerState::ContainerRunning)
        );
        assert!(container.args.join(" ").contains("exit 5"), "{:?}", container.args);

        let evict = vec![api::ContainerEviction { container_id: id.clone(), reason: "a test".into() }];
        plugin
            .ask("UpdateContainers", &api::UpdateContainersRequest { evict, ..Default::default() })
            .await
            .unwrap();
        assert_eq!(daemon.exited(&id).await.exit_code, 5);
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn no_container_is_lost_or_told_twice_while_plugins_join() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("joining");
        let pod = daemon.run_pod(&config).await.unwrap();
        let making = async {
            let mut ids = Vec::new();
            for number in 0..20 {
                ids.push(
                    daemon
                        .create(&pod, &config, &daemon.container(&format!("c{number}"), "true"))
                        .await
                        .unwrap(),
                );
            }
            ids
        };
        let joining = async {
            let mut plugins = Vec::new();
            for number in 0..10 {
                let slow = on("Synchronize", |_| Answer::Later(Duration::from_millis(10), Vec::new()));
                plugins.push(connect(&daemon, &format!("{number:02}"), slow).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            plugins
        };
        let (ids, plugins) = tokio::join!(making, joining);
        for plugin in &plugins {
            let heard = plugin.heard.lock().unwrap().clone();
            let mut told: Vec<String> = heard
                .iter()
                .flat_map(|(method, payload)| match method.as_str() {
                    "Synchronize" => api::SynchronizeRequest::decode(&payload[..])
                        .unwrap()
                        .containers
                        .into_iter()
                        .map(|container| container.id)
                        .collect(),
                    "CreateContainer" => {
                        vec![api::CreateContainerRequest::decode(&payload[..]).unwrap().container.unwrap().id]
                    }
                    _ => Vec::new(),
                })
                .collect();
            told.sort();
            let mut expected = ids.clone();
            expected.sort();
            assert_eq!(told, expected);
        }
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

/// Builds the plugin that docs/nri.md shows; why not, where that cannot be done here.
fn build_example(folder: &std::path::Path) -> Result<std::path::PathBuf, String> {
    let page = include_str!("../../../docs/nri.md");
    let source = page.split("```go\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let code = folder.join("gift");
    std::fs::create_dir(&code).unwrap();
    std::fs::write(code.join("main.go"), source).unwrap();
    let module = "module gift\n\ngo 1.24\n\nrequire github.com/containerd/nri v0.12.5\n";
    std::fs::write(code.join("go.mod"), module).unwrap();
    let program = folder.join("plugins/10-gift");
    let mut go = std::process::Command::new("go");
    go.args(["build", "-mod=mod", "-o"]).arg(&program).arg(".").current_dir(&code);
    // Nothing is downloaded: what is not in Go's cache is missing.
    go.envs([("GOPROXY", "off"), ("GOSUMDB", "off"), ("CGO_ENABLED", "0"), ("GOFLAGS", "-p=2")]);
    let built = go.output().map_err(|error| format!("needs Go: {error}"))?;
    let said = String::from_utf8_lossy(&built.stderr);
    built.status.success().then_some(program).ok_or(format!("needs github.com/containerd/nri: {said}"))
}

#[test]
fn the_plugin_of_the_documentation_is_started_and_does_what_it_says() {
    needs_a_node!();
    in_own_network(async {
        let mut daemon = Daemon::start().await;
        std::fs::create_dir(daemon.path("plugins")).unwrap();
        if let Err(reason) = build_example(&daemon.path("")) {
            println!("SKIPPED: {}", reason.lines().next().unwrap_or_default());
            return;
        }
        daemon.kill();
        daemon.launch().await;
        assert!(daemon.log().contains("NRI plugin connected plugin=\"10-gift\""), "{}", daemon.log());
        let mut config = daemon.pod("gifted");
        config.annotations.insert("gift.example/for.talker".into(), "hello".into());
        let pod = daemon.run_pod(&config).await.unwrap();
        let gifted = daemon.run(&pod, &config, "talker", "echo $GIFT; ls -l /dev/gift; sleep 600").await;
        let other = daemon.run(&pod, &config, "other", "sleep 600").await;
        assert!(daemon.sh(&gifted, "echo $GIFT; ls -l /dev/gift").await.starts_with("hello\ncrw"));
        assert_eq!(daemon.sh(&other, "echo $GIFT; ls /dev/gift 2>/dev/null || echo none").await, "\nnone\n");
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
