//! Programs against a plain reading of the profile: the same answer for every call.

mod common;

use common::{ALLOW, Call, ERRNO, KILL, X32_BIT, X86, X86_64, check, run};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};
use proptest::prelude::*;
use seccomp::{Architecture, CompileError, compile};

/// Name; numbers for x86_64, x86 and x32 (without its bit); and the multiplexed call of x86 with its first argument.
type Names = (&'static str, Option<u32>, Option<u32>, Option<u32>, Option<(u32, u64)>);
const NAMES: [Names; 12] = [
    ("read", Some(0), Some(3), Some(0), None),
    ("close", Some(3), Some(6), Some(3), None),
    ("ioctl", Some(16), Some(54), Some(514), None),
    ("socket", Some(41), Some(359), Some(41), Some((102, 1))),
    ("clone", Some(56), Some(120), Some(56), None),
    ("semop", Some(65), None, Some(65), Some((117, 1))),
    ("socketcall", None, Some(102), None, None),
    ("personality", Some(135), Some(136), Some(135), None),
    ("openat", Some(257), Some(295), Some(257), None),
    ("preadv", Some(295), Some(333), Some(534), None),
    ("chown32", None, Some(212), None, None),
    ("clone3", Some(435), Some(435), Some(435), None),
];

fn value_of(action: Action, data: Option<u32>) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => ERRNO | data.unwrap_or(1),
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000 | data.unwrap_or(1),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => ALLOW,
    }
}

fn holds(arg: &LinuxSeccompArg, args: &[u64; 6], wide: bool) -> bool {
    let cut = |n: u64| if wide { n } else { n & 0xffff_ffff };
    let (actual, value, two) = (cut(args[arg.index()]), cut(arg.value()), cut(arg.value_two().unwrap_or(0)));
    match arg.op() {
        Operator::ScmpCmpNe => actual != value,
        Operator::ScmpCmpLt => actual < value,
        Operator::ScmpCmpLe => actual <= value,
        Operator::ScmpCmpEq => actual == value,
        Operator::ScmpCmpGe => actual >= value,
        Operator::ScmpCmpGt => actual > value,
        Operator::ScmpCmpMaskedEq => actual & value == two & value,
    }
}

