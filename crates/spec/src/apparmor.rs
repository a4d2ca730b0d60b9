//! The AppArmor profile that a container's process gets.

use model::request::{ContainerSecurity, SecurityProfile};

use crate::error::SpecError;
use crate::input::Apparmor;

/// How a profile is called that confines nobody.
const UNCONFINED: &str = "unconfined";

/// The AppArmor profile, none for an unconfined container. A privileged one is unconfined unless a profile is named for it.
///
/// # Errors
/// A profile that was asked for and cannot be applied: a container that its author believes confined never runs unconfined.
pub(crate) fn profile(
    security: &ContainerSecurity,
    apparmor: Option<&Apparmor>,
) -> Result<Option<String>, SpecError> {
    let default = apparmor.and_then(|apparmor| apparmor.default_profile.as_deref());
    let wanted = match (&security.apparmor, apparmor) {
        (SecurityProfile::Unconfined, _) => None,
        (SecurityProfile::Unspecified | SecurityProfile::RuntimeDefault, _) if security.privileged => None,
        (SecurityProfile::Unspecified, _) => default,
        // Where nothing is enforced, the default is that nothing is.
        (SecurityProfile::RuntimeDefault, None) => None,
        (SecurityProfile::RuntimeDefault, Some(_)) if default.is_none() => {
            return refuse("runtime/default", NO_DEFAULT);
        }
        (SecurityProfile::RuntimeDefault, Some(_)) => default,
        (SecurityProfile::Localhost(profile), _)
            if profile.is_empty() || profile.len() > 255 || profile.contains(char::is_control) =>
        {
            return refuse(profile, "this is not the name of a profile");
        }
        (SecurityProfile::Localhost(profile), None) => {
            return refuse(profile, "the kernel of this node does not enforce AppArmor");
        }
        (SecurityProfile::Localhost(profile), Some(_)) => Some(profile.as_str()),
    };
    Ok(wanted.filter(|profile| *profile != UNCONFINED).map(str::to_owned))
}

const NO_DEFAULT: &str = "the daemon could not load its default profile, and said why when it started; remove the cause and start it \
                          again, or name a profile that is loaded";

fn refuse<T>(profile: &str, why: &'static str) -> Result<T, SpecError> {
    Err(SpecError::Apparmor { profile: profile.chars().take(64).collect(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_believed_confined_is() {
        let of = |asked: SecurityProfile, apparmor: Option<&Apparmor>| {
            profile(&ContainerSecurity { apparmor: asked, ..Default::default() }, apparmor)
        };
        let loaded = Apparmor { default_profile: Some("pintle-default".into()) };
        let bare = Apparmor::default();
        let off = Apparmor { default_profile: Some("unconfined".into()) };
        let named = || SecurityProfile::Localhost("mine".into());
        assert_eq!(of(SecurityProfile::Unspecified, Some(&loaded)), Ok(Some("pintle-default".into())));
        assert_eq!(of(SecurityProfile::Unspecified, Some(&bare)), Ok(None));
        assert_eq!(of(SecurityProfile::Unspecified, None), Ok(None));
        for asked in [SecurityProfile::Unspecified, SecurityProfile::RuntimeDefault] {
            assert_eq!(of(asked, Some(&off)), Ok(None));
        }
        assert_eq!(of(SecurityProfile::Unconfined, Some(&loaded)), Ok(None));
        assert_eq!(of(SecurityProfile::RuntimeDefault, Some(&loaded)), Ok(Some("pintle-default".into())));
        assert_eq!(of(SecurityProfile::RuntimeDefault, None), Ok(None));
        assert!(of(SecurityProfile::RuntimeDefault, Some(&bare)).is_err());
        assert_eq!(of(named(), Some(&bare)), Ok(Some("mine".into())));
        assert!(of(named(), None).is_err());
        assert!(of(SecurityProfile::Localhost("a\nb".into()), Some(&bare)).is_err());
        let privileged = |apparmor| {
            let security = ContainerSecurity { privileged: true, apparmor, ..Default::default() };
            profile(&security, Some(&loaded))
        };
        assert_eq!(privileged(SecurityProfile::Unspecified), Ok(None));
        assert_eq!(privileged(SecurityProfile::RuntimeDefault), Ok(None));
        assert_eq!(privileged(named()), Ok(Some("mine".into())));
    }
}
