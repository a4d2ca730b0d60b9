//! Folders of files, good and bad, that change.

use super::*;

struct Folders {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Folders {
    fn new() -> Folders {
        let folder = tempfile::tempdir().unwrap();
        let folders: Vec<_> = ["low", "high", "absent"].iter().map(|name| folder.path().join(name)).collect();
        fs::create_dir(&folders[0]).unwrap();
        fs::create_dir(&folders[1]).unwrap();
        Folders { folder, registry: Registry::new(folders) }
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn environment(&self, name: &str) -> Result<Vec<String>, DeviceError> {
        let mut spec = spec();
        self.registry.inject(&mut spec, &[name.to_owned()])?;
        Ok(spec.process().as_ref().unwrap().env().clone().unwrap())
    }
}

fn spec() -> Spec {
    serde_json::from_value(serde_json::json!({
        "ociVersion": "1.2.0",
        "process": { "user": { "uid": 7, "gid": 0, "additionalGids": [3] }, "args": ["sh"], "cwd": "/", "env": ["OLD=1", "X=0"] },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "source": "proc" }, { "destination": "/a/b", "source": "/x" }],
        "linux": {},
    }))
    .unwrap()
}

fn describes(device: &str, value: &str) -> String {
    serde_json::json!({
        "cdiVersion": "0.6.0", "kind": "v.com/c",
        "containerEdits": { "env": [format!("FILE={value}")] },
        "devices": [{ "name": device, "containerEdits": { "env": [format!("X={value}")] } }],
    })
    .to_string()
}

#[test]
fn later_folders_count_more_and_two_files_of_one_contradict() {
    let folders = Folders::new();
    folders.put("low/a.json", &describes("d", "low"));
    folders.put("low/b.json", &describes("e", "other"));
    assert_eq!(folders.environment("v.com/c=d").unwrap(), ["OLD=1", "FILE=low", "X=low"]);
    folders.put("high/z.json", &describes("d", "high"));
    assert_eq!(folders.environment("v.com/c=d").unwrap(), ["OLD=1", "FILE=high", "X=high"]);
    folders.put("high/y.json", &describes("d", "again"));
    let error = folders.environment("v.com/c=d").unwrap_err().to_string();
    assert!(error.contains("v.com/c=d") && error.contains("z.json") && error.contains("y.json"), "{error}");
    assert_eq!(folders.environment("v.com/c=e").unwrap()[1..], ["FILE=other", "X=other"]);
}

#[test]
fn a_bad_file_is_named_and_breaks_nothing_else() {
    let folders = Folders::new();
    folders.put("low/a.json", &describes("d", "1"));
    folders.put("low/bad.json", "{");
    folders.put("high/bad.yaml", "a: [");
    folders.put("high/ignored.txt", "not looked at");
    let pipe = folders.folder.path().join("high/pipe.json");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    assert!(folders.environment("v.com/c=d").is_ok());
    let unreadable = folders.registry.inject(&mut spec(), &["v.com/c=d".into()]).unwrap();
    assert_eq!(unreadable.len(), 3);
    let error = folders.environment("v.com/c=none").unwrap_err().to_string();
    for part in ["v.com/c=none", "bad.json", "bad.yaml", "pipe.json"] {
        assert!(error.contains(part), "{error} does not name {part}");
    }
}

#[test]
fn a_file_is_read_again_where_it_has_changed_and_only_there() {
    let folders = Folders::new();
    folders.put("low/a.json", &describes("d", "1"));
    folders.put("low/b.json", &describes("e", "1"));
    folders.environment("v.com/c=d").unwrap();
    let known = |name: &str| {
        let known = folders.registry.known.lock().unwrap();
        known[&folders.folder.path().join(name)].1.clone().unwrap()
    };
    let (a, b) = (known("low/a.json"), known("low/b.json"));
    folders.put("low/a.json", &describes("d", "22"));
    assert_eq!(folders.environment("v.com/c=d").unwrap()[2], "X=22");
    assert!(Arc::ptr_eq(&b, &known("low/b.json")) && !Arc::ptr_eq(&a, &known("low/a.json")));
    fs::remove_file(folders.folder.path().join("low/a.json")).unwrap();
    assert!(folders.environment("v.com/c=d").is_err());
}

#[test]
fn everything_that_a_device_brings_is_in_the_spec() {
    let folders = Folders::new();
    let text = serde_json::json!({
        "cdiVersion": "1.1.0", "kind": "v.com/c",
        "devices": [{ "name": "d", "containerEdits": {
            "deviceNodes": [{ "path": "/dev/other", "hostPath": "/dev/zero", "permissions": "r" }, { "path": "/dev/fifo", "type": "p" }],
            "mounts": [{ "hostPath": "/lib", "containerPath": "/a", "options": ["ro"] }, { "hostPath": "/y", "containerPath": "/a/b", "options": ["bind"] }],
            "hooks": [{ "hookName": "createContainer", "path": "/bin/hook", "args": ["hook", "x"], "env": ["E=1"], "timeout": 4 }],
            "additionalGids": [0, 3, 44],
            "netDevices": [{ "hostInterfaceName": "eth1", "name": "net1" }],
            "intelRdt": { "closID": "gold", "l3CacheSchema": "L3:0=f" },
        } }],
    });
    folders.put("low/a.json", &text.to_string());
    let mut edited = spec();
    folders.registry.inject(&mut edited, &["v.com/c=d".into()]).unwrap();
    let edited = serde_json::to_value(&edited).unwrap();
    let linux = &edited["linux"];
    let nodes = serde_json::json!([
        { "path": "/dev/other", "type": "c", "major": 1, "minor": 5, "uid": 7 },
        { "path": "/dev/fifo", "type": "p", "major": 0, "minor": 0, "uid": 7 },
    ]);
    assert_eq!(linux["devices"], nodes);
    let rule = serde_json::json!([{ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "r" }]);
    assert_eq!(linux["resources"]["devices"], rule);
    assert_eq!(linux["netDevices"]["eth1"]["name"], "net1");
    assert_eq!(linux["intelRdt"]["closID"], "gold");
    assert_eq!(linux["intelRdt"]["schemata"][0], "L3:0=f");
    assert_eq!(edited["process"]["user"]["additionalGids"], serde_json::json!([3, 44]));
    assert_eq!(edited["hooks"]["createContainer"][0]["timeout"], 4);
    let mounts: Vec<_> =
        edited["mounts"].as_array().unwrap().iter().map(|mount| mount["destination"].clone()).collect();
    assert_eq!(mounts, ["/proc", "/a", "/a/b"]);
    assert_eq!(edited["mounts"][1]["options"], serde_json::json!(["ro", "rbind"]));
}

#[test]
fn a_device_that_the_host_has_not_is_an_error() {
    let folders = Folders::new();
    for (path, why) in [("/dev/no-such-device", "No such file"), ("/etc/passwd", "no device")] {
        let edits = serde_json::json!({ "deviceNodes": [{ "path": path }] });
        let devices = serde_json::json!([{ "name": "d", "containerEdits": edits }]);
        let text = serde_json::json!({ "cdiVersion": "0.5.0", "kind": "v.com/c", "devices": devices });
        folders.put("low/a.json", &text.to_string());
        let error = folders.environment("v.com/c=d").unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(why), "{error}");
    }
}
