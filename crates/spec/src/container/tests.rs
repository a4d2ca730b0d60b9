//! Whole specs: a golden one, and what each part of a request changes or refuses.

use std::collections::BTreeSet;

use model::id::{ContainerId, PodId};
use model::request::{
    ContainerRequest, ImageChoice, Mount, NamespaceMode, PidNamespace, PodName, PodRequest, Propagation,
    Resources,
};
use oci_spec::runtime::{LinuxNamespaceType, Mount as OciMount};
use serde_json::{Value, json};

use super::*;
use crate::input::{
    CgroupVersion, DeviceKind, HostDevice, HostFacts, ImageFacts, NamespacePlan, PidPlan, PodFiles,
    RequestedDevice, SelinuxLabels,
};
use crate::user::ResolvedUser;
use crate::{Refusal, paths};

mod users;
mod volumes;

struct Case {
    pod_id: PodId,
    pod: PodRequest,
    container_id: ContainerId,
    container: ContainerRequest,
    image: ImageFacts,
    user: ResolvedUser,
    host: HostFacts,
    files: PodFiles,
    namespaces: NamespacePlan,
    devices: Vec<RequestedDevice>,
    seccomp: SeccompPlan,
    selinux: SelinuxLabels,
}

impl Case {
    /// A container as the kubelet asks for it, on a host with cgroup v2.
    fn new() -> Case {
        let volume = |host: &str, target: &str, readonly| Mount {
            host_path: host.into(),
            container_path: target.into(),
            readonly,
            ..Default::default()
        };
        let mut container = ContainerRequest {
            name: "web".into(),
            args: vec!["--port=80".into()],
            environment: vec![("PORT".into(), b"80".to_vec()), ("LANG".into(), b"C.UTF-8".to_vec())],
            mounts: vec![
                volume("/pods/u1/volumes/token", "/var/run/secrets/kubernetes.io/serviceaccount", true),
                volume("/pods/u1/etc-hosts", "/etc/hosts", false),
                volume("/pods/u1/data", "/var/", false),
            ],
            resources: Resources {
                cpu_period_us: 100_000,
                cpu_quota_us: 50_000,
                cpu_shares: 512,
                memory_limit_bytes: 64 << 20,
                oom_score_adj: 985,
                hugepage_limits: vec![("2MB".into(), 0), ("1GB".into(), 0)],
                ..Default::default()
            },
            ..Default::default()
        };
        container.security.masked_paths = vec!["/proc/kcore".into()];
        container.security.readonly_paths = vec!["/proc/sys".into()];
        container.security.no_new_privileges = true;
        let name = PodName { namespace: "shop".into(), name: "web-0".into(), uid: "u1".into(), attempt: 0 };
        Case {
            pod_id: PodId::from_random([1; 32]),
            pod: PodRequest { name, hostname: "web-0".into(), ..Default::default() },
            container_id: ContainerId::from_random([2; 32]),
            container,
            image: ImageFacts {
                name: "registry.example/web:1".into(),
                entrypoint: vec!["/bin/web".into()],
                cmd: vec!["--help".into()],
                env: vec!["PATH=/app/bin:/bin".into(), "LANG=C".into(), "nonsense".into(), "=x".into()],
                working_dir: "/app".into(),
            },
            user: ResolvedUser {
                uid: 1000,
                gid: 3000,
                additional_gids: vec![3000, 4000],
                home: "/home/app".into(),
            },
            host: HostFacts {
                hostname: "node".into(),
                cgroup: CgroupVersion::V2,
                kernel: seccomp::KernelVersion(6, 1),
                architecture: seccomp::Architecture::X86_64,
                capabilities: crate::capabilities::DEFAULT.into(),
                devices: vec![
                    device("/dev/kvm", 10, 232),
                    device("/dev/null", 1, 3),
                    device("/dev/pts/0", 136, 0),
                ],
                hugepage_sizes: vec!["2MB".into()],
                oom_score_adj_floor: None,
                apparmor: None,
            },
            files: PodFiles {
                hosts: Some("/run/p/hosts".into()),
                resolv_conf: Some("/run/p/resolv.conf".into()),
                hostname: Some("/run/p/hostname".into()),
                shm: Some("/run/p/shm".into()),
            },
            namespaces: NamespacePlan {
                network: Some("/run/p/ns/net".into()),
                ipc: Some("/run/p/ns/ipc".into()),
                uts: Some("/run/p/ns/uts".into()),
                user: None,
                pid: PidPlan::Own,
            },
            devices: vec![],
            seccomp: SeccompPlan::None,
            selinux: SelinuxLabels::default(),
        }
    }

