//! Several plugins adjust one container.

use super::*;
use crate::api::{
    CdiDevice, Hook, IoPrioClass, LinuxIoPriority, LinuxMemory, LinuxResources, OptionalInt, OptionalInt64,
    OptionalString,
};

struct Case {
    container: Container,
    adjust: ContainerAdjustment,
    owners: Owners,
}

impl Case {
    fn new() -> Case {
        let mount = |destination: &str| Mount { destination: destination.into(), ..Mount::default() };
        let container = Container {
            id: "c".into(),
            annotations: BTreeMap::from([("kept".into(), "1".into()), ("mine".into(), "2".into())]),
            args: vec!["sh".into()],
            env: vec!["PATH=/bin".into(), "HOME=/".into()],
            mounts: vec![mount("/proc"), mount("/data")],
            ..Container::default()
        };
        Case { container, adjust: ContainerAdjustment::default(), owners: Owners::default() }
    }

    fn take(&mut self, plugin: &str, wanted: ContainerAdjustment) -> Result<(), Refusal> {
        let Case { container, adjust, owners } = self;
        Adjusting { container, adjust, owners, plugin }.take(wanted)
    }
}

fn env(pairs: &[(&str, &str)]) -> ContainerAdjustment {
    let entry = |(key, value): &(&str, &str)| KeyValue { key: (*key).into(), value: (*value).into() };
    ContainerAdjustment { env: pairs.iter().map(entry).collect(), ..ContainerAdjustment::default() }
}

fn mounts(destinations: &[&str]) -> ContainerAdjustment {
    let mount = |destination: &&str| Mount {
        destination: (*destination).into(),
        source: "s".into(),
        ..Mount::default()
    };
    ContainerAdjustment { mounts: destinations.iter().map(mount).collect(), ..ContainerAdjustment::default() }
}

fn annotations(pairs: &[(&str, &str)]) -> ContainerAdjustment {
    let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ContainerAdjustment { annotations, ..ContainerAdjustment::default() }
}

fn linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux), ..ContainerAdjustment::default() }
}

#[test]
fn each_plugin_sees_what_those_before_it_did() {
    let mut case = Case::new();
    case.take("10-a", env(&[("NEW", "1"), ("PATH", "/sbin")])).unwrap();
    assert_eq!(case.container.env, ["HOME=/", "NEW=1", "PATH=/sbin"]);
    case.take("20-b", env(&[("-NEW", ""), ("-HOME", ""), ("OTHER", "2")])).unwrap();
    assert_eq!(case.container.env, ["PATH=/sbin", "OTHER=2"]);
    let adjusted: Vec<_> = case.adjust.env.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(adjusted, ["PATH", "-NEW", "-HOME", "OTHER"]);
    // What the second removed is its own now.
    assert!(case.take("30-c", env(&[("NEW", "3")])).is_err());
    assert!(case.take("30-c", env(&[("PATH", "/")])).is_err());
    case.take("30-c", env(&[("THIRD", "3")])).unwrap();
}

#[test]
fn what_another_set_can_be_replaced_by_removing_it_first() {
    let begun = || {
        let mut case = Case::new();
        case.take("10-a", mounts(&["/data", "/extra"])).unwrap();
        case
    };
    assert_eq!(begun().container.mounts.len(), 3);
    let refused = begun().take("20-b", mounts(&["/data"])).unwrap_err();
    assert!(refused.to_string().contains("Mounts /data"), "{refused}");
    let mut case = begun();
    case.take("20-b", mounts(&["-/data", "/data", "-/proc"])).unwrap();
    let adjusted: Vec<_> = case.adjust.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(adjusted, ["/extra", "-/proc", "/data"]);
    let seen: Vec<_> = case.container.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(seen, ["/extra", "/data"]);
}

#[test]
fn annotations_are_removed_and_set() {
    let mut case = Case::new();
    case.take("10-a", annotations(&[("-mine", ""), ("new", "3")])).unwrap();
    assert_eq!(case.container.annotations.keys().collect::<Vec<_>>(), ["kept", "new"]);
    case.take("20-b", annotations(&[("-new", ""), ("new", "4")])).unwrap();
    assert_eq!(case.adjust.annotations.get("new").unwrap(), "4");
    assert!(!case.adjust.annotations.contains_key("-new"));
    assert!(case.adjust.annotations.contains_key("-mine"));
}

