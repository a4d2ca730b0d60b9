//! The system call interfaces a kernel offers side by side, and the numbers that names have in each.

use std::str::FromStr;

use oci_spec::runtime::Arch;

/// The machine a filter is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86; runs x86 and x32 programs too.
    X86_64,
    /// 64-bit ARM; runs 32-bit ARM programs too.
    Aarch64,
}

impl Architecture {
    /// The machine this code was built for, if filters can be compiled for it.
    pub const fn native() -> Option<Architecture> {
        if cfg!(target_arch = "x86_64") {
            Some(Architecture::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Architecture::Aarch64)
        } else {
            None
        }
    }

    /// The names that a profile may list; those that this machine's kernel does not run are passed over.
    pub const RECOGNIZED: &[&str] = &[
        "SCMP_ARCH_AARCH64",
        "SCMP_ARCH_ARM",
        "SCMP_ARCH_LOONGARCH64",
        "SCMP_ARCH_M68K",
        "SCMP_ARCH_MIPS",
        "SCMP_ARCH_MIPS64",
        "SCMP_ARCH_MIPS64N32",
        "SCMP_ARCH_MIPSEL",
        "SCMP_ARCH_MIPSEL64",
        "SCMP_ARCH_MIPSEL64N32",
        "SCMP_ARCH_NATIVE",
        "SCMP_ARCH_PARISC",
        "SCMP_ARCH_PARISC64",
        "SCMP_ARCH_PPC",
        "SCMP_ARCH_PPC64",
        "SCMP_ARCH_PPC64LE",
        "SCMP_ARCH_RISCV64",
        "SCMP_ARCH_S390",
        "SCMP_ARCH_S390X",
        "SCMP_ARCH_SH",
        "SCMP_ARCH_SHEB",
        "SCMP_ARCH_X32",
        "SCMP_ARCH_X86",
        "SCMP_ARCH_X86_64",
    ];

    pub(crate) const fn native_abi(self) -> Abi {
        match self {
            Architecture::X86_64 => Abi::X86_64,
            Architecture::Aarch64 => Abi::Aarch64,
        }
    }

    /// The interface that `arch` names, if this machine's kernel can offer it.
    pub(crate) fn abi(self, arch: Arch) -> Option<Abi> {
        match (self, arch) {
            (_, Arch::ScmpArchNative) => Some(self.native_abi()),
            (Architecture::X86_64, Arch::ScmpArchX86_64) => Some(Abi::X86_64),
            (Architecture::X86_64, Arch::ScmpArchX86) => Some(Abi::X86),
            (Architecture::X86_64, Arch::ScmpArchX32) => Some(Abi::X32),
            (Architecture::Aarch64, Arch::ScmpArchAarch64) => Some(Abi::Aarch64),
            (Architecture::Aarch64, Arch::ScmpArchArm) => Some(Abi::Arm),
            _ => None,
        }
    }
}

/// One system call interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Abi {
    X86_64,
    X32,
    X86,
    Aarch64,
    Arm,
}

/// Set in the number of every x32 call (`__X32_SYSCALL_BIT`).
pub(crate) const X32_BIT: u32 = 0x4000_0000;

/// Where ARM's private calls begin (`__ARM_NR_BASE`). They say nothing about how new a profile is.
const ARM_PRIVATE: u32 = 0x0f_0000;

