//! Security contexts: users, profiles and labels.

use std::path::PathBuf;

use model::request::{ContainerSecurity, GroupsPolicy, SecurityProfile, SelinuxLabel, UserChoice};

use super::namespace::{self, Of};
use super::text::{beginning, bounded_path};
use super::{BadField, enumeration};
use crate::runtime_v1 as proto;
use crate::runtime_v1::security_profile::ProfileType;

/// The most entries that a list of capabilities, groups or paths may have.
const MAX_ENTRIES: usize = 1024;

/// What a container's context asks for. Without a context the masked and read-only paths are the usual ones: a client that sends none
/// knows nothing of them, while the kubelet sends the lists, and an empty one means that nothing is masked.
pub fn of_container(
    asked: Option<proto::LinuxContainerSecurityContext>,
) -> Result<ContainerSecurity, BadField> {
    let Some(asked) = asked else {
        return Ok(ContainerSecurity {
            namespaces: namespace::from_proto(Of::Container, None)?,
            masked_paths: spec::paths::default_masked(),
            readonly_paths: spec::paths::default_readonly(),
            ..Default::default()
        });
    };
    let capabilities = asked.capabilities.unwrap_or_default();
    let user = user(
        asked.run_as_user,
        asked.run_as_group,
        asked.run_as_username,
        asked.supplemental_groups,
        asked.supplemental_groups_policy,
    )?;
    #[allow(deprecated)]
    let (old_apparmor, old_seccomp) = (asked.apparmor_profile, asked.seccomp_profile_path);
    Ok(ContainerSecurity {
        privileged: asked.privileged,
        namespaces: namespace::from_proto(Of::Container, asked.namespace_options)
            .map_err(|bad| bad.within("namespace_options"))?,
        selinux: selinux(asked.selinux_options)?,
        user,
        add_capabilities: list("capabilities.add_capabilities", capabilities.add_capabilities)?,
        drop_capabilities: list("capabilities.drop_capabilities", capabilities.drop_capabilities)?,
        add_ambient_capabilities: list(
            "capabilities.add_ambient_capabilities",
            capabilities.add_ambient_capabilities,
        )?,
        readonly_rootfs: asked.readonly_rootfs,
        no_new_privileges: asked.no_new_privs,
        masked_paths: paths("masked_paths", asked.masked_paths)?,
        readonly_paths: paths("readonly_paths", asked.readonly_paths)?,
        seccomp: profile("seccomp", asked.seccomp, "seccomp_profile_path", &old_seccomp)?,
        apparmor: profile("apparmor", asked.apparmor, "apparmor_profile", &old_apparmor)?,
    })
}

/// Who processes run as.
pub(crate) fn user(
    uid: Option<proto::Int64Value>,
    gid: Option<proto::Int64Value>,
    username: String,
    groups: Vec<i64>,
    policy: i32,
) -> Result<UserChoice, BadField> {
    let groups = list("supplemental_groups", groups)?;
    let policy: proto::SupplementalGroupsPolicy = enumeration("supplemental_groups_policy", policy)?;
    if username.len() > 256 || username.contains(char::is_control) {
        let why = format!("{:?} is too long or holds control characters", beginning(&username));
        return Err(BadField::new("run_as_username", why));
    }
    let choice = UserChoice {
        uid: uid.map(|uid| id("run_as_user", uid.value)).transpose()?,
        gid: gid.map(|gid| id("run_as_group", gid.value)).transpose()?,
        username,
        supplemental_groups: groups
            .into_iter()
            .map(|group| id("supplemental_groups", group))
            .collect::<Result<_, _>>()?,
        groups_policy: match policy {
            proto::SupplementalGroupsPolicy::Merge => GroupsPolicy::Merge,
            proto::SupplementalGroupsPolicy::Strict => GroupsPolicy::Strict,
        },
    };
    if choice.gid.is_some() && choice.uid.is_none() && choice.username.is_empty() {
        return Err(BadField::new("run_as_group", "a group needs run_as_user or run_as_username"));
    }
    Ok(choice)
}

