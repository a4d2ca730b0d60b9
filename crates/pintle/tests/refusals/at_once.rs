//! Requests that come twice at once, and clients that do not wait for the answer.

use std::task::Poll;
use std::time::Duration;

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
fn a_client_that_goes_away_finds_its_result_when_it_asks_again() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        // The first pod makes what the network keeps.
        daemon.run_pod(&daemon.pod("first")).await.unwrap();
        daemon.empty().await;
        std::fs::remove_dir_all(daemon.path("logs")).unwrap();
        let before = daemon.inventory().await;
        for delay in [0, 1, 2, 4, 8, 12] {
            let gone = Duration::from_millis(delay);
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
            let file = Entry::file(&name, 0o644, vec![delay as u8; 100_000]);
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
