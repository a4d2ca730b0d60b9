//! Whose namespaces a pod and a container are in, both ways.

use model::request::{IdMapping, NamespaceMode, Namespaces, PidNamespace, UserNamespace};

use super::{BadField, enumeration, text};
use crate::runtime_v1 as proto;

/// Of whom the options speak: only a container can join another one's process namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Pod,
    Container,
}

/// The options as CRI means them; an absent message means what an empty one does: everything is the pod's.
pub fn from_proto(of: Of, asked: Option<proto::NamespaceOption>) -> Result<Namespaces, BadField> {
    let asked = asked.unwrap_or_default();
    let namespaces = Namespaces {
        network: shared("network", asked.network)?,
        ipc: shared("ipc", asked.ipc)?,
        pid: pid(of, asked.pid, asked.target_id)?,
        user: user(asked.userns_options)?,
    };
    if namespaces.user.is_some() {
        let own = "a pod with a user namespace of its own cannot be in the host's (NODE)";
        if namespaces.ipc == NamespaceMode::Host {
            return Err(BadField::new("ipc", own));
        }
        if namespaces.pid == PidNamespace::Host {
            return Err(BadField::new("pid", own));
        }
    }
    Ok(namespaces)
}

/// The options for a status.
pub fn to_proto(namespaces: &Namespaces) -> proto::NamespaceOption {
    let mode = |mode: NamespaceMode| match mode {
        NamespaceMode::Pod => proto::NamespaceMode::Pod.into(),
        NamespaceMode::Container => proto::NamespaceMode::Container.into(),
        NamespaceMode::Host => proto::NamespaceMode::Node.into(),
    };
    let (pid, target_id) = match &namespaces.pid {
        PidNamespace::Pod => (proto::NamespaceMode::Pod, ""),
        PidNamespace::Container => (proto::NamespaceMode::Container, ""),
        PidNamespace::Host => (proto::NamespaceMode::Node, ""),
        PidNamespace::Target(id) => (proto::NamespaceMode::Target, id.as_str()),
    };
    let userns_options = namespaces.user.as_ref().map(|user| proto::UserNamespace {
        mode: proto::NamespaceMode::Pod.into(),
        uids: mappings_to_proto(&user.uids),
        gids: mappings_to_proto(&user.gids),
    });
    proto::NamespaceOption {
        network: mode(namespaces.network),
        pid: pid.into(),
        ipc: mode(namespaces.ipc),
        target_id: target_id.into(),
        userns_options,
    }
}

fn shared(field: &str, number: i32) -> Result<NamespaceMode, BadField> {
    match enumeration(field, number)? {
        proto::NamespaceMode::Pod => Ok(NamespaceMode::Pod),
        proto::NamespaceMode::Node => Ok(NamespaceMode::Host),
        proto::NamespaceMode::Container | proto::NamespaceMode::Target => {
            Err(BadField::new(field, "this namespace is the pod's (POD) or the host's (NODE)"))
        }
    }
}

fn pid(of: Of, number: i32, target: String) -> Result<PidNamespace, BadField> {
    match enumeration("pid", number)? {
        proto::NamespaceMode::Pod => Ok(PidNamespace::Pod),
        proto::NamespaceMode::Container => Ok(PidNamespace::Container),
        proto::NamespaceMode::Node => Ok(PidNamespace::Host),
        proto::NamespaceMode::Target if of == Of::Pod => {
            Err(BadField::new("pid", "a pod cannot be in a container's namespace (TARGET)"))
        }
        proto::NamespaceMode::Target => Ok(PidNamespace::Target(text::id("target_id", target)?)),
    }
}

fn user(asked: Option<proto::UserNamespace>) -> Result<Option<UserNamespace>, BadField> {
    let Some(asked) = asked else { return Ok(None) };
    let bad = |field: &str, why: &str| Err(BadField::new(format!("userns_options.{field}"), why));
    match enumeration("userns_options.mode", asked.mode)? {
        proto::NamespaceMode::Node if asked.uids.is_empty() && asked.gids.is_empty() => return Ok(None),
        proto::NamespaceMode::Node => {
            return bad("uids", "the host's user namespace (NODE) takes no mappings");
        }
        proto::NamespaceMode::Pod => {}
        proto::NamespaceMode::Container | proto::NamespaceMode::Target => {
            return bad("mode", "a user namespace is the pod's (POD) or the host's (NODE)");
        }
    }
    for (field, list) in [("uids", &asked.uids), ("gids", &asked.gids)] {
        let [one] = list.as_slice() else {
            return bad(field, "there must be exactly one mapping");
        };
        if one.container_id != 0 || one.length == 0 {
            return bad(field, "the mapping must begin at container_id 0 and must not be empty");
        }
        if one.host_id.checked_add(one.length).is_none() {
            return bad(field, "the mapping ends above the highest id of the host");
        }
    }
    Ok(Some(UserNamespace { uids: mappings_from_proto(asked.uids), gids: mappings_from_proto(asked.gids) }))
}

