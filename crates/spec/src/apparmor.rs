//! The labels of AppArmor and SELinux that a container's process gets.

use model::request::{ContainerSecurity, SecurityProfile};

use crate::error::SpecError;
use crate::input::Apparmor;

/// The AppArmor profile, none for an unconfined container.
///
/// # Errors
/// A profile that was asked for and cannot be applied: a container that its author believes confined never runs unconfined.
pub(crate) fn profile(
    security: &ContainerSecurity,
    apparmor: Option<&Apparmor>,
) -> Result<Option<String>, SpecError> {
    let refuse =
        |profile: &str, why| Err(SpecError::Apparmor { profile: profile.chars().take(64).collect(), why });
    match (&security.apparmor, apparmor) {
        _ if security.privileged => Ok(None),
        (SecurityProfile::Unspecified | SecurityProfile::Unconfined, _) => Ok(None),
        (SecurityProfile::RuntimeDefault, None) => Ok(None),
        (SecurityProfile::RuntimeDefault, Some(apparmor)) => match &apparmor.default_profile {
            Some(profile) => Ok(Some(profile.clone())),
            None => refuse("runtime/default", "this node's runtime has not loaded it"),
        },
        (SecurityProfile::Localhost(profile), _)
            if profile.is_empty() || profile.len() > 255 || profile.contains(char::is_control) =>
        {
            refuse(profile, "this is not the name of a profile")
        }
        (SecurityProfile::Localhost(profile), None) => {
            refuse(profile, "the kernel of this node does not enforce AppArmor")
        }
        (SecurityProfile::Localhost(profile), Some(_)) => Ok(Some(profile.clone())),
    }
}

/// The SELinux label, where the kernel enforces SELinux and the request names one.
pub(crate) fn selinux_label(
    security: &ContainerSecurity,
    enabled: bool,
) -> Result<Option<String>, SpecError> {
    let (Some(label), true) = (&security.selinux, enabled) else { return Ok(None) };
    let parts =
        [("user", &label.user), ("role", &label.role), ("type", &label.kind), ("level", &label.level)];
    for (field, part) in parts {
        if part.is_empty() {
            return Err(SpecError::Selinux { field, why: "it is missing, and there is no default label" });
        }
        let plain =
            |b: u8| b.is_ascii_alphanumeric() || b"_.,-".contains(&b) || (field == "level" && b == b':');
        if part.len() > 255 || !part.bytes().all(plain) {
            return Err(SpecError::Selinux { field, why: "it is not part of a label" });
        }
    }
    Ok(Some(format!("{}:{}:{}:{}", label.user, label.role, label.kind, label.level)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::request::SelinuxLabel;

    #[test]
    fn a_container_believed_confined_is() {
        let of = |asked: SecurityProfile, apparmor: Option<&Apparmor>| {
            profile(&ContainerSecurity { apparmor: asked, ..Default::default() }, apparmor)
        };
        let loaded = Apparmor { default_profile: Some("pintle-default".into()) };
        let bare = Apparmor::default();
        let named = || SecurityProfile::Localhost("mine".into());
        assert_eq!(of(SecurityProfile::Unspecified, Some(&loaded)), Ok(None));
        assert_eq!(of(SecurityProfile::Unconfined, Some(&loaded)), Ok(None));
        assert_eq!(of(SecurityProfile::RuntimeDefault, Some(&loaded)), Ok(Some("pintle-default".into())));
        assert_eq!(of(SecurityProfile::RuntimeDefault, None), Ok(None));
        assert!(of(SecurityProfile::RuntimeDefault, Some(&bare)).is_err());
        assert_eq!(of(named(), Some(&bare)), Ok(Some("mine".into())));
        assert!(of(named(), None).is_err());
        assert!(of(SecurityProfile::Localhost("a\nb".into()), Some(&bare)).is_err());
        let privileged = ContainerSecurity { privileged: true, apparmor: named(), ..Default::default() };
        assert_eq!(profile(&privileged, Some(&bare)), Ok(None));
    }

    #[test]
    fn labels_are_whole_or_refused() {
        let label = |level: &str| SelinuxLabel {
            user: "system_u".into(),
            role: "system_r".into(),
            kind: "container_t".into(),
            level: level.into(),
        };
        let of = |level: &str, enabled| {
            let security = ContainerSecurity { selinux: Some(label(level)), ..Default::default() };
            selinux_label(&security, enabled)
        };
        assert_eq!(of("s0:c1,c2", true), Ok(Some("system_u:system_r:container_t:s0:c1,c2".into())));
        assert_eq!(of("s0:c1,c2", false), Ok(None));
        assert!(matches!(of("", true), Err(SpecError::Selinux { field: "level", .. })));
        assert!(matches!(of("s0\n", true), Err(SpecError::Selinux { field: "level", .. })));
    }
}
