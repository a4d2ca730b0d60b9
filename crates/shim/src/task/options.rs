//! The options of the runtime, in the two forms in which containerd passes them on.
//!
//! `ctr` and nerdctl send runc's options. CRI sends those of a runtime that it does not know as the text that stands in its configuration.

use super::bundle;
use crate::messages::warning;
use std::path::Path;
use task::options::{GenericOptions, Options};
use task::{Any, unpack};

/// Reads options of either form; none are the default.
///
/// # Errors
/// They are of another type, or cannot be read.
pub(super) fn read(any: Option<&Any>) -> Result<Options, String> {
    let Some(any) = any.filter(|any| !any.type_url.is_empty()) else {
        return Ok(Options::default());
    };
    let garbled = |cause: prost::DecodeError| format!("options of type {}: {cause}", any.type_url);
    if let Some(options) = unpack::<Options>(any).map_err(garbled)? {
        return Ok(options);
    }
    let Some(generic) = unpack::<GenericOptions>(any).map_err(garbled)? else {
        return Err(format!(
            "options of type {} are not understood; this runtime takes runc's",
            any.type_url
        ));
    };
    let text = if generic.config_path.is_empty() {
        generic.config_body
    } else {
        bundle::read(Path::new(&generic.config_path))
            .map_err(|cause| format!("options in {}: {cause}", generic.config_path))?
    };
    parse(std::str::from_utf8(&text).map_err(|cause| format!("options: {cause}"))?)
}

/// Reads `Name = value` lines, which is all of TOML that such options need.
fn parse(text: &str) -> Result<Options, String> {
    let mut options = Options::default();
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        if line.is_empty() {
            continue;
        }
        let bad = || format!("options: {line:?} is not of the form Name = value");
        let (name, value) =
            line.split_once('=').map(|(name, value)| (name.trim(), value.trim())).ok_or_else(bad)?;
        let flag = || value.parse::<bool>().map_err(|_| bad());
        let text = || {
            let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            let inner = inner.or_else(|| value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')));
            inner.map(String::from).ok_or_else(bad)
        };
        match name {
            "SystemdCgroup" => options.systemd_cgroup = flag()?,
            "NoPivotRoot" => options.no_pivot_root = flag()?,
            "NoNewKeyring" => options.no_new_keyring = flag()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "CriuPath" => options.criu_path = text()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            "IoUid" => options.io_uid = value.parse().map_err(|_| bad())?,
            "IoGid" => options.io_gid = value.parse().map_err(|_| bad())?,
            "TypeUrl" | "ConfigPath" => {}
            other => warning!("option {other:?} is not known and does nothing"),
        }
    }
    Ok(options)
}

/// Says which options are of no use here.
pub(super) fn warn_of_useless(options: &Options) {
    let useless = [
        ("BinaryName", !options.binary_name.is_empty(), "the runtime is part of this shim"),
        ("Root", !options.root.is_empty(), "the runtime's state lies in the bundle"),
        (
            "IoUid, IoGid",
            options.io_uid != 0 || options.io_gid != 0,
            "the streams belong to the process's user",
        ),
    ];
    for (name, given, why) in useless {
        if given {
            warning!("option {name} does nothing: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use task::pack;

    #[test]
    fn both_forms_say_the_same() {
        let options =
            Options { systemd_cgroup: true, shim_cgroup: "/a b".into(), io_uid: 5, ..Default::default() };
        assert_eq!(read(Some(&pack(&options))).unwrap(), options);
        let body = b"SystemdCgroup = true # yes\n\nShimCgroup = \"/a b\"\nIoUid = 5\nOther = 1\n".to_vec();
        let generic = GenericOptions { config_body: body, ..Default::default() };
        assert_eq!(read(Some(&pack(&generic))).unwrap(), options);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "SystemdCgroup=false\nCriuPath='/c'\n").unwrap();
        let config_path = file.path().to_str().unwrap().into();
        let generic = GenericOptions { config_path, ..Default::default() };
        assert_eq!(read(Some(&pack(&generic))).unwrap().criu_path, "/c");
        assert_eq!(read(None).unwrap(), Options::default());
    }

    #[test]
    fn what_is_no_option_is_told() {
        let generic = |body: &str| {
            read(Some(&pack(&GenericOptions { config_body: body.into(), ..Default::default() }))).unwrap_err()
        };
        assert!(generic("SystemdCgroup = maybe").contains("maybe"));
        assert!(generic("[table]").contains("table"));
        assert!(generic("ShimCgroup = bare").contains("bare"));
        let other = Any { type_url: "kata.v1.Options".into(), value: Vec::new() };
        assert!(read(Some(&other)).unwrap_err().contains("kata.v1.Options"));
        let none = GenericOptions { config_path: "/no/such".into(), ..Default::default() };
        assert!(read(Some(&pack(&none))).unwrap_err().contains("/no/such"));
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