/// What the profile says about a call on an x86_64 machine.
fn reference(profile: &LinuxSeccomp, call: &Call) -> u32 {
    let default = value_of(profile.default_action(), profile.default_errno_ret());
    let has = |arch| profile.architectures().iter().flatten().any(|a| *a == arch);
    // Numbers from the bit upward are x32's, as libseccomp has it.
    let wide = call.arch == X86_64 && call.number < X32_BIT;
    let number_of: fn(&Names) -> Option<u32> = match (call.arch, call.number >= X32_BIT) {
        (X86_64, true) if call.number == u32::MAX && !has(Arch::ScmpArchX32) => return default,
        (X86_64, true) if !has(Arch::ScmpArchX32) => return KILL,
        (X86_64, true) => |n| n.3.map(|n| n | X32_BIT),
        (X86_64, false) => |n| n.1,
        (X86, _) if has(Arch::ScmpArchX86) => |n| n.2,
        _ => return KILL,
    };
    let known = |name: &String| NAMES.iter().find(|n| n.0 == name);
    let (mut always, mut conditional, mut newest) = (None, None, None);
    for rule in profile.syscalls().iter().flatten() {
        let action = value_of(rule.action(), rule.errno_ret());
        let args = rule.args().as_deref().unwrap_or_default();
        for name in rule.names().iter().filter_map(known) {
            newest = newest.max(number_of(name));
            if action == default {
                continue;
            }
            if args.is_empty() {
                let multiplexed = call.arch == X86
                    && name.4.is_some_and(|(number, first)| number == call.number && call.args[0] == first);
                if number_of(name) == Some(call.number) {
                    always = always.or(Some(action));
                } else if multiplexed {
                    conditional = conditional.or(Some(action));
                }
            } else if number_of(name) == Some(call.number) {
                let twice = (0..6).any(|i| args.iter().filter(|a| a.index() == i).count() > 1);
                let matches = match twice {
                    true => args.iter().any(|a| holds(a, &call.args, wide)),
                    false => args.iter().all(|a| holds(a, &call.args, wide)),
                };
                if matches {
                    conditional = conditional.or(Some(action));
                }
            }
        }
    }
    let passes =
        matches!(profile.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    match always.or(conditional) {
        Some(action) => action,
        None if !passes && newest.is_some_and(|n| call.number > n) => ERRNO | 38,
        None => default,
    }
}

const VALUES: [u64; 12] = [
    0,
    1,
    2,
    5,
    38,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0005,
    0x8000_0000,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![4 => prop::sample::select(&VALUES[..]), 1 => any::<u64>()]
}

fn argument() -> impl Strategy<Value = LinuxSeccompArg> {
    let operators = [
        Operator::ScmpCmpNe,
        Operator::ScmpCmpLt,
        Operator::ScmpCmpLe,
        Operator::ScmpCmpEq,
        Operator::ScmpCmpGe,
        Operator::ScmpCmpGt,
        Operator::ScmpCmpMaskedEq,
    ];
    (0usize..6, value(), value(), prop::sample::select(operators.to_vec())).prop_map(
        |(index, value, two, op)| {
            let builder = LinuxSeccompArgBuilder::default();
            builder.index(index).value(value).value_two(two).op(op).build().unwrap()
        },
    )
}

fn action() -> impl Strategy<Value = (Action, Option<u32>)> {
    let actions = [
        Action::ScmpActKill,
        Action::ScmpActKillThread,
        Action::ScmpActKillProcess,
        Action::ScmpActTrap,
        Action::ScmpActErrno,
        Action::ScmpActTrace,
        Action::ScmpActLog,
        Action::ScmpActAllow,
    ];
    (prop::sample::select(actions.to_vec()), prop::option::of(0u32..4096))
}

fn rule() -> impl Strategy<Value = LinuxSyscall> {
    let names = prop::collection::vec(prop::sample::select(&NAMES[..]), 1..4);
    let action = prop_oneof![3 => action(), 1 => Just((Action::ScmpActNotify, None))];
    (names, action, prop::collection::vec(argument(), 0..4)).prop_map(|(names, (action, data), args)| {
        let mut rule = LinuxSyscall::default();
        rule.set_names(names.iter().map(|n| n.0.to_string()).collect())
            .set_action(action)
            .set_errno_ret(data)
            .set_args((!args.is_empty()).then_some(args));
        rule
    })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let arches = prop::sample::subsequence(
        vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchS390x],
        0..=4,
    );
    (action(), arches, prop::collection::vec(rule(), 0..12)).prop_map(|((action, data), arches, rules)| {
        let mut profile = LinuxSeccomp::default();
        profile
            .set_default_action(action)
            .set_default_errno_ret(data)
            .set_architectures(Some(arches))
            .set_syscalls(Some(rules));
        profile
    })
}