    fn with(change: impl FnOnce(&mut Case)) -> Case {
        let mut case = Case::new();
        change(&mut case);
        case
    }

    fn privileged() -> Case {
        Case::with(|case| {
            case.pod.privileged = true;
            case.container.security.privileged = true;
            case.seccomp = SeccompPlan::Default;
        })
    }

    fn result(&self) -> Result<Spec, SpecError> {
        container_spec(&SpecInput {
            pod_id: &self.pod_id,
            pod: &self.pod,
            container_id: &self.container_id,
            container: &self.container,
            image: &self.image,
            user: &self.user,
            host: &self.host,
            files: &self.files,
            namespaces: &self.namespaces,
            devices: &self.devices,
            cgroups_path: "/kubepods/podu1/c",
            seccomp: &self.seccomp,
            selinux: &self.selinux,
        })
    }

    fn spec(&self) -> Spec {
        self.result().unwrap()
    }

    fn error(change: impl FnOnce(&mut Case)) -> SpecError {
        Case::with(change).result().unwrap_err()
    }

    fn env(&self) -> Vec<String> {
        self.spec().process().as_ref().unwrap().env().clone().unwrap()
    }
}

fn device(path: &str, major: u32, minor: u32) -> HostDevice {
    let kind = DeviceKind::Character;
    HostDevice { path: path.into(), kind, major, minor, mode: 0o660, uid: 0, gid: 5 }
}

fn mount_at<'a>(spec: &'a Spec, target: &str) -> Option<&'a OciMount> {
    spec.mounts().as_ref().unwrap().iter().find(|mount| mount.destination().to_str() == Some(target))
}

fn options(spec: &Spec, target: &str) -> String {
    mount_at(spec, target).unwrap().options().as_ref().unwrap().join(",")
}

fn namespaces(spec: &Spec) -> BTreeSet<String> {
    let linux = spec.linux().as_ref().unwrap();
    linux.namespaces().as_ref().unwrap().iter().map(|ns| ns.typ().to_string()).collect()
}

/// The spec as JSON, with sets in order.
fn golden_form(spec: &Spec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        let list = value["process"]["capabilities"][set].as_array_mut().unwrap();
        list.sort_by_key(|cap| cap.as_str().unwrap().to_owned());
    }
    value
}

#[test]
fn a_container_of_the_kubelet() {
    let expected: Value = serde_json::from_str(include_str!("golden.json")).unwrap();
    let found = golden_form(&Case::new().spec());
    assert_eq!(found, expected, "{}", serde_json::to_string_pretty(&found).unwrap());
}

#[test]
fn variables_override_in_place() {
    assert_eq!(
        Case::new().env(),
        ["PATH=/app/bin:/bin", "HOSTNAME=web-0", "LANG=C.UTF-8", "PORT=80", "HOME=/home/app"]
    );
    let tty = Case::with(|case| {
        case.container.tty = true;
        case.container.environment = vec![("HOME".into(), b"/x".to_vec()), ("EMPTY".into(), vec![])];
        case.pod.hostname = String::new();
        case.pod.namespaces.network = NamespaceMode::Host;
        case.image.env = vec![];
    });
    let expected = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=node",
        "TERM=xterm",
        "HOME=/x",
        "EMPTY=",
    ];
    assert_eq!(tty.env(), expected);
}

#[test]
fn variables_that_are_no_text_go_beside_the_spec() {
    let raw = |environment: &[(&str, &[u8])]| {
        let case = Case::with(|case| {
            let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
            case.container.environment = owned.collect();
            case.image.env = vec!["A=image".into()];
        });
        (case.env().join(" "), crate::raw_environment(&case.container))
    };
    let (env, beside) = raw(&[("A", b"\xff="), ("B", b"text"), ("HOME", b"/\xfe")]);
    assert!(!env.contains("A=") && !env.contains("HOME=") && env.ends_with("B=text"), "{env}");
    assert_eq!(beside, b"A=\xff=\0HOME=/\xfe\0");
    let (env, beside) = raw(&[("A", b"\xff"), ("A", b"text")]);
    assert!(env.contains("A=text") && beside.is_empty(), "the last one wins");
    let (env, beside) = raw(&[("A", b"text"), ("A", b"\xff")]);
    assert!(!env.contains("A=") && beside == b"A=\xff\0", "the last one wins");
}

