//! capabilities(7) of a container: the usual set, what the request adds and drops, and what the daemon has to give at all.

use model::request::ContainerSecurity;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use crate::error::SpecError;

/// What a container has unless its request says otherwise: the set that Kubernetes users know from Docker.
pub const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The capability of this name, with or without `CAP_`, in either case.
pub fn parse(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).parse().ok()
}

/// The capabilities of a mask as /proc/pid/status prints it. Bits that are too new to be known here are left out.
pub fn from_bits(mask: u64) -> Capabilities {
    let set = |(bit, cap): (usize, &Capability)| (mask >> bit & 1 == 1).then_some(*cap);
    BY_NUMBER.iter().enumerate().filter_map(set).collect()
}

/// As `<linux/capability.h>` numbers them.
const BY_NUMBER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The sets for a container. `held` is the daemon's bounding set.
///
/// First `ALL` of the added, then `ALL` of the dropped, then single ones are added, then dropped: so "drop ALL, add CHOWN" and "add
/// ALL, drop CHOWN" both mean what they say. Inheritable is empty (CVE-2022-24769) but for the ambient ones, which the kernel lets
/// be ambient only while they are inheritable.
///
/// # Errors
/// A name that is no capability, and an added one that the daemon does not hold. Those of [`DEFAULT`] that it does not hold are
/// left out.
pub(crate) fn of_container(
    security: &ContainerSecurity,
    held: &Capabilities,
) -> Result<LinuxCapabilities, SpecError> {
    if security.privileged {
        let ambient = ambient(security, held)?;
        return Ok(sets(held.clone(), ambient));
    }
    let add = Changes::parse("add_capabilities", &security.add_capabilities)?;
    let drop = Changes::parse("drop_capabilities", &security.drop_capabilities)?;
    let mut have: Capabilities = DEFAULT.into_iter().filter(|cap| held.contains(cap)).collect();
    if add.all {
        have = held.clone();
    }
    if drop.all {
        have.clear();
    }
    for cap in add.single {
        is_held("add_capabilities", cap, held)?;
        have.insert(cap);
    }
    for cap in drop.single {
        have.remove(&cap);
    }
    let ambient = ambient(security, held)?;
    have.extend(&ambient);
    Ok(sets(have, ambient))
}

fn ambient(security: &ContainerSecurity, held: &Capabilities) -> Result<Capabilities, SpecError> {
    const LIST: &str = "add_ambient_capabilities";
    let asked = Changes::parse(LIST, &security.add_ambient_capabilities)?;
    if asked.all {
        return Ok(held.clone());
    }
    asked.single.iter().try_for_each(|cap| is_held(LIST, *cap, held))?;
    Ok(asked.single.into_iter().collect())
}

fn is_held(list: &'static str, cap: Capability, held: &Capabilities) -> Result<(), SpecError> {
    if held.contains(&cap) {
        return Ok(());
    }
    Err(SpecError::CapabilityNotHeld { list, name: cap.to_string() })
}

fn sets(have: Capabilities, ambient: Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(have.clone()))
        .set_effective(Some(have.clone()))
        .set_permitted(Some(have))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    sets
}

struct Changes {
    all: bool,
    single: Vec<Capability>,
}

impl Changes {
    fn parse(list: &'static str, names: &[String]) -> Result<Self, SpecError> {
        let mut changes = Changes { all: false, single: Vec::new() };
        for name in names {
            match parse(name) {
                Some(cap) => changes.single.push(cap),
                None if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") => {
                    changes.all = true;
                }
                None => {
                    let name = name.chars().take(64).collect();
                    return Err(SpecError::UnknownCapability { list, name });
                }
            }
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::*;

    fn held() -> Capabilities {
        DEFAULT.into_iter().chain([SysAdmin, NetAdmin]).collect()
    }

    fn of(add: &[&str], drop: &[&str], ambient: &[&str]) -> Result<LinuxCapabilities, SpecError> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let security = ContainerSecurity {
            add_capabilities: owned(add),
            drop_capabilities: owned(drop),
            add_ambient_capabilities: owned(ambient),
            ..Default::default()
        };
        of_container(&security, &held())
    }

