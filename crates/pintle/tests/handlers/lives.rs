//! The lives of containers that a real OCI runtime runs, which are those of containers that Pintle runs itself.

use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use tokio::io::AsyncWriteExt;

use crate::needs_a_node;
use crate::support::{self, Daemon};
use crate::{daemon_with, info, run_pod, runtimes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_lives_and_leaves_nothing() {
    needs_a_node!();
    for (handler, config) in runtimes() {
        let daemon = daemon_with(&config).await;
        // What is made once and stays is made.
        let first = run_pod(&daemon, &daemon.pod("first"), handler).await.unwrap();
        daemon.remove_pod(&first).await.unwrap();
        std::fs::remove_dir_all(daemon.path("logs")).unwrap();
        let before = daemon.inventory().await;
        let sandbox = daemon.pod("life");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        assert_eq!(daemon.pods().await[0].runtime_handler, handler);
        one_life(&daemon, &pod, &sandbox).await;
        ends(&daemon, &pod, &sandbox).await;
        daemon.stop_pod(&pod).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        std::fs::remove_dir_all(daemon.path("logs")).unwrap();
        assert_eq!(daemon.changed_since(&before, handler).await, None);
    }
}

/// Streams, commands, limits and figures of a running container.
async fn one_life(daemon: &Daemon, pod: &str, sandbox: &v1::PodSandboxConfig) {
    let mut asked =
        daemon.container("one", "echo out; echo err >&2; trap 'exit 7' TERM; while :; do sleep 0.1; done");
    asked.envs = vec![v1::KeyValue { key: "SAID".into(), value: b"yes".to_vec() }];
    let limits = v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    asked.linux.get_or_insert_default().resources = Some(limits);
    let one = daemon.create(pod, sandbox, &asked).await.unwrap();
    assert_eq!(daemon.status(&one).await.unwrap().state(), v1::ContainerState::ContainerCreated);
    daemon.start_container(&one).await.unwrap();
    assert_eq!(daemon.sh(&one, "echo $SAID; cat /etc/hostname").await.lines().next(), Some("yes"));
    let failed = daemon.exec(&one, &["sh", "-c", "echo no >&2; exit 3"], 10).await.unwrap();
    assert_eq!((failed.exit_code, &failed.stderr[..]), (3, &b"no\n"[..]));
    let missing = daemon.exec(&one, &["no-such-command"], 10).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::FailedPrecondition, "{missing}");
    assert!(missing.message().contains("no-such-command"), "{missing}");
    let slow = daemon.exec(&one, &["sleep", "100"], 1).await.unwrap_err();
    assert_eq!(slow.code(), tonic::Code::DeadlineExceeded, "{slow}");
    let change = v1::UpdateContainerResourcesRequest {
        container_id: one.clone(),
        linux: Some(v1::LinuxContainerResources { memory_limit_in_bytes: 48 << 20, ..Default::default() }),
        ..Default::default()
    };
    daemon.runtime().update_container_resources(change).await.unwrap();
    let limit = limit_of(info(daemon, &one).await["pid"].as_i64().unwrap());
    assert_eq!(limit, 48 << 20);
    let stats = v1::ContainerStatsRequest { container_id: one.clone() };
    let stats = daemon.runtime().container_stats(stats).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    daemon.stop_container(&one, 10).await.unwrap();
    let status = daemon.exited(&one).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    // What a foreign shim copies from two streams arrives in any order.
    let log = daemon.log_of("life", "one");
    assert!(log == "out\nerr\n" || log == "err\nout\n", "{log}");
    daemon.remove_container(&one).await.unwrap();
}

/// Every way to end.
async fn ends(daemon: &Daemon, pod: &str, sandbox: &v1::PodSandboxConfig) {
    let quick = daemon.run(pod, sandbox, "quick", "exit 5").await;
    assert_eq!(daemon.exited(&quick).await.exit_code, 5);
    let deaf = daemon.run(pod, sandbox, "deaf", "trap '' TERM; echo ready; while :; do sleep 1; done").await;
    let begun = Instant::now();
    while daemon.log_of("life", "deaf").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    daemon.stop_container(&deaf, 1).await.unwrap();
    assert_eq!(daemon.exited(&deaf).await.exit_code, 137);
    assert!(begun.elapsed() < Duration::from_secs(8));
    let mut greedy = daemon.container("greedy", "exec dd if=/dev/zero of=/dev/null bs=1G count=1");
    let limits = v1::LinuxContainerResources {
        memory_limit_in_bytes: 16 << 20,
        memory_swap_limit_in_bytes: 16 << 20,
        ..Default::default()
    };
    greedy.linux.get_or_insert_default().resources = Some(limits);
    let greedy = daemon.create(pod, sandbox, &greedy).await.unwrap();
    daemon.start_container(&greedy).await.unwrap();
    assert_eq!(daemon.exited(&greedy).await.reason, "OOMKilled");
    // Created and never started.
    let idle = daemon.create(pod, sandbox, &daemon.container("idle", "true")).await.unwrap();
    daemon.remove_container(&idle).await.unwrap();
    // A command that is not there.
    let mut nothing = daemon.container("nothing", "");
    nothing.command = vec!["/no/such/program".into()];
    let told = match daemon.create(pod, sandbox, &nothing).await {
        Err(refused) => refused,
        Ok(id) => {
            let refused = daemon.start_container(&id).await.unwrap_err();
            daemon.remove_container(&id).await.unwrap();
            refused
        }
    };
    assert_eq!(told.code(), tonic::Code::FailedPrecondition, "{told}");
    assert!(told.message().contains("/no/such/program"), "{told}");
}

