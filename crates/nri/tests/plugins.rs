//! Plugins over real sockets: well-behaved ones, slow ones, dead ones, and what was never a plugin.

mod support;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nri::api::{self, Container, Event, PodSandbox};
use nri::{Config, Inventory, Later, Nri, Refusal, Wishes};
use prost::Message;
use support::{Answer, Handler, Plugin, eventually, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// A node with what it is given, which remembers what plugins want of it.
#[derive(Default)]
struct FakeNode {
    pods: Mutex<Vec<PodSandbox>>,
    containers: Mutex<Vec<Container>>,
    wishes: Mutex<Vec<Wishes>>,
}

impl nri::Runtime for FakeNode {
    fn inventory(&self) -> Later<'_, Inventory> {
        Box::pin(async {
            Inventory {
                pods: self.pods.lock().unwrap().clone(),
                containers: self.containers.lock().unwrap().clone(),
            }
        })
    }

    fn change(&self, wishes: Wishes) -> Later<'_, Vec<api::ContainerUpdate>> {
        Box::pin(async {
            let failed =
                wishes.updates.iter().filter(|update| update.container_id == "absent").cloned().collect();
            self.wishes.lock().unwrap().push(wishes);
            failed
        })
    }
}

struct World {
    folder: tempfile::TempDir,
    nri: Nri,
    node: Arc<FakeNode>,
}

impl World {
    async fn new() -> World {
        World::with(|_| {}).await
    }

    async fn with(prepare: impl FnOnce(&Path)) -> World {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let nri = Nri::new(Config {
            socket: folder.path().join("run/nri.sock"),
            plugin_dir: folder.path().join("plugins"),
            config_dir: folder.path().join("conf.d"),
            registration_timeout: Duration::from_millis(600),
            request_timeout: Duration::from_millis(300),
            runtime_name: "test".into(),
            runtime_version: "1".into(),
        });
        let node = Arc::new(FakeNode::default());
        nri.start(node.clone()).await.unwrap();
        World { folder, nri, node }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/nri.sock")
    }

    async fn plugin(&self, index: &str, name: &str, handler: Handler) -> Plugin {
        Plugin::connect(&self.socket(), index, name, handler).await
    }

    /// One that has been let in.
    async fn member(&self, index: &str, name: &str, handler: Handler) -> Plugin {
        let plugin = self.plugin(index, name, handler).await;
        plugin.hears("Synchronize").await;
        // Who can get a pass after that finds the plugin in.
        drop(self.nri.enter().await);
        plugin
    }
}

fn quiet() -> Handler {
    Box::new(|_, _| None)
}

fn on(method: &'static str, answer: impl Fn(&[u8]) -> Answer + Send + Sync + 'static) -> Handler {
    Box::new(move |called, payload| (called == method).then(|| answer(payload)))
}

fn pod() -> PodSandbox {
    PodSandbox { id: "pod".into(), ..PodSandbox::default() }
}

fn container() -> Container {
    Container { id: "new".into(), env: vec!["A=1".into()], ..Container::default() }
}

fn adds_env(key: &'static str) -> Handler {
    on("CreateContainer", move |payload| {
        let seen = api::CreateContainerRequest::decode(payload).unwrap().container.unwrap().env.join(" ");
        let env = vec![api::KeyValue { key: key.into(), value: seen }];
        let adjust = Some(api::ContainerAdjustment { env, ..Default::default() });
        with(&api::CreateContainerResponse { adjust, ..Default::default() })
    })
}

