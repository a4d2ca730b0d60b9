//! New namespaces, joined ones, id maps and clocks.

use std::process::{Child, Command};

use serde_json::json;

use crate::bundle::{Bundle, bundle};

/// The namespaces of the container's process, by name.
const SHOW: &str = "for n in cgroup ipc mnt net pid user uts time; do readlink /proc/self/ns/$n; done";

fn own(name: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string()
}

/// A process in namespaces of its own, killed when dropped.
struct Holder(Child);

impl Holder {
    fn new(flags: &[&str]) -> Holder {
        let child = Command::new("unshare").args(flags).args(["sleep", "30"]).spawn().unwrap();
        let holder = Holder(child);
        let own = own("mnt");
        // unshare(1) executes sleep once its namespaces are made.
        for _ in 0..500 {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", holder.0.id())).unwrap_or_default();
            if name.trim() == "sleep" {
                return holder;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("no namespaces beside {own}");
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn set(bundle: &mut Bundle, kind: &str, path: Option<&str>) {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
    namespaces.push(match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    });
}

#[test]
fn listed_namespaces_are_new_and_others_are_the_runtimes() {
    let mut bundle = bundle!();
    set(&mut bundle, "time", None);
    bundle.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000_000}});
    bundle.shell(&format!("{SHOW}; hostname; cat /proc/uptime"));
    let text = bundle.run().ok();
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "uts", "time"] {
        assert!(text.contains(&format!("{name}:[")) && !text.contains(&own(name)), "{name} in {text}");
    }
    assert!(text.contains(&own("user")));
    assert!(text.contains("\ninside\n"));
    let uptime: f64 = text.lines().last().unwrap().split('.').next().unwrap().parse().unwrap();
    assert!(uptime > 1e9, "{text}");
}

#[test]
fn namespaces_are_joined_by_path() {
    let mut bundle = bundle!();
    let holder = Holder::new(&["--net", "--ipc", "--uts"]);
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        set(&mut bundle, kind, Some(&holder.path(name)));
    }
    bundle.shell(SHOW);
    let text = bundle.run().ok();
    for name in ["net", "ipc", "uts"] {
        let theirs = std::fs::read_link(holder.path(name)).unwrap().display().to_string();
        assert!(text.contains(&theirs), "{theirs} in {text}");
    }
}

#[test]
fn a_pid_namespace_is_joined_and_the_runtime_stays_outside() {
    let mut bundle = bundle!();
    let mut other = Bundle::new().unwrap();
    other.args(&["sleep", "30"]);
    other.create().ok();
    other.start().ok();
    set(&mut bundle, "pid", Some(&format!("/proc/{}/ns/pid", other.pid())));
    bundle.shell("echo me $$; cat /proc/1/cmdline");
    let text = bundle.run().ok();
    assert!(text.contains("sleep\0") && !text.contains("me 1\n"), "{text}");
}

#[test]
fn a_user_namespace_maps_ids_and_has_devices_and_all_mounts() {
    let mut bundle = bundle!();
    bundle.user_namespace(300_000);
    bundle.shell("cat /proc/self/uid_map; id -u; touch /tmp/x; echo > /dev/null && head -c 3 /dev/zero | wc -c; ls /sys /dev/pts");
    let text = bundle.run().ok();
    assert!(text.contains("300000") && text.contains("ptmx"), "{text}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(bundle.rootfs().join("tmp/x")).unwrap().uid(), 300_000);
}

#[test]
fn a_user_namespace_is_joined_by_path_with_new_ones_inside() {
    let mut bundle = bundle!();
    let mut pod = Bundle::new().unwrap();
    pod.user_namespace(400_000).shell("sleep 30");
    pod.create().ok();
    pod.start().ok();
    bundle.user_namespace(400_000);
    let pid = pod.pid();
    for (kind, name) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        set(&mut bundle, kind, Some(&format!("/proc/{pid}/ns/{name}")));
    }
    bundle.shell(&format!("{SHOW}; echo pid $$; cat /proc/self/uid_map"));
    let text = bundle.run().ok();
    for name in ["user", "net", "ipc", "uts"] {
        let theirs = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
        assert!(text.contains(&theirs), "{theirs} in {text}");
    }
    assert!(text.contains("pid 1\n") && text.contains("400000"), "{text}");
    // A process executed in it joins the user namespace too.
    bundle.shell("sleep 30");
    bundle.create().ok();
    bundle.start().ok();
    let text = bundle.exec(&["/bin/sh", "-c", "id -u; cat /proc/self/uid_map; touch /tmp/made"]).ok();
    assert!(text.starts_with("0\n") && text.contains("400000"), "{text}");
}

#[test]
fn wrong_lists_are_refused() {
    for (change, words) in [
        (json!([{"type": "pid"}]), "needs a mount namespace"),
        (json!([{"type": "mount"}, {"type": "mount"}]), "is listed twice"),
        (json!([{"type": "mount"}, {"type": "user"}]), "needs linux.uidMappings"),
        (
            json!([{"type": "mount"}, {"type": "network", "path": "/proc/self/ns/uts"}]),
            "must be a namespace of this kind",
        ),
        (json!([{"type": "mount"}, {"type": "network", "path": "/absent"}]), "network namespace /absent"),
    ] {
        let mut bundle = bundle!();
        bundle.config["linux"]["namespaces"] = change;
        bundle.config.as_object_mut().unwrap().remove("hostname");
        bundle.shell("true");
        let message = bundle.create().failed();
        assert!(message.contains(words), "{message}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
}

#[test]
fn a_mount_namespace_is_joined_by_path() {
    let mut bundle = bundle!();
    let holder = Holder::new(&["--mount"]);
    set(&mut bundle, "mount", Some(&holder.path("mnt")));
    bundle.shell("readlink /proc/self/ns/mnt; ls /");
    let text = bundle.run().ok();
    let theirs = std::fs::read_link(holder.path("mnt")).unwrap().display().to_string();
    assert!(text.starts_with(&theirs) && text.contains("work\n"), "{theirs}: {text}");
    // The host's own mounts are where they were.
    assert!(std::path::Path::new("/etc/debian_version").exists() || std::path::Path::new("/usr").exists());
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}
