//! Names of devices, `vendor.com/class=device`, and where a container's request has them.

use std::collections::BTreeMap;

use crate::error::DeviceError;

/// What annotations begin with that name devices, separated by commas.
pub const ANNOTATION_PREFIX: &str = "cdi.k8s.io/";

/// How much of a wrong name is repeated.
const SHOWN: usize = 128;

/// All devices that a container asks for, by its field and by its annotations, each once and in order.
///
/// # Errors
/// The first that is no name of a device.
pub fn requested(
    field: &[String],
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<String>, DeviceError> {
    let mut names: Vec<String> = Vec::new();
    let mut add = |name: &str| {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    };
    for name in field {
        split(name).ok_or_else(|| DeviceError::Name { given: shown(name) })?;
        add(name);
    }
    for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)) {
        for name in value.split(',') {
            split(name).ok_or_else(|| DeviceError::Annotation { key: shown(key), given: shown(name) })?;
            add(name);
        }
    }
    Ok(names)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// A name's kind (`vendor.com/class`) and device; `None`: it is no name.
pub(crate) fn split(name: &str) -> Option<(&str, &str)> {
    let (kind, device) = name.split_once('=')?;
    (is_kind(kind) && is_device(device)).then_some((kind, device))
}

/// Whether this is `vendor.com/class`.
pub(crate) fn is_kind(text: &str) -> bool {
    let part = |part: &str, extra: &[u8]| {
        let bytes = part.as_bytes();
        bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(byte))
            && bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    text.split_once('/').is_some_and(|(vendor, class)| part(vendor, b"-_.") && part(class, b"-_"))
}

/// Whether this is the name of a device within its kind.
pub(crate) fn is_device(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte))
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        assert_eq!(split("vendor.com/gpu=gpu0:1"), Some(("vendor.com/gpu", "gpu0:1")));
        assert_eq!(split("v/c=0"), Some(("v/c", "0")));
        let bad = [
            "", "v", "v/c", "v/c=", "=d", "/c=d", "v/=d", "v/c=-d", "v/c=d-", "1v/c=d", "v/c=d e", "v/c.x=d",
            "v/c=d=e", "v/c/d=e",
        ];
        for bad in bad {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn field_and_annotations_are_put_together() {
        let annotations = BTreeMap::from([
            ("cdi.k8s.io/x".to_owned(), "v/c=b,v/c=c".to_owned()),
            ("other".to_owned(), "nonsense".to_owned()),
        ]);
        let names = requested(&["v/c=a".into(), "v/c=b".into()], &annotations).unwrap();
        assert_eq!(names, ["v/c=a", "v/c=b", "v/c=c"]);
        assert!(requested(&["nonsense".into()], &annotations).unwrap_err().to_string().contains("nonsense"));
        let bad = BTreeMap::from([("cdi.k8s.io/x".to_owned(), "v/c=b,".to_owned())]);
        assert!(requested(&[], &bad).unwrap_err().to_string().contains("cdi.k8s.io/x"));
    }
}
