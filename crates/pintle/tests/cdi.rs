//! CDI devices in containers: by field, by annotation, from files that change, and what is refused.

mod support;

use cri::runtime_v1 as v1;
use support::{Daemon, in_own_network};

/// The file that docs/cdi.md shows.
fn example() -> &'static str {
    let page = include_str!("../../../docs/cdi.md");
    page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap()
}

async fn started_with(
    daemon: &Daemon,
    pod: &str,
    sandbox: &v1::PodSandboxConfig,
    config: &v1::ContainerConfig,
) -> String {
    let id = daemon.create(pod, sandbox, config).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    id
}

fn with_device(mut config: v1::ContainerConfig, name: &str) -> v1::ContainerConfig {
    config.cdi_devices.push(v1::CdiDevice { name: name.into() });
    config
}

#[test]
fn the_device_of_the_documentation_is_in_the_container_that_asks_for_it() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        std::fs::create_dir(daemon.path("cdi")).unwrap();
        std::fs::write(daemon.path("cdi/entropy.yaml"), example()).unwrap();
        std::fs::write(daemon.path("cdi/broken.json"), "{").unwrap();
        let config = daemon.pod("cdi");
        let pod = daemon.run_pod(&config).await.unwrap();
        let by_field = with_device(daemon.container("field", "sleep 600"), "example.com/entropy=slow");
        let mut by_annotation = daemon.container("annotation", "sleep 600");
        by_annotation.annotations.insert("cdi.k8s.io/any".into(), "example.com/entropy=slow".into());
        let seen = "echo $ENTROPY; ls -l /dev/entropy | tr -s ' ' | cut -d' ' -f1,5,6; head -c3 /dev/entropy | wc -c; test -s /host-release && echo mounted";
        for wanted in [by_field, by_annotation] {
            let id = started_with(&daemon, &pod, &config, &wanted).await;
            let lines = daemon.sh(&id, seen).await;
            assert_eq!(lines.lines().skip(2).collect::<Vec<_>>(), ["3", "mounted"], "{lines}");
            assert!(lines.starts_with("here\nc") && lines.contains(" 1, 8\n"), "{lines}");
        }
        assert!(daemon.log().contains("broken.json"), "{}", daemon.log());
        let plain = daemon.run(&pod, &config, "plain", "sleep 600").await;
        assert_eq!(daemon.sh(&plain, "ls /dev/entropy 2>/dev/null || echo none").await, "none\n");

        // The file changes, and so do containers that come after.
        let changed = example().replace("ENTROPY=here", "ENTROPY=there");
        std::fs::write(daemon.path("cdi/entropy.yaml"), changed).unwrap();
        let again = with_device(daemon.container("again", "sleep 600"), "example.com/entropy=slow");
        let id = started_with(&daemon, &pod, &config, &again).await;
        assert_eq!(daemon.sh(&id, "echo $ENTROPY").await, "there\n");
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn a_device_that_cannot_be_had_is_named_and_nothing_stays() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        std::fs::create_dir(daemon.path("cdi")).unwrap();
        for name in ["one.yaml", "two.yaml"] {
            std::fs::write(daemon.path("cdi").join(name), example()).unwrap();
        }
        let config = daemon.pod("refused");
        let pod = daemon.run_pod(&config).await.unwrap();
        let cases = [
            ("nonsense", tonic::Code::InvalidArgument, vec!["nonsense", "vendor.com/class=device"]),
            ("example.com/entropy=none", tonic::Code::NotFound, vec!["example.com/entropy=none"]),
            ("example.com/entropy=slow", tonic::Code::FailedPrecondition, vec!["one.yaml", "two.yaml"]),
        ];
        for (device, code, words) in cases {
            let wanted = with_device(daemon.container("c", "true"), device);
            let refused = daemon.create(&pod, &config, &wanted).await.unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert!(words.iter().all(|word| refused.message().contains(word)), "{refused}");
        }
        let containers =
            daemon.runtime().list_containers(v1::ListContainersRequest::default()).await.unwrap();
        assert!(containers.into_inner().containers.is_empty());
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}
