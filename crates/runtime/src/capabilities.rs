//! Capabilities of the container's process (capabilities(7)).
//!
//! The inheritable set is never filled: with it, a file with inheritable file capabilities would give a program of any user what the
//! container's root has (CVE-2022-29162). The one exception is what the ambient set needs, since the kernel keeps it a subset.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{At, Failure, Stage, Warning};

/// The sets to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sets {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) ambient: u64,
}

/// `CAP_SYS_ADMIN`, which loading a seccomp filter takes when privileges may still grow.
const SYS_ADMIN: u64 = 1 << 21;

impl Sets {
    /// The sets of a specification. No capabilities in it means none at all, as the specification has it no default.
    pub(crate) fn of(spec: Option<&LinuxCapabilities>) -> Sets {
        let bits = |set: Option<&Option<Capabilities>>| {
            set.and_then(|set| set.as_ref())
                .map_or(0, |set| set.iter().fold(0, |bits, c| bits | 1 << number(*c)))
        };
        let permitted = bits(spec.map(LinuxCapabilities::permitted));
        Sets {
            bounding: bits(spec.map(LinuxCapabilities::bounding)),
            effective: bits(spec.map(LinuxCapabilities::effective)) & permitted,
            permitted,
            ambient: bits(spec.map(LinuxCapabilities::ambient)) & permitted,
        }
    }

    /// Leaves out, with a warning, what this process itself does not have and could only fail to give.
    pub(crate) fn clamp(self, warnings: &mut Vec<Warning>) -> Result<Sets, Failure> {
        let own =
            rustix::thread::capabilities(None).at(Stage::Identity, || "own capabilities")?.permitted.bits();
        let lost = self.permitted & !own;
        if lost != 0 {
            let names: Vec<String> = (0..64).filter(|n| lost >> n & 1 == 1).map(|n| format!("{n}")).collect();
            warnings.push(Warning {
                stage: Stage::Identity,
                message: format!(
                    "capabilities that the runtime itself does not have were left out: numbers {}",
                    names.join(", ")
                ),
            });
        }
        Ok(Sets {
            bounding: self.bounding,
            effective: self.effective & own,
            permitted: self.permitted & own,
            ambient: self.ambient & own,
        })
    }
}

/// Drops what the bounding set is not to have. To be done while `CAP_SETPCAP` is effective.
pub(crate) fn limit_bounding(sets: &Sets) -> Result<(), Failure> {
    for capability in 0..63 {
        if sets.bounding >> capability & 1 == 1 {
            continue;
        }
        let one = CapabilitySet::from_bits_retain(1 << capability);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The kernel's last capability was reached.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => {
                return Err(error).at(Stage::Identity, || format!("bounding set without {capability}"));
            }
        }
    }
    Ok(())
}

/// Sets permitted, effective and ambient. With `keep_admin`, `CAP_SYS_ADMIN` is kept until [`finish`], to load a seccomp filter.
pub(crate) fn apply(sets: &Sets, keep_admin: bool) -> Result<(), Failure> {
    let extra = if keep_admin { SYS_ADMIN } else { 0 };
    set(sets.effective | extra, sets.permitted | extra, sets.ambient)?;
    let ambient = rustix::thread::clear_ambient_capability_set();
    ambient.at(Stage::Identity, || "ambient set")?;
    for capability in (0..63).filter(|n| sets.ambient >> n & 1 == 1) {
        let one = CapabilitySet::from_bits_retain(1 << capability);
        rustix::thread::configure_capability_in_ambient_set(one, true)
            .at(Stage::Identity, || format!("ambient set with {capability}"))?;
    }
    Ok(())
}

/// Gives up what [`apply`] kept.
pub(crate) fn finish(sets: &Sets) -> Result<(), Failure> {
    set(sets.effective, sets.permitted, sets.ambient)
}

fn set(effective: u64, permitted: u64, inheritable: u64) -> Result<(), Failure> {
    let sets = CapabilitySets {
        effective: CapabilitySet::from_bits_retain(effective),
        permitted: CapabilitySet::from_bits_retain(permitted),
        inheritable: CapabilitySet::from_bits_retain(inheritable),
    };
    rustix::thread::set_capabilities(None, sets).at(Stage::Identity, || "capabilities")
}

/// All capabilities in the order of the kernel's numbers (linux/capability.h).
const ALL: &[Capability] = &[
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

/// The kernel's number of a capability.
fn number(capability: Capability) -> usize {
    ALL.iter().position(|known| *known == capability).unwrap_or(63)
}

/// The capability of a number.
pub(crate) fn of_number(number: usize) -> Option<Capability> {
    ALL.get(number).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxCapabilitiesBuilder;

    #[test]
    fn sets_are_subsets_of_permitted_and_nothing_is_inheritable() {
        let of = |list: &[Capability]| list.iter().copied().collect::<Capabilities>();
        let spec = LinuxCapabilitiesBuilder::default()
            .bounding(of(&[Capability::Chown, Capability::Kill]))
            .effective(of(&[Capability::Chown, Capability::SysAdmin]))
            .permitted(of(&[Capability::Chown]))
            .inheritable(of(&[Capability::Chown]))
            .ambient(of(&[Capability::Kill]))
            .build()
            .unwrap();
        assert_eq!(
            Sets::of(Some(&spec)),
            Sets { bounding: 0b10_0001, effective: 1, permitted: 1, ambient: 0 }
        );
        assert_eq!(Sets::of(None), Sets { bounding: 0, effective: 0, permitted: 0, ambient: 0 });
    }
}