#[test]
fn variables_that_cannot_be_carried_are_named() {
    let of = |name: &str, value: &[u8]| {
        Case::error(|case| case.container.environment = vec![(name.into(), value.to_vec())])
    };
    for error in [
        of("KEY", b"\xff\0\xfe"),
        of("K=", b"\xff"),
        of("KEY", b"a\0b"),
        of("K=Y", b""),
        of("K\nY", b""),
        of("", b"x"),
    ] {
        let SpecError::Environment { name, .. } = &error else { panic!("{error}") };
        assert!(name.is_empty() || name.starts_with('K'));
        assert_eq!(error.refusal(), Refusal::Invalid);
    }
    let image = Case::error(|case| case.image.env = vec!["A=\0".into()]);
    assert!(matches!(image, SpecError::Environment { .. }));
    assert!(
        Case::with(|case| case.container.environment = vec![("A".into(), b"1\n2".to_vec())]).result().is_ok()
    );
}

#[test]
fn a_container_without_a_command_is_refused() {
    let error = Case::error(|case| {
        case.image = ImageFacts::default();
        case.container.args.clear();
    });
    assert_eq!(error, SpecError::NoCommand);
}

#[test]
fn mounts_of_the_request_replace_defaults() {
    let spec = Case::new().spec();
    assert_eq!(
        mount_at(&spec, "/etc/hosts").unwrap().source().as_deref(),
        Some("/pods/u1/etc-hosts".as_ref())
    );
    let dev = Case::with(|case| {
        case.container.mounts = vec![Mount {
            host_path: "/dev".into(),
            container_path: "/dev/".into(),
            propagation: Propagation::HostToContainer,
            ..Default::default()
        }];
    })
    .spec();
    assert!(mount_at(&dev, "/dev/pts").is_none() && mount_at(&dev, "/dev/shm").is_some());
    assert_eq!(options(&dev, "/dev"), "rbind,rslave,rw");
    assert_eq!(dev.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("rslave"));
}

#[test]
fn nothing_is_mounted_below_what_the_host_shares() {
    let etc = |propagation| {
        let mount = Mount {
            host_path: "/h/etc".into(),
            container_path: "/etc".into(),
            propagation,
            ..Default::default()
        };
        Case::with(|case| case.container.mounts = vec![mount]).spec()
    };
    assert!(mount_at(&etc(Propagation::Bidirectional), "/etc/resolv.conf").is_none());
    let private = etc(Propagation::Private);
    let position = |target: &str| {
        let mounts = private.mounts().as_ref().unwrap();
        mounts.iter().position(|mount| mount.destination().to_str() == Some(target)).unwrap()
    };
    assert!(position("/etc") < position("/etc/resolv.conf"));
}

#[test]
fn a_readonly_root_has_readonly_files_and_a_writable_shm() {
    let spec = Case::with(|case| case.container.security.readonly_rootfs = true).spec();
    assert_eq!(spec.root().as_ref().unwrap().readonly(), Some(true));
    assert_eq!(options(&spec, "/etc/hostname"), "rbind,rprivate,ro");
    assert!(!options(&spec, "/dev/shm").contains("ro,"));
}

#[test]
fn parents_are_mounted_before_children() {
    let spec = Case::new().spec();
    let mounts = spec.mounts().as_ref().unwrap();
    for (at, mount) in mounts.iter().enumerate() {
        let covers_an_earlier_one =
            mounts[..at].iter().any(|earlier| earlier.destination().starts_with(mount.destination()));
        assert!(!covers_an_earlier_one, "{:?}", mount.destination());
    }
}

fn mount_error(mount: Mount) -> SpecError {
    Case::error(|case| case.container.mounts = vec![mount])
}

#[test]
fn mounts_that_are_refused() {
    let at =
        |target: &str| Mount { host_path: "/h".into(), container_path: target.into(), ..Default::default() };
    for target in ["/", "/..", "/proc", "/proc/", "/proc/self/attr", "/proc/sys", "/sys/../proc/1"] {
        assert!(matches!(mount_error(at(target)), SpecError::MountTargetForbidden { .. }), "{target}");
    }
    for target in ["", "data", "./data", "/a\0"] {
        assert!(matches!(mount_error(at(target)), SpecError::MountTarget { .. }), "{target:?}");
    }
    for source in ["", "h", "/a\0"] {
        let mount = Mount { host_path: source.into(), ..at("/d") };
        assert!(matches!(mount_error(mount), SpecError::MountSource { .. }), "{source:?}");
    }
    let option = Mount { options: vec!["suid".into()], ..at("/d") };
    assert!(matches!(mount_error(option), SpecError::MountOption { .. }));
    let twice = Case::error(|case| case.container.mounts = vec![at("/d"), at("/d/../d")]);
    assert_eq!(twice, SpecError::MountTwice { first: 0, index: 1, target: "/d".into() });
    assert!(Case::with(|case| case.container.mounts = vec![at("/proc/meminfo")]).result().is_ok());
}