/// CRI sends ids as 64 signed bits; the kernel's have 32, and Kubernetes uses 31 of them.
fn id(field: &str, value: i64) -> Result<u32, BadField> {
    let id = u32::try_from(value).ok().filter(|id| *id <= spec::user::MAX_ID);
    id.ok_or_else(|| BadField::new(field, format!("{value} is out of range, which is 0 to 2147483647")))
}

/// A profile, in the field that is current or in the one that it replaced, whose texts are `runtime/default`, `unconfined` and
/// `localhost/...`.
pub(crate) fn profile(
    field: &str,
    asked: Option<proto::SecurityProfile>,
    old_field: &str,
    old: &str,
) -> Result<SecurityProfile, BadField> {
    let localhost = |field: &str, name: &str| {
        if name.is_empty() || name.len() >= 4096 || name.contains(char::is_control) {
            let why = format!("{:?} does not name a profile", beginning(name));
            return Err(BadField::new(field, why));
        }
        Ok(SecurityProfile::Localhost(name.to_owned()))
    };
    if let Some(asked) = asked {
        return match enumeration(&format!("{field}.profile_type"), asked.profile_type)? {
            ProfileType::RuntimeDefault => Ok(SecurityProfile::RuntimeDefault),
            ProfileType::Unconfined => Ok(SecurityProfile::Unconfined),
            ProfileType::Localhost => {
                let name = asked.localhost_ref.strip_prefix("localhost/").unwrap_or(&asked.localhost_ref);
                localhost(&format!("{field}.localhost_ref"), name)
            }
        };
    }
    match old {
        "" => Ok(SecurityProfile::Unspecified),
        "unconfined" => Ok(SecurityProfile::Unconfined),
        "runtime/default" | "docker/default" => Ok(SecurityProfile::RuntimeDefault),
        other => match other.strip_prefix("localhost/") {
            Some(name) => localhost(old_field, name),
            None => Err(BadField::new(
                old_field,
                format!("{:?} is not runtime/default, unconfined or localhost/...", beginning(other)),
            )),
        },
    }
}

