//! A spec of the administrator's beneath that of each container of a handler: what the container's own leaves open comes from there.

use std::io::Read;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde_json::{Map, Value};

/// No spec is longer.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum BaseSpecError {
    #[error("base_spec {path}: {source}", path = .path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("base_spec {path}: it is no OCI spec: {why}", path = .path.display())]
    Malformed { path: PathBuf, why: String },
}

/// The lists of a spec whose entries are known by a name: of the two specs' entries of one name, the container's own counts.
const NAMED: [(&str, &str); 8] = [
    ("/mounts", "destination"),
    ("/process/rlimits", "type"),
    ("/linux/namespaces", "type"),
    ("/linux/devices", "path"),
    ("/linux/resources/hugepageLimits", "pageSize"),
    ("/linux/uidMappings", "containerID"),
    ("/linux/gidMappings", "containerID"),
    ("/linux/resources/unified", ""),
];

/// The lists of which all entries of both count, the base's first.
const JOINED: [&str; 7] = [
    "/hooks/prestart",
    "/hooks/createRuntime",
    "/hooks/createContainer",
    "/hooks/startContainer",
    "/hooks/poststart",
    "/hooks/poststop",
    "/linux/resources/devices",
];

/// Puts `own` on the spec in the file `path`.
pub(super) fn put_on(path: &Path, own: &Spec) -> Result<Spec, BaseSpecError> {
    let malformed =
        |why: serde_json::Error| BaseSpecError::Malformed { path: path.into(), why: why.to_string() };
    let mut base: Value = serde_json::from_slice(&read(path)?).map_err(malformed)?;
    if !base.is_object() {
        let why = "it is no JSON object".into();
        return Err(BaseSpecError::Malformed { path: path.into(), why });
    }
    let own = serde_json::to_value(own).map_err(malformed)?;
    merge(&mut base, own, &mut String::new());
    serde_json::from_value(base).map_err(malformed)
}

fn read(path: &Path) -> Result<Vec<u8>, BaseSpecError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = std::fs::File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other("it is no regular file"));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| BaseSpecError::Unreadable { path: path.into(), source })
}

/// `place` is a JSON pointer to both.
fn merge(base: &mut Value, own: Value, place: &mut String) {
    match (base, own) {
        (Value::Object(base), Value::Object(own)) => merge_objects(base, own, place),
        (Value::Array(base), Value::Array(own)) => merge_lists(base, own, place),
        (_, Value::Null) => {}
        (base, own) => *base = own,
    }
}

fn merge_objects(base: &mut Map<String, Value>, own: Map<String, Value>, place: &mut String) {
    for (key, value) in own {
        let length = place.len();
        place.push('/');
        place.push_str(&key);
        match base.get_mut(&key) {
            Some(known) => merge(known, value, place),
            None if value.is_null() => {}
            None => drop(base.insert(key, value)),
        }
        place.truncate(length);
    }
}

fn merge_lists(base: &mut Vec<Value>, own: Vec<Value>, place: &str) {
    if JOINED.contains(&place) {
        return base.extend(own);
    }
    if place == "/process/env" {
        let name = |entry: &Value| entry.as_str().and_then(|entry| Some(entry.split_once('=')?.0.to_owned()));
        return merge_named(base, own, name);
    }
    match NAMED.iter().find(|(list, _)| *list == place) {
        Some((_, key)) => merge_named(base, own, |entry| entry.get(*key).map(Value::to_string)),
        // The arguments of a command, capabilities, masked paths: half of one and half of the other is neither's wish.
        None => *base = own,
    }
}

fn merge_named(base: &mut Vec<Value>, own: Vec<Value>, name: impl Fn(&Value) -> Option<String>) {
    for entry in own {
        let known = base.iter().position(|known| name(known).is_some() && name(known) == name(&entry));
        match known {
            Some(at) => base[at] = entry,
            None => base.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merged(base: Value, own: Value) -> Value {
        let mut result = base;
        merge(&mut result, own, &mut String::new());
        result
    }

    #[test]
    fn the_containers_own_counts_and_the_rest_stays() {
        let base = json!({
            "process": {
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 9}, {"type": "RLIMIT_CORE", "hard": 0, "soft": 0}],
                "env": ["A=base", "B=base"], "args": ["sh"], "noNewPrivileges": true,
            },
            "mounts": [{"destination": "/proc", "type": "base"}, {"destination": "/extra", "type": "bind"}],
            "hooks": {"prestart": [{"path": "/base"}]},
        });
        let own = json!({
            "process": {"rlimits": [{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}], "env": ["B=own", "C=own"], "args": ["top", "-b"], "noNewPrivileges": false},
            "mounts": [{"destination": "/proc", "type": "proc"}],
            "hooks": {"prestart": [{"path": "/own"}]},
            "root": null,
        });
        assert_eq!(
            merged(base, own),
            json!({
                "process": {
                    "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 9, "soft": 9}, {"type": "RLIMIT_CORE", "hard": 1, "soft": 1}],
                    "env": ["A=base", "B=own", "C=own"], "args": ["top", "-b"], "noNewPrivileges": false,
                },
                "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/extra", "type": "bind"}],
                "hooks": {"prestart": [{"path": "/base"}, {"path": "/own"}]},
            })
        );
    }

    #[test]
    fn a_file_that_is_no_spec_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.json");
        let told = || put_on(&path, &Spec::default()).unwrap_err().to_string();
        assert!(told().contains("base.json") && told().contains("No such file"));
        for text in ["", "{", "[]", "7", r#"{"hooks": 7}"#, r#"{"linux": {"timeOffsets": "x"}}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(told().contains("no OCI spec"), "{text}: {}", told());
        }
        std::fs::write(&path, "{}").unwrap();
        put_on(&path, &Spec::default()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(told().contains("no regular file"));
    }
}