#[tokio::test]
async fn plugins_are_asked_in_their_order_and_see_each_other() {
    let world = World::new().await;
    world.node.pods.lock().unwrap().push(pod());
    let late = world.member("20", "late", adds_env("SECOND")).await;
    let early = world.member("10", "early", adds_env("FIRST")).await;
    assert_eq!(early.methods(), ["Configure", "Synchronize"]);
    let configured = api::ConfigureRequest::decode(&early.heard.lock().unwrap()[0].1[..]).unwrap();
    assert_eq!((configured.runtime_name.as_str(), configured.request_timeout), ("test", 300));
    let told = api::SynchronizeRequest::decode(&early.heard.lock().unwrap()[1].1[..]).unwrap();
    assert_eq!((told.pods, told.more), (vec![pod()], false));

    let pass = world.nri.enter().await;
    pass.run_pod(&pod()).await.unwrap();
    let made = pass.create_container(&pod(), container()).await.unwrap();
    let env: Vec<_> = made.adjust.env.iter().map(|e| format!("{}={}", e.key, e.value)).collect();
    assert_eq!(env, ["FIRST=A=1", "SECOND=A=1 FIRST=A=1"]);
    pass.post_create(&pod(), &container()).await;
    pass.start_container(&pod(), &container()).await.unwrap();
    pass.post_start(&pod(), &container()).await;
    pass.stop_container(&pod(), &container()).await;
    pass.remove_container(&pod(), &container()).await;
    pass.stop_pod(&pod()).await;
    pass.remove_pod(&pod()).await;
    let expected = [
        "Configure",
        "Synchronize",
        "RunPodSandbox",
        "CreateContainer",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    // Every one of them is a validator too, as it did not say what it wants to hear.
    let heard = |plugin: &Plugin| {
        plugin.methods().into_iter().filter(|m| m != "ValidateContainerAdjustment").collect::<Vec<_>>()
    };
    assert_eq!(heard(&early), expected);
    assert_eq!(heard(&late), expected);
}

#[tokio::test]
async fn who_contradicts_another_fails_the_request_by_name() {
    let world = World::new().await;
    let _one = world.member("10", "one", adds_env("X")).await;
    let _two = world.member("20", "two", adds_env("X")).await;
    let refusal = world.nri.enter().await.create_container(&pod(), container()).await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Conflict { plugin, other, .. } if plugin == "20-two" && other == "10-one"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_refusal_is_the_requests_and_costs_the_plugin_nothing() {
    let world = World::new().await;
    let plugin = world.member("10", "no", on("RunPodSandbox", |_| Answer::Refuse(2, "not on my node"))).await;
    for _ in 0..2 {
        let refusal = world.nri.enter().await.run_pod(&pod()).await.unwrap_err();
        assert_eq!(refusal.to_string(), "NRI plugin 10-no refused RunPodSandbox: not on my node");
    }
    assert_eq!(plugin.methods().iter().filter(|method| *method == "RunPodSandbox").count(), 2);
}

#[tokio::test]
async fn a_plugin_hears_what_it_subscribed_to() {
    let world = World::new().await;
    let events = (1 << (Event::StopContainer as i32 - 1)) | (1 << (Event::RunPodSandbox as i32 - 1));
    let wants = on("Configure", move |_| with(&api::ConfigureResponse { events, ..Default::default() }));
    let plugin = world.member("10", "some", wants).await;
    let pass = world.nri.enter().await;
    assert!(pass.wants(Event::RunPodSandbox) && !pass.wants(Event::CreateContainer));
    pass.create_container(&pod(), container()).await.unwrap();
    pass.stop_container(&pod(), &container()).await;
    assert_eq!(plugin.methods(), ["Configure", "Synchronize", "StopContainer"]);
    drop(pass);

    let all = on("Configure", |_| with(&api::ConfigureResponse { events: 1 << 30, ..Default::default() }));
    world.plugin("20", "greedy", all).await.is_over().await;
}

#[tokio::test]
async fn a_plugin_that_hangs_is_dropped_and_the_request_goes_on() {
    let world = World::new().await;
    let slow = world.member("10", "slow", on("RunPodSandbox", |_| Answer::Never)).await;
    let dying = world.member("20", "dying", on("RunPodSandbox", |_| Answer::HangUp)).await;
    let fine = world.member("30", "fine", quiet()).await;
    let begun = Instant::now();
    world.nri.enter().await.run_pod(&pod()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    slow.is_over().await;
    dying.is_over().await;
    fine.hears("RunPodSandbox").await;
    world.nri.enter().await.run_pod(&pod()).await.unwrap();
    assert_eq!(slow.methods().iter().filter(|method| *method == "RunPodSandbox").count(), 1);
}

#[tokio::test]
async fn a_plugin_may_say_that_nothing_goes_without_it() {
    let world = World::new().await;
    let strict: Handler = Box::new(|method, _| match method {
        "Configure" => Some(with(&api::ConfigureResponse {
            failure_policy: Some(api::FailurePolicy { fail_request: true, keep_connected: true }),
            ..Default::default()
        })),
        "RunPodSandbox" => Some(Answer::Never),
        _ => None,
    });
    let plugin = world.member("10", "strict", strict).await;
    let refusal = world.nri.enter().await.run_pod(&pod()).await.unwrap_err();
    assert!(matches!(&refusal, Refusal::Failed { plugin, .. } if plugin == "10-strict"), "{refusal}");
    // It is still there, and answers other things.
    world.nri.enter().await.stop_pod(&pod()).await;
    plugin.hears("StopPodSandbox").await;
}

#[tokio::test]
async fn an_old_plugin_is_told_in_the_old_words() {
    let world = World::new().await;
    let old: Handler = Box::new(|method, _| match method {
        "Configure" | "Synchronize" | "StateChange" => None,
        _ => Some(Answer::Refuse(12, "unimplemented")),
    });
    let plugin = world.member("10", "old", old).await;
    let pass = world.nri.enter().await;
    pass.run_pod(&pod()).await.unwrap();
    pass.run_pod(&pod()).await.unwrap();
    assert_eq!(plugin.methods()[2..], ["RunPodSandbox", "StateChange", "StateChange"]);
    let told = api::StateChangeEvent::decode(&plugin.heard.lock().unwrap()[3].1[..]).unwrap();
    assert_eq!((told.event(), told.pod), (Event::RunPodSandbox, Some(pod())));
}

#[tokio::test]
async fn a_validator_has_the_last_word() {
    let world = World::new().await;
    let _adjusts = world.member("10", "adjusts", adds_env("SECRET")).await;
    let validator = on("ValidateContainerAdjustment", |payload| {
        let request = api::ValidateContainerAdjustmentRequest::decode(payload).unwrap();
        let owners = &request.owners.unwrap().owners["new"].compound[&(api::Field::Env as i32)].owners;
        assert_eq!(owners["SECRET"], "10-adjusts");
        assert_eq!(request.container.unwrap().env, ["A=1"]);
        let reason = format!("{} adjusts", request.plugins[0].name);
        with(&api::ValidateContainerAdjustmentResponse { reject: true, reason })
    });
    let _validator = world.member("90", "validator", validator).await;
    let refusal = world.nri.enter().await.create_container(&pod(), container()).await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Rejected { plugin, why, .. } if plugin == "90-validator" && why == "adjusts adjusts"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_plugin_that_joins_keeps_things_as_they_are_and_not_for_long() {
    let world = World::new().await;
    let pass = world.nri.enter().await;
    let synchronizing = on("Synchronize", |_| Answer::Later(Duration::from_millis(200), Vec::new()));
    let joining = world.plugin("10", "joining", synchronizing).await;
    joining.hears("Configure").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Something is being made: it is not yet told of anything.
    assert_eq!(joining.methods(), ["Configure"]);
    world.node.containers.lock().unwrap().push(container());
    drop(pass);
    joining.hears("Synchronize").await;
    let told = api::SynchronizeRequest::decode(&joining.heard.lock().unwrap()[1].1[..]).unwrap();
    assert_eq!(told.containers, [container()]);
    let pass = world.nri.enter().await;
    assert!(pass.wants(Event::CreateContainer), "whoever waited finds the plugin in");
    drop(pass);

    // One that never answers is given up, and cannot do it again at once.
    let stuck = world.plugin("20", "stuck", on("Synchronize", |_| Answer::Never)).await;
    stuck.hears("Synchronize").await;
    let begun = Instant::now();
    drop(world.nri.enter().await);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    stuck.is_over().await;
    let again = world.plugin("20", "stuck", on("Synchronize", |_| Answer::Never)).await;
    again.is_over().await;
    assert!(again.methods().is_empty());
}

#[tokio::test]
async fn a_large_node_is_told_in_pieces() {
    let world = World::new().await;
    let large = |id: String| Container { id, env: vec!["x".repeat(1 << 20)], ..Container::default() };
    world.node.containers.lock().unwrap().extend((0..9).map(|n| large(n.to_string())));
    let takes_pieces = on("Synchronize", |payload| {
        let request = api::SynchronizeRequest::decode(payload).unwrap();
        with(&api::SynchronizeResponse { more: request.more, ..Default::default() })
    });
    let plugin = world.member("10", "pieces", takes_pieces).await;
    eventually("nine containers", || {
        let heard = plugin.heard.lock().unwrap();
        let pieces = heard.iter().filter(|(method, _)| method == "Synchronize");
        let ids =
            pieces.flat_map(|(_, payload)| api::SynchronizeRequest::decode(&payload[..]).unwrap().containers);
        ids.map(|container| container.id).eq((0..9).map(|n| n.to_string()))
    })
    .await;
    let whole = world.plugin("20", "whole", quiet()).await;
    whole.is_over().await;
}

#[tokio::test]
async fn a_plugin_asks_for_updates_and_evictions() {
    let world = World::new().await;
    let plugin = world.member("10", "asks", quiet()).await;
    let update = |id: &str| api::ContainerUpdate { container_id: id.into(), ..Default::default() };
    let request = api::UpdateContainersRequest {
        update: vec![update("there"), update("absent")],
        evict: vec![api::ContainerEviction { container_id: "there".into(), reason: "because".into() }],
    };
    let answer = plugin.ask("UpdateContainers", &request).await.unwrap();
    let failed = api::UpdateContainersResponse::decode(&answer.payload[..]).unwrap().failed;
    assert_eq!(failed, [update("absent")]);
    let wishes = std::mem::take(&mut *world.node.wishes.lock().unwrap());
    assert_eq!((wishes[0].updates.len(), wishes[0].evictions[0].reason.as_str()), (2, "because"));
    assert_eq!(plugin.ask("Nonsense", &request).await.unwrap().status.unwrap().code, 12);
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let world = World::new().await;
    for (index, name) in [("1", "a"), ("xx", "a"), ("10", ""), ("10", "a b"), ("10", "../x")] {
        let plugin = world.plugin(index, name, quiet()).await;
        plugin.is_over().await;
        assert!(plugin.methods().is_empty(), "{index}-{name}");
    }
}

#[tokio::test]
async fn what_is_no_plugin_harms_nobody() {
    let world = World::new().await;
    let fine = world.member("50", "fine", quiet()).await;
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        // A frame of four gigabytes, and one whose message is none.
        &[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0xff, 0xff],
        // An answer to nothing.
        &[0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0],
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(world.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{bytes:?} is still connected");
    }
    // More connections than there are places, none of which says anything.
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.extend(UnixStream::connect(world.socket()).await);
    }
    world.nri.enter().await.run_pod(&pod()).await.unwrap();
    fine.hears("RunPodSandbox").await;
    drop(idle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let after = world.member("60", "after", quiet()).await;
    after.hears("Synchronize").await;
}

#[tokio::test]
async fn a_flood_of_calls_is_refused_and_the_rest_goes_on() {
    let world = World::new().await;
    let plugin = Arc::new(world.member("10", "flood", quiet()).await);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let plugin = plugin.clone();
        calls.spawn(async move {
            let answer = plugin.ask("UpdateContainers", &api::UpdateContainersRequest::default()).await;
            answer.unwrap().status.map_or(0, |status| status.code)
        });
    }
    let codes = calls.join_all().await;
    assert!(codes.iter().all(|code| *code == 0 || *code == 8) && codes.contains(&0), "{codes:?}");
    world.nri.enter().await.run_pod(&pod()).await.unwrap();
    plugin.hears("RunPodSandbox").await;
}

#[tokio::test]
async fn installed_programs_are_started_and_given_up_where_they_are_no_plugins() {
    use std::os::unix::fs::PermissionsExt;
    let begun = Instant::now();
    let world = World::with(|folder| {
        let plugins = folder.join("plugins");
        std::fs::create_dir(&plugins).unwrap();
        let script = format!(
            "#!/bin/sh\necho \"$NRI_PLUGIN_IDX $NRI_PLUGIN_NAME $NRI_PLUGIN_SOCKET\" > {}\nexec sleep 60\n",
            folder.join("said").display()
        );
        for (name, mode) in [("10-mute", 0o755), ("badname", 0o755), ("20-notexecutable", 0o644)] {
            std::fs::write(plugins.join(name), &script).unwrap();
            std::fs::set_permissions(plugins.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    let said = || std::fs::read_to_string(world.folder.path().join("said")).unwrap_or_default();
    eventually("the program", || said() == "10 mute 0\n").await;
}

#[tokio::test]
async fn the_socket_is_roots_and_of_one_runtime() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&world.socket()), mode(world.socket().parent().unwrap())), (0o600, 0o700));
    let second = Nri::new(Config {
        socket: world.socket(),
        plugin_dir: world.folder.path().join("none"),
        config_dir: world.folder.path().join("none"),
        registration_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
        runtime_name: "other".into(),
        runtime_version: "1".into(),
    });
    let error = second.start(Arc::new(FakeNode::default())).await.unwrap_err();
    assert!(error.to_string().contains("somebody else"), "{error}");
    let plugin = world.member("10", "polite", quiet()).await;
    world.nri.close().await;
    plugin.hears("Shutdown").await;
    plugin.is_over().await;
    assert!(!world.socket().exists());
}
