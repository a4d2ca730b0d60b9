//! What containers may do, and who may walk into the folders of the daemon.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use cri::runtime_v1 as v1;
use tonic::Code;

use crate::support::{self, Daemon, Setup, in_own_network};
use crate::{needs_a_node, security};

#[test]
fn rights_are_those_that_were_given() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let start = async |name: &str, change: fn(&mut v1::LinuxContainerSecurityContext)| {
            let mut asked = daemon.container(name, "exec sleep 1000");
            change(security(&mut asked));
            let id = daemon.create(&pod, &config, &asked).await.unwrap();
            daemon.start_container(&id).await.unwrap();
            id
        };
        let field = async |id: &str, process: &str, name: &str| {
            let line = daemon.sh(id, &format!("grep ^{name}: /proc/{process}/status")).await;
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let plain = start("plain", |context| {
            context.namespace_options =
                Some(v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() });
            context.masked_paths =
                ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware"].map(Into::into).into();
            context.readonly_paths = ["/proc/sys", "/proc/sysrq-trigger"].map(Into::into).into();
            context.seccomp = Some(v1::SecurityProfile::default());
        })
        .await;
        for process in ["1", "self"] {
            assert_eq!(field(&plain, process, "CapEff").await, "00000000a80425fb", "{process}");
            assert_eq!(field(&plain, process, "CapBnd").await, "00000000a80425fb", "{process}");
            assert_eq!(field(&plain, process, "CapInh").await, "0000000000000000", "{process}");
            assert_eq!(field(&plain, process, "CapAmb").await, "0000000000000000", "{process}");
            assert_eq!(field(&plain, process, "Seccomp").await, "2", "{process}");
        }
        assert_eq!(
            daemon
                .sh(
                    &plain,
                    "cat /proc/kcore /proc/keys | wc -c; ls /proc/acpi /sys/firmware | grep -v : | wc -w"
                )
                .await,
            "0\n0\n"
        );
        for refused in [
            "echo 1 > /proc/sys/kernel/panic",
            "echo h > /proc/sysrq-trigger",
            "touch /sys/x",
            "mkdir /sys/fs/cgroup/x",
            "mount -t tmpfs none /tmp",
            "mount -o remount,rw /proc/sys",
            "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
            "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg",
            "ip link set lo down",
            "hostname other",
            "kill -9 1; test -d /proc/1 && false",
        ] {
            let done = daemon.exec(&plain, &["sh", "-c", refused], 5).await.unwrap();
            assert_ne!(done.exit_code, 0, "{refused}: {done:?}");
        }
        let strict = start("strict", |context| {
            context.no_new_privs = true;
            context.readonly_rootfs = true;
            context.run_as_user = Some(v1::Int64Value { value: 1000 });
            context.supplemental_groups = vec![4000];
            context.capabilities =
                Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
        })
        .await;
        assert_eq!(field(&strict, "self", "NoNewPrivs").await, "1");
        for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
            assert_eq!(field(&strict, "self", set).await, "0000000000000000", "{set}");
        }
        assert_eq!(daemon.sh(&strict, "id -u; id -g; id -G").await, "1000\n1000\n1000 2000 4000\n");
        let touched = daemon.exec(&strict, &["touch", "/tmp/x"], 5).await.unwrap();
        assert!(
            touched.exit_code != 0 && String::from_utf8_lossy(&touched.stderr).contains("Read-only"),
            "{touched:?}"
        );
        daemon.sh(&strict, "echo x > /dev/shm/x; echo y > /dev/null").await;
        // The init of the namespace that the pod's containers share has no rights, and no files that tracing it would lead to.
        let tracer = start("tracer", |context| {
            context.capabilities =
                Some(v1::Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Default::default() });
        })
        .await;
        assert_eq!(field(&tracer, "1", "CapPrm").await, "0000000000000000");
        assert_eq!(field(&tracer, "1", "NoNewPrivs").await, "1");
        assert_eq!(
            daemon
                .sh(&tracer, "ls -A /proc/1/root/ /proc/1/root/../ /proc/1/cwd/ | grep -v :; true")
                .await
                .trim(),
            ""
        );
        assert_eq!(
            daemon.sh(&tracer, "for fd in /proc/1/fd/*; do readlink $fd; done | grep -c /; true").await,
            "0\n"
        );
        // A user's processes have no capability that they were not given, an added one is there.
        let added = start("added", |context| {
            context.capabilities =
                Some(v1::Capability { add_capabilities: vec!["NET_ADMIN".into()], ..Default::default() });
        })
        .await;
        assert_eq!(field(&added, "self", "CapEff").await, "00000000a80435fb");
        daemon.empty().await;
        // All rights need a pod that has them.
        let mut config = daemon.pod("privileged");
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default().privileged = true;
        let pod = daemon.run_pod(&config).await.unwrap();
        let mut asked = daemon.container("c", "exec sleep 1000");
        security(&mut asked).privileged = true;
        let id = daemon.create(&pod, &config, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let bounding = own.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap().trim();
        assert_eq!(field(&id, "self", "CapEff").await, bounding);
        assert_eq!(field(&id, "self", "Seccomp").await, "0");
        daemon.sh(&id, "mount -t tmpfs none /tmp && touch /tmp/x && test -c /dev/kmsg || test -c /dev/loop-control || ls /dev").await;
        let small = daemon.pod("small");
        let pod = daemon.run_pod(&small).await.unwrap();
        let error = daemon.create(&pod, &small, &asked).await.unwrap_err();
        assert!(matches!(error.code(), Code::InvalidArgument | Code::FailedPrecondition), "{error}");
        assert!(error.message().contains("privileged"), "{error}");
        daemon.empty().await;
    });
}

