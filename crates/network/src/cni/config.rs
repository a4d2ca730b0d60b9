//! Configuration lists of a configuration directory: which network is used, and which files were skipped and why.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::version::Version;

/// Larger files are refused: no configuration needs this much.
const MAX_FILE_BYTES: u64 = 1 << 20;
const MAX_PLUGINS: usize = 64;

/// A network: the plugins that attach a pod to it, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkList {
    pub name: String,
    pub version: Version,
    /// Further versions the list may be run in (1.1, `cniVersions`), `version` included.
    pub versions: Vec<Version>,
    pub disable_check: bool,
    pub disable_gc: bool,
    pub plugins: Vec<PluginConfig>,
}

/// One plugin of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// The name of its program: a plain file name.
    pub kind: String,
    /// The runtime's data it asks for (`capabilities` that are true).
    pub capabilities: BTreeSet<String>,
    /// The object as it was written.
    pub body: Map<String, Value>,
}

/// A configuration is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    #[error("it is not JSON: {0}")]
    NotJson(String),
    #[error("{0}")]
    Field(String),
}

/// A file of the directory that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    pub why: String,
}

/// What a configuration directory says.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    /// The first good configuration in the order of file names.
    pub network: Option<(PathBuf, NetworkList)>,
    pub skipped: Vec<Skipped>,
}

/// What the directory looked like, to tell cheaply whether it must be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<(PathBuf, u64, i64, i64, u64)>);

impl NetworkList {
    /// Parses a list (`plugins`) or the configuration of a single plugin.
    pub fn parse(bytes: &[u8]) -> Result<NetworkList, BadConfig> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| BadConfig::NotJson(error.to_string()))?;
        let Value::Object(object) = value else {
            return Err(BadConfig::Field("it is not an object".into()));
        };
        let name = text(&object, "name")?.unwrap_or_default();
        if !is_plain_name(&name) {
            return Err(BadConfig::Field(format!(
                "\"name\" {name:?} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'"
            )));
        }
        let version_text = text(&object, "cniVersion")?.unwrap_or_default();
        let version = known_version(&version_text)?;
        let plugins = match object.get("plugins") {
            Some(Value::Array(plugins)) => {
                plugins.iter().map(PluginConfig::parse).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(BadConfig::Field("\"plugins\" is not a list".into())),
            None => vec![PluginConfig::from_object(&object)?],
        };
        if plugins.len() > MAX_PLUGINS {
            return Err(BadConfig::Field(format!("more than {MAX_PLUGINS} plugins")));
        }
        let mut versions: Vec<Version> = match object.get("cniVersions") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().filter_map(|entry| entry.as_str().and_then(Version::parse)).collect()
            }
            Some(_) => return Err(BadConfig::Field("\"cniVersions\" is not a list".into())),
        };
        versions.push(version);
        versions.sort();
        versions.dedup();
        Ok(NetworkList {
            name,
            version,
            versions,
            disable_check: truth(&object, "disableCheck")?,
            disable_gc: truth(&object, "disableGC")?,
            plugins,
        })
    }

    /// Reads the file at `path` and, where the list asks for it, the plugins in the folder named like the network beside it (1.1).
    pub fn load(path: &Path) -> Result<NetworkList, BadConfig> {
        let bytes = read_bounded(path).map_err(|error| BadConfig::Field(error.to_string()))?;
        let mut list = NetworkList::parse(&bytes)?;
        let object: Map<String, Value> = serde_json::from_slice(&bytes).unwrap_or_default();
        if object.contains_key("plugins") && !truth(&object, "loadOnlyInlinedPlugins")? {
            let folder = path.parent().unwrap_or(Path::new(".")).join(&list.name);
            for file in configuration_files(&folder, &["conf"]) {
                let inside = |error: BadConfig| BadConfig::Field(format!("{}: {error}", file.display()));
                let bytes = read_bounded(&file).map_err(|e| inside(BadConfig::Field(e.to_string())))?;
                let value: Value = serde_json::from_slice(&bytes)
                    .map_err(|error| inside(BadConfig::NotJson(error.to_string())))?;
                list.plugins.push(PluginConfig::parse(&value).map_err(inside)?);
            }
        }
        match list.plugins.len() {
            0 => Err(BadConfig::Field("it lists no plugins".into())),
            1..=MAX_PLUGINS => Ok(list),
            _ => Err(BadConfig::Field(format!("more than {MAX_PLUGINS} plugins"))),
        }
    }
}