fn call() -> impl Strategy<Value = Call> {
    let numbers: Vec<u32> = NAMES
        .iter()
        .flat_map(|n| [n.1, n.2, n.3, n.3.map(|n| n | X32_BIT), n.4.map(|n| n.0)])
        .flatten()
        .flat_map(|n| [n, n + 1, n.wrapping_sub(1)])
        .collect();
    let number = prop_oneof![
        8 => prop::sample::select(numbers),
        1 => any::<u32>(),
        1 => prop::sample::select(&[u32::MAX, X32_BIT, X32_BIT - 1, 1000][..]),
    ];
    let arch = prop::sample::select(&[X86_64, X86_64, X86, common::AARCH64, common::ARM][..]);
    (arch, number, prop::array::uniform6(value())).prop_map(|(arch, number, mut args)| {
        if arch == X86 {
            // The kernel clears the upper halves for 32-bit programs.
            args = args.map(|a| a & 0xffff_ffff);
        }
        Call { arch, number, args }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn programs_say_what_profiles_say(
        profile in profile(),
        calls in prop::collection::vec(call(), 60),
    ) {
        let filter = compile(&profile, Architecture::X86_64).unwrap();
        check(&filter.instructions);
        for call in &calls {
            prop_assert_eq!(run(&filter.instructions, call).0, reference(&profile, call), "{:x?}", call);
        }
    }
}

fn allow(names: &[&str], args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(names.iter().map(|n| n.to_string()).collect())
        .set_action(Action::ScmpActAllow)
        .set_args(Some(args));
    rule
}

fn deny_by_default(rules: Vec<LinuxSyscall>) -> LinuxSeccomp {
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(Action::ScmpActErrno).set_syscalls(Some(rules));
    profile
}

fn equal(value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default().index(0usize).value(value).op(Operator::ScmpCmpEq).build().unwrap()
}

/// Hundreds of conditions push targets out of the reach of an 8-bit jump.
#[test]
fn long_programs_jump_far() {
    let rules =
        (0..300u64).map(|n| allow(&["read", "socket", "clone3"], vec![equal(n * 7)])).collect::<Vec<_>>();
    let profile = deny_by_default(rules);
    let filter = compile(&profile, Architecture::X86_64).unwrap();
    check(&filter.instructions);
    assert!(filter.instructions.len() > 2000);
    for number in [0, 1, 41, 42, 435, 436] {
        for value in 0..2200u64 {
            let call = Call { arch: X86_64, number, args: [value, 0, 0, 0, 0, 0] };
            assert_eq!(run(&filter.instructions, &call).0, reference(&profile, &call), "{call:?}");
        }
    }
}

#[test]
fn impossible_profiles_are_refused() {
    let too_long = (0..2000u64).map(|n| allow(&["read"], vec![equal(n)])).collect();
    let error = compile(&deny_by_default(too_long), Architecture::X86_64).unwrap_err();
    assert!(matches!(error, CompileError::TooLong { instructions } if instructions > 4096), "{error}");

    let mut wide = deny_by_default(vec![]);
    wide.set_default_errno_ret(Some(4096));
    let error = compile(&wide, Architecture::X86_64).unwrap_err();
    assert!(matches!(error, CompileError::Errno { errno: 4096, .. }), "{error}");

    let arg = LinuxSeccompArgBuilder::default().index(6usize).build().unwrap();
    let error =
        compile(&deny_by_default(vec![allow(&["read"], vec![arg])]), Architecture::X86_64).unwrap_err();
    assert!(matches!(error, CompileError::ArgumentIndex { index: 6, .. }), "{error}");

    let mut notify = deny_by_default(vec![]);
    notify.set_default_action(Action::ScmpActNotify);
    assert_eq!(compile(&notify, Architecture::X86_64), Err(CompileError::NotifyByDefault));
    let mut rule = allow(&["read", "write"], vec![]);
    rule.set_action(Action::ScmpActNotify);
    let error = compile(&deny_by_default(vec![rule]), Architecture::X86_64).unwrap_err();
    assert_eq!(error, CompileError::NotifyHandover { syscall: "write".into() });
}

#[test]
fn unknown_names_are_reported_and_flags_kept() {
    let mut profile = deny_by_default(vec![allow(&["read", "no_such_call", "chown32"], vec![])]);
    let filter = compile(&profile, Architecture::X86_64).unwrap();
    assert_eq!(filter.unknown, ["no_such_call"]);
    assert!(!filter.listener && filter.flags.spec_allow, "no list of flags means this one");
    profile.set_flags(Some(vec![]));
    assert_eq!(compile(&profile, Architecture::X86_64).unwrap().flags, seccomp::Flags::default());
    let mut rule = allow(&["mount"], vec![]);
    rule.set_action(Action::ScmpActNotify);
    profile.set_syscalls(Some(vec![rule]));
    assert!(compile(&profile, Architecture::X86_64).unwrap().listener);
}