/// The limit of the memory of a process's cgroup.
fn limit_of(pid: i64) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = |wanted: &str| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|one| one == wanted).then(|| path.to_owned())
        })
    };
    let file = match path("memory") {
        Some(path) => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
        None => format!("/sys/fs/cgroup{}/memory.max", path("").unwrap()),
    };
    std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// The daemon is killed while containers run, while one ends, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_outlive_the_daemon() {
    needs_a_node!();
    for (handler, config) in runtimes() {
        let mut daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("away");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let talks = daemon
            .run(&pod, &sandbox, "talks", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done")
            .await;
        let go = daemon.path("go");
        let mut ends = daemon.container("ends", "while ! [ -e /go/now ]; do sleep 0.02; done; exit 9");
        std::fs::create_dir(&go).unwrap();
        ends.mounts = vec![v1::Mount {
            container_path: "/go".into(),
            host_path: go.display().to_string(),
            ..Default::default()
        }];
        let ends = daemon.create(&pod, &sandbox, &ends).await.unwrap();
        daemon.start_container(&ends).await.unwrap();
        daemon.kill();
        std::fs::write(go.join("now"), "").unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        daemon.launch().await;
        let status = daemon.status(&ends).await.unwrap();
        assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 9), "{handler}");
        assert_eq!(daemon.sh(&talks, "echo there").await, "there\n");
        daemon.stop_container(&talks, 0).await.unwrap();
        let log = daemon.log_of("away", "talks");
        let numbers: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.len() > 10 && numbers.iter().enumerate().all(|(at, number)| at == *number), "{log}");
        // Another one after that, in the same pod, by the runtime of its pod.
        let after = daemon.run(&pod, &sandbox, "after", "exit 4").await;
        assert_eq!(daemon.exited(&after).await.exit_code, 4);
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
}

/// A shim that is killed takes its pod with it, also where another program began it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_leaves_nothing_running() {
    needs_a_node!();
    for (handler, config) in runtimes() {
        let daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("lost");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "one", "sleep 1000").await;
        let first = info(&daemon, &id).await["pid"].as_i64().unwrap();
        kill(shim_of(&daemon, &pod).await);
        daemon.exited(&id).await;
        let begun = Instant::now();
        while std::fs::read_link(format!("/proc/{first}/exe")).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{handler}: process {first} lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
}

