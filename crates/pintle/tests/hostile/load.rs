//! Much and many at once.

use std::path::Path;
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use tonic::Code;

use crate::needs_a_node;
use crate::support::{self, Daemon, in_own_network};

fn resident_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn many_and_much_at_once_are_borne() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
        daemon.sh(&id, "true").await;
        let (before, open) = (resident_kilobytes(daemon.pid()), descriptors(daemon.pid()));
        // Output without an end is cut, and the command killed at its time.
        let endless = daemon.exec(&id, &["yes"], 1).await.unwrap_err();
        assert_eq!(endless.code(), Code::DeadlineExceeded, "{endless}");
        let grown = resident_kilobytes(daemon.pid()).saturating_sub(before);
        assert!(grown < 80 << 10, "{grown} kB more after an endless output");
        let mut lists = tokio::task::JoinSet::new();
        for _ in 0..1000 {
            let mut runtime = daemon.runtime();
            lists.spawn(async move { runtime.list_containers(v1::ListContainersRequest::default()).await });
        }
        while let Some(list) = lists.join_next().await {
            assert_eq!(list.unwrap().unwrap().into_inner().containers.len(), 1);
        }
        let mut execs = tokio::task::JoinSet::new();
        for number in 0..200 {
            let mut runtime = daemon.runtime();
            let request = v1::ExecSyncRequest {
                container_id: id.clone(),
                cmd: vec!["sh".into(), "-c".into(), format!("echo {number}; exit {}", number % 7)],
                timeout: 60,
            };
            execs.spawn(async move { (number, runtime.exec_sync(request).await) });
        }
        while let Some(done) = execs.join_next().await {
            let (number, done) = done.unwrap();
            let done = done.unwrap().into_inner();
            assert_eq!((done.stdout, done.exit_code), (format!("{number}\n").into_bytes(), number % 7));
        }
        // Commands whose clients went away, or that were given up, leave nothing open.
        for _ in 0..20 {
            let _ = tokio::time::timeout(Duration::from_millis(20), daemon.exec(&id, &["true"], 5)).await;
        }
        let begun = Instant::now();
        while descriptors(daemon.pid()) > open + 5 && begun.elapsed().as_secs() < 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(
            descriptors(daemon.pid()) <= open + 5,
            "{} descriptors, {open} before",
            descriptors(daemon.pid())
        );
        daemon.empty().await;
    });
}

#[test]
fn a_fork_bomb_is_contained_and_removed() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let mut asked = daemon.container("bomb", "bomb() { bomb | bomb & }; bomb; while :; do sleep 1; done");
        let resources = asked.linux.get_or_insert_default().resources.get_or_insert_default();
        resources.unified.insert("pids.max".into(), "64".into());
        let id = match daemon.create(&pod, &config, &asked).await {
            Ok(id) => id,
            // Version 1 has no unified settings: the limit is the pod's cgroup's there.
            Err(error) => {
                assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
                asked.linux.get_or_insert_default().resources = None;
                let id = daemon.create(&pod, &config, &asked).await.unwrap();
                let cgroup = format!("/sys/fs/cgroup/pids/pintle-pod-{pod}");
                std::fs::write(format!("{cgroup}/pids.max"), "64").unwrap();
                id
            }
        };
        daemon.start_container(&id).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begun = Instant::now();
        daemon.stop_container(&id, 0).await.unwrap();
        daemon.remove_container(&id).await.unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        assert_eq!(daemon.remains(), Vec::<String>::new());
        assert!(!Path::new(&format!("/sys/fs/cgroup/pids/pintle-pod-{pod}")).exists());
    });
}
