//! Specs of containers in pods with users of their own.

use super::*;
use model::request::{IdMapping, UserNamespace};

fn map(host_id: u32, length: u32) -> Vec<IdMapping> {
    vec![IdMapping { host_id, container_id: 0, length }]
}

/// A container in a pod whose user namespace is `/ns/user`.
fn with(change: impl FnOnce(&mut Case)) -> Case {
    Case::with(|case| {
        let users = UserNamespace { uids: map(100_000, 65_536), gids: map(200_000, 65_536) };
        case.pod.namespaces.user = Some(users);
        case.namespaces.user = Some("/ns/user".into());
        change(case);
    })
}

fn error(change: impl FnOnce(&mut Case)) -> SpecError {
    with(change).result().unwrap_err()
}

#[test]
fn the_pods_user_namespace_is_joined_and_its_maps_are_told() {
    let spec = with(|_| {}).spec();
    let linux = spec.linux().as_ref().unwrap();
    let namespaces = linux.namespaces().as_ref().unwrap();
    let user = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User).unwrap();
    assert_eq!(user.path().as_deref(), Some("/ns/user".as_ref()));
    let uid = linux.uid_mappings().as_ref().unwrap()[0];
    let gid = linux.gid_mappings().as_ref().unwrap()[0];
    assert_eq!((uid.host_id(), uid.container_id(), uid.size()), (100_000, 0, 65_536));
    assert_eq!((gid.host_id(), gid.container_id(), gid.size()), (200_000, 0, 65_536));
}

#[test]
fn a_container_has_the_users_of_its_pod() {
    with(|case| case.container.security.namespaces.user = case.pod.namespaces.user.clone()).spec();
    let other = Some(UserNamespace { uids: map(1, 10), gids: map(1, 10) });
    let error = error(|case| case.container.security.namespaces.user = other.clone());
    assert_eq!(error, SpecError::UserNamespace);
    assert_eq!(error.refusal(), Refusal::Invalid);
    assert_eq!(Case::error(|case| case.container.security.namespaces.user = other), SpecError::UserNamespace);
}

#[test]
fn who_is_nobody_in_the_pod_is_refused() {
    assert_eq!(
        error(|case| case.user.uid = 65_536),
        SpecError::UnmappedId { what: "user", id: 65_536, count: 65_536 }
    );
    for change in
        [|case: &mut Case| case.user.gid = 70_000, |case: &mut Case| case.user.additional_gids.push(70_000)]
    {
        assert_eq!(error(change), SpecError::UnmappedId { what: "group", id: 70_000, count: 65_536 });
    }
}

#[test]
fn the_pods_files_are_its_superusers() {
    let spec = with(|case| case.container.mounts.clear()).spec();
    for path in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        assert_eq!(options(&spec, path), "rbind,rprivate,rw,ridmap");
    }
    assert!(!options(&spec, "/dev/shm").contains("idmap"), "its mount has its owner");
    assert!(options(&spec, "/dev/pts").ends_with("gid=5"));
    let few = with(|case| {
        case.pod.namespaces.user = Some(UserNamespace { uids: map(1, 5000), gids: map(1, 5) });
        (case.user.gid, case.user.additional_gids) = (0, Vec::new());
    });
    assert!(!options(&few.spec(), "/dev/pts").contains("gid="), "there is no group 5");
}

#[test]
fn in_the_hosts_network_its_sysfs_is_bound() {
    let kind = |case: Case| mount_at(&case.spec(), "/sys").unwrap().typ().clone().unwrap();
    assert_eq!(kind(with(|_| {})), "sysfs");
    let host = |case: &mut Case| {
        case.pod.namespaces.network = NamespaceMode::Host;
        case.namespaces.network = None;
    };
    assert_eq!(kind(with(host)), "bind");
    assert_eq!(options(&with(host).spec(), "/sys"), "bind,rprivate,nosuid,noexec,nodev,ro");
    assert_eq!(kind(Case::with(host)), "sysfs");
}

#[test]
fn a_device_of_another_name_is_bound() {
    let requested = |container: &str| RequestedDevice {
        container_path: container.into(),
        host: device("/dev/fuse", 10, 229),
        permissions: "rw".into(),
    };
    let spec = with(|case| case.devices = vec![requested("/dev/fuse"), requested("/dev/other")]).spec();
    let nodes = spec.linux().as_ref().unwrap().devices().as_ref().unwrap();
    assert_eq!(nodes.iter().map(|node| node.path().to_str().unwrap()).collect::<Vec<_>>(), ["/dev/fuse"]);
    let bind = mount_at(&spec, "/dev/other").unwrap();
    assert_eq!(bind.source().as_deref(), Some("/dev/fuse".as_ref()));
    assert_eq!(options(&spec, "/dev/other"), "bind,rprivate");
    let rules = spec.linux().as_ref().unwrap().resources().as_ref().unwrap().devices().clone().unwrap();
    assert_eq!(rules.iter().filter(|rule| rule.minor() == Some(229)).count(), 2);
    let twice = error(|case| case.devices = vec![requested("/dev/other"), requested("/dev/other")]);
    assert!(matches!(twice, SpecError::DeviceTwice { .. }));
}

#[test]
fn ids_of_a_mount_are_the_pods_or_refused() {
    let mount = |uids: &[IdMapping], gids: &[IdMapping]| Mount {
        host_path: "/h".into(),
        container_path: "/d".into(),
        uids: uids.into(),
        gids: gids.into(),
        ..Default::default()
    };
    let (uids, gids) = (map(100_000, 65_536), map(200_000, 65_536));
    let mounts = |mount: Mount| move |case: &mut Case| case.container.mounts = vec![mount];
    let mapped = with(mounts(mount(&uids, &gids))).spec();
    assert_eq!(options(&mapped, "/d"), "rbind,rprivate,rw,ridmap");
    assert_eq!(options(&with(mounts(mount(&[], &[]))).spec(), "/d"), "rbind,rprivate,rw");
    for bad in [
        mount(&uids, &[]),
        mount(&[], &gids),
        mount(&gids, &uids),
        mount(&map(100_000, 65_535), &gids),
        mount(&map(0, 65_536), &gids),
        mount(&map(u32::MAX, 2), &gids),
        mount(&[uids.clone(), uids.clone()].concat(), &gids),
    ] {
        assert!(matches!(error(mounts(bad)), SpecError::MountIdMapping { index: 0, .. }));
    }
    assert!(matches!(mount_error(mount(&uids, &gids)), SpecError::MountIdMapping { .. }), "the pod has none");
    let shared = Mount { propagation: Propagation::Bidirectional, ..mount(&[], &[]) };
    assert!(matches!(error(mounts(shared)), SpecError::MountPropagation { index: 0, .. }));
}