/// A terminal, and a volume made of an image: what is handed over as descriptors arrives by paths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_and_image_volumes_arrive() {
    needs_a_node!();
    for (handler, config) in runtimes() {
        let daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("tty");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let mut asked = daemon.container("one", "tty; stty size; exec sleep 1000");
        asked.tty = true;
        asked.mounts = vec![v1::Mount {
            container_path: "/image".into(),
            readonly: true,
            image: Some(v1::ImageSpec { image: daemon.image.clone(), ..Default::default() }),
            ..Default::default()
        }];
        let id = daemon.create(&pod, &sandbox, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        assert_eq!(
            daemon
                .sh(&id, "test -x /image/bin/busybox && touch /image/x 2>&1 || echo refused")
                .await
                .lines()
                .last(),
            Some("refused")
        );
        let begun = Instant::now();
        while !daemon.log_of("tty", "one").starts_with("/dev/") {
            assert!(begun.elapsed() < Duration::from_secs(5), "{handler}: {}", daemon.log_of("tty", "one"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let endpoint = format!("unix://{}", daemon.socket().display());
        let mut exec = std::process::Command::new("script");
        let line = format!("{} --endpoint {endpoint} exec -it {id} tty", env!("CARGO_BIN_EXE_pintle"));
        let piped = std::process::Stdio::piped;
        exec.args(["-qec", &line, "/dev/null"]).stdin(piped()).stdout(piped());
        let mut exec = exec.spawn().unwrap();
        // script(1) types an end of its own input into the terminal: it stays open.
        let _input = exec.stdin.take();
        let done = exec.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&done.stdout);
        assert!(shown.contains("/dev/pts/") || shown.contains("/dev/console"), "{handler}: {shown}");
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
}

/// Whoever attaches may end the input, and the container notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_ends_has_an_end_in_the_container() {
    needs_a_node!();
    for (handler, config) in runtimes() {
        let daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("input");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let mut asked = daemon.container("one", "cat; echo end; exit 3");
        (asked.stdin, asked.stdin_once) = (true, true);
        let id = daemon.create(&pod, &sandbox, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        let endpoint = format!("unix://{}", daemon.socket().display());
        let mut attach = tokio::process::Command::new(env!("CARGO_BIN_EXE_pintle"));
        attach.args(["--endpoint", &endpoint, "attach", "-i", &id]).kill_on_drop(true);
        let streams = std::process::Stdio::piped;
        let mut attached = attach.stdin(streams()).stdout(streams()).stderr(streams()).spawn().unwrap();
        let mut stdin = attached.stdin.take().unwrap();
        stdin.write_all(b"one line\n").await.unwrap();
        drop(stdin);
        let done = tokio::time::timeout(Duration::from_secs(10), attached.wait_with_output()).await;
        let done = done.unwrap_or_else(|_| panic!("{handler}: the input never ended")).unwrap();
        let shown = String::from_utf8_lossy(&done.stdout).into_owned();
        assert_eq!(shown, "one line\nend\n", "{handler}: {}", String::from_utf8_lossy(&done.stderr));
        let begun = Instant::now();
        while daemon.status(&id).await.unwrap().state() != v1::ContainerState::ContainerExited {
            assert!(begun.elapsed() < Duration::from_secs(5), "{handler}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(daemon.status(&id).await.unwrap().exit_code, 3, "{handler}");
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
}

/// The pod's shim.
pub(crate) async fn shim_of(daemon: &Daemon, pod: &str) -> i64 {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let info = daemon.runtime().pod_sandbox_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_i64().unwrap()
}

fn kill(pid: i64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// What a foreign shim parents ends with it, and everybody is told why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_shim_that_dies_is_noticed() {
    needs_a_node!();
    for (handler, config) in runtimes().into_iter().filter(|(name, _)| ["shim", "paused"].contains(name)) {
        let daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("orphan");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "one", "while :; do echo alive; sleep 0.05; done").await;
        let first = info(&daemon, &id).await["pid"].as_i64().unwrap();
        let record = daemon.path("state/pods").join(&pod).join("task.json");
        let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
        kill(record["pid"].as_i64().unwrap());
        let status = daemon.exited(&id).await;
        assert_eq!(status.exit_code, 255, "{status:?}");
        assert!(status.message.contains("went away during Wait"), "{status:?}");
        let begun = Instant::now();
        while std::fs::read_link(format!("/proc/{first}/exe")).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{handler}: process {first} lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let refused = daemon.create(&pod, &sandbox, &daemon.container("two", "true")).await.unwrap_err();
        assert!(refused.message().contains("cannot be reached"), "{refused}");
        daemon.remove_container(&id).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
}

/// A container can be stopped though its shim answers nobody: one that answers not even that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_shim_that_hangs_does_not_keep_its_pod() {
    needs_a_node!();
    for (handler, config) in runtimes().into_iter().filter(|(name, _)| ["shim", "paused"].contains(name)) {
        let daemon = daemon_with(&format!("{config}deadline_secs = 2\n")).await;
        let before = daemon.remains();
        for stopped in [true, false] {
            let sandbox = daemon.pod(&format!("hung-{stopped}"));
            let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
            let id = daemon.run(&pod, &sandbox, "one", "exec sleep 1000").await;
            let first = info(&daemon, &id).await["pid"].as_i64().unwrap();
            let record = daemon.path("state/pods").join(&pod).join("task.json");
            let record: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
            let shim = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
            let shim = rustix::process::Pid::from_raw(shim).unwrap();
            rustix::process::kill_process(shim, rustix::process::Signal::STOP).unwrap();
            if stopped {
                let request = v1::StopContainerRequest { container_id: id.clone(), timeout: 1 };
                daemon.runtime().stop_container(request).await.unwrap();
                let status = daemon.status(&id).await.unwrap();
                assert_eq!((status.exit_code, status.state()), (255, v1::ContainerState::ContainerExited));
            }
            daemon.remove_pod(&pod).await.unwrap();
            assert!(std::fs::read_link(format!("/proc/{first}/exe")).is_err(), "{handler}: {first} lives");
            assert_eq!(daemon.remains(), before, "{handler}");
        }
    }
}
