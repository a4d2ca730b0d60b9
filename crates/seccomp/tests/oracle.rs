//! Programs against those that libseccomp itself makes. Needs `--features libseccomp-oracle`.
#![cfg(feature = "libseccomp-oracle")]

mod common;

use common::{Call, ERRNO, X32_BIT, X86, X86_64, check, run};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;
use seccomp::{Architecture, Instruction, compile};

const NAMES: [&str; 16] = [
    "read",
    "write",
    "close",
    "ioctl",
    "socket",
    "clone",
    "personality",
    "openat",
    "preadv",
    "chown32",
    "clone3",
    "arch_prctl",
    "execve",
    "epoll_wait_old",
    "_sysctl",
    "statx",
];

/// libseccomp's own program for a profile whose calls each have one action.
fn theirs(profile: &LinuxSeccomp) -> Vec<Instruction> {
    let default = scmp_action(profile.default_action());
    let mut filter = ScmpFilterContext::new(default).unwrap();
    for arch in profile.architectures().iter().flatten() {
        let arch = match arch {
            Arch::ScmpArchX86 => ScmpArch::X86,
            Arch::ScmpArchX32 => ScmpArch::X32,
            _ => ScmpArch::X8664,
        };
        filter.add_arch(arch).unwrap();
    }
    for rule in profile.syscalls().iter().flatten() {
        let action = scmp_action(rule.action());
        if action == default {
            continue;
        }
        let args: Vec<ScmpArgCompare> = rule.args().iter().flatten().map(scmp_compare).collect();
        for name in rule.names() {
            let Ok(call) = ScmpSyscall::from_name(name) else { continue };
            filter.add_rule_conditional(action, call, &args).unwrap();
        }
    }
    let mut file = tempfile();
    filter.export_bpf(&file).unwrap();
    use std::io::{Read, Seek};
    file.rewind().unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    bytes
        .chunks_exact(8)
        .map(|b| Instruction {
            code: u16::from_le_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect()
}

/// An open file without a name.
fn tempfile() -> std::fs::File {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("pintle-oracle-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file
}

fn scmp_action(action: Action) -> ScmpAction {
    match action {
        Action::ScmpActErrno => ScmpAction::Errno(1),
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActAllow => ScmpAction::Allow,
        other => panic!("{other:?} is not used here"),
    }
}

fn scmp_compare(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (op, datum) = match arg.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, arg.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, arg.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, arg.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, arg.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, arg.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, arg.value()),
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(arg.value()), arg.value_two().unwrap_or(0)),
    };
    ScmpArgCompare::new(arg.index() as u32, op, datum)
}

fn value() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0, 1, 2, 38, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0002, 1 << 63, u64::MAX])
}

fn argument() -> impl Strategy<Value = LinuxSeccompArg> {
    let operators = vec![
        Operator::ScmpCmpNe,
        Operator::ScmpCmpLt,
        Operator::ScmpCmpLe,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpGe,
        Operator::ScmpCmpGt,
        Operator::ScmpCmpMaskedEq,
    ];
    (value(), value(), prop::sample::select(operators)).prop_map(|(value, two, op)| {
        LinuxSeccompArgBuilder::default().value(value).value_two(two).op(op).build().unwrap()
    })
}

fn rule(name: &'static str) -> impl Strategy<Value = Vec<LinuxSyscall>> {
    let actions = vec![
        Action::ScmpActErrno,
        Action::ScmpActTrap,
        Action::ScmpActLog,
        Action::ScmpActKillProcess,
        Action::ScmpActAllow,
    ];
    // One rule with up to three conditions for a call. Several rules for one call whose conditions overlap make libseccomp (2.5.4)
    // build trees that lose rules, so that there is nothing to compare with.
    (prop::sample::select(actions), prop::collection::btree_map(0usize..6, argument(), 0..4)).prop_map(
        move |(action, args)| {
            let args: Vec<LinuxSeccompArg> = args
                .into_iter()
                .map(|(index, a)| {
                    LinuxSeccompArgBuilder::default()
                        .index(index)
                        .value(a.value())
                        .value_two(a.value_two().unwrap_or(0))
                        .op(a.op())
                        .build()
                        .unwrap()
                })
                .collect();
            let mut rule = LinuxSyscall::default();
            rule.set_names(vec![name.to_string()]).set_action(action).set_args(Some(args));
            vec![rule]
        },
    )
}

