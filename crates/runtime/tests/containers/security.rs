//! The attacks that runtimes fell to: each must fail here, and the host stay as it was.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::bundle::{bundle, oci};

#[test]
fn a_working_directory_through_a_descriptor_is_refused() {
    // CVE-2024-21626.
    let mut bundle = bundle!();
    bundle.shell("pwd; ls");
    for number in (3..20).chain([1023]) {
        bundle.config["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        let message = bundle.run().failed();
        assert!(message.contains("working directory"), "{number}: {message}");
    }
    for link in ["/proc/self/cwd", "/proc/1/root", "/proc/self/fd/../cwd"] {
        bundle.config["process"]["cwd"] = link.into();
        bundle.run().failed();
    }
    bundle.config["process"]["cwd"] = "/".into();
    bundle.shell("sleep 600");
    bundle.create().ok();
    bundle.start().ok();
    for number in (3..20).chain([1023]) {
        let cwd = format!("--cwd=/proc/self/fd/{number}");
        let message = bundle.oci(&["exec", &cwd, &bundle.id, "pwd"]).failed();
        assert!(message.contains("working directory"), "{number}: {message}");
    }
    // A link of the image to such a place is no better.
    symlink("/proc/self/fd/7", bundle.rootfs().join("link")).unwrap();
    bundle.oci(&["exec", "--cwd=/link", &bundle.id, "pwd"]).failed();
}

#[test]
fn no_descriptor_of_the_host_reaches_the_container() {
    let mut bundle = bundle!();
    bundle.shell("for f in /proc/self/fd/*; do echo $f $(readlink $f); done; sleep 1");
    bundle.save();
    let script = format!(
        "exec 5</etc/passwd 9</etc 200</etc/hostname; exec {} --root {} run {}",
        oci().display(),
        bundle.states().display(),
        bundle.id
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]).current_dir(bundle.path());
    let text = bundle.to_end(command).ok();
    let open: Vec<&str> =
        text.lines().filter(|line| line.split(' ').nth(1).is_some_and(|target| !target.is_empty())).collect();
    assert!(
        open.iter().all(|line| ["/0 ", "/1 ", "/2 "].iter().any(|number| line.contains(number))),
        "{text}"
    );
    assert!(!text.contains("passwd") && !text.contains("cgroup"), "{text}");
    // Those that are asked for are passed.
    bundle.shell("cat <&3");
    bundle.save();
    let script = script.replace("5</etc/passwd", "3</etc/passwd").replace(" run ", " run --preserve-fds 1 ");
    let mut command = std::process::Command::new("bash");
    command.args(["-c", &script]).current_dir(bundle.path());
    assert!(bundle.to_end(command).ok().contains("root:"));
}

#[test]
fn swapping_a_mount_target_leads_nowhere() {
    // CVE-2021-30465, CVE-2024-45310: the image's owner swaps a directory for a link while mounts are made.
    let mut bundle = bundle!();
    let outside = bundle.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let (real, link) = (bundle.rootfs().join("swapped"), bundle.rootfs().join("other"));
    std::fs::create_dir(&real).unwrap();
    symlink(&outside, &link).unwrap();
    for name in ["dir/a", "dir/b", "file"] {
        bundle.mount(match name {
            "file" => json!({"destination": "/swapped/file", "source": "/etc/hostname", "options": ["bind"]}),
            name => json!({"destination": format!("/swapped/{name}"), "type": "tmpfs", "source": "tmpfs"}),
        });
    }
    bundle.shell("true");
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut swaps = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &real, cwd, &link, rustix::fs::RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        }
    });
    let begun = std::time::Instant::now();
    let (mut runs, mut refused) = (0, 0);
    while runs < 60 && begun.elapsed().as_secs() < 6 {
        refused += i32::from(bundle.run().code != 0);
        runs += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapper.join().unwrap();
    println!("{runs} runs, {refused} refused, {swaps} swaps");
    assert!(swaps > 1000);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn proc_and_sys_cannot_be_faked() {
    // CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881.
    for place in ["proc", "sys"] {
        let mut bundle = bundle!();
        std::fs::create_dir(bundle.rootfs().join("fake")).unwrap();
        symlink("fake", bundle.rootfs().join(place)).unwrap();
        bundle.shell("true");
        let message = bundle.create().failed();
        assert!(message.contains("is a symbolic link in the image"), "{message}");
        assert_eq!(bundle.leftovers(), Vec::<String>::new());
    }
    let mut bundle = bundle!();
    let source = bundle.path().join("volume");
    std::fs::create_dir(&source).unwrap();
    let mounts = bundle.config["mounts"].clone();
    for destination in
        ["/proc", "/proc/self/attr", "/proc/sys", "/proc/1", "/proc/sysrq-trigger", "/tmp/../proc/self"]
    {
        bundle.config["mounts"] = mounts.clone();
        bundle.mount(
            json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]}),
        );
        bundle.shell("true");
        let message = bundle.create().failed();
        assert!(message.contains("a mount cannot replace /proc"), "{destination}: {message}");
    }
    bundle.config["mounts"] = mounts;
    bundle.mount(json!({"destination": "/proc/uptime", "type": "bind", "source": "/etc/hostname", "options": ["bind"]}));
    bundle.run().ok();
}

