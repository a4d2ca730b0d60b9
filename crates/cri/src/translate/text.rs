//! Texts of requests: bounded, without what would end up in a path, a line or a terminal.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::BadField;

/// The longest name, in bytes: that of a DNS subdomain, which bounds every name in Kubernetes.
const NAME_MAX: usize = 253;
/// All labels or annotations of one object, in bytes: twice what Kubernetes allows for annotations.
const MAP_MAX: usize = 512 * 1024;
/// PATH_MAX of Linux, with the final NUL.
const PATH_MAX: usize = 4096;
/// The longest id or prefix of one that is looked at.
const ID_MAX: usize = 253;

/// A name that people and files will see. It may be empty.
pub fn name(field: &str, text: String) -> Result<String, BadField> {
    let bad = |why: &str| Err(BadField::new(field, format!("{:?} {why}", beginning(&text))));
    if text.len() > NAME_MAX {
        return bad(&format!("has {} bytes; at most {NAME_MAX} are taken", text.len()));
    }
    if text.contains(char::is_control) {
        return bad("holds control characters");
    }
    if text.contains('/') || text == "." || text == ".." {
        return bad("could be mistaken for a path");
    }
    Ok(text)
}

/// A name that must be there.
pub fn required_name(field: &str, text: String) -> Result<String, BadField> {
    if text.is_empty() {
        return Err(BadField::new(field, "it is empty"));
    }
    name(field, text)
}

/// An id of a pod or container, or the beginning of one, as a request gives it. That it exists is the node's to say.
pub fn id(field: &str, text: String) -> Result<String, BadField> {
    if text.is_empty() {
        return Err(BadField::new(field, "it is empty"));
    }
    if text.len() > ID_MAX {
        return Err(BadField::new(field, format!("it has {} bytes, which no id has", text.len())));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !text.bytes().all(plain) || text.contains("..") {
        return Err(BadField::new(field, format!("{:?} has characters that no id has", beginning(&text))));
    }
    Ok(text)
}

/// Labels or annotations. What they say is the client's affair; that they are bearable is ours.
pub fn map(field: &str, map: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, BadField> {
    let size: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAP_MAX {
        return Err(BadField::new(
            field,
            format!("they have {size} bytes in all; at most {MAP_MAX} are taken"),
        ));
    }
    if let Some(key) = map.keys().find(|key| key.is_empty() || key.contains(char::is_control)) {
        let why = format!("the key {:?} is empty or holds control characters", beginning(key));
        return Err(BadField::new(field, why));
    }
    Ok(map)
}

/// An absolute path of the host without `..`; empty is none.
pub fn host_path(field: &str, text: String) -> Result<Option<PathBuf>, BadField> {
    if text.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(bounded_path(field, text)?);
    if !path.is_absolute() {
        return Err(BadField::new(field, format!("{path:?} is not an absolute path")));
    }
    without_parents(field, &path)?;
    Ok(Some(path))
}

/// A path below another one: relative, without `..`. It may be empty.
pub fn relative_path(field: &str, text: String) -> Result<PathBuf, BadField> {
    let path = PathBuf::from(bounded_path(field, text)?);
    if path.is_absolute() {
        return Err(BadField::new(field, format!("{path:?} is absolute, and must lead below another path")));
    }
    without_parents(field, &path)?;
    Ok(path)
}

/// A text that can be a path: without NUL, and not too long.
pub fn bounded_path(field: &str, text: String) -> Result<String, BadField> {
    if text.len() >= PATH_MAX {
        return Err(BadField::new(field, format!("it has {} bytes; a path has at most 4095", text.len())));
    }
    if text.contains(char::is_control) {
        return Err(BadField::new(field, format!("{:?} holds control characters", beginning(&text))));
    }
    Ok(text)
}

fn without_parents(field: &str, path: &Path) -> Result<(), BadField> {
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(BadField::new(field, format!("{path:?} holds `..`")));
    }
    Ok(())
}

/// What of a text can be quoted, since it may be a megabyte of anything.
pub(crate) fn beginning(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_bounded_and_plain() {
        assert_eq!(id("f", "0123abc".into()), Ok("0123abc".into()));
        assert!(id("f", "no-such-container".into()).is_ok());
        let giant = "a".repeat(1 << 20);
        for bad in ["", "..", "../x", "a/b", "a\0", "a\n", "a b", "a..b", "ä", &giant] {
            let error = id("pod_sandbox_id", bad.into()).unwrap_err();
            assert_eq!(error.field, "pod_sandbox_id");
            assert!(error.to_string().len() < 500);
        }
    }

    #[test]
    fn names_are_bounded_and_no_paths() {
        assert!(name("f", "web-0".into()).is_ok() && name("f", String::new()).is_ok());
        assert!(required_name("f", String::new()).is_err());
        for bad in ["a/b", "..", ".", "a\nb", "a\0", &"x".repeat(1 << 20)] {
            assert!(name("f", bad.into()).unwrap_err().to_string().len() < 500);
        }
    }

    #[test]
    fn maps_are_bounded() {
        let check = |key: &str, value: &str| map("labels", [(key.to_owned(), value.to_owned())].into());
        assert!(check("a", "b\nc").is_ok());
        assert!(check("", "b").is_err() && check("a\n", "b").is_err());
        assert!(check("a", &"x".repeat(MAP_MAX)).is_err());
    }

    #[test]
    fn paths() {
        assert_eq!(host_path("f", String::new()), Ok(None));
        assert_eq!(host_path("f", "/var/log".into()), Ok(Some("/var/log".into())));
        for bad in ["var", "/var/../etc", "/a\0", &"/a".repeat(4096)] {
            assert!(host_path("f", bad.into()).is_err(), "{bad:.20}");
        }
        assert_eq!(relative_path("f", "web/0.log".into()), Ok("web/0.log".into()));
        for bad in ["/etc", "../x", "a/../../b", "a\n"] {
            assert!(relative_path("f", bad.into()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn errors_stay_small(text in ".{0,2000}") {
            for error in [name("f", text.clone()).err(), id("f", text).err()].into_iter().flatten() {
                prop_assert!(error.to_string().len() < 1000);
            }
        }
    }
}