impl PluginConfig {
    fn parse(value: &Value) -> Result<PluginConfig, BadConfig> {
        match value {
            Value::Object(object) => PluginConfig::from_object(object),
            _ => Err(BadConfig::Field("a plugin is not an object".into())),
        }
    }

    /// Takes the plugin's object as it stands in a list.
    pub fn from_object(object: &Map<String, Value>) -> Result<PluginConfig, BadConfig> {
        let kind = text(object, "type")?.unwrap_or_default();
        if !is_file_name(&kind) {
            return Err(BadConfig::Field(format!("plugin \"type\" {kind:?} must be a plain file name")));
        }
        let capabilities = match object.get("capabilities") {
            None | Some(Value::Null) => BTreeSet::new(),
            Some(Value::Object(map)) => {
                map.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name.clone()).collect()
            }
            Some(_) => return Err(BadConfig::Field(format!("\"capabilities\" of {kind} is not an object"))),
        };
        Ok(PluginConfig { kind, capabilities, body: object.clone() })
    }
}

impl Directory {
    /// Reads every configuration of `folder`. A missing folder is an empty one: it may appear later.
    pub fn read(folder: &Path) -> Directory {
        let mut directory = Directory::default();
        for path in configuration_files(folder, &["conf", "conflist", "json"]) {
            match NetworkList::load(&path) {
                Ok(list) if directory.network.is_none() => directory.network = Some((path, list)),
                Ok(_) => {
                    let why = "an earlier file is the node's network".to_string();
                    directory.skipped.push(Skipped { path, why });
                }
                Err(why) => directory.skipped.push(Skipped { path, why: why.to_string() }),
            }
        }
        directory
    }

    /// What `folder` looks like now: its own inode and, of each file in it and one folder below, inode, times and size.
    pub fn stamp(folder: &Path) -> Stamp {
        let mut stamp = Vec::new();
        let mut add = |path: &Path| {
            if let Ok(meta) = std::fs::metadata(path) {
                let mtime = meta.mtime().wrapping_mul(1_000_000_000).wrapping_add(meta.mtime_nsec());
                let ctime = meta.ctime().wrapping_mul(1_000_000_000).wrapping_add(meta.ctime_nsec());
                stamp.push((path.to_path_buf(), meta.ino(), mtime, ctime, meta.size()));
                return meta.is_dir();
            }
            false
        };
        add(folder);
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if add(&path) {
                for inner in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                    add(&inner.path());
                }
            }
        }
        stamp.sort();
        Stamp(stamp)
    }
}

/// What the specification allows for names of networks and ids of containers.
pub fn is_plain_name(name: &str) -> bool {
    name.len() <= 200
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

/// A `type` becomes part of the path of a program: it must not leave the plugin directories (CVE-2021-20206).
fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
}

fn known_version(text: &str) -> Result<Version, BadConfig> {
    Version::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Version::ALL.iter().map(|v| v.as_str()).collect();
        BadConfig::Field(format!("\"cniVersion\" {text:?} is not one of {}", known.join(", ")))
    })
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, BadConfig> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(BadConfig::Field(format!("{key:?} is not a string"))),
    }
}

/// A boolean, also as the strings that are seen in the field.
fn truth(object: &Map<String, Value>, key: &str) -> Result<bool, BadConfig> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(BadConfig::Field(format!("{key:?} is neither true nor false"))),
    }
}

fn configuration_files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e)))
        .collect();
    files.sort();
    files
}

