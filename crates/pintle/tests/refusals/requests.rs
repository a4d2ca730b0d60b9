//! Requests that cannot be granted, whatever the node does.

use cri::runtime_v1 as v1;
use tonic::Code;

use crate::support::{self, Daemon, in_own_network};
use crate::{lacking, needs_a_node, refused};

type PodChange = fn(&mut v1::PodSandboxConfig);

fn linux(config: &mut v1::PodSandboxConfig) -> &mut v1::LinuxPodSandboxConfig {
    config.linux.get_or_insert_default()
}

fn sysctl(config: &mut v1::PodSandboxConfig, name: &str, value: &str) {
    linux(config).sysctls.insert(name.into(), value.into());
}

const GIANT: usize = 1 << 20;

#[test]
fn pods_that_cannot_be_are_refused() {
    needs_a_node!();
    let bad: &[(&str, Code, &[&str], PodChange)] = &[
        ("no metadata", Code::InvalidArgument, &["config.metadata"], |pod| pod.metadata = None),
        ("no name", Code::InvalidArgument, &["config.metadata.name"], |pod| {
            pod.metadata = Some(v1::PodSandboxMetadata { uid: "u".into(), ..Default::default() });
        }),
        ("a path as a name", Code::InvalidArgument, &["config.metadata.name"], |pod| {
            pod.metadata.as_mut().unwrap().name = "../../x".into();
        }),
        ("a giant name", Code::InvalidArgument, &["config.metadata.name"], |pod| {
            pod.metadata.as_mut().unwrap().name = "x".repeat(GIANT);
        }),
        ("a uid with NUL", Code::InvalidArgument, &["config.metadata.uid"], |pod| {
            pod.metadata.as_mut().unwrap().uid = "a\0b".into();
        }),
        ("a name that would change CNI_ARGS", Code::InvalidArgument, &["a;K8S=1"], |pod| {
            pod.metadata.as_mut().unwrap().name = "a;K8S=1".into();
        }),
        ("a long host name", Code::InvalidArgument, &["hostname", "64"], |pod| pod.hostname = "h".repeat(65)),
        ("a host name of two lines", Code::InvalidArgument, &["hostname"], |pod| {
            pod.hostname = "a\nb".into()
        }),
        ("a relative log directory", Code::InvalidArgument, &["log_directory", "logs/x"], |pod| {
            pod.log_directory = "logs/x".into();
        }),
        ("a log directory that leads up", Code::InvalidArgument, &["log_directory"], |pod| {
            pod.log_directory = "/var/log/../../x".into();
        }),
        ("a log directory in /proc", Code::FailedPrecondition, &["/proc/no/logs", "log directory"], |pod| {
            pod.log_directory = "/proc/no/logs".into()
        }),
        ("a log directory below a file", Code::FailedPrecondition, &["/etc/passwd/logs"], |pod| {
            pod.log_directory = "/etc/passwd/logs".into();
        }),
        ("a sysctl of the host", Code::InvalidArgument, &["vm.swappiness"], |pod| {
            sysctl(pod, "vm.swappiness", "10");
        }),
        ("a sysctl that smuggles", Code::InvalidArgument, &["sysctl"], |pod| {
            sysctl(pod, "kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x");
        }),
        ("a sysctl that walks", Code::InvalidArgument, &["sysctl"], |pod| {
            sysctl(pod, "net/../kernel/core_pattern", "|/x");
        }),
        ("a sysctl that is not there", Code::InvalidArgument, &["no_such_thing"], |pod| {
            sysctl(pod, "net.ipv4.no_such_thing", "1");
        }),
        ("a value no sysctl takes", Code::InvalidArgument, &["ip_forward", "many"], |pod| {
            sysctl(pod, "net.ipv4.ip_forward", "many");
        }),
        ("port 70000", Code::InvalidArgument, &["port_mappings[0].host_port", "70000"], |pod| {
            pod.port_mappings.push(v1::PortMapping {
                host_port: 70000,
                container_port: 1,
                ..Default::default()
            });
        }),
        ("an address that is none", Code::InvalidArgument, &["host_ip", "1.2.3"], |pod| {
            pod.port_mappings.push(v1::PortMapping {
                host_port: 80,
                container_port: 1,
                host_ip: "1.2.3".into(),
                ..Default::default()
            });
        }),
        ("a name server of two lines", Code::InvalidArgument, &["dns_config"], |pod| {
            pod.dns_config =
                Some(v1::DnsConfig { servers: vec!["1.1.1.1\nsearch x".into()], ..Default::default() });
        }),
        ("a cgroup parent that leads up", Code::InvalidArgument, &["cgroup_parent"], |pod| {
            linux(pod).cgroup_parent = "/kubepods/../..".into();
        }),
        ("giant labels", Code::InvalidArgument, &["labels"], |pod| {
            pod.labels.insert("a".into(), "x".repeat(GIANT));
        }),
        ("a namespace mode of the future", Code::InvalidArgument, &["namespace_options.network"], |pod| {
            linux(pod).security_context.get_or_insert_default().namespace_options =
                Some(v1::NamespaceOption { network: 9, ..Default::default() });
        }),
        ("a bandwidth that is none", Code::InvalidArgument, &["kubernetes.io/ingress-bandwidth"], |pod| {
            pod.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "fast".into());
        }),
    ];
    in_own_network(async {
        let daemon = Daemon::start().await;
        let before = daemon.inventory().await;
        let run = |config, handler: &str| {
            let request = v1::RunPodSandboxRequest { config, runtime_handler: handler.into() };
            let mut runtime = daemon.runtime();
            async move { runtime.run_pod_sandbox(request).await }
        };
        refused("no config", run(None, "").await, Code::InvalidArgument, &["config"]);
        let handler = run(Some(daemon.pod("a")), "no-such-handler").await;
        refused("unknown handler", handler, Code::InvalidArgument, &["no-such-handler", "configured"]);
        let giant = run(Some(daemon.pod("a")), &"h".repeat(GIANT)).await;
        refused("giant handler", giant, Code::InvalidArgument, &["runtime_handler"]);
        let mut failures = Vec::new();
        for (what, code, parts, change) in bad {
            let mut config = daemon.pod("a");
            change(&mut config);
            failures.extend(lacking(what, run(Some(config), "").await, *code, parts));
            failures.extend(daemon.changed_since(&before, what).await);
        }
        assert!(failures.is_empty(), "{failures:#?}");
        // After all that, the name is as free as it was.
        daemon.run_pod(&daemon.pod("a")).await.unwrap();
    });
}

