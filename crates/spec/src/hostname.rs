//! Hostnames of pods.

/// HOST_NAME_MAX of Linux, see uname(2).
const HOST_NAME_MAX: usize = 64;

/// Why a hostname is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHostname {
    #[error("hostname {given:?}... has {length} bytes; the kernel takes at most 64")]
    TooLong { given: String, length: usize },
    #[error(
        "hostname {given:?} is not made of letters, digits, `-` and `_`, in parts separated by single dots"
    )]
    Malformed { given: String },
}

/// Checks a hostname that a request gives; empty means that it gives none.
///
/// Underscores are let through, since hostnames with them exist. What has control characters, spaces or slashes would end up in
/// /etc/hosts and in prompts.
pub fn check(hostname: &str) -> Result<(), BadHostname> {
    if hostname.is_empty() {
        return Ok(());
    }
    if hostname.len() > HOST_NAME_MAX {
        let given = hostname.chars().take(HOST_NAME_MAX).collect();
        return Err(BadHostname::TooLong { given, length: hostname.len() });
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let part = |part: &str| !part.is_empty() && !part.starts_with('-') && part.bytes().all(plain);
    if hostname.split('.').all(part) {
        return Ok(());
    }
    Err(BadHostname::Malformed { given: hostname.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostnames() {
        for good in ["", "a", "web-0", "web-0.web.ns.svc", "under_score", "UPPER", &"a".repeat(64)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["-a", ".", "a.", ".a", "a..b", "a b", "a\n127.0.0.1 evil", "a/b", "a\0", "ä"] {
            assert!(matches!(check(bad), Err(BadHostname::Malformed { .. })), "{bad:?}");
        }
        assert!(matches!(check(&"a".repeat(65)), Err(BadHostname::TooLong { length: 65, .. })));
    }
}