/// A label, none where all its parts are empty.
pub(crate) fn selinux(asked: Option<proto::SeLinuxOption>) -> Result<Option<SelinuxLabel>, BadField> {
    let Some(asked) = asked else { return Ok(None) };
    let label = SelinuxLabel { user: asked.user, role: asked.role, kind: asked.r#type, level: asked.level };
    for (part, text) in
        [("user", &label.user), ("role", &label.role), ("type", &label.kind), ("level", &label.level)]
    {
        if text.len() > 255 || text.contains(char::is_control) {
            let why = format!("{:?} is too long or holds control characters", beginning(text));
            return Err(BadField::new(format!("selinux_options.{part}"), why));
        }
    }
    Ok((label != SelinuxLabel::default()).then_some(label))
}

fn list<T>(field: &str, list: Vec<T>) -> Result<Vec<T>, BadField> {
    if list.len() > MAX_ENTRIES {
        let why = format!("it has {} entries; at most {MAX_ENTRIES} are taken", list.len());
        return Err(BadField::new(field, why));
    }
    Ok(list)
}

fn paths(field: &str, paths: Vec<String>) -> Result<Vec<PathBuf>, BadField> {
    let path = |text| bounded_path(field, text).map(PathBuf::from);
    list(field, paths)?.into_iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(value: i64) -> Option<proto::Int64Value> {
        Some(proto::Int64Value { value })
    }

    #[test]
    fn without_a_context_the_usual_paths_are_masked() {
        let absent = of_container(None).unwrap();
        assert!(!absent.masked_paths.is_empty() && !absent.readonly_paths.is_empty());
        let empty = of_container(Some(Default::default())).unwrap();
        assert!(empty.masked_paths.is_empty() && empty.readonly_paths.is_empty());
    }

    #[test]
    fn ids_have_31_bits() {
        let of = |uid, gid, groups: &[i64]| user(uid, gid, String::new(), groups.into(), 0);
        let good = of(value(0), value(2_147_483_647), &[5]).unwrap();
        assert_eq!((good.uid, good.gid, good.supplemental_groups), (Some(0), Some(2_147_483_647), vec![5]));
        for bad in [-1, 1 << 31, 1 << 32, i64::MAX, i64::MIN] {
            assert_eq!(of(value(bad), None, &[]).unwrap_err().field, "run_as_user");
            assert_eq!(of(value(1), value(bad), &[]).unwrap_err().field, "run_as_group");
            assert_eq!(of(None, None, &[bad]).unwrap_err().field, "supplemental_groups");
        }
        assert_eq!(of(None, value(5), &[]).unwrap_err().field, "run_as_group");
        assert_eq!(user(None, None, "a\nb".into(), vec![], 0).unwrap_err().field, "run_as_username");
        assert_eq!(
            user(None, None, String::new(), vec![], 2).unwrap_err().field,
            "supplemental_groups_policy"
        );
        assert!(of(None, None, &[0; 1025]).is_err());
    }

    #[test]
    fn profiles_new_and_old() {
        let new = |profile_type: i32, localhost_ref: &str| {
            let asked = proto::SecurityProfile { profile_type, localhost_ref: localhost_ref.into() };
            profile("seccomp", Some(asked), "old", "unconfined")
        };
        assert_eq!(new(0, ""), Ok(SecurityProfile::RuntimeDefault));
        assert_eq!(new(1, ""), Ok(SecurityProfile::Unconfined));
        assert_eq!(new(2, "/p.json"), Ok(SecurityProfile::Localhost("/p.json".into())));
        assert_eq!(new(2, "localhost/p"), Ok(SecurityProfile::Localhost("p".into())));
        assert_eq!(new(2, "").unwrap_err().field, "seccomp.localhost_ref");
        assert_eq!(new(3, "").unwrap_err().field, "seccomp.profile_type");
        let old = |text: &str| profile("seccomp", None, "seccomp_profile_path", text);
        assert_eq!(old(""), Ok(SecurityProfile::Unspecified));
        assert_eq!(old("unconfined"), Ok(SecurityProfile::Unconfined));
        assert_eq!(old("docker/default"), Ok(SecurityProfile::RuntimeDefault));
        assert_eq!(old("localhost//p"), Ok(SecurityProfile::Localhost("/p".into())));
        assert_eq!(old("localhost/").unwrap_err().field, "seccomp_profile_path");
        assert_eq!(old("privileged").unwrap_err().field, "seccomp_profile_path");
    }

    #[test]
    fn labels() {
        assert_eq!(selinux(Some(Default::default())), Ok(None));
        let level = proto::SeLinuxOption { level: "s0\n".into(), ..Default::default() };
        assert_eq!(selinux(Some(level)).unwrap_err().field, "selinux_options.level");
        let kind = proto::SeLinuxOption { r#type: "t".into(), ..Default::default() };
        assert_eq!(selinux(Some(kind)).unwrap().unwrap().kind, "t");
    }

    #[test]
    fn bad_fields_are_named_from_the_context_down() {
        let mut asked = proto::LinuxContainerSecurityContext {
            namespace_options: Some(proto::NamespaceOption { network: 7, ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(of_container(Some(asked.clone())).unwrap_err().field, "namespace_options.network");
        asked.namespace_options = None;
        asked.masked_paths = vec!["/proc/\0".into()];
        assert_eq!(of_container(Some(asked.clone())).unwrap_err().field, "masked_paths");
        asked.masked_paths = vec![String::new(); 1025];
        assert_eq!(of_container(Some(asked)).unwrap_err().field, "masked_paths");
    }
}
