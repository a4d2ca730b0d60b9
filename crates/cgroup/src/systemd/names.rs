//! Which unit of systemd a control group is, by its path: systemd decides where a unit's group is by the unit's name (systemd.slice(5)).

use crate::error::CgroupError;

/// The longest name of a unit (systemd.unit(5)).
const LONGEST: usize = 255;

/// Which systemd a unit is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// The machine's init.
    System,
    /// That of the user of this number, which has the groups below its service `user@N.service`.
    User(u32),
}

impl Manager {
    /// Where units without a slice go; for users as runc has it.
    fn default_slice(self) -> &'static str {
        match self {
            Manager::System => "system.slice",
            Manager::User(_) => "user.slice",
        }
    }

    /// The path of the group below which its units are; empty for the root.
    fn root(self) -> String {
        match self {
            Manager::System => String::new(),
            Manager::User(uid) => format!("/user.slice/user-{uid}.slice/user@{uid}.service"),
        }
    }

    /// Whose the group at `path`, which begins without a slash, would be, and the rest of the path, from the manager's root on.
    fn of(path: &str) -> (Manager, &str) {
        let of_user = || {
            let (uid, rest) = path.strip_prefix("user.slice/user-")?.split_once(".slice/user@")?;
            let rest = rest.strip_prefix(uid)?.strip_prefix(".service/")?;
            let digits = uid.bytes().all(|byte| byte.is_ascii_digit());
            Some((Manager::User(uid.parse().ok().filter(|_| digits)?), rest))
        };
        of_user().unwrap_or((Manager::System, path))
    }
}

/// A unit that a control group belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    pub(crate) manager: Manager,
    /// With its suffix, `.slice` or `.scope`.
    pub(crate) name: &'a str,
    /// The slice that it is in; `-.slice` is the root.
    pub(crate) slice: &'a str,
}

impl<'a> Unit<'a> {
    /// The unit whose group would be at `path`; none where systemd would put no scope or slice there.
    pub(crate) fn at(path: &'a str) -> Option<Unit<'a>> {
        let (manager, path) = Manager::of(path.trim_start_matches('/'));
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let slice = above.rsplit('/').next().filter(|slice| !slice.is_empty()).unwrap_or("-.slice");
        let lies_in_slice =
            above.is_empty() || slice_path(slice).is_some_and(|expanded| expanded[1..] == *above);
        let is_unit = match name.rsplit_once('.') {
            Some((stem, "scope")) => !stem.is_empty() && is_name(name),
            Some((_, "slice")) => slice_path(name).is_some_and(|expanded| expanded[1..] == *path),
            _ => false,
        };
        (lies_in_slice && is_unit).then_some(Unit { manager, name, slice })
    }

    pub(crate) fn is_slice(&self) -> bool {
        self.name.ends_with(".slice")
    }
}

/// The path of the group that `slice:prefix:name` names, as the systemd driver of OCI runtimes has it: the scope `prefix-name.scope`, or
/// the slice `name`, in the slice. An empty slice is `system.slice`.
///
/// # Errors
/// It is not of that form.
pub fn place(cgroups_path: &str) -> Result<String, CgroupError> {
    place_of(Manager::System, cgroups_path)
}

/// The same where `manager` makes the group. A user's empty slice is `user.slice`.
///
/// # Errors
/// It is not of that form.
pub fn place_of(manager: Manager, cgroups_path: &str) -> Result<String, CgroupError> {
    let bad = |why| CgroupError::BadPath { path: cgroups_path.chars().take(300).collect(), why };
    let form = "is not of the form slice:prefix:name, as the systemd driver has it";
    let parts: Vec<&str> = cgroups_path.split(':').collect();
    let [slice, prefix, name] = parts[..] else { return Err(bad(form)) };
    if name.is_empty() {
        return Err(bad(form));
    }
    let slice = if slice.is_empty() { manager.default_slice() } else { slice };
    let slice =
        slice_path(slice).ok_or_else(|| bad("does not begin with the name of a slice, such as a-b.slice"))?;
    let unit = match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    };
    let path = manager.root() + slice.trim_end_matches('/') + "/" + &unit;
    match Unit::at(&path) {
        Some(_) => Ok(path),
        None => Err(bad(
            "does not end with what can be the name of a unit: at most 255 letters, digits and :-_.\\@",
        )),
    }
}

