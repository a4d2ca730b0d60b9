//! Requests that are right, and come when what they name has ended, or to a host that is not as it should be.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use tonic::Code;

use crate::support::{self, Daemon, in_own_network};
use crate::{needs_a_node, refused};

#[test]
fn what_has_ended_is_refused_or_done() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "c", "exit 3").await;
        let ended = daemon.exited(&id).await;
        let state: &[&str] = &[&id, "exited"];
        let precondition = Code::FailedPrecondition;
        refused("start", daemon.start_container(&id).await, precondition, state);
        refused("exec", daemon.exec(&id, &["true"], 1).await, precondition, state);
        let (container_id, stdout) = (id.clone(), true);
        let request =
            v1::ExecRequest { container_id, cmd: vec!["true".into()], stdout, ..Default::default() };
        refused("a stream", daemon.runtime().exec(request).await, precondition, state);
        let request = v1::AttachRequest { container_id: id.clone(), stdout, ..Default::default() };
        refused("attach", daemon.runtime().attach(request).await, precondition, state);
        let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
        refused("its log", daemon.runtime().reopen_container_log(request).await, precondition, &[&id]);
        let again = daemon.create(&pod, &sandbox, &daemon.container("c", "exit 3")).await;
        refused("the same again", again, precondition, &[&id, "attempt"]);
        for timeout in [0, i64::MAX] {
            daemon.stop_container(&id, timeout).await.unwrap();
        }
        refused(
            "time runs back",
            daemon.stop_container(&id, i64::MIN).await,
            Code::InvalidArgument,
            &["timeout"],
        );
        let request = v1::ContainerStatsRequest { container_id: id.clone() };
        let stats = daemon.runtime().container_stats(request).await.unwrap().into_inner().stats.unwrap();
        assert!(stats.cpu.is_none() && stats.memory.is_none() && stats.writable_layer.is_some(), "{stats:?}");
        assert_eq!(daemon.status(&id).await.unwrap(), ended);

        daemon.stop_pod(&pod).await.unwrap();
        let late = daemon.create(&pod, &sandbox, &daemon.container("late", "true")).await;
        refused("a container", late, precondition, &[&pod, "not running"]);
        refused("the pod again", daemon.run_pod(&sandbox).await, precondition, &[&pod, "stopped"]);
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![80] };
        refused("a port", daemon.runtime().port_forward(request).await, precondition, &[&pod]);
        daemon.stop_pod(&pod).await.unwrap();
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
        let stats = daemon.runtime().pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
        assert!(stats.linux.unwrap().containers.is_empty());
        assert_eq!(daemon.status(&id).await.unwrap(), ended);
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn the_longest_grace_ends_with_the_container() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
        let id = daemon.run(&pod, &sandbox, "c", script).await;
        let begun = Instant::now();
        while !daemon.log_of("p", "c").contains("ready") && begun.elapsed().as_secs() < 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.stop_container(&id, i64::MAX).await.unwrap();
        assert_eq!(daemon.status(&id).await.unwrap().exit_code, 7);
        daemon.empty().await;
    });
}

/// The cgroup file that freezes a container, and what it takes.
fn freezer(pod: &str, id: &str) -> (String, &'static str) {
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (tree, file, word) = match v2 {
        true => ("", "cgroup.freeze", "1"),
        false => ("freezer/", "freezer.state", "FROZEN"),
    };
    (format!("/sys/fs/cgroup/{tree}pintle-pod-{pod}/{id}/{file}"), word)
}