/// Reads a regular file that is not too large; a FIFO is not waited for.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::write(folder.join(name), text).unwrap();
    }

    #[test]
    fn the_first_good_file_wins_and_the_others_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(Directory::read(&path.join("absent")).network.is_none());
        write(path, "05-broken.conflist", "{");
        write(path, "06-evil.conf", r#"{"name":"x","cniVersion":"1.0.0","type":"../../bin/reboot"}"#);
        write(path, "07-version.conf", r#"{"name":"x","cniVersion":"7.0.0","type":"bridge"}"#);
        write(path, "08-empty.conflist", r#"{"name":"x","cniVersion":"1.0.0","plugins":[]}"#);
        write(
            path,
            "10-good.conflist",
            r#"{"name":"good","cniVersion":"1.0.0","plugins":[{"type":"a","capabilities":{"portMappings":true,"dns":false}},{"type":"b"}]}"#,
        );
        write(path, "20-later.conf", r#"{"name":"later","cniVersion":"1.0.0","type":"bridge"}"#);
        write(path, "note.txt", "not a configuration");
        let read = Directory::read(path);
        let (file, list) = read.network.unwrap();
        assert!(file.ends_with("10-good.conflist"));
        assert_eq!(list.plugins.iter().map(|p| p.kind.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(list.plugins[0].capabilities.iter().collect::<Vec<_>>(), ["portMappings"]);
        let why: Vec<&str> = read.skipped.iter().map(|s| s.why.as_str()).collect();
        assert_eq!(why.len(), 5);
        assert!(
            why[0].contains("not JSON") && why[1].contains("reboot") && why[2].contains("7.0.0"),
            "{why:?}"
        );
        assert!(why[3].contains("no plugins") && why[4].contains("earlier"), "{why:?}");
    }

    #[test]
    fn plugins_of_the_folder_beside_are_loaded_unless_told_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir(path.join("net")).unwrap();
        write(&path.join("net"), "10-extra.conf", r#"{"type":"extra"}"#);
        write(path, "a.conflist", r#"{"name":"net","cniVersion":"1.1.0","plugins":[{"type":"first"}]}"#);
        assert_eq!(NetworkList::load(&path.join("a.conflist")).unwrap().plugins[1].kind, "extra");
        write(
            path,
            "a.conflist",
            r#"{"name":"net","cniVersion":"1.1.0","loadOnlyInlinedPlugins":true,"plugins":[{"type":"first"}]}"#,
        );
        assert_eq!(NetworkList::load(&path.join("a.conflist")).unwrap().plugins.len(), 1);
    }

    #[test]
    fn a_change_changes_the_stamp() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.d");
        let absent = Directory::stamp(&path);
        std::fs::create_dir(&path).unwrap();
        let empty = Directory::stamp(&path);
        write(&path, "a.conf", "1");
        let one = Directory::stamp(&path);
        write(&path, "b.tmp", "2");
        std::fs::rename(path.join("b.tmp"), path.join("a.conf")).unwrap();
        let replaced = Directory::stamp(&path);
        assert!(absent != empty && empty != one && one != replaced);
        assert_eq!(replaced, Directory::stamp(&path));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,120}") {
            let _ = NetworkList::parse(text.as_bytes());
            let _ = NetworkList::parse(format!("{{\"name\":\"n\",\"type\":\"t\",\"x\":{text}}}").as_bytes());
        }

        #[test]
        fn a_type_never_leaves_the_plugin_directory(kind in "[./a-z\\\\\u{0}-\u{1f}]{0,12}") {
            let text = serde_json::json!({"name": "n", "cniVersion": "1.0.0", "type": kind}).to_string();
            if NetworkList::parse(text.as_bytes()).is_ok() {
                let joined = Path::new("/opt/cni/bin").join(&kind);
                proptest::prop_assert_eq!(joined.parent(), Some(Path::new("/opt/cni/bin")));
                proptest::prop_assert!(joined.file_name().is_some_and(|name| name == kind.as_str()));
            }
        }
    }
}
