//! Folders of hooks, and the containers that get them.

use super::*;
use serde_json::{Value, json};

fn spec() -> Spec {
    serde_json::from_value(json!({
        "ociVersion": "1.2.0", "root": { "path": "rootfs" },
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/usr/bin/server", "x"], "cwd": "/" },
    }))
    .unwrap()
}

fn hook(when: Value, argument: &str) -> String {
    let hook = json!({ "path": "/bin/sh", "args": ["sh", argument], "timeout": 3 });
    json!({ "version": "1.0.0", "hook": hook, "when": when, "stages": ["createRuntime", "poststop"] })
        .to_string()
}

/// The arguments of the hooks that a container with annotation `a.b: c` gets.
fn added(folders: &Folders, bind_mounts: bool) -> (Vec<String>, Vec<FileError>) {
    let annotations = BTreeMap::from([("a.b".to_owned(), "c".to_owned())]);
    let mut spec = spec();
    let unusable = folders.add(&mut spec, &Asked { annotations: &annotations, bind_mounts });
    let hooks = serde_json::to_value(spec.hooks()).unwrap();
    assert_eq!(hooks["createRuntime"], hooks["poststop"]);
    let list = hooks["createRuntime"].as_array().cloned().unwrap_or_default();
    (list.iter().map(|hook| hook["args"][1].as_str().unwrap().to_owned()).collect(), unusable)
}

#[test]
fn everything_that_is_said_has_to_hold() {
    for (when, without, with) in [
        (json!({}), false, false),
        (json!({ "always": true }), true, true),
        (json!({ "always": false }), false, false),
        (json!({ "commands": ["^/usr/bin/"] }), true, true),
        (json!({ "commands": ["^nothing$", "server$"] }), true, true),
        (json!({ "commands": ["^x$"] }), false, false),
        (json!({ "annotations": { "^a\\.b$": "^c$" } }), true, true),
        (json!({ "annotations": { "^a": "c", "^z": "c" } }), false, false),
        (json!({ "hasBindMounts": true }), false, true),
        (json!({ "hasBindMounts": false, "always": true }), false, false),
        (json!({ "always": true, "hasBindMounts": true }), false, true),
        (json!({ "commands": ["server"], "annotations": { "a": "x" } }), false, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("h.json"), hook(when.clone(), "h")).unwrap();
        let folders = Folders::new(vec![folder.path().to_owned()]);
        for (bind_mounts, expected) in [(false, without), (true, with)] {
            let (hooks, unusable) = added(&folders, bind_mounts);
            assert_eq!((hooks.len(), unusable), (usize::from(expected), Vec::new()), "{when} {bind_mounts}");
        }
    }
}

#[test]
fn hooks_come_in_the_order_of_names_and_later_folders_replace() {
    let (low, high) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let always = || json!({ "always": true });
    for (folder, name, argument) in [
        (&low, "20-b.json", "low b"),
        (&low, "30-c.json", "low c"),
        (&high, "20-b.json", "high b"),
        (&high, "10-a.json", "high a"),
    ] {
        fs::write(folder.path().join(name), hook(always(), argument)).unwrap();
    }
    fs::write(low.path().join("readme"), "not looked at").unwrap();
    let folders = Folders::new(vec![low.path().into(), high.path().into(), "/no/such/folder".into()]);
    assert_eq!(added(&folders, false), (vec!["high a".into(), "high b".into(), "low c".into()], Vec::new()));
    assert_eq!(added(&Folders::default(), false), (Vec::new(), Vec::new()));
}

#[test]
fn a_bad_file_is_named_and_the_others_count() {
    let folder = tempfile::tempdir().unwrap();
    let good = hook(json!({ "always": true }), "good");
    let bad = [
        ("a", "{".to_owned(), "EOF"),
        ("b", good.replace("1.0.0", "0.1.0"), "0.1.0"),
        ("c", good.replace("/bin/sh", "sh"), "not absolute"),
        ("d", good.replace("/bin/sh", "/no/such/program"), "/no/such/program"),
        ("e", good.replace("/bin/sh", "/etc/passwd"), "no executable"),
        ("f", good.replace("createRuntime", "sometime"), "sometime"),
        ("g", hook(json!({ "commands": ["("] }), "x"), "when"),
        ("h", hook(json!({ "sometimes": true }), "x"), "sometimes"),
        ("i", good.replace("\"timeout\":3", "\"timeout\":0"), "timeout"),
        ("j", good.replace("[\"createRuntime\",\"poststop\"]", "[]"), "stages"),
    ];
    for (name, text, _) in &bad {
        fs::write(folder.path().join(format!("{name}.json")), text).unwrap();
    }
    fs::write(folder.path().join("z.json"), good).unwrap();
    let (hooks, unusable) = added(&Folders::new(vec![folder.path().into()]), false);
    assert_eq!(hooks, ["good"]);
    for ((name, _, why), error) in bad.iter().zip(&unusable) {
        let words = error.to_string();
        assert!(words.contains(&format!("{name}.json")) && words.contains(why), "{words} does not say {why}");
    }
    assert_eq!(unusable.len(), bad.len());
}
