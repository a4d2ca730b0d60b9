//! What the default profile lets through.

mod common;

use std::collections::HashSet;

use common::{AARCH64, ALLOW, ARM, Call, ERRNO, KILL, X32_BIT, X86, X86_64, check, run};
use oci_spec::runtime::Capability;
use seccomp::{Architecture, Filter, KernelVersion, compile, default_profile};

const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

fn filter(capabilities: &[Capability]) -> Filter {
    let set: HashSet<Capability> = capabilities.iter().copied().collect();
    let profile = default_profile(&set, KernelVersion(6, 1), Architecture::X86_64);
    let filter = compile(&profile, Architecture::X86_64).unwrap();
    check(&filter.instructions);
    filter
}

fn answer(filter: &Filter, number: u32, first: u64) -> u32 {
    run(&filter.instructions, &Call { arch: X86_64, number, args: [first, 0, 0, 0, 0, 0] }).0
}

#[test]
fn ordinary_programs_run_and_the_host_is_out_of_reach() {
    let plain = filter(&[Capability::Chown, Capability::NetBindService]);
    for (name, number, expected) in [
        ("read", 0, ALLOW),
        ("execve", 59, ALLOW),
        ("openat", 257, ALLOW),
        ("ptrace", 101, ALLOW),
        ("seccomp", 317, ALLOW),
        ("arch_prctl", 158, ALLOW),
        ("mount", 165, EPERM),
        ("unshare", 272, EPERM),
        ("setns", 308, EPERM),
        ("bpf", 321, EPERM),
        ("keyctl", 250, EPERM),
        ("add_key", 248, EPERM),
        ("userfaultfd", 323, EPERM),
        ("io_uring_setup", 425, EPERM),
        ("kexec_load", 246, EPERM),
        ("init_module", 175, EPERM),
        ("clock_settime", 227, EPERM),
        ("reboot", 169, EPERM),
        ("chroot", 161, EPERM),
        ("open_by_handle_at", 304, EPERM),
        ("clone3", 435, ENOSYS),
        ("newer than the profile", 480, ENOSYS),
        ("far out", 0x3fff_ffff, ENOSYS),
        ("x32 read", X32_BIT, ALLOW),
        ("x32 mount", X32_BIT | 165, EPERM),
        ("x32 newer", X32_BIT | 600, ENOSYS),
    ] {
        assert_eq!(answer(&plain, number, 0), expected, "{name}");
    }
    let other = |arch, number| run(&plain.instructions, &Call { arch, number, args: [0; 6] }).0;
    assert_eq!(other(X86, 3), ALLOW);
    assert_eq!(other(X86, 21), EPERM, "x86 mount");
    assert_eq!((other(AARCH64, 63), other(ARM, 3)), (KILL, KILL));
    assert!(!plain.listener);
}

#[test]
fn capabilities_open_their_calls() {
    for (capability, numbers) in [
        (Capability::SysAdmin, &[165, 272, 308, 321, 435, 428, 298][..]),
        (Capability::SysBoot, &[169]),
        (Capability::SysChroot, &[161]),
        (Capability::SysModule, &[175, 176, 313]),
        (Capability::SysTime, &[164, 227]),
        (Capability::SysPtrace, &[312, 438, 440]),
        (Capability::DacReadSearch, &[304]),
        (Capability::Bpf, &[321]),
        (Capability::Perfmon, &[298]),
        (Capability::Syslog, &[103]),
        (Capability::SysNice, &[237, 238, 239, 450]),
        (Capability::SysPacct, &[163]),
        (Capability::SysRawio, &[172, 173]),
        (Capability::SysTtyConfig, &[153]),
    ] {
        let (with, without) = (filter(&[capability]), filter(&[]));
        for number in numbers {
            assert_eq!(answer(&with, *number, 0), ALLOW, "{capability:?} {number}");
            assert_ne!(answer(&without, *number, 0), ALLOW, "{capability:?} {number}");
        }
    }
}

#[test]
fn arguments_are_looked_at() {
    let (plain, admin) = (filter(&[]), filter(&[Capability::SysAdmin]));
    for namespace in
        [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        assert_eq!(answer(&plain, 56, namespace | 17), EPERM, "clone {namespace:#x}");
        assert_eq!(answer(&admin, 56, namespace | 17), ALLOW);
    }
    assert_eq!(answer(&plain, 56, 0x0121_0000 | 17), ALLOW, "an ordinary fork");
    for (personality, expected) in [
        (0, ALLOW),
        (8, ALLOW),
        (0x2_0000, ALLOW),
        (0x2_0008, ALLOW),
        (0xffff_ffff, ALLOW),
        (0x4_0000, EPERM),
    ] {
        assert_eq!(answer(&plain, 135, personality), expected, "personality {personality:#x}");
    }
    for family in 0..64 {
        let expected = if family == 38 || family == 40 { EPERM } else { ALLOW };
        assert_eq!(answer(&plain, 41, family), expected, "socket family {family}");
        // The kernel takes an int, so the upper half must not make a difference.
        assert_eq!(answer(&plain, 41, family | 1 << 32), expected, "socket family {family} with a high bit");
    }
}

#[test]
fn old_kernels_get_no_ptrace() {
    let profile = default_profile(&HashSet::new(), KernelVersion(4, 7), Architecture::X86_64);
    let old = compile(&profile, Architecture::X86_64).unwrap();
    assert_eq!((answer(&old, 101, 0), answer(&old, 310, 0)), (EPERM, EPERM));
}

#[test]
fn arm_has_its_own() {
    let profile = default_profile(&HashSet::new(), KernelVersion(6, 1), Architecture::Aarch64);
    let filter = compile(&profile, Architecture::Aarch64).unwrap();
    check(&filter.instructions);
    let answer = |arch, number| run(&filter.instructions, &Call { arch, number, args: [0; 6] }).0;
    assert_eq!(answer(AARCH64, 63), ALLOW, "read");
    assert_eq!(answer(AARCH64, 79), ALLOW, "newfstatat");
    assert_eq!(answer(AARCH64, 40), EPERM, "mount");
    assert_eq!(answer(ARM, 3), ALLOW, "read");
    assert_eq!(answer(ARM, 0x0f_0002), ALLOW, "cacheflush");
    assert_eq!(answer(ARM, 0x0f_0003), ENOSYS, "usr26");
    assert_eq!(answer(ARM, 480), ENOSYS);
    assert_eq!(answer(X86_64, 0), KILL);
}

/// It runs on every system call, so its length is a promise: the dispatch, two loads, and the depth of the tree.
#[test]
fn few_instructions_are_run() {
    let filter = filter(&[]);
    assert!(filter.instructions.len() < 1200, "{} instructions", filter.instructions.len());
    for number in (0..470).filter(|n| *n != 41) {
        let call = Call { arch: X86_64, number, args: [0; 6] };
        let (_, steps) = run(&filter.instructions, &call);
        assert!(steps < 32, "call {number} takes {steps} instructions");
    }
}
