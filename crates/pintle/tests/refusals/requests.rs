//! Requests that cannot be granted, whatever the node does.

use cri::runtime_v1 as v1;
use tonic::Code;

use crate::support::{self, Daemon, in_own_network};
use crate::{lacking, needs_a_node, refused};

type PodChange = fn(&mut v1::PodSandboxConfig);

fn linux(config: &mut v1::PodSandboxConfig) -> &mut v1::LinuxPodSandboxConfig {
    config.linux.get_or_insert_default()
}

fn context(config: &mut v1::PodSandboxConfig) -> &mut v1::LinuxSandboxSecurityContext {
    linux(config).security_context.get_or_insert_default()
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
        ("a namespace of two lines", Code::InvalidArgument, &["config.metadata.namespace"], |pod| {
            pod.metadata.as_mut().unwrap().namespace = "a\nb".into();
        }),
        ("a log directory with NUL", Code::InvalidArgument, &["log_directory"], |pod| {
            pod.log_directory = "/var/log/a\0b".into();
        }),
        ("a sysctl twice", Code::InvalidArgument, &["sysctls", "twice", "net.ipv4.ip_forward"], |pod| {
            sysctl(pod, "net.ipv4.ip_forward", "1");
            sysctl(pod, "net/ipv4/ip_forward", "0");
        }),
        ("a protocol of the future", Code::InvalidArgument, &["port_mappings[0].protocol", "9"], |pod| {
            pod.port_mappings.push(v1::PortMapping { protocol: 9, ..Default::default() });
        }),
        ("port -1 inside", Code::InvalidArgument, &["port_mappings[0].container_port", "-1"], |pod| {
            pod.port_mappings.push(v1::PortMapping { container_port: -1, ..Default::default() });
        }),
        ("a flood of ports", Code::InvalidArgument, &["port_mappings", "5000"], |pod| {
            pod.port_mappings = vec![v1::PortMapping::default(); 5000];
        }),
        ("a cgroup parent that is no slice", Code::InvalidArgument, &["cgroup_parent", "a/b"], |pod| {
            linux(pod).cgroup_parent = "a/b".into();
        }),
        ("an annotation with a key of two lines", Code::InvalidArgument, &["annotations"], |pod| {
            pod.annotations.insert("a\nb".into(), "c".into());
        }),
        (
            "the processes of a container",
            Code::InvalidArgument,
            &["namespace_options.pid", "TARGET"],
            |pod| {
                context(pod).namespace_options =
                    Some(v1::NamespaceOption { pid: v1::NamespaceMode::Target.into(), ..Default::default() });
            },
        ),
        ("user -1", Code::InvalidArgument, &["security_context.run_as_user", "-1"], |pod| {
            context(pod).run_as_user = Some(v1::Int64Value { value: -1 });
        }),
        ("a group without a user", Code::InvalidArgument, &["security_context.run_as_group"], |pod| {
            context(pod).run_as_group = Some(v1::Int64Value { value: 1 });
        }),
        ("a seccomp profile of the future", Code::InvalidArgument, &["seccomp.profile_type", "9"], |pod| {
            context(pod).seccomp = Some(v1::SecurityProfile { profile_type: 9, ..Default::default() });
        }),
        (
            "an AppArmor profile of the future",
            Code::InvalidArgument,
            &["apparmor.profile_type", "9"],
            |pod| {
                context(pod).apparmor = Some(v1::SecurityProfile { profile_type: 9, ..Default::default() });
            },
        ),
        ("a label of two lines", Code::InvalidArgument, &["selinux_options.level"], |pod| {
            context(pod).selinux_options =
                Some(v1::SeLinuxOption { level: "s0\n".into(), ..Default::default() });
        }),
        ("limits below nothing", Code::InvalidArgument, &["resources.cpu_shares", "-5"], |pod| {
            linux(pod).resources = Some(v1::LinuxContainerResources { cpu_shares: -5, ..Default::default() });
        }),
        ("overhead below nothing", Code::InvalidArgument, &["memory_limit_in_bytes", "-5"], |pod| {
            linux(pod).overhead =
                Some(v1::LinuxContainerResources { memory_limit_in_bytes: -5, ..Default::default() });
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

fn device(config: &mut v1::ContainerConfig, host: &str, container: &str, permissions: &str) {
    config.devices.push(v1::Device {
        host_path: host.into(),
        container_path: container.into(),
        permissions: permissions.into(),
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
        ("NUL in a command", Code::InvalidArgument, &["command[1]"], |asked| {
            asked.command[1] = "a\0b".into()
        }),
        ("NUL in a variable", Code::InvalidArgument, &["\"A\""], |asked| {
            asked.envs.push(v1::KeyValue { key: "A".into(), value: b"a\0b".to_vec() });
        }),
        ("NUL in a source", Code::InvalidArgument, &["mounts[0].host_path"], |asked| {
            mount(asked, "/etc\0", "/data");
        }),
        ("a target of two lines", Code::InvalidArgument, &["mounts[0].container_path"], |asked| {
            mount(asked, "/etc", "/a\nb");
        }),
        ("a flood of mounts", Code::InvalidArgument, &["config.mounts", "20000"], |asked| {
            asked.mounts = vec![v1::Mount::default(); 20_000];
        }),
        (
            "ids mapped without users of its own",
            Code::InvalidArgument,
            &["mounts[0]", "user namespace"],
            |asked| {
                let ids = v1::IdMapping { host_id: 1000, container_id: 0, length: 10 };
                mount(asked, "/etc", "/data");
                (asked.mounts[0].uid_mappings, asked.mounts[0].gid_mappings) = (vec![ids], vec![ids]);
            },
        ),
        ("users mapped and groups not", Code::InvalidArgument, &["mounts[0]", "uids and gids"], |asked| {
            let ids = v1::IdMapping { host_id: 1000, container_id: 0, length: 10 };
            mount(asked, "/etc", "/data");
            asked.mounts[0].uid_mappings = vec![ids];
        }),
        ("NUL in the log's path", Code::InvalidArgument, &["log_path"], |asked| {
            asked.log_path = "a\0b".into();
        }),
        ("giant annotations", Code::InvalidArgument, &["annotations"], |asked| {
            asked.annotations.insert("a".into(), "x".repeat(GIANT));
        }),
        ("a dropped capability nobody knows", Code::InvalidArgument, &["MAGIC"], |asked| {
            security(asked).capabilities =
                Some(v1::Capability { drop_capabilities: vec!["MAGIC".into()], ..Default::default() });
        }),
        ("an ambient capability nobody knows", Code::InvalidArgument, &["MAGIC"], |asked| {
            security(asked).capabilities = Some(v1::Capability {
                add_ambient_capabilities: vec!["CAP_MAGIC".into()],
                ..Default::default()
            });
        }),
        ("privilege in a plain pod", Code::InvalidArgument, &["privileged pod"], |asked| {
            security(asked).privileged = true;
        }),
        ("the host's network past the pod", Code::InvalidArgument, &["network namespace"], |asked| {
            security(asked).namespace_options =
                Some(v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() });
        }),
        ("the host's processes past the pod", Code::InvalidArgument, &["PID namespace"], |asked| {
            security(asked).namespace_options =
                Some(v1::NamespaceOption { pid: v1::NamespaceMode::Node.into(), ..Default::default() });
        }),
        ("the processes of nobody", Code::InvalidArgument, &["namespace_options.target_id"], |asked| {
            security(asked).namespace_options =
                Some(v1::NamespaceOption { pid: v1::NamespaceMode::Target.into(), ..Default::default() });
        }),
        ("group 2^32", Code::InvalidArgument, &["supplemental_groups", "4294967296"], |asked| {
            security(asked).supplemental_groups = vec![1 << 32];
        }),
        ("a policy of the future", Code::InvalidArgument, &["supplemental_groups_policy", "9"], |asked| {
            security(asked).supplemental_groups_policy = 9;
        }),
        ("a user of two lines", Code::InvalidArgument, &["run_as_username"], |asked| {
            security(asked).run_as_username = "root\nx".into();
        }),
        ("a label of two lines", Code::InvalidArgument, &["selinux_options.type"], |asked| {
            security(asked).selinux_options =
                Some(v1::SeLinuxOption { r#type: "a\nb".into(), ..Default::default() });
        }),
        ("a relative seccomp profile", Code::InvalidArgument, &["profile.json", "absolute"], |asked| {
            security(asked).seccomp =
                Some(v1::SecurityProfile { profile_type: 2, localhost_ref: "profile.json".into() });
        }),
        ("a seccomp profile of the future", Code::InvalidArgument, &["seccomp.profile_type", "9"], |asked| {
            security(asked).seccomp = Some(v1::SecurityProfile { profile_type: 9, ..Default::default() });
        }),
        ("an AppArmor profile nobody has", Code::FailedPrecondition, &["AppArmor", "no-such"], |asked| {
            security(asked).apparmor =
                Some(v1::SecurityProfile { profile_type: 2, localhost_ref: "no-such".into() });
        }),
        ("a relative path to mask", Code::InvalidArgument, &["masked_paths[0]"], |asked| {
            security(asked).masked_paths = vec!["proc/kcore".into()];
        }),
        ("rights no device has", Code::InvalidArgument, &["/dev/x", "rx"], |asked| {
            device(asked, "/dev/null", "/dev/x", "rx");
        }),
        ("a file as a device", Code::InvalidArgument, &["/etc/passwd"], |asked| {
            device(asked, "/etc/passwd", "/dev/x", "r");
        }),
        ("two devices at one place", Code::InvalidArgument, &["/dev/x"], |asked| {
            device(asked, "/dev/null", "/dev/x", "r");
            device(asked, "/dev/zero", "/dev/x", "r");
        }),
        ("a device at a relative path", Code::InvalidArgument, &["devices[0].container_path"], |asked| {
            device(asked, "/dev/null", "x", "r");
        }),
        ("less swap than memory", Code::InvalidArgument, &["memory_swap_limit_in_bytes"], |asked| {
            resources(asked).memory_limit_in_bytes = 64 << 20;
            resources(asked).memory_swap_limit_in_bytes = 32 << 20;
        }),
        ("negative shares", Code::InvalidArgument, &["cpu_shares", "-1"], |asked| {
            resources(asked).cpu_shares = -1;
        }),
        ("a quota of one microsecond", Code::InvalidArgument, &["cpu_quota"], |asked| {
            resources(asked).cpu_quota = 1;
        }),
        ("a size of page that walks", Code::InvalidArgument, &["hugepage_limits", "../2MB"], |asked| {
            resources(asked).hugepage_limits.push(v1::HugepageLimit { page_size: "../2MB".into(), limit: 1 });
        }),
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
            let request = v1::PodSandboxStatsRequest { pod_sandbox_id: container() };
            refused(&what, daemon.runtime().pod_sandbox_stats(request).await, code, &[]);
            let request = v1::UpdatePodSandboxResourcesRequest {
                pod_sandbox_id: container(),
                resources: Some(v1::LinuxContainerResources { cpu_shares: 10, ..Default::default() }),
                ..Default::default()
            };
            refused(&what, daemon.runtime().update_pod_sandbox_resources(request).await, code, &[]);
            let (container_id, stdout) = (container(), true);
            let request =
                v1::ExecRequest { container_id, cmd: vec!["true".into()], stdout, ..Default::default() };
            refused(&what, daemon.runtime().exec(request).await, code, &[]);
            let request = v1::AttachRequest { container_id: container(), stdout, ..Default::default() };
            refused(&what, daemon.runtime().attach(request).await, code, &[]);
            let request = v1::PortForwardRequest { pod_sandbox_id: container(), port: vec![80] };
            refused(&what, daemon.runtime().port_forward(request).await, code, &[]);
            let location = "/nowhere/checkpoint.tar".to_owned();
            let request = v1::CheckpointContainerRequest { container_id: container(), location, timeout: 1 };
            refused(&what, daemon.runtime().checkpoint_container(request).await, code, &[]);
            let mut request = tonic::Request::new(v1::CheckpointPodRequest {
                pod_sandbox_id: container(),
                output_path: "/nowhere".into(),
                container_ids: vec!["a".into()],
                ..Default::default()
            });
            request.set_timeout(std::time::Duration::from_secs(5));
            refused(&what, daemon.runtime().checkpoint_pod(request).await, code, &[]);
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