    fn check(sets: &LinuxCapabilities, expected: Capabilities) {
        for set in [sets.bounding(), sets.effective(), sets.permitted()] {
            assert_eq!(set.as_ref(), Some(&expected));
        }
    }

    #[test]
    fn added_and_dropped() {
        let default: Capabilities = DEFAULT.into();
        check(&of(&[], &[], &[]).unwrap(), default.clone());
        check(&of(&[], &["ALL"], &[]).unwrap(), [].into());
        check(&of(&["NET_BIND_SERVICE"], &["ALL"], &[]).unwrap(), [NetBindService].into());
        check(&of(&["ALL"], &[], &[]).unwrap(), held());
        check(&of(&["all"], &["cap_sys_admin"], &[]).unwrap(), &held() - &[SysAdmin].into());
        check(&of(&["CAP_NET_ADMIN"], &["Net_Raw"], &[]).unwrap(), {
            &(&default | &[NetAdmin].into()) - &[NetRaw].into()
        });
        check(&of(&["NET_ADMIN"], &["NET_ADMIN"], &[]).unwrap(), default);
    }

    #[test]
    fn nothing_is_inheritable_or_ambient_unless_asked() {
        let plain = of(&["ALL"], &[], &[]).unwrap();
        assert_eq!(plain.inheritable().as_ref(), Some(&[].into()));
        assert_eq!(plain.ambient().as_ref(), Some(&[].into()));
        let ambient = of(&[], &["ALL"], &["NET_BIND_SERVICE"]).unwrap();
        check(&ambient, [NetBindService].into());
        assert_eq!(ambient.ambient().as_ref(), Some(&[NetBindService].into()));
        assert_eq!(ambient.inheritable().as_ref(), Some(&[NetBindService].into()));
    }

    #[test]
    fn unknown_and_unheld_ones_are_named() {
        let unknown =
            |list: &'static str, name: &str| SpecError::UnknownCapability { list, name: name.into() };
        assert_eq!(of(&["FLY"], &[], &[]), Err(unknown("add_capabilities", "FLY")));
        assert_eq!(of(&[], &[""], &[]), Err(unknown("drop_capabilities", "")));
        assert_eq!(
            of(&[], &[], &["CAP_CAP_CHOWN"]),
            Err(unknown("add_ambient_capabilities", "CAP_CAP_CHOWN"))
        );
        let unheld = SpecError::CapabilityNotHeld { list: "add_capabilities", name: "SYS_RESOURCE".into() };
        assert_eq!(of(&["SYS_RESOURCE"], &[], &[]), Err(unheld));
        assert!(matches!(of(&[], &[], &["BPF"]), Err(SpecError::CapabilityNotHeld { .. })));
        assert!(of(&[], &["SYS_RESOURCE"], &[]).is_ok());
    }

    #[test]
    fn masks_are_read_by_number() {
        assert_eq!(from_bits(0), [].into());
        assert_eq!(
            from_bits(1 << 0 | 1 << 21 | 1 << 40 | 1 << 63),
            [Chown, SysAdmin, CheckpointRestore].into()
        );
        assert_eq!(from_bits(u64::MAX).len(), 41);
        // Docker's usual set, as it is known from /proc.
        assert_eq!(from_bits(0xa804_25fb), DEFAULT.into());
    }

    #[test]
    fn privileged_has_what_the_daemon_has() {
        let security = ContainerSecurity { privileged: true, ..Default::default() };
        check(&of_container(&security, &held()).unwrap(), held());
    }

    #[test]
    fn what_the_daemon_lacks_of_the_usual_set_is_left_out() {
        let held: Capabilities = [Chown].into();
        check(&of_container(&ContainerSecurity::default(), &held).unwrap(), [Chown].into());
    }
}
