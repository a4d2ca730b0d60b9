//! The path of a control group below the root of its hierarchies.

use crate::error::CgroupError;

/// A path that was checked: relative, without empty, `.` or `..` components, and not the root itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CgroupPath(String);

impl CgroupPath {
    /// Takes an absolute path, or a relative one; both count from the root of the hierarchy.
    pub(crate) fn parse(path: &str) -> Result<CgroupPath, CgroupError> {
        let bad = |why| Err(CgroupError::BadPath { path: path.chars().take(300).collect(), why });
        let relative = path.strip_prefix('/').unwrap_or(path);
        if relative.is_empty() {
            return bad("is the root, which belongs to the host");
        }
        if relative.len() > 4000 {
            return bad("is longer than 4000 bytes");
        }
        for component in relative.split('/') {
            match component {
                "" => return bad("has an empty component"),
                "." | ".." => return bad("has a component . or .."),
                _ if component.len() > 255 => return bad("has a component longer than 255 bytes"),
                _ if component.chars().any(char::is_control) => return bad("has a control character"),
                _ => {}
            }
        }
        Ok(CgroupPath(relative.to_string()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Every prefix, shortest first, this path last.
    pub(crate) fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.0
            .char_indices()
            .filter(|(_, c)| *c == '/')
            .map(|(at, _)| &self.0[..at])
            .chain(std::iter::once(self.0.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for bad in ["", "/", "//", "a//b", "a/", "/a/../b", "..", "./a", "a/.", "a\0b", "a\nb", "//a"] {
            assert!(CgroupPath::parse(bad).is_err(), "{bad:?}");
        }
        assert!(CgroupPath::parse(&"x".repeat(256)).is_err());
        assert!(CgroupPath::parse(&"x/".repeat(3000)).is_err());
        assert_eq!(CgroupPath::parse("/a/b").unwrap(), CgroupPath::parse("a/b").unwrap());
        let path = CgroupPath::parse("/kubepods/burstable/pod1").unwrap();
        assert_eq!(
            path.prefixes().collect::<Vec<_>>(),
            ["kubepods", "kubepods/burstable", "kubepods/burstable/pod1"]
        );
    }
}
