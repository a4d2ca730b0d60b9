//! gVisor, whose one process runs all containers of a pod in a kernel of its own: as an OCI runtime and by its shim.

use std::path::Path;
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;

use crate::lives::shim_of;
use crate::seat::piped;
use crate::support;
use crate::{daemon_with, info, installed, needs_a_node, run_pod};

/// Both ways; `folder` takes the file that configures the shim.
fn ways(folder: &Path) -> Vec<(&'static str, String)> {
    let (Some(runsc), Some(shim)) = (installed("runsc"), installed("containerd-shim-runsc-v1")) else {
        println!(
            "SKIPPED: runsc and containerd-shim-runsc-v1 are not installed (Go: gvisor.dev/gvisor, branch go)"
        );
        return Vec::new();
    };
    let file = folder.join("runsc.toml");
    let root = folder.join("root");
    let settings = format!(
        "binary_name = {runsc:?}\nroot = {root:?}\n[runsc_config]\nignore-cgroups = 'true'\nplatform = 'systrap'\n"
    );
    std::fs::write(&file, settings).unwrap();
    let oci = format!(
        "[runtimes.oci]\nkind = 'oci'\npath = {runsc:?}\narguments = ['--ignore-cgroups', '--platform=systrap']\n"
    );
    let shim = format!("[runtimes.shim]\nkind = 'shim'\npath = {shim:?}\nconfig_path = {file:?}\n");
    vec![("oci", oci), ("shim", shim)]
}

/// The shim's state is where its file says; what runsc has mounted there stays for the next one.
fn let_go(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new) {
        if point.starts_with(folder) {
            rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_one_kernel_of_gvisors() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    for (handler, config) in ways(folder.path()) {
        let daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("inside");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let one = daemon
            .run(&pod, &sandbox, "one", "echo out; trap 'exit 7' TERM; while :; do sleep 0.1; done")
            .await;
        assert!(daemon.sh(&one, "dmesg").await.contains("Starting gVisor"), "{handler}");
        // Another container is in the same kernel and network, and has another root and other processes.
        let two = daemon.run(&pod, &sandbox, "two", "echo hello | nc -l -p 8080; exit 5").await;
        let said = daemon
            .sh(
                &one,
                "i=0; while ! nc 127.0.0.1 8080; do i=$((i+1)); [ $i -lt 50 ] || exit 1; sleep 0.1; done",
            )
            .await;
        assert_eq!(said, "hello\n", "{handler}");
        assert_eq!(daemon.exited(&two).await.exit_code, 5, "{handler}");
        let status = daemon.status(&one).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning, "{handler}: it ends with another");
        let failed = daemon.exec(&one, &["sh", "-c", "echo no >&2; exit 3"], 10).await.unwrap();
        assert_eq!((failed.exit_code, &failed.stderr[..]), (3, &b"no\n"[..]), "{handler}");
        let slow =
            daemon.exec(&one, &["sh", "-c", "while :; do sleep 0.1; done", "slow"], 1).await.unwrap_err();
        assert_eq!(slow.code(), tonic::Code::DeadlineExceeded, "{handler}: {slow}");
        assert_eq!(
            daemon.sh(&one, "ps | grep -c '[s]low'; hostname | cmp - /etc/hostname && echo same").await,
            "0\nsame\n",
            "{handler}"
        );
        let read = piped(&daemon, &["exec", "-i", &one, "sh", "-c", "cat; echo end"], "line\n");
        assert_eq!(read.stdout, b"line\nend\n", "{handler}: {read:?}");
        daemon.stop_container(&one, 10).await.unwrap();
        assert_eq!(daemon.exited(&one).await.exit_code, 7, "{handler}");
        assert_eq!(daemon.log_of("inside", "one"), "out\n", "{handler}");
        let idle = daemon.create(&pod, &sandbox, &daemon.container("idle", "true")).await.unwrap();
        daemon.remove_container(&idle).await.unwrap();
        let last = daemon.run(&pod, &sandbox, "last", "exit 4").await;
        assert_eq!(daemon.exited(&last).await.exit_code, 4, "{handler}: the pod ended with a container");
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
    let_go(folder.path());
}

/// Killed are the daemon, then the pod's shim, then what runs the containers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_killed_around_gvisor_is_noticed() {
    needs_a_node!();
    let folder = tempfile::tempdir().unwrap();
    for (handler, config) in ways(folder.path()) {
        let mut daemon = daemon_with(&config).await;
        let before = daemon.remains();
        let sandbox = daemon.pod("killed");
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let one = daemon.run(&pod, &sandbox, "one", "sleep 1000").await;
        daemon.kill();
        daemon.launch().await;
        assert_eq!(daemon.sh(&one, "echo there").await, "there\n", "{handler}");
        let kernel = i32::try_from(info(&daemon, &one).await["pid"].as_i64().unwrap()).unwrap();
        kill(kernel);
        let status = daemon.exited(&one).await;
        println!("{handler}: its kernel was killed: {} {}", status.exit_code, status.message);
        assert_ne!(status.exit_code, 0, "{handler}");
        daemon.remove_pod(&pod).await.unwrap();
        let pod = run_pod(&daemon, &sandbox, handler).await.unwrap();
        let one = daemon.run(&pod, &sandbox, "one", "sleep 1000").await;
        let kernel = info(&daemon, &one).await["pid"].as_i64().unwrap();
        kill(i32::try_from(shim_of(&daemon, &pod).await).unwrap());
        daemon.exited(&one).await;
        let begun = Instant::now();
        while std::fs::read_link(format!("/proc/{kernel}/exe")).is_ok() {
            assert!(begun.elapsed() < Duration::from_secs(5), "{handler}: gVisor lives");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), before, "{handler}");
    }
    let_go(folder.path());
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}
