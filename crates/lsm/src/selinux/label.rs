//! A label: `user:role:type:level`.

use std::fmt;
use std::str::FromStr;

/// A label in its parts. The level holds colons of its own, and is empty in a policy without levels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub user: String,
    pub role: String,
    pub kind: String,
    pub level: String,
}

/// The text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not USER:ROLE:TYPE or USER:ROLE:TYPE:LEVEL")]
pub struct NoLabel(String);

impl Label {
    /// The label with these parts in place of its user, role and type.
    pub(super) fn with(self, parts: [Option<&str>; 3]) -> Label {
        let [user, role, kind] = parts.map(|part| part.map(str::to_owned));
        Label {
            user: user.unwrap_or(self.user),
            role: role.unwrap_or(self.role),
            kind: kind.unwrap_or(self.kind),
            level: self.level,
        }
    }
}

impl FromStr for Label {
    type Err = NoLabel;

    fn from_str(text: &str) -> Result<Label, NoLabel> {
        let parts: Vec<&str> = text.splitn(4, ':').collect();
        let plain = text.len() < 4096 && !text.contains(|c: char| c.is_control() || c.is_whitespace());
        match parts[..] {
            [user, role, kind] | [user, role, kind, _] if plain && ![user, role, kind].contains(&"") => {
                let level = parts.get(3).copied().unwrap_or_default();
                Ok(Label { user: user.into(), role: role.into(), kind: kind.into(), level: level.into() })
            }
            _ => Err(NoLabel(text.chars().take(300).collect())),
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.user, self.role, self.kind)?;
        if self.level.is_empty() { Ok(()) } else { write!(out, ":{}", self.level) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_may_be_a_range() {
        for text in ["a:b:c", "a:b:c:s0", "a:b:c:s0-s0:c0.c1023", "a:b:c:s0:c1,c2"] {
            assert_eq!(text.parse::<Label>().unwrap().to_string(), text);
        }
        assert_eq!("a:b:c:s0-s0:c0.c1023".parse::<Label>().unwrap().level, "s0-s0:c0.c1023");
        for bad in ["", "a:b", "a::c", "a:b:c:s0\n", "a b:c:d"] {
            assert!(bad.parse::<Label>().is_err(), "{bad:?}");
        }
    }
}
