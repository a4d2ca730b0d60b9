//! Device rules in version 1: a default and a list of exceptions, changed by the fewest writes.

use crate::change::{Changes, Place};
use crate::devices::{Access, Kind, Rule};
use crate::error::ApplyError;

/// What the kernel keeps for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    allow_by_default: bool,
    /// Devices that are treated otherwise, at most one entry for each kind and numbers.
    exceptions: Vec<Exception>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    device: Device,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
}

impl Device {
    fn covers(self, other: Device) -> bool {
        let number = |mine: Option<u32>, other: Option<u32>| mine.is_none() || mine == other;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }

    fn meets(self, other: Device) -> bool {
        let number = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }
}

/// Brings the group's list to what `rules` say.
pub(super) fn apply<'a>(
    changes: &mut Changes<'a>,
    place: Place<'a>,
    rules: &[Rule],
) -> Result<(), ApplyError> {
    let target = List::of(rules)?;
    let current = changes.read(place, "devices.list", parse)?;
    for (allow, entry) in writes(current.as_ref(), &target) {
        let (file, back) =
            if allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
        changes.write_undone_by(place, file, &entry, (back, entry.clone()))?;
    }
    Ok(())
}

/// The exceptions of a group that denies by default; `None` for one that allows by default, whose exceptions the kernel does not show.
fn parse(text: &str) -> Option<Vec<Exception>> {
    let mut exceptions = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let kind = match fields.next() {
            Some("a") => return None,
            Some("b") => Kind::Block,
            Some("c") => Kind::Char,
            _ => continue,
        };
        let numbers = fields.next().and_then(|n| n.split_once(':'));
        let (Some((major, minor)), Some(letters)) = (numbers, fields.next()) else { continue };
        let bits = [('r', Access::READ), ('w', Access::WRITE), ('m', Access::MKNOD)];
        let access = bits.iter().filter(|(c, _)| letters.contains(*c)).fold(0, |all, (_, bit)| all | bit);
        exceptions.push(Exception {
            device: Device { kind, major: major.parse().ok(), minor: minor.parse().ok() },
            access: Access(access),
        });
    }
    Some(exceptions)
}

/// What is to be written, as (to `devices.allow`?, entry). What is gained comes before what is lost, so that an update does not take
/// away for a moment what it leaves.
fn writes(current: Option<&Vec<Exception>>, target: &List) -> Vec<(bool, String)> {
    let everything = || (target.allow_by_default, "a".to_string());
    let (Some(current), false) = (current, target.allow_by_default) else {
        let exceptions = target.exceptions.iter().map(|e| (!target.allow_by_default, e.line()));
        return std::iter::once(everything()).chain(exceptions).collect();
    };
    let gained = missing(&target.exceptions, current).into_iter().map(|e| (true, e.line()));
    let lost = missing(current, &target.exceptions).into_iter().map(|e| (false, e.line()));
    gained.chain(lost).collect()
}

/// What `all` has and `some` has not.
fn missing(all: &[Exception], some: &[Exception]) -> Vec<Exception> {
    all.iter()
        .filter_map(|e| {
            let there = some.iter().filter(|s| s.device == e.device).fold(0, |bits, s| bits | s.access.0);
            let access = Access(e.access.0 & !there);
            (access.0 != 0).then_some(Exception { device: e.device, access })
        })
        .collect()
}

impl Exception {
    fn line(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_string(), |n| n.to_string());
        let kind = if self.device.kind == Kind::Block { 'b' } else { 'c' };
        format!(
            "{kind} {}:{} {}",
            number(self.device.major),
            number(self.device.minor),
            self.access.letters()
        )
    }
}

impl List {
    fn of(rules: &[Rule]) -> Result<List, ApplyError> {
        let mut list = List { allow_by_default: false, exceptions: Vec::new() };
        for rule in rules {
            if rule.is_everything() {
                list = List { allow_by_default: rule.allow, exceptions: Vec::new() };
                continue;
            }
            let kinds: &[Kind] = match rule.kind {
                Kind::All => &[Kind::Block, Kind::Char],
                Kind::Block => &[Kind::Block],
                Kind::Char => &[Kind::Char],
            };
            for kind in kinds {
                let device = Device { kind: *kind, major: rule.major, minor: rule.minor };
                let exception = Exception { device, access: rule.access };
                if rule.allow == list.allow_by_default {
                    list.take_back(exception)?;
                } else {
                    list.except(exception);
                }
            }
        }
        Ok(list)
    }

    fn except(&mut self, new: Exception) {
        match self.exceptions.iter_mut().find(|e| e.device == new.device) {
            Some(known) => known.access.0 |= new.access.0,
            None => self.exceptions.push(new),
        }
    }

    /// Makes the default hold again for `back`.
    fn take_back(&mut self, back: Exception) -> Result<(), ApplyError> {
        for exception in &mut self.exceptions {
            if back.device.covers(exception.device) {
                exception.access.0 &= !back.access.0;
            } else if back.device.meets(exception.device) && exception.access.0 & back.access.0 != 0 {
                return Err(ApplyError::Invalid {
                    field: "devices",
                    value: back.line(),
                    why: "takes back a part of an earlier, wider rule, which cgroup version 1 cannot do",
                });
            }
        }
        self.exceptions.retain(|e| e.access.0 != 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::allows;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = Option<u32>> {
        prop_oneof![Just(None), (0u32..3).prop_map(Some)]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let kind = prop_oneof![Just(Kind::All), Just(Kind::Block), Just(Kind::Char)];
        (any::<bool>(), kind, number(), number(), 1u8..8).prop_map(|(allow, kind, major, minor, access)| {
            Rule { allow, kind, major, minor, access: Access(access) }
        })
    }

    /// As the kernel does with its list (security/device_cgroup.c).
    fn kernel(list: &List, kind: Kind, major: u32, minor: u32, wanted: u8) -> bool {
        let device = Device { kind, major: Some(major), minor: Some(minor) };
        let excepted =
            list.exceptions.iter().filter(|e| e.device.covers(device)).fold(0, |bits, e| bits | e.access.0);
        if list.allow_by_default { excepted & wanted == 0 } else { excepted & wanted == wanted }
    }

    proptest! {
        #[test]
        fn a_list_means_what_the_rules_mean(rules in prop::collection::vec(rule(), 0..8)) {
            let Ok(list) = List::of(&rules) else { return Ok(()) };
            for kind in [Kind::Block, Kind::Char] {
                for major in 0..4 {
                    for minor in 0..4 {
                        for wanted in [1, 2, 4] {
                            prop_assert_eq!(
                                kernel(&list, kind, major, minor, wanted),
                                allows(&rules, kind, major, minor, wanted)
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn an_update_writes_only_the_difference() {
        let text = "c 1:3 rwm\nc 1:5 rwm\nb *:* m\n";
        let target = List {
            allow_by_default: false,
            exceptions: parse("c 1:3 rwm\nb *:* m\nc 10:200 rwm\nc 1:5 r").unwrap(),
        };
        let expected = vec![(true, "c 10:200 rwm".to_string()), (false, "c 1:5 wm".to_string())];
        assert_eq!(writes(parse(text).as_ref(), &target), expected);
        assert_eq!(writes(Some(&target.exceptions), &target), []);
        assert_eq!(writes(parse("a *:* rwm").as_ref(), &target)[0], (false, "a".to_string()));
    }
}
