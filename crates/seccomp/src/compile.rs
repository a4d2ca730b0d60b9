//! From a profile to a program: a dispatch on the interface, then a binary tree over call numbers, then argument tests.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompFilterFlag};

use crate::abi::{Abi, Architecture, X32_BIT};
use crate::error::CompileError;
use crate::program::{Compare, Instruction, Program, Target, Word};
use crate::rules::{Checked, Condition, KILL_THREAD, NO_SUCH_CALL, Outcome, Rule, Table, Test};

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What to load.
    pub instructions: Vec<Instruction>,
    /// How to load it.
    pub flags: Flags,
    /// Whether a rule notifies, so that the filter must be loaded with a listener.
    pub listener: bool,
    /// Names in the profile that no interface of this machine knows. They were ignored, as other runtimes do, because profiles
    /// are written for many kernels.
    pub unknown: Vec<String>,
}

/// The profile's flags for seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// `SECCOMP_FILTER_FLAG_TSYNC`.
    pub tsync: bool,
    /// `SECCOMP_FILTER_FLAG_LOG`.
    pub log: bool,
    /// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`; set also if the profile has no list of flags at all, as in runc.
    pub spec_allow: bool,
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`.
    pub wait_killable: bool,
}

/// Compiles `profile` for a machine.
///
/// The native interface is always part of it; interfaces that are neither native nor named are killed, and so are calls of machines
/// that this one cannot run. Calls newer than any that the profile names get `ENOSYS`, unless its default action lets calls
/// through: programs that try a new call and fall back to an older one expect that answer.
///
/// # Errors
/// What makes the profile's values impossible, or a program beyond the kernel's limit.
pub fn compile(profile: &LinuxSeccomp, native: Architecture) -> Result<Filter, CompileError> {
    let checked = Checked::new(profile)?;
    let native_abi = native.native_abi();
    let mut abis = vec![native_abi];
    for arch in profile.architectures().iter().flatten() {
        if let Some(abi) = native.abi(*arch)
            && !abis.contains(&abi)
        {
            abis.push(abi);
        }
    }
    let mut program = Program::default();
    // Written from the end: the native tree last, so that it comes first and its dispatch is the shortest jump.
    let mut entries = Vec::new();
    let mut others: Vec<Abi> =
        abis.iter().copied().filter(|a| a.audit_arch() != native_abi.audit_arch()).collect();
    others.sort();
    for abi in others.into_iter().chain([native_abi]) {
        let mut spans = spans(abi, Some(&checked.table(abi)), &checked);
        if abi == Abi::X86_64 {
            let x32 = abis.contains(&Abi::X32).then(|| checked.table(Abi::X32));
            spans.extend(self::spans(Abi::X32, x32.as_ref(), &checked));
        }
        let tree = write_tree(&mut program, &merged(spans), checked.default);
        entries.push((abi.audit_arch(), program.load(Word::Number, tree)));
    }
    let mut dispatch = Target::Return(KILL_THREAD);
    for (arch, entry) in entries {
        dispatch = program.branch(Compare::Equal, arch, entry, dispatch);
    }
    program.load(Word::Arch, dispatch);
    Ok(Filter {
        instructions: program.finish()?,
        flags: flags(profile),
        listener: checked.notifies(),
        unknown: unknown(&checked, native),
    })
}

/// From `start` to the next span's start, calls lead to `outcome`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    start: u32,
    outcome: Outcome,
}

/// The whole range of numbers of `abi`; without a table the interface is not allowed at all.
fn spans(abi: Abi, table: Option<&Table>, checked: &Checked<'_>) -> Vec<Span> {
    let start = if abi == Abi::X32 { X32_BIT } else { 0 };
    let Some(table) = table else {
        // -1 is the number a tracer leaves behind for a call it skipped; it must not kill.
        return vec![
            Span { start, outcome: Outcome::Always(KILL_THREAD) },
            Span { start: u32::MAX, outcome: Outcome::Always(checked.default) },
        ];
    };
    let newest = table.newest.filter(|_| checked.hides_newer_calls());
    let between = |number: u32| {
        let newer = newest.is_some_and(|newest| number > newest);
        Outcome::Always(if newer { NO_SUCH_CALL } else { checked.default })
    };
    let mut spans = Vec::with_capacity(table.calls.len() * 2 + 2);
    let mut next = Some(start);
    for (number, outcome) in &table.calls {
        if let Some(gap) = next.filter(|n| n < number) {
            spans.push(Span { start: gap, outcome: between(gap) });
            // A gap may begin below the newest call and end above it: private numbers lie far up.
            if let Some(above) = newest.and_then(|n| n.checked_add(1)).filter(|n| gap < *n && n < number) {
                spans.push(Span { start: above, outcome: between(above) });
            }
        }
        spans.push(Span { start: *number, outcome: outcome.clone() });
        next = number.checked_add(1);
    }
    if let Some(rest) = next {
        spans.push(Span { start: rest, outcome: between(rest) });
        if let Some(above) = newest.and_then(|n| n.checked_add(1)).filter(|n| rest < *n) {
            spans.push(Span { start: above, outcome: between(above) });
        }
    }
    spans
}

/// Neighbours with the same outcome become one.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.dedup_by(|later, earlier| later.outcome == earlier.outcome);
    spans
}

/// Writes the tree that finds the span of the number in the accumulator. Its depth is the logarithm of the number of spans.
fn write_tree(program: &mut Program, spans: &[Span], default: u32) -> Target {
    match spans {
        [] => Target::Return(default),
        [span] => match &span.outcome {
            Outcome::Always(action) => Target::Return(*action),
            Outcome::ByArguments(rules) => write_rules(program, rules, default),
        },
        _ => {
            let (low, high) = spans.split_at(spans.len() / 2);
            let start = high[0].start;
            let high = write_tree(program, high, default);
            let low = write_tree(program, low, default);
            program.branch(Compare::GreaterOrEqual, start, high, low)
        }
    }
}

/// Writes rules of which the first that holds decides.
fn write_rules(program: &mut Program, rules: &[Rule], default: u32) -> Target {
    rules.iter().rev().fold(Target::Return(default), |otherwise, rule| {
        rule.conditions.iter().rev().fold(Target::Return(rule.action), |holds, condition| {
            write_condition(program, *condition, holds, otherwise)
        })
    })
}

fn write_condition(program: &mut Program, condition: Condition, yes: Target, no: Target) -> Target {
    match condition.test {
        Test::Equal(value) => write_equal(program, condition, u64::MAX, value, yes, no),
        Test::NotEqual(value) => write_equal(program, condition, u64::MAX, value, no, yes),
        Test::Masked { mask, value } => write_equal(program, condition, mask, value, yes, no),
        Test::Greater(value) => write_order(program, condition, Compare::Greater, value, yes, no),
        Test::LessOrEqual(value) => write_order(program, condition, Compare::Greater, value, no, yes),
        Test::GreaterOrEqual(value) => {
            write_order(program, condition, Compare::GreaterOrEqual, value, yes, no)
        }
        Test::Less(value) => write_order(program, condition, Compare::GreaterOrEqual, value, no, yes),
    }
}

fn write_equal(
    program: &mut Program,
    condition: Condition,
    mask: u64,
    value: u64,
    yes: Target,
    no: Target,
) -> Target {
    let argument = condition.argument;
    let low = write_half(program, Word::Low(argument), mask as u32, value as u32, yes, no);
    if !condition.wide {
        return low;
    }
    write_half(program, Word::High(argument), (mask >> 32) as u32, (value >> 32) as u32, low, no)
}

fn write_half(program: &mut Program, word: Word, mask: u32, value: u32, yes: Target, no: Target) -> Target {
    if mask == 0 {
        // The value was masked before, so it is 0 too: this half always matches.
        return yes;
    }
    let compare = program.branch(Compare::Equal, value, yes, no);
    let masked = if mask == u32::MAX { compare } else { program.and(mask, compare) };
    program.load(word, masked)
}

/// `compare` decides on the low halves if the high halves are equal; else the high halves decide.
fn write_order(
    program: &mut Program,
    condition: Condition,
    compare: Compare,
    value: u64,
    yes: Target,
    no: Target,
) -> Target {
    let (high, low) = ((value >> 32) as u32, value as u32);
    let decide_low = program.branch(compare, low, yes, no);
    let decide_low = program.load(Word::Low(condition.argument), decide_low);
    if !condition.wide {
        return decide_low;
    }
    let decide_high = program.branch(Compare::Equal, high, decide_low, no);
    let decide_high = program.branch(Compare::Greater, high, yes, decide_high);
    program.load(Word::High(condition.argument), decide_high)
}

fn flags(profile: &LinuxSeccomp) -> Flags {
    let Some(list) = profile.flags() else {
        return Flags { spec_allow: true, ..Flags::default() };
    };
    let mut flags = Flags::default();
    for flag in list {
        match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => flags.tsync = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => flags.log = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => flags.spec_allow = true,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => flags.wait_killable = true,
        }
    }
    flags
}

fn unknown(checked: &Checked<'_>, native: Architecture) -> Vec<String> {
    let abis: &[Abi] = match native {
        Architecture::X86_64 => &[Abi::X86_64, Abi::X86],
        Architecture::Aarch64 => &[Abi::Aarch64, Abi::Arm],
    };
    let mut unknown: Vec<String> = checked
        .names()
        .filter(|name| abis.iter().all(|abi| abi.number(name).is_none() && abi.multiplexed(name).is_none()))
        .map(str::to_string)
        .collect();
    unknown.sort();
    unknown.dedup();
    unknown
}
