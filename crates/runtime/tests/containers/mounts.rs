//! Mounts: sources, targets, attributes, propagation, id maps.

use std::os::unix::fs::{MetadataExt, symlink};

use serde_json::json;

use crate::bundle::bundle;

#[test]
fn directories_and_files_are_bound_and_targets_made() {
    let mut bundle = bundle!();
    let source = bundle.path().join("volume");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("file"), "content").unwrap();
    symlink("../run/resolv/stub.conf", bundle.rootfs().join("etc/resolv.conf")).unwrap();
    bundle.mount(json!({"destination": "/data/deep/dir", "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid"]}));
    bundle.mount(
        json!({"destination": "/etc/resolv.conf", "source": source.join("file"), "options": ["bind"]}),
    );
    bundle.shell("ls /data/deep/dir; cat /etc/resolv.conf; touch /data/deep/dir/x; grep /data /proc/mounts");
    let done = bundle.run();
    let text = done.text();
    assert!(text.contains("file\nsub\ncontent") && done.err.contains("Read-only"), "{text}{}", done.err);
    assert!(text.contains("ro,nosuid"), "{text}");
    assert!(bundle.rootfs().join("run/resolv/stub.conf").is_file());
}

#[test]
fn what_is_mounted_below_comes_along_whatever_else_is_said() {
    let mut bundle = bundle!();
    // As CRI-O writes a volume's options. Every host has its terminals mounted below /dev.
    let options = ["rbind", "rprivate", "ro", "bind"];
    bundle.mount(json!({"destination": "/volume", "type": "bind", "source": "/dev", "options": options}));
    bundle.shell("grep -q ' /volume/pts devpts rw' /proc/mounts && test -c /volume/pts/ptmx && echo there");
    assert_eq!(bundle.run().ok(), "there\n");
}

#[test]
fn recursive_attributes_reach_mounts_below() {
    let mut bundle = bundle!();
    // Two mounts, one below the other, inside the container: the second tmpfs covers a directory of the first bind.
    let source = bundle.path().join("volume");
    std::fs::create_dir_all(source.join("inner")).unwrap();
    bundle.mount(json!({"destination": "/a", "type": "bind", "source": source, "options": ["rbind", "rro", "rnoexec"]}));
    bundle.mount(json!({"destination": "/a/inner", "type": "tmpfs", "source": "tmpfs"}));
    bundle.shell("touch /a/x; touch /a/inner/x && grep ' /a ' /proc/mounts");
    let done = bundle.run();
    assert!(done.err.contains("Read-only"), "{}", done.err);
    assert!(done.ok().contains("noexec"));
}

#[test]
fn an_id_mapped_mount_shows_the_containers_owner() {
    let mut bundle = bundle!();
    let source = bundle.path().join("volume");
    std::fs::create_dir_all(&source).unwrap();
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    bundle.mount(json!({
        "destination": "/data", "type": "bind", "source": source, "options": ["rbind", "ridmap"],
        "uidMappings": map, "gidMappings": map,
    }));
    bundle.shell("stat -c %u /data");
    assert_eq!(bundle.run().ok(), "5000\n");
    // In a user namespace its own map is the default.
    let mut bundle = bundle!();
    std::fs::create_dir_all(bundle.path().join("volume")).unwrap();
    let source = bundle.path().join("volume");
    bundle.user_namespace(300_000);
    bundle.mount(
        json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "idmap"]}),
    );
    bundle.shell("stat -c %u /data; touch /data/made");
    assert_eq!(bundle.run().ok(), "0\n");
    assert_eq!(std::fs::metadata(source.join("made")).unwrap().uid(), 0);
}

