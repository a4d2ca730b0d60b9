//! What is read of the kernel and of a bundle.

use super::*;

#[test]
fn the_cgroup_is_where_memory_is_counted() {
    let v1 = "13:pids:/a\n4:cpu,cpuacct:/b\n3:memory:/kube/pod:1/x\n0::/\n";
    assert_eq!(cgroup_in(v1).unwrap(), PathBuf::from("/kube/pod:1/x"));
    assert_eq!(cgroup_in("0::/kubepods.slice/a.scope\n").unwrap(), PathBuf::from("/kubepods.slice/a.scope"));
    assert_eq!(cgroup_in("0::/\n"), None);
    assert_eq!(cgroup_in("0::/gone (deleted)\n"), None);
    assert_eq!(cgroup_in(""), None);
}

#[test]
fn a_namespace_of_its_own_has_no_path() {
    let folder = tempfile::tempdir().unwrap();
    let config = |text: &str| std::fs::write(folder.path().join("config.json"), text).unwrap();
    config(r#"{"linux":{"namespaces":[{"type":"mount"},{"type":"pid"}]}}"#);
    assert!(own_pid_namespace(folder.path()));
    config(r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#);
    assert!(!own_pid_namespace(folder.path()));
    config("not json");
    assert!(!own_pid_namespace(folder.path()));
}