#[test]
fn recursive_read_only_needs_readonly_and_private() {
    let mount = |readonly, propagation| Mount {
        host_path: "/h".into(),
        container_path: "/d".into(),
        recursive_read_only: true,
        readonly,
        propagation,
        options: vec!["noexec".into(), "nodev".into(), "noexec".into()],
        ..Default::default()
    };
    let good = Case::with(|case| case.container.mounts = vec![mount(true, Propagation::Private)]).spec();
    assert_eq!(options(&good, "/d"), "rbind,rprivate,rro,noexec,nodev");
    for (readonly, propagation) in [
        (false, Propagation::Private),
        (true, Propagation::HostToContainer),
        (true, Propagation::Bidirectional),
    ] {
        assert!(matches!(mount_error(mount(readonly, propagation)), SpecError::RecursiveReadOnly { .. }));
    }
}

#[test]
fn propagation_reaches_the_root() {
    let of = |propagations: &[Propagation]| {
        let mount = |(index, propagation): (usize, &Propagation)| Mount {
            host_path: "/h".into(),
            container_path: format!("/d{index}").into(),
            propagation: *propagation,
            ..Default::default()
        };
        let case =
            Case::with(|case| case.container.mounts = propagations.iter().enumerate().map(mount).collect());
        case.spec().linux().as_ref().unwrap().rootfs_propagation().clone()
    };
    assert_eq!(of(&[Propagation::Private]), None);
    assert_eq!(of(&[Propagation::HostToContainer, Propagation::Private]).as_deref(), Some("rslave"));
    assert_eq!(of(&[Propagation::HostToContainer, Propagation::Bidirectional]).as_deref(), Some("rshared"));
}

#[test]
fn a_privileged_container_has_the_host() {
    let spec = Case::privileged().spec();
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.seccomp().is_none());
    assert_eq!(linux.masked_paths().as_ref().unwrap().len(), 0);
    assert_eq!(linux.readonly_paths().as_ref().unwrap().len(), 0);
    assert!(options(&spec, "/sys").ends_with("rw") && options(&spec, "/sys/fs/cgroup").ends_with("rw"));
    let paths: Vec<_> = linux.devices().as_ref().unwrap().iter().map(|node| node.path().clone()).collect();
    assert_eq!(paths, [PathBuf::from("/dev/kvm")]);
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!(rules.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a *:* rwm"]);
    assert!(rules[0].allow());
    assert!(!namespaces(&spec).contains("cgroup"));
}

#[test]
fn privilege_is_not_more_than_the_pods() {
    let error = Case::error(|case| case.container.security.privileged = true);
    assert_eq!(error, SpecError::PrivilegedInPlainPod);
}

#[test]
fn devices_of_the_request() {
    let asked = |target: &str, permissions: &str, minor| RequestedDevice {
        container_path: target.into(),
        host: device("/dev/x", 10, minor),
        permissions: permissions.into(),
    };
    let spec =
        Case::with(|case| case.devices = vec![asked("/dev/x", "rw", 1), asked("/dev/x", "", 1)]).spec();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.devices().as_ref().unwrap().len(), 1);
    let rules = linux.resources().as_ref().unwrap().devices().clone().unwrap();
    assert!(!rules[0].allow() && rules[1..].iter().all(|rule| rule.allow()));
    assert_eq!(rules[11].to_string(), "c 10:1 rw");
    assert_eq!(rules[12].to_string(), "c 10:1 rwm");
    for bad in ["x", "rr", "rwmr", "R"] {
        let error = Case::error(|case| case.devices = vec![asked("/dev/x", bad, 1)]);
        assert!(matches!(error, SpecError::DevicePermissions { .. }), "{bad}");
    }
    let relative = Case::error(|case| case.devices = vec![asked("x", "", 1)]);
    assert!(matches!(relative, SpecError::DevicePath { index: 0, .. }));
    let twice = Case::error(|case| case.devices = vec![asked("/dev/x", "", 1), asked("/dev/x", "", 2)]);
    assert_eq!(twice, SpecError::DeviceTwice { path: "/dev/x".into() });
}