#[test]
fn a_sysctl_goes_to_the_kernel_whatever_is_mounted() {
    let mut bundle = bundle!();
    let source = bundle.path().join("volume");
    std::fs::create_dir_all(source.join("net/ipv4")).unwrap();
    std::fs::write(source.join("net/ipv4/ip_forward"), "fake").unwrap();
    // A link of the image that leads from a harmless place to the kernel's.
    symlink("/proc/sys", bundle.rootfs().join("alias")).unwrap();
    bundle.mount(json!({"destination": "/alias", "type": "bind", "source": source, "options": ["bind"]}));
    bundle.config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    bundle.config["linux"]["readonlyPaths"] = json!([]);
    bundle.shell("true");
    let _ = bundle.run();
    assert_eq!(std::fs::read_to_string(source.join("net/ipv4/ip_forward")).unwrap(), "fake");
}

#[test]
fn devices_are_not_made_through_links() {
    // CVE-2026-41579 and CVE-2026-47766.
    let mut bundle = bundle!();
    let outside = bundle.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.mount(json!({"destination": "/volume", "type": "bind", "source": outside, "options": ["bind"]}));
    for target in [outside.to_str().unwrap(), "/volume", "../../outside"] {
        let link = bundle.rootfs().join("dev");
        let _ = std::fs::remove_file(&link);
        symlink(target, &link).unwrap();
        bundle.shell("true");
        let message = bundle.create().failed();
        assert!(message.contains("dev is a symbolic link in the image"), "{message}");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
    std::fs::remove_file(bundle.rootfs().join("dev")).unwrap();
    std::fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink("/volume", bundle.rootfs().join("dev/net")).unwrap();
    bundle.config["linux"]["devices"] =
        json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}]);
    assert!(bundle.create().failed().contains("symbolic link"));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(bundle.leftovers(), Vec::<String>::new());
}

#[test]
fn a_bad_null_device_masks_nothing_and_is_refused() {
    // CVE-2025-31133.
    let mut bundle = bundle!();
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    std::fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink("/proc/sysrq-trigger", bundle.rootfs().join("dev/null")).unwrap();
    bundle.shell("true");
    let message = bundle.create().failed();
    assert!(message.contains("/dev/null: is there and is something else"), "{message}");
    std::fs::remove_file(bundle.rootfs().join("dev/null")).unwrap();
    std::fs::write(bundle.rootfs().join("dev/null"), "").unwrap();
    assert!(bundle.create().failed().contains("is something else"));
}

#[test]
fn masked_paths_are_covered_inside_also_through_links() {
    let mut bundle = bundle!();
    std::fs::write(bundle.rootfs().join("etc/secret"), "secret").unwrap();
    let outside = bundle.path().join("outside");
    std::fs::write(&outside, "host").unwrap();
    symlink("/etc/secret", bundle.rootfs().join("link")).unwrap();
    symlink(&outside, bundle.rootfs().join("away")).unwrap();
    std::fs::create_dir(bundle.rootfs().join("hidden")).unwrap();
    std::fs::write(bundle.rootfs().join("hidden/file"), "secret").unwrap();
    bundle.config["linux"]["maskedPaths"] =
        json!(["/link", "/away", "/hidden", "/work", "/absent", "/proc/keys"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/tmp", "/absent"]);
    bundle.config["process"]["capabilities"] = json!({});
    bundle.shell("cat /etc/secret; ls /hidden; stat -c %t:%T /etc/secret /proc/keys; touch /hidden/x /tmp/x; chmod 0 /etc/secret");
    let done = bundle.run();
    assert_eq!(done.text(), "1:3\n1:3\n");
    assert_eq!(done.err.matches("Read-only").count(), 3, "{}", done.err);
    assert_eq!(std::fs::metadata("/dev/null").unwrap().permissions().mode() & 0o777, 0o666);
    assert_eq!(std::fs::read_to_string(outside).unwrap(), "host");
}

#[test]
fn the_runtimes_own_program_cannot_be_overwritten() {
    // CVE-2019-5736: the command is the runtime itself, which then runs inside with a way to its file.
    let mut bundle = bundle!();
    let before = std::fs::read(oci()).unwrap();
    let script = bundle.rootfs().join("etc/evil");
    std::fs::write(&script, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    bundle.args(&["/etc/evil"]);
    bundle.create().ok();
    let exe = std::fs::read_link(format!("/proc/{}/exe", bundle.pid())).unwrap();
    assert!(exe.to_str().unwrap().contains("memfd:"), "{}", exe.display());
    let _ = bundle.start();
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
    bundle.shell("sleep 30");
    bundle.create().ok();
    bundle.start().ok();
    for words in [
        &["/proc/self/exe"][..],
        &["/etc/evil"],
        &["sh", "-c", "echo x > /proc/1/exe; echo x > /proc/self/exe"],
    ] {
        let _ = bundle.exec(words);
    }
    assert!(std::fs::read(oci()).unwrap() == before, "the program was changed");
}

#[test]
fn cgroups_are_not_writable_in_any_user_namespace() {
    // CVE-2023-25809.
    for own_view in [true, false] {
        for start in [0, 300_000] {
            let mut bundle = bundle!();
            if start != 0 {
                bundle.user_namespace(start);
            }
            if !own_view {
                bundle.config["linux"]["namespaces"]
                    .as_array_mut()
                    .unwrap()
                    .retain(|n| n["type"] != "cgroup");
            }
            bundle.shell("for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo made $d; done; true");
            assert_eq!(bundle.run().ok(), "", "own view {own_view}, first id {start}");
        }
    }
}