type ContainerChange = fn(&mut v1::ContainerConfig);

fn mount(config: &mut v1::ContainerConfig, host: &str, container: &str) {
    config.mounts.push(v1::Mount {
        host_path: host.into(),
        container_path: container.into(),
        ..Default::default()
    });
}

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn resources(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerResources {
    config.linux.get_or_insert_default().resources.get_or_insert_default()
}

#[test]
fn containers_that_cannot_be_are_refused() {
    needs_a_node!();
    let bad: &[(&str, Code, &[&str], ContainerChange)] = &[
        ("no metadata", Code::InvalidArgument, &["config.metadata"], |asked| asked.metadata = None),
        ("no image", Code::InvalidArgument, &["config.image"], |asked| asked.image = None),
        ("an empty image", Code::InvalidArgument, &["config.image"], |asked| {
            asked.image = Some(v1::ImageSpec::default());
        }),
        ("an absent image", Code::NotFound, &["r.example/none:1", "pull it"], |asked| {
            asked.image = Some(v1::ImageSpec { image: "r.example/none:1".into(), ..Default::default() });
        }),
        ("a giant image", Code::InvalidArgument, &["config.image"], |asked| {
            asked.image.as_mut().unwrap().image = "x".repeat(GIANT);
        }),
        ("an image that is no reference", Code::NotFound, &["//"], |asked| {
            asked.image.as_mut().unwrap().image = "a//b:".into();
        }),
        ("a path as a name", Code::InvalidArgument, &["metadata.name"], |asked| {
            asked.metadata.as_mut().unwrap().name = "a/../b".into();
        }),
        ("a relative mount target", Code::InvalidArgument, &["mounts[0]", "data"], |asked| {
            mount(asked, "/etc", "data");
        }),
        ("the root as a mount target", Code::InvalidArgument, &["mounts[0]", "/"], |asked| {
            mount(asked, "/etc", "/x/..");
        }),
        ("/proc as a mount target", Code::InvalidArgument, &["/proc"], |asked| mount(asked, "/etc", "/proc")),
        ("a mount below /proc", Code::InvalidArgument, &["/proc/self"], |asked| {
            mount(asked, "/etc", "/x/../proc/self");
        }),
        ("a target twice", Code::InvalidArgument, &["mounts[1]", "/a"], |asked| {
            mount(asked, "/etc", "/a");
            mount(asked, "/usr", "/a/");
        }),
        ("a source that is not there", Code::FailedPrecondition, &["/no/such/source", "/data"], |asked| {
            mount(asked, "/no/such/source", "/data");
        }),
        ("a relative source", Code::InvalidArgument, &["mounts[0]"], |asked| mount(asked, "etc", "/data")),
        ("no source", Code::InvalidArgument, &["mounts[0].host_path"], |asked| mount(asked, "", "/data")),
        ("a bad mount option", Code::InvalidArgument, &["suid"], |asked| {
            mount(asked, "/etc", "/data");
            asked.mounts[0].mount_options.push("suid".into());
        }),
        ("a log path that leads up", Code::InvalidArgument, &["log_path"], |asked| {
            asked.log_path = "../../../x.log".into();
        }),
        ("an absolute log path", Code::InvalidArgument, &["log_path"], |asked| {
            asked.log_path = "/etc/cron.d/x".into();
        }),
        ("a log path in a folder that is not there", Code::FailedPrecondition, &["nowhere"], |asked| {
            asked.log_path = "nowhere/x.log".into();
        }),
        ("no command", Code::InvalidArgument, &["command"], |asked| asked.command = vec![String::new()]),
        ("NUL in an argument", Code::InvalidArgument, &["args"], |asked| asked.args = vec!["a\0b".into()]),
        ("a variable without a name", Code::InvalidArgument, &["env"], |asked| {
            asked.envs.push(v1::KeyValue { key: String::new(), value: b"x".to_vec() });
        }),
        ("a variable with =", Code::InvalidArgument, &["A=B"], |asked| {
            asked.envs.push(v1::KeyValue { key: "A=B".into(), value: b"x".to_vec() });
        }),
        ("a relative working directory", Code::InvalidArgument, &["work"], |asked| {
            asked.working_dir = "work".into();
        }),
        ("a capability nobody knows", Code::InvalidArgument, &["MAGIC"], |asked| {
            security(asked).capabilities =
                Some(v1::Capability { add_capabilities: vec!["CAP_MAGIC".into()], ..Default::default() });
        }),
        ("user -1", Code::InvalidArgument, &["run_as_user", "-1"], |asked| {
            security(asked).run_as_user = Some(v1::Int64Value { value: -1 });
        }),
        ("user 2^32", Code::InvalidArgument, &["run_as_user", "4294967296"], |asked| {
            security(asked).run_as_user = Some(v1::Int64Value { value: 1 << 32 });
        }),
        ("a user nobody knows", Code::InvalidArgument, &["stranger"], |asked| {
            security(asked).run_as_username = "stranger".into();
        }),
        ("a group without a user", Code::InvalidArgument, &["run_as_group"], |asked| {
            security(asked).run_as_group = Some(v1::Int64Value { value: 5 });
        }),
        ("a seccomp profile that is not there", Code::InvalidArgument, &["/no/profile.json"], |asked| {
            security(asked).seccomp =
                Some(v1::SecurityProfile { profile_type: 2, localhost_ref: "/no/profile.json".into() });
        }),
        ("a seccomp profile that is none", Code::InvalidArgument, &["/etc/passwd"], |asked| {
            security(asked).seccomp =
                Some(v1::SecurityProfile { profile_type: 2, localhost_ref: "/etc/passwd".into() });
        }),
        ("a seccomp profile that never ends", Code::InvalidArgument, &["/dev/zero"], |asked| {
            security(asked).seccomp =
                Some(v1::SecurityProfile { profile_type: 2, localhost_ref: "/dev/zero".into() });
        }),
        ("a device that is not there", Code::InvalidArgument, &["/dev/no-such-device"], |asked| {
            asked.devices.push(v1::Device {
                host_path: "/dev/no-such-device".into(),
                container_path: "/dev/x".into(),
                permissions: "rwm".into(),
            });
        }),
        ("a CDI device that no file describes", Code::NotFound, &["vendor.example/gpu=0"], |asked| {
            asked.cdi_devices.push(v1::CdiDevice { name: "vendor.example/gpu=0".into() });
        }),
        ("the processes of a stranger", Code::InvalidArgument, &["no-such-container"], |asked| {
            security(asked).namespace_options = Some(v1::NamespaceOption {
                pid: v1::NamespaceMode::Target.into(),
                target_id: "no-such-container".into(),
                ..Default::default()
            });
        }),
        ("an out-of-memory score of 5000", Code::InvalidArgument, &["oom_score_adj", "5000"], |asked| {
            resources(asked).oom_score_adj = 5000;
        }),
        ("a negative memory limit", Code::InvalidArgument, &["memory"], |asked| {
            resources(asked).memory_limit_in_bytes = -7;
        }),
        ("a processor that is not there", Code::FailedPrecondition, &["cpuset", "4000"], |asked| {
            resources(asked).cpuset_cpus = "4000".into();
        }),
        ("a list of processors that is none", Code::InvalidArgument, &["cpuset"], |asked| {
            resources(asked).cpuset_cpus = "0;reboot".into();
        }),
        ("a signal of the future", Code::InvalidArgument, &["stop_signal"], |asked| asked.stop_signal = 4000),
    ];
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        // The first container makes folders that the next ones find.
        daemon.run(&pod, &sandbox, "first", "sleep 1000").await;
        let before = daemon.inventory().await;
        let good = daemon.container("c", "sleep 1000");
        let unknown = daemon.create("no-such-pod", &sandbox, &good).await;
        refused("unknown pod", unknown, Code::NotFound, &["no-such-pod"]);
        let request = v1::CreateContainerRequest { pod_sandbox_id: pod.clone(), ..Default::default() };
        refused(
            "no config",
            daemon.runtime().create_container(request).await,
            Code::InvalidArgument,
            &["config"],
        );
        let mut failures = Vec::new();
        for (what, code, parts, change) in bad {
            let mut asked = good.clone();
            change(&mut asked);
            failures.extend(lacking(what, daemon.create(&pod, &sandbox, &asked).await, *code, parts));
            failures.extend(daemon.changed_since(&before, what).await);
        }
        assert!(failures.is_empty(), "{failures:#?}");
        // After all that, the name is as free as it was, and the pod works.
        let id = daemon.create(&pod, &sandbox, &good).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        daemon.stop_pod(&pod).await.unwrap();
        let late = daemon.create(&pod, &sandbox, &daemon.container("late", "true")).await;
        refused("a stopped pod", late, Code::FailedPrecondition, &[&pod, "not running"]);
    });
}