/// With `x32` no arguments are tested: what libseccomp (2.5.4) says of the 64-bit arguments of x86_64 calls is not the same once x32
/// is in the filter too.
fn profile(x32: bool) -> impl Strategy<Value = LinuxSeccomp> {
    let rules = prop::sample::subsequence(NAMES.to_vec(), 1..NAMES.len())
        .prop_flat_map(|names| names.into_iter().map(rule).collect::<Vec<_>>());
    let default = prop::sample::select(vec![Action::ScmpActErrno, Action::ScmpActLog, Action::ScmpActAllow]);
    let arches = prop::sample::subsequence(vec![Arch::ScmpArchX86], 0..=1);
    (default, arches, rules).prop_map(move |(default, mut arches, mut rules)| {
        let mut profile = LinuxSeccomp::default();
        if x32 {
            arches.push(Arch::ScmpArchX32);
            rules.iter_mut().flatten().for_each(|rule| {
                rule.set_args(None);
            });
        }
        profile
            .set_default_action(default)
            .set_architectures(Some(arches))
            .set_syscalls(Some(rules.concat()));
        profile
    })
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let numbers: Vec<u32> = NAMES
        .iter()
        .flat_map(|name| {
            [ScmpArch::X8664, ScmpArch::X86, ScmpArch::X32].map(|arch| {
                ScmpSyscall::from_name_by_arch(name, arch).map_or(0, |n| n.as_raw_syscall() as u32)
            })
        })
        .flat_map(|n| [n, n ^ X32_BIT])
        .chain([334, 359, 600, u32::MAX])
        .collect();
    let call = (
        prop::sample::select(vec![X86_64, X86, common::AARCH64]),
        prop::sample::select(numbers),
        prop::array::uniform6(value()),
    )
        .prop_map(|(arch, number, args)| Call {
            arch,
            number,
            args: if arch == X86 { args.map(|a| a & 0xffff_ffff) } else { args },
        });
    prop::collection::vec(call, 80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn ours_answers_as_libseccomp(
        profile in any::<bool>().prop_flat_map(profile),
        calls in calls(),
    ) {
        let ours = compile(&profile, Architecture::X86_64).unwrap().instructions;
        let theirs = theirs(&profile);
        check(&ours);
        // The multiplexed form of a call whose arguments are tested: libseccomp tests the wrong arguments, we have no such form.
        let tested = |call: &Call| call.arch == X86 && call.number == 102;
        for call in calls.iter().filter(|c| !tested(c)) {
            let (mine, _) = run(&ours, call);
            let (other, _) = run(&theirs, call);
            // Calls newer than the profile are what runc adds to libseccomp's program.
            if mine == (ERRNO | 38) && other == (ERRNO | 1) {
                continue;
            }
            prop_assert_eq!(mine, other, "{:x?}", call);
        }
    }
}

/// Every name that the default profile uses, and more, has the number that libseccomp knows.
#[test]
fn numbers_are_those_of_libseccomp() {
    let pairs = [
        (Arch::ScmpArchX86_64, ScmpArch::X8664, Architecture::X86_64, X86_64, 0),
        (Arch::ScmpArchX86, ScmpArch::X86, Architecture::X86_64, X86, 0),
        (Arch::ScmpArchX32, ScmpArch::X32, Architecture::X86_64, X86_64, X32_BIT),
        (Arch::ScmpArchAarch64, ScmpArch::Aarch64, Architecture::Aarch64, common::AARCH64, 0),
        (Arch::ScmpArchArm, ScmpArch::Arm, Architecture::Aarch64, common::ARM, 0),
    ];
    let mut different = Vec::new();
    for (arch, scmp, native, audit, bit) in pairs {
        let known = (0..470).chain(512..548).chain(0x0f_0000..0x0f_0006).filter_map(|n| {
            Some((n, ScmpSyscall::from_raw_syscall(n | bit as i32).get_name_by_arch(scmp).ok()?))
        });
        for (number, name) in known {
            let mut rule = LinuxSyscall::default();
            rule.set_names(vec![name.clone()]).set_action(Action::ScmpActTrap);
            let mut profile = LinuxSeccomp::default();
            profile.set_architectures(Some(vec![arch])).set_syscalls(Some(vec![rule]));
            let filter = compile(&profile, native).unwrap();
            let call = Call { arch: audit, number: number as u32 | bit, args: [0; 6] };
            if run(&filter.instructions, &call).0 != 0x0003_0000 {
                different.push(format!("{arch:?} {name} {number}"));
            }
        }
    }
    assert!(different.is_empty(), "{} differ: {different:#?}", different.len());
}