#[test]
fn what_is_frozen_is_stopped_all_the_same() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        for timeout in [0, 1] {
            let id = daemon.run(&pod, &sandbox, &format!("c{timeout}"), "sleep 1000").await;
            let (file, word) = freezer(&pod, &id);
            std::fs::write(&file, word).unwrap_or_else(|why| panic!("{file}: {why}"));
            daemon.stop_container(&id, timeout).await.unwrap();
            // Thawed to die, it has two signals to die of.
            let code = daemon.status(&id).await.unwrap().exit_code;
            assert!([137, 143].contains(&code), "{code}");
            daemon.remove_container(&id).await.unwrap();
        }
        let id = daemon.run(&pod, &sandbox, "c2", "sleep 1000").await;
        let (file, word) = freezer(&pod, &id);
        std::fs::write(&file, word).unwrap();
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn a_command_that_cannot_begin_is_refused_or_runs_out_of_time() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "c", "sleep 1000").await;
        let (file, word) = freezer(&pod, &id);
        std::fs::write(&file, word).unwrap();
        let error = daemon.exec(&id, &["sleep", "1001"], 1).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("paused"), "{error}");
        std::fs::write(&file, if word == "1" { "0" } else { "THAWED" }).unwrap();

        let shim = rustix::process::Pid::from_raw(daemon.shim_of(&id).cast_signed()).unwrap();
        rustix::process::kill_process(shim, rustix::process::Signal::STOP).unwrap();
        let begun = Instant::now();
        let error = daemon.exec(&id, &["sleep", "1001"], 1).await.unwrap_err();
        rustix::process::kill_process(shim, rustix::process::Signal::CONT).unwrap();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        // What could not begin in time ends as soon as it begins.
        let begun = Instant::now();
        while daemon.sh(&id, "ps").await.contains("1001") {
            assert!(begun.elapsed() < Duration::from_secs(5), "it runs on");
        }
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn sources_that_lead_nowhere_are_named() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        daemon.run(&pod, &sandbox, "first", "sleep 1000").await;
        let folder = daemon.path("sources");
        std::fs::create_dir(&folder).unwrap();
        symlink("one", folder.join("other")).unwrap();
        symlink("other", folder.join("one")).unwrap();
        symlink("/no/such/place", folder.join("dangling")).unwrap();
        std::fs::write(folder.join("file"), "").unwrap();
        let before = daemon.inventory().await;
        for (source, target) in [("one", "/m"), ("dangling", "/m"), ("file/below", "/m"), ("file", "/bin")] {
            let mut asked = daemon.container("c", "true");
            let host_path = folder.join(source).display().to_string();
            asked.mounts = vec![v1::Mount {
                host_path: host_path.clone(),
                container_path: target.into(),
                ..Default::default()
            }];
            let created = daemon.create(&pod, &sandbox, &asked).await;
            let named = if target == "/m" { &host_path } else { target };
            refused(source, created, Code::FailedPrecondition, &[named]);
            assert_eq!(daemon.changed_since(&before, source).await, None);
        }
        daemon.empty().await;
    });
}

#[test]
fn an_image_without_a_command_needs_one() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let image = daemon.image_with("silent", &[], serde_json::json!({})).await;
        let mut asked = daemon.container("c", "true");
        asked.image.as_mut().unwrap().image = image;
        let command = std::mem::take(&mut asked.command);
        let before = daemon.inventory().await;
        let created = daemon.create(&pod, &sandbox, &asked).await;
        refused("no command", created, Code::InvalidArgument, &["command", "\"c\""]);
        assert_eq!(daemon.changed_since(&before, "no command").await, None);
        asked.command = command;
        daemon.create(&pod, &sandbox, &asked).await.unwrap();
        daemon.empty().await;
    });
}

#[test]
fn an_image_in_use_can_be_removed_and_its_containers_go_on() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "c", "sleep 1000").await;
        let spec = v1::ImageSpec { image: daemon.image.clone(), ..Default::default() };
        for _ in 0..2 {
            let request = v1::RemoveImageRequest { image: Some(spec.clone()) };
            daemon.images().remove_image(request).await.unwrap();
        }
        assert_eq!(daemon.sh(&id, "cat /etc/group | wc -l").await, "3\n");
        let missing = daemon.create(&pod, &sandbox, &daemon.container("d", "true")).await;
        refused("a removed image", missing, Code::NotFound, &[&daemon.image, "pull it"]);
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
