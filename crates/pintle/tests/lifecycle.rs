//! The life of pods and containers over the real socket: what every client of CRI counts on.

mod support;

use std::time::Instant;

use cri::runtime_v1 as v1;
use support::Daemon;
use tonic::Code;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_and_goes_without_a_trace() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("one");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.run(&pod, &config, "hello", "echo out; echo err >&2; hostname; exit 7").await;
    let status = daemon.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(
        status.created_at > 0
            && status.started_at >= status.created_at
            && status.finished_at >= status.started_at
    );
    let log = daemon.log_of("one", "hello");
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    assert!(log.contains(&pod[..13]), "the pod's own host name: {log}");

    let sleeper =
        daemon.run(&pod, &config, "sleeper", "trap 'exit 3' TERM; while :; do sleep 0.05; done").await;
    let exec = daemon.exec(&sleeper, &["sh", "-c", "echo in; echo bad >&2; exit 5"], 10).await.unwrap();
    assert_eq!(
        (exec.stdout.as_slice(), exec.stderr.as_slice(), exec.exit_code),
        (&b"in\n"[..], &b"bad\n"[..], 5)
    );
    let begun = Instant::now();
    daemon.stop_container(&sleeper, 10).await.unwrap();
    assert!(begun.elapsed().as_secs() < 5, "it honours SIGTERM");
    assert_eq!(daemon.status(&sleeper).await.unwrap().exit_code, 3);

    for _ in 0..2 {
        daemon.stop_pod(&pod).await.unwrap();
        daemon.stop_container(&sleeper, 0).await.unwrap();
    }
    for _ in 0..2 {
        daemon.remove_container(&id).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
    }
    assert_eq!(daemon.pods().await, vec![]);
    assert_eq!(daemon.remains(), Vec::<String>::new());
    let absent = daemon.status(&sleeper).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound, "{absent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_get_what_there_is_and_others_are_refused() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("twice");
    let (one, two) = tokio::join!(daemon.run_pod(&config), daemon.run_pod(&config));
    let pod = one.unwrap();
    assert_eq!(two.unwrap(), pod);
    assert_eq!(daemon.run_pod(&config).await.unwrap(), pod);
    let mut other = config.clone();
    other.hostname = "other".into();
    assert_eq!(daemon.run_pod(&other).await.unwrap_err().code(), Code::AlreadyExists);

    let asked = daemon.container("c", "sleep 100");
    let (one, two) = tokio::join!(daemon.create(&pod, &config, &asked), daemon.create(&pod, &config, &asked));
    let id = one.unwrap();
    assert_eq!(two.unwrap(), id);
    assert_eq!(daemon.create(&pod, &config, &asked).await.unwrap(), id);
    let different = daemon.container("c", "sleep 200");
    assert_eq!(daemon.create(&pod, &config, &different).await.unwrap_err().code(), Code::AlreadyExists);
    daemon.start_container(&id).await.unwrap();
    assert_eq!(daemon.start_container(&id).await.unwrap_err().code(), Code::FailedPrecondition);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_not_there_is_named_and_nothing_stays() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("bad");
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = daemon.container("absent", "");
    asked.command = vec!["/bin/no-such-thing".into()];
    let id = daemon.create(&pod, &config, &asked).await.unwrap();
    let error = daemon.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("/bin/no-such-thing"), "{error}");
    assert_eq!(error.message().matches(&id).count(), 1, "the container is named, and once: {error}");
    assert_ne!(error.code(), Code::Unknown);
    let status = daemon.status(&id).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));

    let mut asked = daemon.container("mount", "true");
    asked.mounts.push(v1::Mount {
        host_path: "/no/such/source".into(),
        container_path: "/data".into(),
        ..Default::default()
    });
    let error = daemon.create(&pod, &config, &asked).await.unwrap_err();
    assert!(error.message().contains("/no/such/source"), "{error}");
    assert_ne!(error.code(), Code::Unknown);
    let exec = daemon.exec(&id, &["true"], 0).await.unwrap_err();
    assert_eq!(exec.code(), Code::FailedPrecondition);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_that_runs_out_is_told_as_such() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("oom");
    let pod = daemon.run_pod(&config).await.unwrap();
    let mut asked = daemon.container("eater", "a=x; while :; do a=$a$a; done");
    asked.linux.as_mut().unwrap().resources =
        Some(v1::LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() });
    let id = daemon.create(&pod, &config, &asked).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    let status = daemon.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    daemon.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_that_takes_too_long_is_killed_and_one_that_prints_too_much_is_cut() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("exec");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
    let late = daemon.exec(&id, &["sleep", "77"], 1).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let left =
        daemon.exec(&id, &["sh", "-c", "cat /proc/[0-9]*/cmdline | grep -c 77; true"], 5).await.unwrap();
    let count = String::from_utf8_lossy(&left.stdout).trim().to_owned();
    assert!(count.len() < 3, "{count}");
    let much = daemon.exec(&id, &["sh", "-c", "yes | head -c 40000000"], 30).await.unwrap();
    assert!(much.stdout.len() <= 16 << 20 && much.exit_code == 0, "{}", much.stdout.len());
    let background = Instant::now();
    let held = daemon.exec(&id, &["sh", "-c", "sleep 50 & echo started"], 0).await.unwrap();
    assert_eq!(held.stdout, b"started\n");
    assert!(background.elapsed().as_secs() < 10, "a child that holds the pipe does not hold the answer");
    daemon.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_waiting_and_not_the_work() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("late");
    let mut request =
        tonic::Request::new(v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() });
    request.set_timeout(std::time::Duration::from_millis(1));
    // tonic's client gives up by itself; that the server does not is seen in what follows.
    let _ = daemon.runtime().run_pod_sandbox(request).await;
    let pod = daemon.run_pod(&config).await.unwrap();
    assert_eq!(daemon.pods().await.len(), 1, "the retry joined the first or got its result");
    assert_eq!(daemon.pods().await[0].id, pod);
    daemon.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_has_the_limits_that_the_daemon_was_started_with() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let config = daemon.pod("limits");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.run(&pod, &config, "c", "ulimit -n; ulimit -Hn").await;
    daemon.exited(&id).await;
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let spell = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
    assert_eq!(daemon.log_of("limits", "c"), format!("{}\n{}\n", spell(own.current), spell(own.maximum)));
    daemon.empty().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_and_the_stop_of_their_pod_do_not_disturb_each_other() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    for round in 0..5 {
        // All of it begins at once.
        let (begin, _) = tokio::sync::broadcast::channel::<()>(1);
        let mut all = tokio::task::JoinSet::new();
        for number in 0..6 {
            let config = daemon.pod(&format!("p{round}-{number}"));
            let pod_sandbox_id = daemon.run_pod(&config).await.unwrap();
            for container in 0..3 {
                let script = if container == 0 { "true" } else { "sleep 1000" };
                let name = format!("c{container}");
                let container_id = daemon.run(&pod_sandbox_id, &config, &name, script).await;
                let (mut client, mut begun) = (daemon.runtime(), begin.subscribe());
                all.spawn(async move {
                    let _ = begun.recv().await;
                    let request = v1::RemoveContainerRequest { container_id };
                    client.remove_container(request).await.map(drop)
                });
            }
            let (mut client, mut begun) = (daemon.runtime(), begin.subscribe());
            all.spawn(async move {
                let _ = begun.recv().await;
                client.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id }).await.map(drop)
            });
        }
        drop(begin);
        for answer in all.join_all().await {
            assert_eq!(answer.map_err(|status| status.to_string()), Ok(()), "round {round}");
        }
    }
    assert_eq!(daemon.remains(), [""; 0]);
}