#[test]
fn arguments_have_one_owner_unless_they_are_taken_over() {
    let args = |args: &[&str]| ContainerAdjustment {
        args: args.iter().map(ToString::to_string).collect(),
        ..ContainerAdjustment::default()
    };
    let mut case = Case::new();
    case.take("10-a", args(&["a"])).unwrap();
    assert!(case.take("20-b", args(&["b"])).is_err());
    case.take("20-b", args(&["", "b", "c"])).unwrap();
    assert_eq!((&case.container.args, &case.adjust.args), (&vec!["b".into(), "c".into()], &case.adjust.args));
}

#[test]
fn hooks_add_up_and_limits_do_not() {
    let mut case = Case::new();
    let hook = Hook { path: "/bin/true".into(), ..Hook::default() };
    let hooks = ContainerAdjustment {
        hooks: Some(Hooks { poststop: vec![hook], ..Hooks::default() }),
        ..ContainerAdjustment::default()
    };
    case.take("10-a", hooks.clone()).unwrap();
    case.take("20-b", hooks).unwrap();
    assert_eq!(case.adjust.hooks.as_ref().unwrap().poststop.len(), 2);
    assert_eq!(case.owners.message().owners["c"].simple[&(Field::OciHooks as i32)], "10-a,20-b");

    let limit = |soft| ContainerAdjustment {
        rlimits: vec![PosixRlimit { r#type: "RLIMIT_NOFILE".into(), hard: 9, soft }],
        ..ContainerAdjustment::default()
    };
    case.take("10-a", limit(1)).unwrap();
    assert!(case.take("20-b", limit(2)).is_err());

    let device = ContainerAdjustment {
        cdi_devices: vec![CdiDevice { name: "v/c=d".into() }],
        ..ContainerAdjustment::default()
    };
    case.take("10-a", device.clone()).unwrap();
    assert!(case.take("20-b", device).is_err());
}

#[test]
fn linux_fields_are_claimed_one_by_one() {
    let memory = |limit| LinuxResources {
        memory: Some(LinuxMemory { limit: Some(OptionalInt64 { value: limit }), ..LinuxMemory::default() }),
        ..LinuxResources::default()
    };
    let mut case = Case::new();
    let first = LinuxContainerAdjustment {
        resources: Some(memory(7)),
        oom_score_adj: Some(OptionalInt { value: 5 }),
        devices: vec![LinuxDevice { path: "/dev/x".into(), ..LinuxDevice::default() }],
        namespaces: vec![LinuxNamespace { r#type: "cgroup".into(), path: String::new() }],
        sysctl: BTreeMap::from([("net.a".into(), "1".into())]),
        rdt: Some(LinuxRdt { clos_id: Some(OptionalString { value: "g".into() }), ..LinuxRdt::default() }),
        ..LinuxContainerAdjustment::default()
    };
    case.take("10-a", linux(first.clone())).unwrap();
    assert_eq!(case.adjust.linux.as_ref().unwrap(), &first);
    let seen = case.container.linux.as_ref().unwrap();
    assert_eq!((seen.resources.as_ref(), seen.devices.len()), (first.resources.as_ref(), 1));

    let class = IoPrioClass::IoprioClassBe.into();
    let others = LinuxContainerAdjustment {
        io_priority: Some(LinuxIoPriority { class, priority: 3 }),
        rdt: Some(LinuxRdt { remove: true, ..LinuxRdt::default() }),
        ..LinuxContainerAdjustment::default()
    };
    case.take("20-b", linux(others)).unwrap();
    assert!(case.adjust.linux.as_ref().unwrap().rdt.as_ref().unwrap().remove);
    let conflicts = [
        LinuxContainerAdjustment { resources: Some(memory(8)), ..LinuxContainerAdjustment::default() },
        LinuxContainerAdjustment {
            oom_score_adj: first.oom_score_adj,
            ..LinuxContainerAdjustment::default()
        },
        LinuxContainerAdjustment { devices: first.devices.clone(), ..LinuxContainerAdjustment::default() },
        LinuxContainerAdjustment {
            namespaces: first.namespaces.clone(),
            ..LinuxContainerAdjustment::default()
        },
        LinuxContainerAdjustment { sysctl: first.sysctl.clone(), ..LinuxContainerAdjustment::default() },
        LinuxContainerAdjustment {
            io_priority: Some(LinuxIoPriority::default()),
            ..LinuxContainerAdjustment::default()
        },
    ];
    for conflict in conflicts {
        assert!(case.take("30-c", linux(conflict.clone())).is_err(), "{conflict:?}");
    }
}
