//! SELinux: the labels of containers, which are the policy's usual ones with a level of each pod's own.

mod label;
mod levels;
mod policy;
pub mod relabel;

use std::io;

use model::request::SelinuxLabel;

pub use label::Label;
pub use levels::{Levels, NoLevel};
pub use policy::Defaults;

/// SELinux, in a kernel that has a policy.
#[derive(Debug)]
pub struct Selinux {
    defaults: Defaults,
    /// Whether labels have levels.
    levels: bool,
}

/// The labels of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes; none: as the daemon's.
    pub process: Option<String>,
    /// Of its files: the root, /dev, shared memory; none: as the file systems below have it.
    pub file: Option<String>,
    /// Whether the policy keeps it apart from other containers and from the host.
    pub separated: bool,
}

/// Who asks for labels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// The parts that the pod's request names, and those that the container's does: these count more.
    pub pod: Option<&'a SelinuxLabel>,
    pub container: Option<&'a SelinuxLabel>,
    /// The pod's own level, if it got one.
    pub level: Option<&'a str>,
    /// Privileged, or among the host's processes or in its IPC: keeping it apart would only break it.
    pub together: bool,
}

/// Why there are no labels for a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    #[error(
        "selinux_options: the policy of this node knows no label {label:?}: user, role, type and level have to be in it, and to go together"
    )]
    Unknown { label: String },
    #[error(
        "selinux_options: the policy of this node has no type for containers, and selinux_options do not name one; install the policy's module for containers, or name user, role, type and level"
    )]
    NoDefault,
}

impl Selinux {
    /// SELinux of this kernel, with what its policy's files say of containers; none where it is not enabled.
    pub fn detect() -> Option<Selinux> {
        if !policy::enabled() {
            return None;
        }
        Some(Selinux { defaults: Defaults::read(policy::knows), levels: policy::has_levels() })
    }

    /// The labels that containers have by default.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Whether pods are given levels: the policy has levels, and containers have labels.
    pub fn has_levels(&self) -> bool {
        self.levels && self.defaults.process.is_some()
    }

    /// The labels of a container, as the kernel knows them.
    ///
    /// # Errors
    /// What was asked for is not in the policy.
    pub fn labels(&self, asked: &Asked<'_>) -> Result<Labels, LabelError> {
        compose(&self.defaults, self.levels, asked, policy::knows)
    }
}

/// The labels of a container: the defaults, with the parts that somebody names in their place.
fn compose(
    defaults: &Defaults,
    levels: bool,
    asked: &Asked<'_>,
    knows: impl Fn(&str) -> bool,
) -> Result<Labels, LabelError> {
    let part = |of: fn(&SelinuxLabel) -> &String| {
        let named = [asked.container, asked.pod].into_iter().flatten().map(of);
        named.map(String::as_str).find(|part| !part.is_empty())
    };
    let named = [part(|label| &label.user), part(|label| &label.role), part(|label| &label.kind)];
    let named_level = part(|label| &label.level);
    let own = asked.level.filter(|_| levels);
    let base = if asked.together { &defaults.together } else { &defaults.process };
    let process = match (base, named) {
        (Some(base), _) => {
            let shared = own.filter(|_| !asked.together);
            let level = named_level.or(shared).unwrap_or(&base.level).to_owned();
            Some(Label { level, ..base.clone().with(named) })
        }
        (None, [Some(user), Some(role), Some(kind)]) => {
            let [user, role, kind] = [user, role, kind].map(str::to_owned);
            Some(Label { user, role, kind, level: named_level.unwrap_or_default().to_owned() })
        }
        // It runs with the daemon's own label.
        (None, [None, None, None]) if named_level.is_none() || asked.together => None,
        (None, _) => return Err(LabelError::NoDefault),
    };
    let file = defaults.file.as_ref().map(|file| {
        let level = named_level.or(own).unwrap_or(&file.level).to_owned();
        Label { level, ..file.clone().with([named[0], None, None]) }
    });
    let known = |label: Option<Label>| match label.map(|label| label.to_string()) {
        Some(label) if !knows(&label) => {
            Err(LabelError::Unknown { label: label.chars().take(300).collect() })
        }
        label => Ok(label),
    };
    let separated = process.is_some() && !asked.together && named[2] != Some(policy::TOGETHER);
    Ok(Labels { process: known(process)?, file: known(file)?, separated })
}

