//! The default profile: what Kubernetes calls `RuntimeDefault`.
//!
//! It decides as the profile that Docker and containerd share does, with one difference: sockets of the two forbidden families are
//! told by the low 32 bits of the argument, which is all the kernel looks at, so that they cannot be had by setting a high bit.

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg,
    LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use crate::abi::Architecture;

mod table;

/// Version and patch level of a kernel, as in 6.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// Everything `CLONE_NEW*` that clone(2) takes: mount, cgroup, UTS, IPC, user, PID and network namespaces.
const NEW_NAMESPACES: u64 =
    0x0002_0000 | 0x0200_0000 | 0x0400_0000 | 0x0800_0000 | 0x1000_0000 | 0x2000_0000 | 0x4000_0000;

/// Personalities without effect on security: Linux, with and without a legacy UNAME26, UID16 and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Blocks of socket families as (mask, value) of the low 32 bits: all below 64 but `AF_ALG` (38) and `AF_VSOCK` (40).
const SOCKET_FAMILIES: [(u64, u64); 8] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
    (0xffff_fff0, 48),
];

/// What a capability of the container adds.
const BY_CAPABILITY: &[(Capability, &[&str])] = &[
    (Capability::DacReadSearch, &["open_by_handle_at"]),
    (
        Capability::SysAdmin,
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount",
            "umount2",
            "unshare",
        ],
    ),
    (Capability::SysBoot, &["reboot"]),
    (Capability::SysChroot, &["chroot"]),
    (Capability::SysModule, &["delete_module", "finit_module", "init_module"]),
    (Capability::SysPacct, &["acct"]),
    (
        Capability::SysPtrace,
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    (Capability::SysRawio, &["ioperm", "iopl"]),
    (Capability::SysTime, &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    (Capability::SysTtyConfig, &["vhangup"]),
    (Capability::SysNice, &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (Capability::Syslog, &["syslog"]),
    (Capability::Bpf, &["bpf"]),
    (Capability::Perfmon, &["perf_event_open"]),
];

/// The default profile for a container with the bounding set `capabilities`, on a machine and a kernel.
pub fn default_profile(
    capabilities: &Capabilities,
    kernel: KernelVersion,
    native: Architecture,
) -> LinuxSeccomp {
    let mut rules: Vec<LinuxSyscall> = table::ALLOWED.iter().map(|names| allow(names, None)).collect();
    if kernel >= KernelVersion(4, 8) {
        // Before 4.8 a tracer could change a call after the filter had seen it.
        rules.push(allow(&["process_vm_readv", "process_vm_writev", "ptrace"], None));
    }
    for (mask, value) in SOCKET_FAMILIES {
        rules.push(allow(&["socket"], Some(masked(mask, value))));
    }
    for personality in PERSONALITIES {
        rules.push(allow(&["personality"], Some(equal(personality))));
    }
    match native {
        Architecture::X86_64 => rules.push(allow(&["arch_prctl", "modify_ldt"], None)),
        Architecture::Aarch64 => rules.push(allow(
            &[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "sync_file_range2",
                "breakpoint",
                "cacheflush",
                "set_tls",
            ],
            None,
        )),
    }
    for (capability, names) in BY_CAPABILITY {
        if capabilities.contains(capability) {
            rules.push(allow(names, None));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        rules.push(allow(&["clone"], Some(masked(NEW_NAMESPACES, 0))));
        // The flags of clone3 lie in memory. Without it the C library falls back to clone.
        rules.push(rule(&["clone3"], LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None));
    }
    let architectures = match native {
        Architecture::X86_64 => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        Architecture::Aarch64 => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
    };
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures))
        .set_syscalls(Some(rules));
    profile
}

fn allow(names: &[&str], argument: Option<LinuxSeccompArg>) -> LinuxSyscall {
    rule(names, LinuxSeccompAction::ScmpActAllow, None, argument)
}

fn rule(
    names: &[&str],
    action: LinuxSeccompAction,
    errno: Option<u32>,
    argument: Option<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|n| n.to_string()).collect())
        .set_action(action)
        .set_errno_ret(errno)
        .set_args(argument.map(|a| vec![a]));
    rule
}

fn equal(value: u64) -> LinuxSeccompArg {
    argument(LinuxSeccompOperator::ScmpCmpEq, value, None)
}

fn masked(mask: u64, value: u64) -> LinuxSeccompArg {
    argument(LinuxSeccompOperator::ScmpCmpMaskedEq, mask, Some(value))
}

/// A condition on the first argument.
fn argument(op: LinuxSeccompOperator, value: u64, value_two: Option<u64>) -> LinuxSeccompArg {
    let mut builder = LinuxSeccompArgBuilder::default().index(0_usize).op(op).value(value);
    if let Some(value) = value_two {
        builder = builder.value_two(value);
    }
    builder.build().expect("every field has a default, so that nothing can be missing")
}
