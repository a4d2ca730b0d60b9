//! Requests that come many times at once, and clients that do not wait for the answer.

use std::task::Poll;
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use registry::tar::Entry;
use tonic::Code;

use crate::needs_a_node;
use crate::support::{self, Daemon, in_own_network};

#[test]
fn equal_requests_at_once_get_one_result() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let daemon = &daemon;
        let config = &daemon.pod("a");
        let pods = join_all((0..16).map(|_| daemon.run_pod(config))).await;
        let pod = pods[0].as_ref().unwrap();
        assert!(pods.iter().all(|other| other.as_ref().unwrap() == pod), "{pods:?}");
        assert_eq!(daemon.pods().await.len(), 1);
        // Of different requests for one name, one wins.
        let other =
            |number: usize| v1::PodSandboxConfig { hostname: format!("h{number}"), ..daemon.pod("b") };
        let others: Vec<_> = (0..8).map(other).collect();
        let results = join_all(others.iter().map(|config| daemon.run_pod(config))).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.code(), Code::AlreadyExists, "{error}");
        }
        let asked = &daemon.container("c", "sleep 1000");
        let ids = join_all((0..16).map(|_| daemon.create(pod, config, asked))).await;
        let id = ids[0].as_ref().unwrap();
        assert!(ids.iter().all(|other| other.as_ref().unwrap() == id), "{ids:?}");
        let starts = join_all((0..16).map(|_| daemon.start_container(id))).await;
        assert!(starts.iter().any(Result::is_ok), "{starts:?}");
        for error in starts.into_iter().filter_map(Result::err) {
            assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        }
        for result in join_all((0..16).map(|_| daemon.stop_container(id, 0))).await {
            result.unwrap();
        }
        for result in join_all((0..16).map(|_| daemon.remove_container(id))).await {
            result.unwrap();
        }
        let image = format!("{}/library/other:1", daemon.registry.host());
        let other = support::busybox_with(&[Entry::file("new", 0o644, "new")], serde_json::json!({}));
        daemon.contents.add("library/other", "1", &other);
        let pulled = join_all((0..16).map(|_| daemon.pull(&image))).await;
        let first = pulled[0].as_ref().unwrap();
        assert!(pulled.iter().all(|other| other.as_ref().unwrap() == first), "{pulled:?}");
        assert_eq!(daemon.contents.count(&other.layers[1].digest), 1, "one download");
        for result in join_all((0..16).map(|_| daemon.stop_pod(pod))).await {
            result.unwrap();
        }
        let pods = daemon.pods().await;
        for result in join_all(pods.iter().chain(&pods).map(|pod| daemon.remove_pod(&pod.id))).await {
            result.unwrap();
        }
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn updates_of_different_limits_at_once_all_count() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let id = daemon.run(&pod, &sandbox, "c", "sleep 1000").await;
        for round in 0..20 {
            let limits = v1::LinuxContainerResources {
                cpu_shares: 100 + round,
                cpu_period: 50_000,
                cpu_quota: 20_000 + round,
                memory_limit_in_bytes: (64 + round) << 20,
                ..Default::default()
            };
            let parts = [
                v1::LinuxContainerResources { cpu_shares: limits.cpu_shares, ..Default::default() },
                v1::LinuxContainerResources {
                    cpu_period: limits.cpu_period,
                    cpu_quota: limits.cpu_quota,
                    ..Default::default()
                },
                v1::LinuxContainerResources {
                    memory_limit_in_bytes: limits.memory_limit_in_bytes,
                    ..Default::default()
                },
            ];
            let update = |part: &v1::LinuxContainerResources| {
                let (mut runtime, linux) = (daemon.runtime(), Some(part.clone()));
                let container_id = id.clone();
                let request =
                    v1::UpdateContainerResourcesRequest { container_id, linux, ..Default::default() };
                async move { runtime.update_container_resources(request).await }
            };
            for result in join_all(parts.iter().map(update)).await {
                result.unwrap();
            }
            let now = daemon.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
            let told = (now.cpu_shares, now.cpu_period, now.cpu_quota, now.memory_limit_in_bytes);
            let asked =
                (limits.cpu_shares, limits.cpu_period, limits.cpu_quota, limits.memory_limit_in_bytes);
            assert_eq!(told, asked, "round {round}");
        }
        daemon.empty().await;
    });
}

/// How many equal requests there are on so many connections.
const CROWD: usize = 1000;
const CONNECTIONS: usize = 8;