/// A short read of a small file.
fn read_short(path: &str) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(1 << 16).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        let label = |text: &str| Some(text.parse().unwrap());
        Defaults {
            process: label("system_u:system_r:container_t:s0"),
            file: label("system_u:object_r:container_file_t:s0"),
            layer: label("system_u:object_r:container_ro_file_t:s0"),
            together: label("system_u:system_r:spc_t:s0-s0:c0.c1023"),
        }
    }

    fn parts(user: &str, role: &str, kind: &str, level: &str) -> SelinuxLabel {
        SelinuxLabel { user: user.into(), role: role.into(), kind: kind.into(), level: level.into() }
    }

    fn labels(asked: &Asked<'_>) -> (String, String) {
        let labels = compose(&defaults(), true, asked, |_| true).unwrap();
        (labels.process.unwrap(), labels.file.unwrap())
    }

    fn pair(process: &str, file: &str) -> (String, String) {
        (process.into(), file.into())
    }

    #[test]
    fn a_pods_containers_share_its_level() {
        let asked = Asked { level: Some("s0:c1,c2"), ..Asked::default() };
        let both =
            pair("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(labels(&asked), both);
        // Also those that ask for another type.
        let own = parts("", "", "mine_t", "");
        let (process, file) = labels(&Asked { container: Some(&own), ..asked });
        assert_eq!(process, "system_u:system_r:mine_t:s0:c1,c2");
        assert_eq!(file, both.1);
    }

    #[test]
    fn what_is_named_counts_and_the_container_most() {
        let pod = parts("pod_u", "pod_r", "pod_t", "s0:c5");
        let own = parts("", "", "own_t", "s0:c4,c5");
        let asked =
            Asked { pod: Some(&pod), container: Some(&own), level: Some("s0:c1,c2"), together: false };
        assert_eq!(
            labels(&asked),
            pair("pod_u:pod_r:own_t:s0:c4,c5", "pod_u:object_r:container_file_t:s0:c4,c5")
        );
        let asked = Asked { container: None, ..asked };
        assert_eq!(labels(&asked), pair("pod_u:pod_r:pod_t:s0:c5", "pod_u:object_r:container_file_t:s0:c5"));
    }

    #[test]
    fn the_privileged_are_not_kept_apart_and_their_files_are() {
        let asked = Asked { level: Some("s0:c1,c2"), together: true, ..Asked::default() };
        let expected =
            pair("system_u:system_r:spc_t:s0-s0:c0.c1023", "system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(labels(&asked), expected);
        assert!(!compose(&defaults(), true, &asked, |_| true).unwrap().separated);
        let spc = parts("", "", "spc_t", "");
        let asked = Asked { container: Some(&spc), ..Asked::default() };
        assert!(!compose(&defaults(), true, &asked, |_| true).unwrap().separated);
    }

    #[test]
    fn what_the_policy_does_not_know_is_refused() {
        let own = parts("", "", "", "s0,c4,c5");
        let asked = Asked { container: Some(&own), ..Asked::default() };
        let error = compose(&defaults(), true, &asked, |label| !label.contains("s0,c4")).unwrap_err();
        assert!(error.to_string().contains("container_t:s0,c4,c5"), "{error}");
        let without = Defaults { process: None, file: None, layer: None, together: None };
        let of = |asked: &Asked<'_>| compose(&without, true, asked, |_| true);
        assert_eq!(of(&asked), Err(LabelError::NoDefault));
    }

    /// Debian 12's policy, for one, has no types for containers.
    #[test]
    fn a_policy_without_containers_leaves_them_as_they_are() {
        let without = Defaults { process: None, file: None, layer: None, together: None };
        let of = |asked: &Asked<'_>| compose(&without, true, asked, |_| true);
        let plain = Labels { process: None, file: None, separated: false };
        assert_eq!(of(&Asked { level: Some("s0:c1,c2"), ..Asked::default() }), Ok(plain));
        let whole = parts("u", "r", "t", "s0");
        let labels = of(&Asked { container: Some(&whole), ..Asked::default() }).unwrap();
        assert_eq!((labels.process.as_deref(), labels.file), (Some("u:r:t:s0"), None));
    }
}
