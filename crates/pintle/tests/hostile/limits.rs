//! Changes of limits that cannot be, a shim that stands still, and requests larger than any.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cri::runtime_v1 as v1;
use registry::tar::Entry;
use tonic::Code;

use crate::needs_a_node;
use crate::support::{self, Daemon, Setup, in_own_network};

/// What the kernel was told for a container, from version 1 or version 2 of control groups.
fn told(pod: &str, id: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (controller, file) in [
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
        ("memory", "memory.limit_in_bytes"),
        ("cpuset", "cpuset.cpus"),
        (".", "cpu.weight"),
        (".", "cpu.max"),
        (".", "memory.max"),
    ] {
        let path =
            Path::new("/sys/fs/cgroup").join(controller).join(format!("pintle-pod-{pod}/{id}")).join(file);
        if let Ok(text) = std::fs::read_to_string(&path) {
            found.push((path, text));
        }
    }
    found
}

#[test]
fn limits_change_wholly_or_not_at_all() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let mut asked = daemon.container(
            "c",
            "a=$(head -c 20000000 /dev/zero | tr '\\0' x); echo ready; while :; do sleep 1; done",
        );
        asked.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: 256 << 20,
            cpu_shares: 512,
            ..Default::default()
        });
        let id = daemon.create(&pod, &config, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        let begun = Instant::now();
        while !daemon.log_of("p", "c").contains("ready") && begun.elapsed().as_secs() < 10 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let before = (told(&pod, &id), daemon.status(&id).await.unwrap().resources);
        assert!(!before.0.is_empty());
        let update = async |linux: Option<v1::LinuxContainerResources>| {
            let request =
                v1::UpdateContainerResourcesRequest { container_id: id.clone(), linux, ..Default::default() };
            daemon.runtime().update_container_resources(request).await.map(drop)
        };
        let limits = |change: fn(&mut v1::LinuxContainerResources)| {
            let mut limits = v1::LinuxContainerResources { cpu_shares: 2048, ..Default::default() };
            change(&mut limits);
            Some(limits)
        };
        let bad = [
            ("below what is used", limits(|limits| limits.memory_limit_in_bytes = 1 << 20)),
            ("a negative limit", limits(|limits| limits.memory_limit_in_bytes = -5)),
            ("a processor that is not there", limits(|limits| limits.cpuset_cpus = "4000".into())),
            ("an out-of-memory score of 5000", limits(|limits| limits.oom_score_adj = 5000)),
            ("no list of processors", limits(|limits| limits.cpuset_cpus = "a-b".into())),
            ("a quota of nothing", limits(|limits| (limits.cpu_quota, limits.cpu_period) = (1, 1))),
            (
                "a size of page that is not there",
                limits(|limits| {
                    limits.hugepage_limits.push(v1::HugepageLimit { page_size: "3MB".into(), limit: 1 });
                }),
            ),
            (
                "a file that walks",
                limits(|limits| {
                    limits.unified.insert("../../cgroup.procs".into(), "1".into());
                }),
            ),
        ];
        let mut failures = Vec::new();
        for (what, limits) in bad {
            match update(limits).await {
                Err(error) if matches!(error.code(), Code::InvalidArgument | Code::FailedPrecondition) => {}
                other => failures.push(format!("{what}: {other:?}")),
            }
            let after = (told(&pod, &id), daemon.status(&id).await.unwrap().resources);
            if after != before {
                failures.push(format!("{what}: {after:?}, not {before:?}"));
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
        update(limits(|limits| limits.memory_limit_in_bytes = 300 << 20)).await.unwrap();
        let after = daemon.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
        assert_eq!((after.memory_limit_in_bytes, after.cpu_shares), (300 << 20, 2048));
        assert_ne!(told(&pod, &id), before.0);
        daemon.empty().await;
    });
}

#[test]
fn a_shim_that_stands_still_holds_up_nobody_else() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("still");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
        let record = std::fs::read_to_string(daemon.path(&format!("state/pods/{pod}/shim.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap();
        let pid =
            rustix::process::Pid::from_raw(i32::try_from(record["pid"].as_i64().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let begun = Instant::now();
        assert_eq!(daemon.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
        assert_eq!(daemon.pods().await.len(), 1);
        let (waiting, other) = (daemon.exec(&id, &["true"], 1), async {
            let config = daemon.pod("other");
            let pod = daemon.run_pod(&config).await.unwrap();
            daemon.run(&pod, &config, "c", "sleep 1000").await;
            begun.elapsed()
        });
        let (_, took) = tokio::join!(tokio::time::timeout(std::time::Duration::from_secs(2), waiting), other);
        assert!(took.as_secs() < 5, "{took:?}");
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        assert_eq!(daemon.sh(&id, "echo awake").await, "awake\n");
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn messages_beyond_the_limit_are_told_as_such() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let mut config = daemon.pod("p");
        config.annotations.insert("a".into(), "x".repeat(17 << 20));
        let error = daemon.run_pod(&config).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
        assert!(error.message().contains("limit"), "{error}");
        assert_eq!(daemon.pods().await, vec![]);
        // What is no gRPC at all ends that connection, and no other.
        let mut stream = tokio::net::UnixStream::connect(daemon.socket()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &[0xff; 4096]).await.unwrap();
        daemon.run_pod(&daemon.pod("p")).await.unwrap();
        daemon.empty().await;
    });
}

#[test]
fn a_full_disk_refuses_what_is_new_and_lets_go_of_what_is_there() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start_as(Setup { root_bytes: Some(16 << 20), ..Setup::default() }).await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
        let before = daemon.inventory().await;
        let mut noise = vec![0u8; 24 << 20];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
        let file = Entry::file("noise", 0o644, noise);
        daemon.contents.add("library/large", "1", &support::busybox_with(&[file], serde_json::json!({})));
        let large = daemon.pull(&format!("{}/library/large:1", daemon.registry.host())).await.unwrap_err();
        assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
        assert_eq!(daemon.changed_since(&before, "an image that does not fit").await, None);
        // A container fills what is left.
        let filled = daemon.exec(&id, &["sh", "-c", "cat /dev/zero > /tmp/fill"], 20).await.unwrap();
        assert!(String::from_utf8_lossy(&filled.stderr).contains("No space"), "{filled:?}");
        let mut refused = 0;
        for number in 0..40 {
            let other = daemon.pod(&format!("other{number}"));
            let made = async {
                let pod = daemon.run_pod(&other).await?;
                daemon.create(&pod, &other, &daemon.container("c", "true")).await
            };
            if let Err(error) = made.await {
                assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
                refused += 1;
            }
        }
        assert!(refused > 0, "the disk was never full");
        assert_eq!(daemon.sh(&id, "echo alive").await, "alive\n");
        daemon.stop_container(&id, 0).await.unwrap();
        assert_eq!(daemon.status(&id).await.unwrap().state(), v1::ContainerState::ContainerExited);
        // What filled the disk gives it back, and then everything works as before.
        daemon.remove_pod(&pod).await.unwrap();
        let last = daemon.run_pod(&daemon.pod("last")).await.unwrap();
        daemon.run(&last, &daemon.pod("last"), "c", "sleep 1000").await;
        daemon.empty().await;
        assert_eq!(daemon.pods().await, vec![]);
    });
}
