//! The versions of the CNI specification that are spoken.

use std::fmt;

/// A version of the specification, oldest first, so that versions compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V0_1,
    V0_2,
    V0_3_0,
    V0_3_1,
    V0_4,
    V1_0,
    V1_1,
}

impl Version {
    pub const ALL: [Version; 7] = [
        Version::V0_1,
        Version::V0_2,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4,
        Version::V1_0,
        Version::V1_1,
    ];

    /// The version that `text` names; a configuration without one means 0.1.0 (SPEC 0.2.0, "cniVersion").
    pub fn parse(text: &str) -> Option<Version> {
        if text.is_empty() {
            return Some(Version::V0_1);
        }
        Version::ALL.into_iter().find(|version| version.as_str() == text)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Version::V0_1 => "0.1.0",
            Version::V0_2 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4 => "0.4.0",
            Version::V1_0 => "1.0.0",
            Version::V1_1 => "1.1.0",
        }
    }

    /// Whether DEL is given the result of ADD, and CHECK exists.
    pub fn has_check(self) -> bool {
        self >= Version::V0_4
    }

    /// Whether the commands STATUS and GC exist.
    pub fn has_status_and_gc(self) -> bool {
        self >= Version::V1_1
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
