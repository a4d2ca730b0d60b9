//! Which seccomp profile a container gets, and the reading of profiles that the node's administrator wrote.

use model::request::SecurityProfile;
use oci_spec::runtime::LinuxSeccomp;

/// The most that is read of a profile, in bytes.
pub const PROFILE_LIMIT: usize = 1 << 20;

/// The profile of a container, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeccompPlan {
    /// Every system call is allowed.
    None,
    /// The runtime's own profile, which follows the container's capabilities.
    Default,
    /// A profile of the node.
    Profile(Box<LinuxSeccomp>),
}

/// What has to be done to get at the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeccompChoice<'a> {
    Unconfined,
    RuntimeDefault,
    /// The file at this path is to be read, and [`parse`]d.
    Localhost(&'a str),
}

/// Why a profile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("seccomp profile {path:?} is larger than 1 MiB")]
    TooLarge { path: String },
    #[error("seccomp profile {path:?} is not a profile of the OCI runtime spec: {why}")]
    Unreadable { path: String, why: String },
    #[error("seccomp profile {path:?}: {why}")]
    Path { path: String, why: &'static str },
}

/// The choice that a container's profile and privilege mean.
///
/// A privileged container is never confined. A request that names no profile is not either, which is what CRI's clients count on:
/// whoever wants the default says so (the kubelet does, with `seccompDefault`).
///
/// # Errors
/// A file of the node that is not named by an absolute path without `..`.
pub fn choose(profile: &SecurityProfile, privileged: bool) -> Result<SeccompChoice<'_>, ProfileError> {
    if privileged {
        return Ok(SeccompChoice::Unconfined);
    }
    match profile {
        SecurityProfile::Unspecified | SecurityProfile::Unconfined => Ok(SeccompChoice::Unconfined),
        SecurityProfile::RuntimeDefault => Ok(SeccompChoice::RuntimeDefault),
        SecurityProfile::Localhost(path) => {
            let refuse = |why| Err(ProfileError::Path { path: path.chars().take(128).collect(), why });
            if !path.starts_with('/') {
                return refuse("its path is not absolute");
            }
            if path.len() >= 4096
                || path.contains(char::is_control)
                || path.split('/').any(|name| name == "..")
            {
                return refuse("its path is too long, or holds control characters or `..`");
            }
            Ok(SeccompChoice::Localhost(path))
        }
    }
}

/// Reads the profile in `text`, which was found at `path`.
///
/// # Errors
/// A text that is too large, no JSON, or no profile: with line and column.
pub fn parse(path: &str, text: &str) -> Result<SeccompPlan, ProfileError> {
    let quoted = || path.chars().take(128).collect::<String>();
    if text.len() > PROFILE_LIMIT {
        return Err(ProfileError::TooLarge { path: quoted() });
    }
    match serde_json::from_str::<LinuxSeccomp>(text) {
        Ok(profile) => Ok(SeccompPlan::Profile(Box::new(profile))),
        Err(error) => Err(ProfileError::Unreadable { path: quoted(), why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices() {
        let localhost = SecurityProfile::Localhost("/var/lib/kubelet/seccomp/a.json".into());
        for (profile, privileged, expected) in [
            (&SecurityProfile::Unspecified, false, SeccompChoice::Unconfined),
            (&SecurityProfile::Unconfined, false, SeccompChoice::Unconfined),
            (&SecurityProfile::RuntimeDefault, false, SeccompChoice::RuntimeDefault),
            (&SecurityProfile::RuntimeDefault, true, SeccompChoice::Unconfined),
            (&localhost, false, SeccompChoice::Localhost("/var/lib/kubelet/seccomp/a.json")),
            (&localhost, true, SeccompChoice::Unconfined),
        ] {
            assert_eq!(choose(profile, privileged), Ok(expected), "{profile:?} {privileged}");
        }
    }

    #[test]
    fn paths_of_profiles_are_absolute_and_plain() {
        for path in ["", "a.json", "/a/../etc/shadow", "/a\n", &"/a".repeat(4096)] {
            let profile = SecurityProfile::Localhost(path.into());
            assert!(matches!(choose(&profile, false), Err(ProfileError::Path { .. })), "{path:.20}");
        }
    }

    #[test]
    fn profiles_are_read() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}"#;
        let Ok(SeccompPlan::Profile(profile)) = parse("/p", text) else { panic!("not read") };
        assert_eq!(profile.syscalls().as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn what_is_no_profile_is_named_with_its_place() {
        for text in ["", "null", "[]", "{}", r#"{"defaultAction": "SCMP_ACT_FLY"}"#, "{\"defaultAction\": 1}"]
        {
            let error = parse("/p.json", text).unwrap_err();
            assert!(matches!(error, ProfileError::Unreadable { .. }), "{text}");
            assert!(error.to_string().contains("/p.json"));
        }
        let nested = "[".repeat(100_000);
        assert!(matches!(parse("/p", &nested), Err(ProfileError::Unreadable { .. })));
        let giant = " ".repeat(PROFILE_LIMIT + 1);
        assert_eq!(parse("/p", &giant), Err(ProfileError::TooLarge { path: "/p".into() }));
    }
}