#[test]
fn odd_ids_are_refused_everywhere_and_unknown_ones_are_not_found() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let before = daemon.inventory().await;
        let giant = "a".repeat(GIANT);
        let odd = ["", "..", "../../etc/passwd", "a\0b", "a\nb", "a b", "*", giant.as_str()];
        for (id, code) in
            odd.map(|id| (id, Code::InvalidArgument)).into_iter().chain([("abc123", Code::NotFound)])
        {
            let what: String = id.chars().take(20).collect();
            let container = || id.to_owned();
            refused(&what, daemon.start_container(id).await, code, &[]);
            refused(&what, daemon.status(id).await, code, &[]);
            refused(&what, daemon.exec(id, &["true"], 1).await, code, &[]);
            let request = v1::ContainerStatsRequest { container_id: container() };
            refused(&what, daemon.runtime().container_stats(request).await, code, &[]);
            let request = v1::ReopenContainerLogRequest { container_id: container() };
            refused(&what, daemon.runtime().reopen_container_log(request).await, code, &[]);
            let request = v1::UpdateContainerResourcesRequest {
                container_id: container(),
                linux: Some(v1::LinuxContainerResources { cpu_shares: 10, ..Default::default() }),
                ..Default::default()
            };
            refused(&what, daemon.runtime().update_container_resources(request).await, code, &[]);
            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: container(), verbose: true };
            refused(&what, daemon.runtime().pod_sandbox_status(request).await, code, &[]);
            let sandbox = daemon.pod("x");
            refused(&what, daemon.create(id, &sandbox, &daemon.container("c", "true")).await, code, &[]);
            if code == Code::NotFound {
                // What is not there is stopped and removed.
                daemon.stop_container(id, 0).await.unwrap();
                daemon.remove_container(id).await.unwrap();
                daemon.stop_pod(id).await.unwrap();
                daemon.remove_pod(id).await.unwrap();
            } else {
                refused(&what, daemon.stop_container(id, 0).await, code, &["container_id"]);
                refused(&what, daemon.remove_container(id).await, code, &["container_id"]);
                refused(&what, daemon.stop_pod(id).await, code, &["pod_sandbox_id"]);
                refused(&what, daemon.remove_pod(id).await, code, &["pod_sandbox_id"]);
            }
        }
        assert_eq!(daemon.changed_since(&before, "odd ids").await, None);
    });
}

#[test]
fn a_beginning_that_several_ids_have_is_ambiguous() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let mut ids = Vec::new();
        // Seventeen ids share a first digit somewhere.
        for number in 0..17 {
            let asked = daemon.container(&format!("c{number}"), "true");
            ids.push(daemon.create(&pod, &sandbox, &asked).await.unwrap());
        }
        let digit = ids
            .iter()
            .map(|id| &id[..1])
            .find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1);
        let digit = digit.unwrap();
        refused("ambiguous", daemon.status(digit).await, Code::InvalidArgument, &[digit]);
        refused("ambiguous", daemon.remove_container(digit).await, Code::InvalidArgument, &[digit]);
        assert_eq!(daemon.status(&ids[0][..32]).await.unwrap().id, ids[0]);
        daemon.empty().await;
    });
}
