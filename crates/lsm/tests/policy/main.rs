//! The compiled default profile decides as its source says, whoever compiled it.

mod compiled;

use std::path::Path;
use std::process::Command;

use compiled::{Compiled, EXECUTE, READ, WRITE};

const ALL: u32 = READ | WRITE | EXECUTE;

/// Paths, and what of reading, writing and executing is allowed.
const FILES: &[(&str, u32)] = &[
    ("/", ALL),
    ("/tmp/x", ALL),
    ("/etc/passwd", ALL),
    ("/dev/null", ALL),
    ("/processes/x", ALL),
    ("/system/x", ALL),
    ("/home/proc/sys/kernel/core_pattern", ALL),
    // Processes, as far as the kernel's own rules go.
    ("/proc/1/oom_score_adj", ALL),
    ("/proc/4194304/task/77/attr/exec", ALL),
    ("/proc/9/fd/sys/x", ALL),
    ("/proc/meminfo", READ | EXECUTE),
    ("/proc/x", READ | EXECUTE),
    ("/proc/s", READ | EXECUTE),
    ("/proc/acpi/wakeup", READ | EXECUTE),
    ("/proc/bus/pci/00/00.0", READ | EXECUTE),
    ("/proc/fs/nfsd/threads", READ | EXECUTE),
    ("/proc/irq/0/smp_affinity", READ | EXECUTE),
    ("/proc/scsi/scsi", READ | EXECUTE),
    ("/proc/sysvipc/shm", READ | EXECUTE),
    ("/proc/sysx/y", READ | EXECUTE),
    ("/proc/kcore", 0),
    ("/proc/kmem", 0),
    ("/proc/mem", 0),
    ("/proc/sysrq-trigger", 0),
    // Settings of the kernel: only of shared memory.
    ("/proc/sys/kernel/shmmax", ALL),
    ("/proc/sys/kernel/shm_rmid_forced", ALL),
    ("/proc/sys/kernel/core_pattern", READ | EXECUTE),
    ("/proc/sys/kernel/sem", READ | EXECUTE),
    ("/proc/sys/kernel/sched_rt_runtime_us", READ | EXECUTE),
    ("/proc/sys/kernel/yama/ptrace_scope", READ | EXECUTE),
    ("/proc/sys/kernelx/shmmax", READ | EXECUTE),
    ("/proc/sys/kern/shmmax", READ | EXECUTE),
    ("/proc/sys/kexec/shmmax", READ | EXECUTE),
    ("/proc/sys/net/ipv4/ip_forward", READ | EXECUTE),
    ("/proc/sys/vm/panic_on_oom", READ | EXECUTE),
    ("/proc/sys/fs/binfmt_misc/register", READ | EXECUTE),
    ("/proc/sys/a", READ | EXECUTE),
    // Of the kernel's objects: only control groups.
    ("/sys/fs/cgroup/memory.max", ALL),
    ("/sys/fs/cgroup/a/b/cgroup.procs", ALL),
    ("/sys/fs/cgx/a", READ),
    ("/sys/fs/bpf/map", READ),
    ("/sys/fs/selinux/enforce", READ),
    ("/sys/fsx/cgroup/a", READ),
    ("/sys/fuse", READ),
    ("/sys/kernel/uevent_helper", READ),
    ("/sys/kernel/mm/transparent_hugepage/enabled", READ),
    ("/sys/module/apparmor/parameters/enabled", READ),
    ("/sys/devices/system/cpu/online", READ),
    ("/sys/firmware/acpi/tables/DSDT", 0),
    ("/sys/kernel/security/apparmor/.remove", 0),
    ("/sys/devices/virtual/powercap/intel-rapl/energy_uj", 0),
];

const PEERS: &[(&str, u32, bool)] = &[
    // Signals to it, signals from it, whether it is traced and traces.
    ("pintle-default", READ | WRITE, true),
    ("unconfined", READ, false),
    ("pintle", READ, false),
    ("pintle-defaul", 0, false),
    ("pintle-default2", 0, false),
    ("docker-default", 0, false),
];

fn check(policy: &[u8]) {
    let policy = Compiled::read(policy);
    for (path, allowed) in FILES {
        assert_eq!(policy.file(path) & ALL, *allowed, "{path}");
    }
    for (peer, signals, traced) in PEERS {
        for number in [1, 9, 15] {
            assert_eq!(
                policy.signal(number, peer) & (READ | WRITE),
                *signals,
                "signal {number} and {peer:?}"
            );
        }
        assert_eq!(policy.ptrace(peer) != 0, *traced, "ptrace and {peer:?}");
    }
}

#[test]
fn what_the_daemon_carries_decides_as_meant() {
    check(include_bytes!("../../policy/pintle-default.bin"));
}

/// A newer compiler may write other bytes, and must mean the same. Debian 12's makes exactly what is committed.
#[test]
fn what_the_daemon_carries_is_its_source_compiled() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy");
    let Some(parser) =
        ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser"].iter().find(|p| Path::new(p).exists())
    else {
        println!("SKIPPED: apparmor_parser is not installed (package apparmor)");
        return;
    };
    let mut compile = Command::new(parser);
    compile
        .args(["--skip-cache", "--skip-kernel-load", "--stdout", "--features-file"])
        .arg(folder.join("features"));
    let compiled = compile.arg(folder.join("pintle-default.apparmor")).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    check(&compiled.stdout);
    let version = Command::new(parser).arg("--version").output().unwrap();
    if String::from_utf8_lossy(&version.stdout).contains("version 3.0.") {
        let same = compiled.stdout == include_bytes!("../../policy/pintle-default.bin");
        assert!(
            same,
            "policy/pintle-default.bin is not the compiled pintle-default.apparmor: run `cargo xtask gen`"
        );
    }
}