#[test]
fn a_tmpfs_starts_with_a_copy_if_asked() {
    let mut bundle = bundle!();
    std::fs::create_dir_all(bundle.rootfs().join("cfg/sub")).unwrap();
    std::fs::write(bundle.rootfs().join("cfg/sub/file"), "kept").unwrap();
    symlink("sub/file", bundle.rootfs().join("cfg/link")).unwrap();
    bundle.mount(json!({"destination": "/cfg", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro", "size=1m"]}));
    bundle.shell("cat /cfg/link; touch /cfg/x");
    let done = bundle.run();
    assert_eq!(done.text(), "kept");
    assert!(done.err.contains("Read-only"), "{}", done.err);
}

#[test]
fn the_root_is_read_only_if_asked_and_private_to_the_container() {
    let mut bundle = bundle!();
    bundle.config["root"]["readonly"] = true.into();
    bundle.shell("touch /x; mount -t tmpfs none /tmp 2>/dev/null; grep -c shared /proc/self/mountinfo");
    let done = bundle.run();
    assert!(done.err.contains("Read-only") && done.text() == "0\n", "{}{}", done.text(), done.err);
}

#[test]
fn a_tmpfs_has_the_mode_of_its_place() {
    use std::os::unix::fs::PermissionsExt;
    let mut bundle = bundle!();
    let place = bundle.rootfs().join("place");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o710)).unwrap();
    bundle.mount(json!({"destination": "/place", "type": "tmpfs", "source": "tmpfs"}));
    bundle.mount(
        json!({"destination": "/other", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1700"]}),
    );
    bundle.mount(json!({"destination": "/new", "type": "tmpfs", "source": "tmpfs"}));
    bundle.shell("stat -c %a /place /other /new");
    assert_eq!(bundle.run().ok(), "710\n1700\n1777\n");
}

#[test]
fn propagation_is_as_asked() {
    for (word, root, expected) in
        [("rslave", "", "private"), ("rshared", "shared", "shared:"), ("private", "", "private")]
    {
        let mut bundle = bundle!();
        let source = bundle.path().join("volume");
        std::fs::create_dir_all(&source).unwrap();
        bundle.config["linux"]["rootfsPropagation"] = root.into();
        bundle.mount(
            json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind", word]}),
        );
        bundle.shell("grep ' /data ' /proc/self/mountinfo; grep ' / / \\|/rootfs / ' /proc/self/mountinfo");
        let text = bundle.run().ok();
        // A slave of a private mount is private: this host's own file systems decide between the two.
        let data = text.lines().next().unwrap();
        match expected {
            "shared:" => assert!(data.contains("shared:"), "{word}: {text}"),
            _ => assert!(!data.contains("shared:"), "{word}: {text}"),
        }
        assert_eq!(text.lines().last().unwrap().contains("shared:"), root == "shared", "{text}");
    }
}

/// Mounts made on the source while the container is made, when its other mounts take long, are seen like any made later.
#[test]
fn nothing_that_is_mounted_meanwhile_is_missed() {
    let mut bundle = bundle!();
    // Of this thread, and of the programs that it starts.
    sys::namespace::leave(sys::namespace::kind::MOUNT).unwrap();
    let mount = |args: &[&std::ffi::OsStr]| {
        assert!(std::process::Command::new("mount").args(args).status().unwrap().success(), "{args:?}");
    };
    let source = bundle.path().join("volume");
    std::fs::create_dir_all(&source).unwrap();
    mount(&["--make-rprivate".as_ref(), "/".as_ref()]);
    mount(&["-t".as_ref(), "tmpfs".as_ref(), "volume".as_ref(), source.as_os_str()]);
    // The bundle's folder can only be removed without it.
    struct Mounted<'a>(&'a std::path::Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").args(["-R", "-l"]).arg(self.0).status();
        }
    }
    let _mounted = Mounted(&source);
    mount(&["--make-shared".as_ref(), source.as_os_str()]);
    // Copying this is what takes long.
    let slow = bundle.rootfs().join("slow");
    std::fs::create_dir_all(&slow).unwrap();
    for number in 0..1500 {
        std::fs::write(slow.join(number.to_string()), "x").unwrap();
    }
    bundle
        .mount(json!({"destination": "/slow", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}));
    bundle.mount(json!({"destination": "/data", "type": "bind", "source": source, "options": ["rbind", "rslave", "nosuid"]}));
    bundle.shell("grep -c ' /data .*nosuid' /proc/mounts; i=0; while [ $i -lt 100 ]; do ls /data; [ $(ls /data/*/late | wc -l) = 12 ] && exit 0; i=$((i+1)); sleep 0.1; done; exit 1");
    let places: Vec<_> = (0..12).map(|number| source.join(number.to_string())).collect();
    places.iter().for_each(|place| std::fs::create_dir(place).unwrap());
    let done = std::thread::scope(|scope| {
        // A thread of this one has its mount namespace.
        let mounting = scope.spawn(|| {
            for place in &places {
                std::thread::sleep(std::time::Duration::from_millis(10));
                mount(&["-t".as_ref(), "tmpfs".as_ref(), "late".as_ref(), place.as_os_str()]);
                std::fs::write(place.join("late"), "").unwrap();
            }
        });
        let done = bundle.run();
        mounting.join().unwrap();
        done
    });
    assert_eq!(done.code, 0, "{}{}", done.text(), done.err);
    assert!(done.text().starts_with("1\n"), "its own attributes: {}", done.text());
}

#[test]
fn the_cgroup_view_is_the_containers_own_and_not_writable() {
    let mut bundle = bundle!();
    // Version 1 has a folder for each controller, version 2 has its files right there.
    bundle.shell("cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x");
    let done = bundle.run();
    let text = done.text();
    let groups: Vec<&str> = text.lines().take_while(|line| !line.starts_with("/sys")).collect();
    assert!(!groups.is_empty() && groups.iter().all(|line| line.ends_with(":/")), "{text}");
    assert!(groups.len() < text.lines().count(), "{text}");
    assert!(done.code != 0 && !text.contains(&bundle.id), "{text}");
}