/// What below `folder` others may do that they should not.
fn too_open(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(facts) = entry.path().symlink_metadata() else { continue };
        let (kind, mode) = (facts.file_type(), facts.permissions().mode() & 0o7777);
        let bad = (kind.is_socket() && mode & 0o077 != 0)
            || (!kind.is_symlink() && mode & 0o002 != 0 && mode & 0o1000 == 0);
        if bad {
            found.push(format!("{mode:o} {}", entry.path().display()));
        }
        if kind.is_dir() {
            too_open(&entry.path(), found);
        }
    }
}

#[test]
fn nobody_else_walks_in_whatever_the_umask() {
    needs_a_node!();
    in_own_network(async {
        for umask in [0o000, 0o777] {
            let daemon = Daemon::start_as(Setup { umask: Some(umask), ..Setup::default() }).await;
            let config = daemon.pod("p");
            let pod = daemon.run_pod(&config).await.unwrap();
            let mut asked = daemon.container("c", "echo said; cat /etc/hosts /etc/resolv.conf /etc/hostname > /dev/null && stat -c %a / /tmp /etc /bin/busybox /etc/hosts");
            security(&mut asked).run_as_user = Some(v1::Int64Value { value: 1000 });
            let id = daemon.create(&pod, &config, &asked).await.unwrap();
            daemon.start_container(&id).await.unwrap();
            assert_eq!(daemon.exited(&id).await.exit_code, 0, "{umask:o}: {}", daemon.log_of("p", "c"));
            assert_eq!(daemon.log_of("p", "c"), "said\n755\n1777\n755\n755\n644\n", "{umask:o}");
            for folder in ["root", "state"] {
                let mode = std::fs::metadata(daemon.path(folder)).unwrap().permissions().mode();
                assert_eq!(mode & 0o7777, 0o700, "{folder} with umask {umask:o}");
            }
            let socket = std::fs::metadata(daemon.socket()).unwrap();
            assert_eq!(socket.permissions().mode() & 0o7777, 0o600);
            let mut found = Vec::new();
            for folder in ["root", "state", "logs"] {
                too_open(&daemon.path(folder), &mut found);
            }
            assert_eq!(found, Vec::<String>::new(), "umask {umask:o}");
            // No socket that a process in the pod's network could reach by an abstract name.
            let shim = std::fs::read_to_string(daemon.path(&format!("state/pods/{pod}/shim.json")));
            let id = daemon.run(&pod, &config, "c2", "sleep 1000").await;
            assert_eq!(daemon.sh(&id, "grep -c @ /proc/net/unix; true").await, "0\n", "{shim:?}");
            daemon.empty().await;
        }
    });
}