impl Abi {
    /// What `seccomp_data.arch` holds (`AUDIT_ARCH_*`). x86_64 and x32 share one value and differ in the number.
    pub(crate) const fn audit_arch(self) -> u32 {
        match self {
            Abi::X86_64 | Abi::X32 => 0xc000_003e,
            Abi::X86 => 0x4000_0003,
            Abi::Aarch64 => 0xc000_00b7,
            Abi::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments have 64 meaningful bits; else only the low half is compared.
    pub(crate) const fn wide_arguments(self) -> bool {
        matches!(self, Abi::X86_64 | Abi::Aarch64)
    }

    /// Whether `number` is outside the ordinary numbering that grows with kernel versions.
    pub(crate) const fn is_private(self, number: u32) -> bool {
        matches!(self, Abi::Arm) && number >= ARM_PRIVATE
    }

    /// The number of the call `name`.
    pub(crate) fn number(self, name: &str) -> Option<u32> {
        let name = match (self, name) {
            // Calls with two names, of which the tables know one.
            (Abi::Arm, "sync_file_range2") => "arm_sync_file_range",
            (Abi::Aarch64, "newfstatat") => "fstatat",
            (Abi::X86, "break") => return Some(17),
            // Known by this name nowhere but in those tables.
            (Abi::Aarch64, "fstatat") => return None,
            _ => name,
        };
        match self {
            Abi::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok().map(|n| n.id() as u32),
            Abi::X86 => syscalls::x86::Sysno::from_str(name).ok().map(|n| n.id() as u32),
            Abi::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok().map(|n| n.id() as u32),
            Abi::Arm => match name {
                "breakpoint" => Some(ARM_PRIVATE + 1),
                "cacheflush" => Some(ARM_PRIVATE + 2),
                "usr26" => Some(ARM_PRIVATE + 3),
                "usr32" => Some(ARM_PRIVATE + 4),
                "set_tls" => Some(ARM_PRIVATE + 5),
                _ => syscalls::arm::Sysno::from_str(name).ok().map(|n| n.id() as u32),
            },
            Abi::X32 => x32_number(name),
        }
    }

    /// The multiplexed form of `name`: the number of `socketcall` or `ipc` and the value of its first argument (ipc(2),
    /// socketcall(2)). Only 32-bit x86 programs still use these.
    pub(crate) fn multiplexed(self, name: &str) -> Option<(u32, u64)> {
        if self != Abi::X86 {
            return None;
        }
        if let Some(at) = SOCKETCALL.iter().position(|n| *n == name) {
            return Some((102, at as u64 + 1));
        }
        let (_, call) = IPC.iter().find(|(n, _)| *n == name)?;
        Some((117, *call))
    }
}

/// In the order of their numbers for socketcall(2), which begin with 1.
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

/// Calls that x32 has under numbers of its own, in order from 512 (the kernel's `syscall_64.tbl`).
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// Calls of x86_64 that x32 has not (`64` in the kernel's table).
const NOT_X32: [&str; 13] = [
    "uselib",
    "_sysctl",
    "create_module",
    "get_kernel_syms",
    "query_module",
    "nfsservctl",
    "set_thread_area",
    "get_thread_area",
    "epoll_ctl_old",
    "epoll_wait_old",
    "vserver",
    "uretprobe",
    "uprobe",
];

fn x32_number(name: &str) -> Option<u32> {
    if let Some(at) = X32_OWN.iter().position(|n| *n == name) {
        return Some(X32_BIT | (512 + at as u32));
    }
    if NOT_X32.contains(&name) {
        return None;
    }
    Abi::X86_64.number(name).map(|n| X32_BIT | n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        for (abi, name, number) in [
            (Abi::X86_64, "clone3", Some(435)),
            (Abi::X86_64, "chown32", None),
            (Abi::X86, "chown32", Some(212)),
            (Abi::X86, "socketcall", Some(102)),
            (Abi::X86, "ipc", Some(117)),
            (Abi::X86, "semop", None),
            (Abi::X32, "openat", Some(X32_BIT | 257)),
            (Abi::X32, "ioctl", Some(X32_BIT | 514)),
            (Abi::X32, "pwritev2", Some(X32_BIT | 547)),
            (Abi::X32, "getsockopt", Some(X32_BIT | 542)),
            (Abi::X32, "_sysctl", None),
            (Abi::Aarch64, "openat", Some(56)),
            (Abi::Aarch64, "open", None),
            (Abi::Arm, "cacheflush", Some(983_042)),
            (Abi::Arm, "set_tls", Some(983_045)),
            (Abi::Arm, "sync_file_range2", Some(341)),
            (Abi::Arm, "clock_gettime64", Some(403)),
        ] {
            assert_eq!(abi.number(name), number, "{abi:?} {name}");
        }
        assert_eq!(Abi::X86.multiplexed("socket"), Some((102, 1)));
        assert_eq!(Abi::X86.multiplexed("sendmmsg"), Some((102, 20)));
        assert_eq!(Abi::X86.multiplexed("shmctl"), Some((117, 24)));
        assert_eq!(Abi::X86_64.multiplexed("socket"), None);
    }
}