pub(crate) fn mappings_from_proto(list: Vec<proto::IdMapping>) -> Vec<IdMapping> {
    let one = |mapping: proto::IdMapping| IdMapping {
        host_id: mapping.host_id,
        container_id: mapping.container_id,
        length: mapping.length,
    };
    list.into_iter().map(one).collect()
}

pub(crate) fn mappings_to_proto(list: &[IdMapping]) -> Vec<proto::IdMapping> {
    let one = |mapping: &IdMapping| proto::IdMapping {
        host_id: mapping.host_id,
        container_id: mapping.container_id,
        length: mapping.length,
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime_v1::NamespaceMode as Mode;

    fn options(network: i32, pid: i32, ipc: i32) -> Option<proto::NamespaceOption> {
        Some(proto::NamespaceOption { network, pid, ipc, ..Default::default() })
    }

    #[test]
    fn options_lead_back() {
        for pid in [Mode::Pod, Mode::Container, Mode::Node] {
            for shared in [Mode::Pod, Mode::Node] {
                let asked = options(shared.into(), pid.into(), shared.into());
                let there = from_proto(Of::Pod, asked.clone()).unwrap();
                assert_eq!(Some(to_proto(&there)), asked);
            }
        }
        let target = Some(proto::NamespaceOption {
            pid: Mode::Target.into(),
            target_id: "abc".into(),
            ..Default::default()
        });
        let there = from_proto(Of::Container, target.clone()).unwrap();
        assert_eq!(Some(to_proto(&there)), target);
    }

    #[test]
    fn absent_means_the_pods() {
        let absent = from_proto(Of::Container, None).unwrap();
        assert_eq!(absent, from_proto(Of::Container, options(0, 0, 0)).unwrap());
        assert_eq!(absent.pid, PidNamespace::Pod);
    }

    #[test]
    fn modes_that_mean_nothing_are_refused() {
        for (of, asked, field) in [
            (Of::Pod, options(1, 0, 0), "network"),
            (Of::Pod, options(0, 0, 1), "ipc"),
            (Of::Pod, options(0, 3, 0), "pid"),
            (Of::Pod, options(9, 0, 0), "network"),
            (Of::Pod, options(0, -1, 0), "pid"),
            (Of::Container, options(0, 3, 0), "target_id"),
            (Of::Pod, with_users(0, 2, 0), "pid"),
            (Of::Pod, with_users(0, 0, 2), "ipc"),
        ] {
            assert_eq!(from_proto(of, asked).unwrap_err().field, field);
        }
    }

    fn with_users(network: i32, pid: i32, ipc: i32) -> Option<proto::NamespaceOption> {
        let map = vec![proto::IdMapping { host_id: 1000, container_id: 0, length: 10 }];
        let users = proto::UserNamespace { mode: Mode::Pod.into(), uids: map.clone(), gids: map };
        options(network, pid, ipc)
            .map(|asked| proto::NamespaceOption { userns_options: Some(users), ..asked })
    }

    #[test]
    fn the_hosts_network_goes_together_with_users_of_its_own() {
        let there = from_proto(Of::Pod, with_users(2, 0, 0)).unwrap();
        assert_eq!((there.network, there.user.is_some()), (NamespaceMode::Host, true));
    }

    #[test]
    fn user_namespaces_have_one_mapping_from_zero() {
        let map = |host_id, container_id, length| proto::IdMapping { host_id, container_id, length };
        let good = vec![map(100_000, 0, 65_536)];
        let of = |mode: Mode, uids: &[proto::IdMapping], gids: &[proto::IdMapping]| {
            user(Some(proto::UserNamespace { mode: mode.into(), uids: uids.into(), gids: gids.into() }))
        };
        assert!(of(Mode::Pod, &good, &good).unwrap().is_some());
        assert_eq!(of(Mode::Node, &[], &[]), Ok(None));
        let two = [good.clone(), good.clone()].concat();
        for (mode, uids, gids) in [
            (Mode::Container, &good, &good),
            (Mode::Target, &good, &good),
            (Mode::Node, &good, &good),
            (Mode::Pod, &two, &good),
            (Mode::Pod, &good, &two),
            (Mode::Pod, &vec![], &good),
            (Mode::Pod, &vec![map(1, 1, 1)], &good),
            (Mode::Pod, &good, &vec![map(1, 0, 0)]),
            (Mode::Pod, &good, &vec![map(u32::MAX, 0, 2)]),
        ] {
            assert!(of(mode, uids, gids).unwrap_err().field.starts_with("userns_options."));
        }
    }
}
