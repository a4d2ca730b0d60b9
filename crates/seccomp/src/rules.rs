//! A profile's rules for one interface: what each call number leads to.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};

use crate::abi::Abi;
use crate::error::CompileError;

/// Filter return values (seccomp(2), linux/seccomp.h).
pub(crate) const KILL_THREAD: u32 = 0x0000_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
pub(crate) const NO_SUCH_CALL: u32 = ERRNO | ENOSYS;

/// A test of one argument, its operands cut to what the interface passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) argument: u8,
    /// Whether all 64 bits count, or only the low 32.
    pub(crate) wide: bool,
    pub(crate) test: Test,
}

/// What an argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Equal(u64),
    NotEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Masked { mask: u64, value: u64 },
}

/// All `conditions` hold: `action`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) action: u32,
}

/// What one call number leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The same whatever the arguments are.
    Always(u32),
    /// The first rule that holds; the default action if none does.
    ByArguments(Vec<Rule>),
}

/// The rules of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    /// By call number.
    pub(crate) calls: BTreeMap<u32, Outcome>,
    /// The highest number the profile names, also in rules without effect; what lies above is newer than the profile.
    pub(crate) newest: Option<u32>,
}

/// A profile whose values have been checked, with actions as the kernel's return values.
#[derive(Debug)]
pub(crate) struct Checked<'a> {
    pub(crate) default: u32,
    rules: Vec<(&'a LinuxSyscall, u32)>,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(profile: &'a LinuxSeccomp) -> Result<Checked<'a>, CompileError> {
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(CompileError::NotifyByDefault);
        }
        let default =
            action(profile.default_action(), profile.default_errno_ret(), || "defaultErrnoRet".into())?;
        let mut rules = Vec::new();
        for rule in profile.syscalls().iter().flatten() {
            let place = || format!("the rule for {:?}", first_name(rule));
            let value = action(rule.action(), rule.errno_ret(), place)?;
            for argument in rule.args().iter().flatten() {
                if argument.index() > 5 {
                    return Err(CompileError::ArgumentIndex {
                        syscall: first_name(rule),
                        index: argument.index(),
                    });
                }
            }
            if value == NOTIFY
                && let Some(name) = rule.names().iter().find(|n| matches!(n.as_str(), "write" | "sendmsg"))
            {
                return Err(CompileError::NotifyHandover { syscall: name.clone() });
            }
            rules.push((rule, value));
        }
        Ok(Checked { default, rules })
    }

    /// Whether a rule makes a listener necessary.
    pub(crate) fn notifies(&self) -> bool {
        self.rules.iter().any(|(_, action)| *action == NOTIFY)
    }

    /// Whether calls newer than the profile get `ENOSYS`: not if the profile lets unknown calls through (a tracer, like the
    /// kernel, answers for those itself).
    pub(crate) fn hides_newer_calls(&self) -> bool {
        self.default != ALLOW && self.default != LOG && self.default & 0xffff_0000 != TRACE
    }

    /// Every name used, once for each use.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.rules.iter().flat_map(|(rule, _)| rule.names().iter().map(String::as_str))
    }

    /// What the rules say for `abi`. As in libseccomp, a rule without conditions wins over those with, wherever it stands, and the
    /// first of several wins; as in runc, a rule with the default action is no rule.
    pub(crate) fn table(&self, abi: Abi) -> Table {
        let mut table = Table::default();
        for (rule, action) in &self.rules {
            let alternatives = alternatives(rule.args().as_deref().unwrap_or_default(), abi);
            for name in rule.names() {
                let number = abi.number(name);
                if let Some(number) = number.filter(|n| !abi.is_private(*n)) {
                    table.newest = table.newest.max(Some(number));
                }
                if *action == self.default {
                    continue;
                }
                if let Some(number) = number {
                    table.add(number, &alternatives, *action);
                }
                // The arguments of a multiplexed call lie in memory, where no filter can look. A rule that tests them has no
                // multiplexed form.
                if let Some((number, call)) = abi.multiplexed(name)
                    && alternatives.is_empty()
                {
                    let this_call =
                        Condition { argument: 0, wide: abi.wide_arguments(), test: Test::Equal(call) };
                    table.add(number, &[vec![this_call]], *action);
                }
            }
        }
        table
    }
}

impl Table {
    /// Adds a rule for `number`: one for each of `alternatives`, or one without conditions if there are none.
    fn add(&mut self, number: u32, alternatives: &[Vec<Condition>], action: u32) {
        let outcome = self.calls.entry(number).or_insert_with(|| Outcome::ByArguments(Vec::new()));
        let Outcome::ByArguments(rules) = outcome else { return };
        if alternatives.is_empty() {
            *outcome = Outcome::Always(action);
            return;
        }
        for conditions in alternatives {
            let rule = Rule { conditions: conditions.clone(), action };
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
}

fn first_name(rule: &LinuxSyscall) -> String {
    rule.names().first().cloned().unwrap_or_default()
}

/// The conditions that must hold together; several sets if one argument is tested twice: then, as runc has it for the sake of old
/// profiles, each condition alone is enough.
fn alternatives(arguments: &[LinuxSeccompArg], abi: Abi) -> Vec<Vec<Condition>> {
    let conditions: Vec<Condition> = arguments.iter().map(|a| condition(a, abi)).collect();
    let twice = (0..6).any(|i| conditions.iter().filter(|c| c.argument == i).count() > 1);
    match (conditions.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, true) => conditions.into_iter().map(|c| vec![c]).collect(),
        (false, false) => vec![conditions],
    }
}

fn condition(argument: &LinuxSeccompArg, abi: Abi) -> Condition {
    let cut = |value: u64| if abi.wide_arguments() { value } else { value & 0xffff_ffff };
    let value = cut(argument.value());
    let test = match argument.op() {
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            // libseccomp masks both sides, so bits of the value outside the mask do not matter.
            Test::Masked { mask: value, value: cut(argument.value_two().unwrap_or(0)) & value }
        }
    };
    Condition { argument: argument.index() as u8, wide: abi.wide_arguments(), test }
}

fn action(
    action: LinuxSeccompAction,
    data: Option<u32>,
    place: impl Fn() -> String,
) -> Result<u32, CompileError> {
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => TRAP,
        LinuxSeccompAction::ScmpActErrno => match data.unwrap_or(EPERM) {
            errno @ 0..=4095 => ERRNO | errno,
            errno => return Err(CompileError::Errno { place: place(), errno }),
        },
        LinuxSeccompAction::ScmpActTrace => match data.unwrap_or(EPERM) {
            message @ 0..=0xffff => TRACE | message,
            message => return Err(CompileError::TraceMessage { place: place(), message }),
        },
        LinuxSeccompAction::ScmpActLog => LOG,
        LinuxSeccompAction::ScmpActAllow => ALLOW,
        LinuxSeccompAction::ScmpActNotify => NOTIFY,
    })
}
