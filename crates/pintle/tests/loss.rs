//! What happens when things end that should not: a shim, a whole boot. The truth is told, and nothing of it goes on running unseen.

mod support;

use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use support::Daemon;

async fn pod_state(daemon: &Daemon, pod: &str) -> v1::PodSandboxState {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
    daemon.runtime().pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap().state()
}

fn kill_shim_of(daemon: &Daemon, pod: &str) {
    let record = std::fs::read(daemon.path("state/pods").join(pod).join("shim.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let pid = rustix::process::Pid::from_raw(record["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The number of processes whose command line holds `word`.
fn running(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.windows(word.len()).any(|window| window == word.as_bytes())
        })
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_shim_ends_its_pod_and_nothing_else() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let (one, two) = (daemon.pod("one"), daemon.pod("two"));
    let lost = daemon.run_pod(&one).await.unwrap();
    let kept = daemon.run_pod(&two).await.unwrap();
    let mark = format!("31{:06}", std::process::id());
    let ended = daemon.run(&lost, &one, "ended", "exit 9").await;
    daemon.exited(&ended).await;
    let sleeper = daemon.run(&lost, &one, "sleeper", &format!("sleep {mark}; true")).await;
    let other = daemon.run(&kept, &two, "other", "sleep 1000").await;
    assert!(running(&mark) >= 1);

    kill_shim_of(&daemon, &lost);
    let status = daemon.exited(&sleeper).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "ContainerStatusUnknown"), "{status:?}");
    assert!(status.message.contains("shim"), "{}", status.message);
    assert_eq!(daemon.exited(&ended).await.exit_code, 9, "what was seen stays known");
    let begun = Instant::now();
    while running(&mark) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "a container runs that nobody watches");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pod_state(&daemon, &lost).await, v1::PodSandboxState::SandboxNotready);
    assert_eq!(pod_state(&daemon, &kept).await, v1::PodSandboxState::SandboxReady);
    assert_eq!(daemon.exec(&other, &["true"], 5).await.unwrap().exit_code, 0);
    daemon.stop_pod(&lost).await.unwrap();
    daemon.remove_pod(&lost).await.unwrap();

    // The same while the daemon is away.
    daemon.kill();
    kill_shim_of(&daemon, &kept);
    daemon.launch().await;
    let status = daemon.exited(&other).await;
    assert_eq!(status.reason, "ContainerStatusUnknown");
    assert_eq!(pod_state(&daemon, &kept).await, v1::PodSandboxState::SandboxNotready);
    daemon.empty().await;
    assert_eq!(daemon.remains(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_reboot_every_pod_is_over_and_can_be_removed() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let config = daemon.pod("old");
    let pod = daemon.run_pod(&config).await.unwrap();
    let id = daemon.run(&pod, &config, "c", "sleep 1000").await;
    // A reboot ends every process and empties the state folder.
    daemon.kill();
    kill_shim_of(&daemon, &pod);
    let shm = daemon.path("state/pods").join(&pod).join("shm");
    rustix::mount::unmount(&shm, rustix::mount::UnmountFlags::DETACH).unwrap();
    std::fs::remove_dir_all(daemon.path("state/pods")).unwrap();
    daemon.launch().await;
    assert_eq!(daemon.exited(&id).await.reason, "ContainerStatusUnknown");
    assert_eq!(pod_state(&daemon, &pod).await, v1::PodSandboxState::SandboxNotready);
    daemon.remove_pod(&pod).await.unwrap();
    let again = daemon.run_pod(&config).await.unwrap();
    assert_ne!(again, pod);
    daemon.empty().await;
}
