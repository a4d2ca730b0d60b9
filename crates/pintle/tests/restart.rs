//! `kill -9` of the daemon at any moment changes nothing that is true: no exit code, log line, address, mount or process is lost.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use cri::runtime_v1 as v1;
use support::Daemon;

const PODS: usize = 50;
const KILLS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pods_outlive_twenty_kills() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    std::fs::create_dir_all(daemon.path("go")).unwrap();
    let before = daemon.remains();
    // What was acknowledged, and what it has to be in the end.
    let mut pods: HashMap<usize, String> = HashMap::new();
    let mut containers: HashMap<usize, String> = HashMap::new();
    for round in 0..KILLS {
        // Work that the kill falls into the middle of: nobody waits for its answers.
        let mut work = tokio::task::JoinSet::new();
        for number in 0..PODS {
            if containers.contains_key(&number) {
                continue;
            }
            let config = daemon.pod(&format!("p{number}"));
            let asked = container(&daemon, number);
            let (mut runtime, known) = (daemon.runtime(), pods.get(&number).cloned());
            work.spawn(async move {
                let pod = match known {
                    Some(pod) => pod,
                    None => {
                        let request =
                            v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
                        match runtime.run_pod_sandbox(request).await {
                            Ok(answer) => answer.into_inner().pod_sandbox_id,
                            Err(_) => return (number, None, None),
                        }
                    }
                };
                let request = v1::CreateContainerRequest {
                    pod_sandbox_id: pod.clone(),
                    config: Some(asked),
                    sandbox_config: Some(config),
                };
                let Ok(answer) = runtime.create_container(request).await else {
                    return (number, Some(pod), None);
                };
                let id = answer.into_inner().container_id;
                let started =
                    runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await;
                // A start whose answer was lost is found again by the retry of the creation, which then cannot be started twice.
                let done = started.is_ok()
                    || started.is_err_and(|why| why.message().contains("only a created container"));
                (number, Some(pod), done.then_some(id))
            });
            if work.len() >= 6 {
                settle(work.join_next().await, &mut pods, &mut containers);
            }
            if number == round * 2 + 3 {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis((round as u64 * 7) % 23)).await;
        daemon.kill();
        while let Some(done) = work.join_next().await {
            settle(Some(done), &mut pods, &mut containers);
        }
        daemon.launch().await;
    }
    for number in 0..PODS {
        let config = daemon.pod(&format!("p{number}"));
        let pod = daemon.run_pod(&config).await.unwrap();
        if let Some(known) = pods.insert(number, pod.clone()) {
            assert_eq!(known, pod, "pod {number} is still the one that was acknowledged");
        }
        let id = daemon.create(&pod, &config, &container(&daemon, number)).await.unwrap();
        if let Some(known) = containers.insert(number, id.clone()) {
            assert_eq!(known, id);
        } else {
            let _ = daemon.start_container(&id).await;
        }
    }
    assert!(daemon.remains().len() >= PODS, "what runs is seen, so that its absence means something");
    // Everything ends while the daemon is away.
    daemon.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    std::fs::write(daemon.path("go/now"), "").unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.launch().await;
    let mut addresses = std::collections::HashSet::new();
    for number in 0..PODS {
        let status = daemon.exited(&containers[&number]).await;
        assert_eq!(status.exit_code, exit_code(number), "pod {number}: {status:?}");
        let log = daemon.log_of(&format!("p{number}"), "c");
        let expected: String = (1..=LINES).map(|line| format!("{number}-{line}\n")).collect();
        assert!(log == expected, "pod {number} has lost lines: {} of {}", log.lines().count(), LINES);
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pods[&number].clone(), verbose: false };
        let status = daemon.runtime().pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.state(), v1::PodSandboxState::SandboxReady, "pod {number}");
        let address = status.network.unwrap().ip;
        assert!(addresses.insert(address.clone()), "address {address} was given twice");
    }
    assert_eq!(daemon.pods().await.len(), PODS);
    daemon.empty().await;
    assert_eq!(daemon.remains(), before, "nothing stays");
    assert!(leases(&daemon).is_empty(), "no address stays: {:?}", leases(&daemon));
}

const LINES: usize = 40;

fn exit_code(number: usize) -> i32 {
    i32::try_from(number).unwrap() + 1
}

/// Writes its lines and ends when it is told to.
fn container(daemon: &Daemon, number: usize) -> v1::ContainerConfig {
    let script = format!(
        "i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo {number}-$i; sleep 0.1; done; \
         while [ ! -e /go/now ]; do sleep 0.1; done; exit {}",
        exit_code(number)
    );
    let mut asked = daemon.container("c", &script);
    asked.mounts.push(v1::Mount {
        host_path: daemon.path("go").display().to_string(),
        container_path: "/go".into(),
        ..Default::default()
    });
    asked
}

type Done = Result<(usize, Option<String>, Option<String>), tokio::task::JoinError>;

fn settle(done: Option<Done>, pods: &mut HashMap<usize, String>, containers: &mut HashMap<usize, String>) {
    let Some(Ok((number, pod, container))) = done else { return };
    if let Some(pod) = pod {
        pods.insert(number, pod);
    }
    if let Some(container) = container {
        containers.insert(number, container);
    }
}

/// Names below the network's state that look like addresses.
fn leases(daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![daemon.path("state/network")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else if name.parse::<std::net::IpAddr>().is_ok() {
                found.push(name);
            }
        }
    }
    found
}