/// The path of a slice's group: `a-b.slice` lies in `a.slice`. `None` where that cannot be a slice's name.
pub fn slice_path(slice: &str) -> Option<String> {
    let stem = slice.strip_suffix(".slice")?;
    if !is_name(slice) {
        return None;
    }
    if stem == "-" {
        return Some("/".into());
    }
    let mut path = String::new();
    for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        let above = &stem[..at];
        if above.is_empty() || above.ends_with('-') {
            return None;
        }
        path.push_str(&format!("/{above}.slice"));
    }
    Some(path)
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    name.len() <= LONGEST && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_expanded_to_their_place() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        assert_eq!(place("kubepods-burstable-pod1.slice:cri:abc").unwrap(), format!("{pod}/cri-abc.scope"));
        assert_eq!(place(":docker:abc").unwrap(), "/system.slice/docker-abc.scope");
        assert_eq!(place("-.slice::x").unwrap(), "/x.scope");
        assert_eq!(place("a.slice:p:a-b.slice").unwrap(), "/a.slice/a-b.slice");
        let long = format!("a.slice:p:{}", "x".repeat(250));
        for bad in [
            "",
            "/a/b",
            "a:b",
            "a:b:c:d",
            "a.slice:p:",
            "x/../y.slice:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a.slice:p:../n",
            "a.slice:p/q:n",
            "a.slice:p:n m",
            "a.slice:p:c-d.slice",
            "a.scope:p:n",
            long.as_str(),
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_path_is_a_unit_where_systemd_would_have_put_it_there() {
        let manager = Manager::System;
        let scope = Unit { manager, name: "pintle-x.scope", slice: "a-b.slice" };
        assert_eq!(Unit::at("/a.slice/a-b.slice/pintle-x.scope"), Some(scope));
        assert_eq!(
            Unit::at("a.slice/a-b.slice"),
            Some(Unit { manager, name: "a-b.slice", slice: "a.slice" })
        );
        assert_eq!(Unit::at("/a.slice"), Some(Unit { manager, name: "a.slice", slice: "-.slice" }));
        for other in [
            "/",
            "",
            "/kubepods/pod1/x",
            "/a/x.scope",
            "/b.slice/a-b.slice",
            "/a.slice/x",
            "/a-b.slice",
            "/.scope",
            "/x.slice/y/z.scope",
        ] {
            assert_eq!(Unit::at(other), None, "{other}");
        }
    }

    #[test]
    fn a_users_units_lie_below_the_users_own_systemd() {
        let path = place_of(Manager::User(1000), "user.slice:libpod:abc").unwrap();
        assert_eq!(path, "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-abc.scope");
        assert_eq!(place_of(Manager::User(1000), ":libpod:abc").unwrap(), path);
        let unit = Unit::at(&path).unwrap();
        assert_eq!(
            (unit.manager, unit.name, unit.slice),
            (Manager::User(1000), "libpod-abc.scope", "user.slice")
        );
        for other in [
            "/user.slice/user-1000.slice/user@1001.service/user.slice/x.scope",
            "/user.slice/user-1000.slice/user@1000.service",
            "/user.slice/user-+1.slice/user@+1.service/user.slice/x.scope",
            "/x/user.slice/user-1000.slice/user@1000.service/user.slice/x.scope",
        ] {
            assert_eq!(Unit::at(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_has_a_place_is_found_there(text in "[a-c.:/-]{0,24}") {
            for manager in [Manager::System, Manager::User(7)] {
                if let Ok(path) = place_of(manager, &text) {
                    prop_assert_eq!(Unit::at(&path).map(|unit| unit.manager), Some(manager));
                }
            }
        }
    }
}
