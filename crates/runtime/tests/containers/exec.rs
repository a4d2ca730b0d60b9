//! Processes executed in a container.

use serde_json::json;

use crate::bundle::{Bundle, bundle};

fn running() -> Result<Bundle, String> {
    let mut bundle = Bundle::new()?;
    bundle.shell("sleep 100");
    bundle.create().ok();
    bundle.start().ok();
    Ok(bundle)
}

macro_rules! running {
    () => {
        match running() {
            Ok(bundle) => bundle,
            Err(why) => {
                println!("SKIPPED: {why}");
                return;
            }
        }
    };
}

#[test]
fn it_is_in_all_namespaces_and_the_cgroup_of_the_container() {
    let bundle = running!();
    let show =
        "for n in cgroup ipc mnt net pid uts; do readlink /proc/$0/ns/$n; done; cat /proc/$0/cgroup; pwd";
    let (init, own) =
        (bundle.exec(&["sh", "-c", show, "1"]).ok(), bundle.exec(&["sh", "-c", show, "self"]).ok());
    assert_eq!(init, own);
    assert!(own.contains("pid:["));
}

#[test]
fn codes_streams_and_flags_are_passed() {
    let bundle = running!();
    assert_eq!(bundle.exec(&["sh", "-c", "exit 9"]).code, 9);
    let mut words = vec!["exec", "--cwd", "/work", "-e", "A=b", "-u", "1000:7", "-g", "8", &bundle.id];
    words.extend(["sh", "-c", "pwd; echo $A; id -u; id -g; cat /proc/self/status"]);
    let text = bundle.oci(&words).ok();
    assert!(text.starts_with("/work\nb\n1000\n7\n") && text.contains("Groups:\t8 \n"), "{text}");
    let file = bundle.path().join("process.json");
    let process = json!({"user": {"uid": 3, "gid": 4}, "args": ["sh", "-c", "id -u; id -g"], "cwd": "/", "env": ["PATH=/bin"]});
    std::fs::write(&file, process.to_string()).unwrap();
    assert_eq!(bundle.oci(&["exec", "--process", file.to_str().unwrap(), &bundle.id]).ok(), "3\n4\n");
    let pid_file = bundle.path().join("pid");
    bundle.oci(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), &bundle.id, "sleep", "50"]).ok();
    let pid = std::fs::read_to_string(pid_file).unwrap();
    assert!(bundle.oci(&["ps", "-f", "json", &bundle.id]).ok().contains(&pid));
}

#[test]
fn failures_are_named() {
    let bundle = running!();
    for (words, expected) in [
        (&["absent-command"][..], "executable file not found in $PATH"),
        (&["/absent/path"], "no such file or directory in the image"),
        (&["/etc"], "permission denied: it is a directory"),
        (&["/etc/passwd"], "permission denied: it is not executable"),
    ] {
        let done = bundle.exec(words);
        assert_eq!(done.code, 255);
        assert!(done.err.contains(expected), "{}", done.err);
    }
    let done = bundle.oci(&["exec", "--cwd", "/nowhere", &bundle.id, "true"]);
    assert!(done.err.contains("it does not exist in the container"), "{}", done.err);
    for user in ["-1", "4294967295", "4294967296", "0x0", "1:", "root"] {
        let done = bundle.oci(&["exec", &format!("--user={user}"), &bundle.id, "id"]);
        assert!(done.failed().contains("is no user or group id"), "{user}");
    }
}

#[test]
fn a_created_container_can_be_joined_and_its_init_is_closed_to_it() {
    let mut bundle = bundle!();
    bundle.shell("true");
    bundle.create().ok();
    // Init holds descriptors of the host while it waits: nobody in the container may see them or its memory.
    let done = bundle.exec(&[
        "sh",
        "-c",
        "ls -l /proc/1/fd /proc/1/cwd; cat /proc/1/environ /proc/1/maps; readlink /proc/1/exe",
    ]);
    assert!(done.err.matches("ermission denied").count() >= 4, "{}{}", done.text(), done.err);
    assert!(!done.text().contains("->") && !done.text().contains("memfd"), "{}", done.text());
}
