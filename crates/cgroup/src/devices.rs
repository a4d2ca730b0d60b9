//! Rules about device access, as the runtime specification has them, checked.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use crate::error::ApplyError;

/// Kinds of device files a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    All,
    Block,
    Char,
}

/// Kinds of access, as bits of the kernel's `BPF_DEVCG_ACC_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access(pub(crate) u8);

impl Access {
    pub(crate) const MKNOD: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const WRITE: u8 = 4;
    pub(crate) const ALL: Access = Access(7);

    fn parse(text: &str) -> Option<Access> {
        text.chars().try_fold(Access(0), |access, c| {
            Some(Access(
                access.0
                    | match c {
                        'r' => Access::READ,
                        'w' => Access::WRITE,
                        'm' => Access::MKNOD,
                        _ => return None,
                    },
            ))
        })
    }

    /// As version 1 wants it.
    pub(crate) fn letters(self) -> String {
        [(Access::READ, 'r'), (Access::WRITE, 'w'), (Access::MKNOD, 'm')]
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|(_, c)| c)
            .collect()
    }
}

/// One rule. Of several that match, the last decides, for each kind of access on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) allow: bool,
    pub(crate) kind: Kind,
    /// `None` is every number.
    pub(crate) major: Option<u32>,
    pub(crate) minor: Option<u32>,
    pub(crate) access: Access,
}

impl Rule {
    /// Whether it is about every device and every access, so that what came before does not matter.
    pub(crate) fn is_everything(&self) -> bool {
        self.kind == Kind::All && self.major.is_none() && self.minor.is_none() && self.access == Access::ALL
    }
}

/// Checks rules and brings them into our form. What is before the last rule about everything is left out.
pub(crate) fn rules(given: &[LinuxDeviceCgroup]) -> Result<Vec<Rule>, ApplyError> {
    let mut rules: Vec<Rule> = Vec::with_capacity(given.len());
    for rule in given {
        let invalid = |why| ApplyError::Invalid { field: "devices", value: rule.to_string(), why };
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => Kind::All,
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Char,
            Some(LinuxDeviceType::P) => return Err(invalid("a FIFO is not a device")),
        };
        let number = |n: Option<i64>| match n {
            // Some writers spell the wildcard -1.
            None | Some(-1) => Ok(None),
            Some(n) => {
                u32::try_from(n).map(Some).map_err(|_| invalid("a device number is negative or too large"))
            }
        };
        let access = match rule.access().as_deref() {
            None | Some("") => Access::ALL,
            Some(letters) => {
                Access::parse(letters).ok_or_else(|| invalid("access has other letters than r, w and m"))?
            }
        };
        let (major, minor) = (number(rule.major())?, number(rule.minor())?);
        let rule = Rule { allow: rule.allow(), kind, major, minor, access };
        if rule.is_everything() {
            rules.clear();
        }
        rules.push(rule);
    }
    Ok(rules)
}

/// Whether `rules` let through an access (`wanted`, bits of [`Access`]) to a device: the meaning that both versions implement.
#[cfg(test)]
pub(crate) fn allows(rules: &[Rule], kind: Kind, major: u32, minor: u32, wanted: u8) -> bool {
    (0..3).map(|bit| 1u8 << bit).filter(|bit| wanted & bit != 0).all(|bit| {
        rules
            .iter()
            .rev()
            .find(|r| {
                (r.kind == Kind::All || r.kind == kind)
                    && r.major.is_none_or(|n| n == major)
                    && r.minor.is_none_or(|n| n == minor)
                    && r.access.0 & bit != 0
            })
            .is_some_and(|r| r.allow)
    })
}