#[test]
fn namespaces_are_own_joined_or_the_hosts() {
    let plain = Case::new().spec();
    assert_eq!(namespaces(&plain), ["cgroup", "ipc", "mnt", "net", "pid", "uts"].map(String::from).into());
    let v1 = Case::with(|case| case.host.cgroup = CgroupVersion::V1).spec();
    assert!(!namespaces(&v1).contains("cgroup"));
    let host = Case::with(|case| {
        case.namespaces = NamespacePlan { pid: PidPlan::Host, ..Default::default() };
        let own = &mut case.container.security.namespaces;
        (own.network, own.ipc, own.pid) = (NamespaceMode::Host, NamespaceMode::Host, PidNamespace::Host);
        case.pod.namespaces = own.clone();
    })
    .spec();
    assert_eq!(namespaces(&host), ["cgroup", "mnt"].map(String::from).into());
    let target = Case::with(|case| case.namespaces.pid = PidPlan::Path("/proc/7/ns/pid".into())).spec();
    let list = target.linux().as_ref().unwrap().namespaces().clone().unwrap();
    let pid = list.iter().find(|ns| ns.typ() == LinuxNamespaceType::Pid).unwrap();
    assert_eq!(pid.path().as_deref(), Some("/proc/7/ns/pid".as_ref()));
}

#[test]
fn the_host_is_not_reached_past_the_pod() {
    let error = |change: fn(&mut Case)| Case::error(change);
    let network = error(|case| case.container.security.namespaces.network = NamespaceMode::Host);
    assert_eq!(network, SpecError::HostNamespace { namespace: "network" });
    let ipc = error(|case| case.container.security.namespaces.ipc = NamespaceMode::Host);
    assert_eq!(ipc, SpecError::HostNamespace { namespace: "IPC" });
    let pid = error(|case| case.container.security.namespaces.pid = PidNamespace::Host);
    assert_eq!(pid, SpecError::HostNamespace { namespace: "PID" });
}

#[test]
fn seccomp_follows_the_plan() {
    let of = |seccomp: SeccompPlan| {
        let case = Case::with(|case| case.seccomp = seccomp);
        case.spec().linux().as_ref().unwrap().seccomp().clone()
    };
    assert_eq!(of(SeccompPlan::None), None);
    assert!(of(SeccompPlan::Default).unwrap().syscalls().as_ref().unwrap().len() > 5);
    let mine = crate::seccomp_profile::parse("/p", r#"{"defaultAction": "SCMP_ACT_LOG"}"#).unwrap();
    let SeccompPlan::Profile(expected) = mine.clone() else { panic!("{mine:?}") };
    assert_eq!(of(mine), Some(*expected));
}

#[test]
fn masked_paths_are_as_asked() {
    let none = Case::with(|case| case.container.security.masked_paths.clear()).spec();
    assert_eq!(none.linux().as_ref().unwrap().masked_paths().as_ref().unwrap().len(), 0);
    let error = Case::error(|case| case.container.security.readonly_paths = vec!["proc".into()]);
    assert!(matches!(error, SpecError::ProtectedPath { list: "readonly_paths", index: 0, .. }));
    assert!(paths::default_masked().iter().chain(&paths::default_readonly()).all(|path| path.is_absolute()));
}

#[test]
fn limits_reach_the_spec_and_their_errors_the_caller() {
    let error = Case::error(|case| case.container.resources.cpu_shares = -1);
    assert!(error.to_string().contains("cpu_shares"), "{error}");
    let floor = Case::with(|case| {
        case.container.resources.oom_score_adj = -900;
        case.host.oom_score_adj_floor = Some(-100);
    });
    assert_eq!(floor.spec().process().as_ref().unwrap().oom_score_adj(), Some(-100));
    let v1 = Case::error(|case| {
        case.host.cgroup = CgroupVersion::V1;
        case.container.resources.unified = [("memory.high".to_owned(), "1".to_owned())].into();
    });
    assert_eq!(v1.refusal(), Refusal::HostLacks);
}

#[test]
fn annotations_are_ours_alone() {
    let spec = Case::with(|case| {
        case.container.annotations = [("io.katacontainers.hypervisor".to_owned(), "/evil".to_owned())].into();
        case.pod.annotations = case.container.annotations.clone();
    })
    .spec();
    let keys = spec.annotations().as_ref().unwrap().keys().cloned();
    assert!(keys.into_iter().all(|key| key.starts_with("io.kubernetes.cri.")));
}

#[test]
fn a_spec_survives_json() {
    for case in [Case::new(), Case::privileged(), Case::with(|case| case.seccomp = SeccompPlan::Default)] {
        let spec = case.spec();
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }
    assert_eq!(json!(Case::new().spec().version()), json!("1.2.0"));
}