#[test]
fn a_thousand_equal_requests_make_one_pod_and_one_container() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let connections: Vec<_> = (0..CONNECTIONS).map(|_| daemon.runtime()).collect();
        let sandbox = daemon.pod("a");
        let request = v1::RunPodSandboxRequest { config: Some(sandbox.clone()), ..Default::default() };
        let run = |number: usize| {
            let (mut runtime, request) = (connections[number % CONNECTIONS].clone(), request.clone());
            async move { runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id }
        };
        let pods = join_all((0..CROWD).map(run)).await;
        assert!(pods.iter().all(|pod| *pod == pods[0]), "{pods:?}");
        assert_eq!(daemon.pods().await.len(), 1);
        // The daemon is asked for it in the way that the harness remembers.
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        assert_eq!(pod, pods[0]);
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(daemon.container("c", "sleep 1000")),
            sandbox_config: Some(sandbox),
        };
        let create = |number: usize| {
            let (mut runtime, request) = (connections[number % CONNECTIONS].clone(), request.clone());
            async move { runtime.create_container(request).await.unwrap().into_inner().container_id }
        };
        let ids = join_all((0..CROWD).map(create)).await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        let list = v1::ListContainersRequest::default();
        assert_eq!(daemon.runtime().list_containers(list).await.unwrap().into_inner().containers.len(), 1);
        daemon.start_container(&ids[0]).await.unwrap();
        let remove = |number: usize| {
            let mut runtime = connections[number % CONNECTIONS].clone();
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
            async move { runtime.remove_pod_sandbox(request).await.map(drop) }
        };
        for removed in join_all((0..CROWD).map(remove)).await {
            removed.unwrap();
        }
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn a_client_that_goes_away_finds_its_result_when_it_asks_again() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        // The first pod makes what the network keeps.
        daemon.run_pod(&daemon.pod("first")).await.unwrap();
        daemon.empty().await;
        std::fs::remove_dir_all(daemon.path("logs")).unwrap();
        let before = daemon.inventory().await;
        // How long one call takes here: clients leave at any moment of it.
        let begun = Instant::now();
        daemon.run_pod(&daemon.pod("timed")).await.unwrap();
        let longest = begun.elapsed();
        daemon.empty().await;
        let mut seed = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
        for delay in 0..6 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let gone = if delay == 0 {
                Duration::ZERO
            } else {
                longest.mul_f64(f64::from(seed) / f64::from(u32::MAX))
            };
            println!("leaving after {gone:?}");
            let config = daemon.pod(&format!("p{delay}"));
            let _ = tokio::time::timeout(gone, daemon.run_pod(&config)).await;
            let pod = daemon.run_pod(&config).await.unwrap();
            let asked = daemon.container("c", "sleep 1000");
            let _ = tokio::time::timeout(gone, daemon.create(&pod, &config, &asked)).await;
            let id = daemon.create(&pod, &config, &asked).await.unwrap();
            let _ = tokio::time::timeout(gone, daemon.start_container(&id)).await;
            if let Err(error) = daemon.start_container(&id).await {
                assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
            }
            assert_eq!(daemon.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
            let _ = tokio::time::timeout(gone, daemon.exec(&id, &["sleep", "1"], 0)).await;
            let _ = tokio::time::timeout(gone, daemon.stop_container(&id, 0)).await;
            daemon.stop_container(&id, 0).await.unwrap();
            let _ = tokio::time::timeout(gone, daemon.remove_container(&id)).await;
            daemon.remove_container(&id).await.unwrap();
            let _ = tokio::time::timeout(gone, daemon.stop_pod(&pod)).await;
            daemon.stop_pod(&pod).await.unwrap();
            let _ = tokio::time::timeout(gone, daemon.remove_pod(&pod)).await;
            daemon.remove_pod(&pod).await.unwrap();
            assert_eq!(daemon.pods().await, vec![]);
            let name = format!("other{delay}");
            let file = Entry::file(&name, 0o644, vec![delay; 100_000]);
            daemon.contents.add(&name, "1", &support::busybox_with(&[file], serde_json::json!({})));
            let image = format!("{}/{name}:1", daemon.registry.host());
            let _ = tokio::time::timeout(gone, daemon.pull(&image)).await;
            daemon.pull(&image).await.unwrap();
            let spec = v1::ImageSpec { image, ..Default::default() };
            daemon.images().remove_image(v1::RemoveImageRequest { image: Some(spec) }).await.unwrap();
        }
        let _ = std::fs::remove_dir_all(daemon.path("logs"));
        assert_eq!(daemon.changed_since(&before, "clients that went away").await, None);
    });
}

/// All of these futures' results, in order; they run side by side.
async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut ready = true;
        for (future, result) in running.iter_mut().filter(|(_, result)| result.is_none()) {
            match future.as_mut().poll(context) {
                Poll::Ready(value) => *result = Some(value),
                Poll::Pending => ready = false,
            }
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}
