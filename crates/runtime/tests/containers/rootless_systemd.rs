//! Containers of an ordinary user in groups that are delegated to that user: below the user's own systemd, by either driver.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, Done, bundle};
use crate::rootless::{NOBODY, Rootless};

const LIMIT: u64 = 48 << 20;

/// The user's systemd, which ends with the test where it was not there before.
struct UsersSystemd {
    begun: bool,
}

impl UsersSystemd {
    /// Begins it; none where systemd is not the init of a machine with control groups of version 2.
    fn begin() -> Option<UsersSystemd> {
        if !cgroup::systemd::runs() || !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            println!("SKIPPED: systemd is not the init of a machine with control groups of version 2");
            return None;
        }
        let unit = format!("user@{NOBODY}.service");
        let active =
            Command::new("systemctl").args(["is-active", "--quiet", &unit]).status().unwrap().success();
        let done = Command::new("systemctl").args(["start", &unit]).output().unwrap();
        assert!(done.status.success(), "{unit}: {}", String::from_utf8_lossy(&done.stderr));
        Some(UsersSystemd { begun: !active })
    }
}

impl Drop for UsersSystemd {
    fn drop(&mut self) {
        if self.begun {
            let _ = Command::new("systemctl").args(["stop", &format!("user@{NOBODY}.service")]).status();
        }
    }
}

fn group() -> String {
    format!("/user.slice/user-{NOBODY}.slice/user@{NOBODY}.service")
}

/// As engines of the user's run, in a group below the user's systemd.
fn within(rootless: &Rootless, words: &[&str]) -> Done {
    let own = format!("/sys/fs/cgroup{}/engine-{}", group(), rootless.id());
    let script = "mkdir -p $0/self && echo $$ >$0/self/cgroup.procs && exec setpriv --clear-groups \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, &own, &format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}")]);
    command.arg(&rootless.program).arg("--root").arg(rootless.bundle.path().join("states")).args(words);
    command.current_dir(rootless.bundle.path()).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    rootless.bundle.to_end(command)
}

fn limited(bundle: Bundle) -> Rootless {
    let mut rootless = Rootless::new(bundle);
    rootless.bundle.config["linux"]["resources"] = json!({"memory": {"limit": LIMIT}, "pids": {"limit": 50}});
    rootless.bundle.shell("exec sleep 100");
    rootless
}

/// A file of the group that the container's process is in.
fn file(pid: i64, expected: &str, name: &str) -> String {
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(own.trim(), format!("0::{expected}"));
    std::fs::read_to_string(format!("/sys/fs/cgroup{expected}/{name}")).unwrap().trim().to_owned()
}

/// What a container with limits does whose group is `expected`.
fn lives(rootless: &Rootless, driver: &[&str], expected: &str) {
    let id = rootless.id();
    let oci = |words: &[&str]| within(rootless, &[driver, words].concat());
    oci(&["create", id]).ok();
    let state: Value = serde_json::from_str(&oci(&["state", id]).ok()).unwrap();
    let pid = state["pid"].as_i64().unwrap();
    oci(&["start", id]).ok();
    assert_eq!(file(pid, expected, "memory.max"), LIMIT.to_string());
    assert_eq!(file(pid, expected, "pids.max"), "50");
    oci(&["update", "--memory", "33554432", id]).ok();
    assert_eq!(file(pid, expected, "memory.max"), (32 << 20).to_string());
    let inside = oci(&["exec", id, "sh", "-c", "cat /proc/self/cgroup; id -u"]).ok();
    assert_eq!(inside, "0::/\n0\n");
    oci(&["pause", id]).ok();
    assert_eq!(file(pid, expected, "cgroup.freeze"), "1");
    oci(&["resume", id]).ok();
    assert_eq!(file(pid, expected, "cgroup.freeze"), "0");
    oci(&["delete", "--force", id]).ok();
    assert!(!Path::new(&format!("/sys/fs/cgroup{expected}")).exists());
    rootless.nothing_left();
    let own = format!("/sys/fs/cgroup{}/engine-{id}", group());
    std::fs::remove_dir(format!("{own}/self")).and_then(|()| std::fs::remove_dir(own)).unwrap();
}

#[test]
fn a_users_container_is_limited_below_that_users_systemd() {
    let (scope, plain) = (bundle!(), bundle!());
    let Some(_systemd) = UsersSystemd::begin() else { return };
    // A scope of the user's systemd.
    let mut rootless = limited(scope);
    rootless.bundle.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    rootless.bundle.save();
    let expected = format!("{}/user.slice/pintle-{}.scope", group(), rootless.id());
    lives(&rootless, &["--systemd-cgroup"], &expected);
    // A group that is made below what is delegated to that systemd.
    let mut rootless = limited(plain);
    let expected = format!("{}/container-{}", group(), rootless.id());
    rootless.bundle.config["linux"]["cgroupsPath"] = expected.clone().into();
    rootless.bundle.save();
    lives(&rootless, &[], &expected);
}
