//! Containers of an ordinary user, without privileges and without a cgroup.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{Bundle, Done, bundle};

pub(crate) const NOBODY: u32 = 65534;

/// A bundle that belongs to an ordinary user, with the program beside it.
pub(crate) struct Rootless {
    pub(crate) bundle: Bundle,
    pub(crate) program: PathBuf,
}

impl Rootless {
    pub(crate) fn new(bundle: Bundle) -> Rootless {
        let program = bundle.path().join("pintle-oci");
        // By another process: a copy of this one, made by another test meanwhile, would hold the file open for writing, and nobody
        // could execute it.
        assert!(Command::new("cp").arg(crate::bundle::oci()).arg(&program).status().unwrap().success());
        let mut rootless = Rootless { bundle, program };
        let mut chown = Command::new("chown");
        chown.arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(rootless.bundle.path());
        assert!(chown.status().unwrap().success());
        rootless.oci(&["spec", "--rootless"]).ok();
        let text = std::fs::read(rootless.bundle.path().join("config.json")).unwrap();
        rootless.bundle.config = serde_json::from_slice(&text).unwrap();
        rootless.bundle.config["process"]["terminal"] = false.into();
        rootless.bundle.config["process"]["env"] = json!(["PATH=/bin"]);
        rootless.bundle.config["root"] = json!({"path": "rootfs"});
        rootless
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).current_dir(self.bundle.path()).stdin(std::process::Stdio::null());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("XDG_RUNTIME_DIR", self.bundle.path());
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    fn oci(&self, words: &[&str]) -> Done {
        self.bundle.to_end(self.command(words))
    }

    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    pub(crate) fn nothing_left(&self) {
        assert_eq!(self.bundle.leftovers(), Vec::<String>::new());
    }
}

/// A bundle of an ordinary user, or the end of the test.
macro_rules! rootless {
    () => {{
        let bundle = bundle!();
        if !std::fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|most| most.trim() != "0")
        {
            println!("SKIPPED: there are no user namespaces");
            return;
        }
        Rootless::new(bundle)
    }};
}

#[test]
fn an_ordinary_user_runs_a_container() {
    let mut rootless = rootless!();
    rootless
        .bundle
        .shell("id -u; id -g; hostname; ps | wc -l; echo x > /tmp/made; ls /dev/null /dev/pts; exit 4");
    rootless.bundle.config["hostname"] = "mine".into();
    rootless.bundle.config["root"]["readonly"] = false.into();
    rootless.bundle.save();
    let states = rootless.bundle.path().join("states");
    let done = rootless.oci(&["--debug", "--root", states.to_str().unwrap(), "run", rootless.id()]);
    assert_eq!(done.code, 4, "{}{}", done.text(), done.err);
    assert!(done.text().starts_with("0\n0\nmine\n"), "{}", done.text());
    assert!(
        done.err.contains("there is none, so that the container can be neither paused nor measured"),
        "{}",
        done.err
    );
    assert_eq!(std::fs::metadata(rootless.bundle.rootfs().join("tmp/made")).unwrap().uid(), NOBODY);
    rootless.nothing_left();
}

#[test]
fn it_lives_through_all_its_states_as_that_user() {
    let mut rootless = rootless!();
    rootless.bundle.shell("echo up; exec sleep 100");
    rootless.bundle.save();
    let states = rootless.bundle.path().join("states");
    let root = ["--root", states.to_str().unwrap()];
    let id = rootless.id().to_string();
    let oci = |words: &[&str]| rootless.oci(&[&root[..], words].concat());
    oci(&["create", &id]).ok();
    let state: Value = serde_json::from_str(&oci(&["state", &id]).ok()).unwrap();
    assert_eq!((&state["status"], &state["owner"]), (&json!("created"), &json!("nobody")));
    oci(&["start", &id]).ok();
    assert_eq!(oci(&["exec", &id, "sh", "-c", "id -u; cat /proc/1/cmdline"]).ok(), "0\nsleep\x00100\x00");
    let pid = state["pid"].as_i64().unwrap();
    assert_eq!(std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(), NOBODY);
    assert!(oci(&["create", &id]).failed().contains("container with given ID already exists"));
    oci(&["kill", &id, "KILL"]).ok();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    while !oci(&["state", &id]).ok().contains("stopped") {
        assert!(std::time::Instant::now() < deadline);
    }
    oci(&["delete", &id]).ok();
    rootless.nothing_left();
}

#[test]
fn what_an_ordinary_user_cannot_have_is_refused_by_its_field() {
    let mut rootless = rootless!();
    rootless.bundle.shell("true");
    let good = rootless.bundle.config.clone();
    let cases = [
        (
            "/linux/namespaces",
            json!([{"type": "mount"}]),
            "an ordinary user's container needs a user namespace",
        ),
        (
            "/linux/resources",
            json!({"memory": {"limit": 1 << 24}}),
            "without a cgroup nothing can be limited",
        ),
        ("/linux/uidMappings", json!([]), "linux.uidMappings: is missing"),
        ("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]), "linux.uidMappings"),
        ("/process/user", json!({"uid": 5, "gid": 0}), "user 5"),
    ];
    let states = rootless.bundle.path().join("states");
    for (pointer, value, expected) in cases {
        rootless.bundle.config = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        rootless.bundle.config.pointer_mut(parent).unwrap()[key] = value;
        rootless.bundle.save();
        let message = rootless.oci(&["--root", states.to_str().unwrap(), "run", rootless.id()]).failed();
        assert!(message.contains(expected), "{pointer}: {message}");
        rootless.nothing_left();
    }
}

#[test]
fn ranges_of_ids_are_mapped_by_the_hosts_helpers() {
    let mut rootless = rootless!();
    if !std::path::Path::new("/usr/bin/newuidmap").exists() {
        println!("SKIPPED: there is no program newuidmap");
        return;
    }
    let map = json!([{"containerID": 0, "hostID": NOBODY, "size": 1}, {"containerID": 1, "hostID": 3_000_000, "size": 1000}]);
    rootless.bundle.config["linux"]["uidMappings"] = map.clone();
    rootless.bundle.config["linux"]["gidMappings"] = map;
    rootless.bundle.config["process"]["user"] = json!({"uid": 7, "gid": 8, "additionalGids": [9]});
    rootless.bundle.shell("id; cat /proc/self/uid_map");
    rootless.bundle.save();
    let folder = rootless.bundle.path().to_path_buf();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.join("sub"), "nobody:3000000:1000\n").unwrap();
    // The host's own tables stay as they are: others lie over them in a mount namespace of the test's.
    let script = format!(
        "mount --bind {0}/sub /etc/subuid && mount --bind {0}/sub /etc/subgid && \
         exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {1} --root {0}/states run {2}",
        folder.display(),
        rootless.program.display(),
        rootless.id()
    );
    if !std::path::Path::new("/etc/subuid").exists() || !std::path::Path::new("/etc/subgid").exists() {
        println!("SKIPPED: there is no /etc/subuid to lie over");
        return;
    }
    let mut shell = Command::new("unshare");
    shell.args(["--mount", "sh", "-c", &script]).current_dir(&folder).stdin(std::process::Stdio::null());
    let text = rootless.bundle.to_end(shell).ok();
    assert!(text.contains("uid=7 gid=8 groups=9"), "{text}");
    assert!(text.contains("3000000"), "{text}");
    rootless.nothing_left();
}
