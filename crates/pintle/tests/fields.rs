//! Every field of a pod's and a container's configuration does what CRI says of it, seen from inside the container.

mod support;

use std::process::Command;

use cri::runtime_v1 as v1;
use registry::tar::Entry;
use support::{Daemon, Setup, in_own_network};
use tonic::Code;

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

fn user(value: i64) -> Option<v1::Int64Value> {
    Some(v1::Int64Value { value })
}

fn is_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A daemon with one pod.
struct Place {
    daemon: Daemon,
    config: v1::PodSandboxConfig,
    pod: String,
}

impl Place {
    async fn new() -> Place {
        Place::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut v1::PodSandboxConfig)) -> Place {
        let daemon = Daemon::start_as(Setup::default()).await;
        let mut config = daemon.pod("fields");
        change(&mut config);
        let pod = daemon.run_pod(&config).await.unwrap();
        Place { daemon, config, pod }
    }

    /// Creates a container that sleeps, changed by `change`.
    async fn create(
        &self,
        name: &str,
        change: impl FnOnce(&mut v1::ContainerConfig),
    ) -> Result<String, tonic::Status> {
        let mut asked = self.daemon.container(name, "exec sleep 1000");
        change(&mut asked);
        self.daemon.create(&self.pod, &self.config, &asked).await
    }

    async fn start(&self, name: &str, change: impl FnOnce(&mut v1::ContainerConfig)) -> String {
        let id = self.create(name, change).await.unwrap();
        self.daemon.start_container(&id).await.unwrap();
        id
    }

    /// The exit code of a script in the container.
    async fn code(&self, id: &str, script: &str) -> i32 {
        self.daemon.exec(id, &["sh", "-c", script], 10).await.unwrap().exit_code
    }

    async fn refused(&self, code: Code, words: &[&str], change: impl FnOnce(&mut v1::ContainerConfig)) {
        let before = self.daemon.inventory().await;
        let error = self.create("refused", change).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        for words in words {
            assert!(error.message().contains(words), "{words}: {error}");
        }
        assert_eq!(self.daemon.changed_since(&before, error.message()).await, None);
    }

    async fn done(self) {
        self.daemon.empty().await;
        assert_eq!(self.daemon.remains(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_reach_the_kernel_and_the_status() {
    needs_a_node!();
    let place = Place::new().await;
    let mut asked = v1::LinuxContainerResources {
        cpu_period: 50_000,
        cpu_quota: 25_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 64 << 20,
        memory_swap_limit_in_bytes: 96 << 20,
        oom_score_adj: 500,
        cpuset_cpus: "0".into(),
        cpuset_mems: "0".into(),
        hugepage_limits: vec![v1::HugepageLimit { page_size: "1GB".into(), limit: 0 }],
        ..Default::default()
    };
    if is_v2() {
        asked.unified = [("memory.high".to_owned(), "33554432".to_owned())].into();
    }
    let limits = asked.clone();
    let id = place.start("limits", |c| c.linux.get_or_insert_default().resources = Some(limits)).await;
    let files: &[(&str, &str)] = if is_v2() {
        &[
            ("cpu.max", "25000 50000"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "33554432"),
            ("memory.high", "33554432"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
        ]
    } else {
        &[
            ("cpu/cpu.cfs_quota_us", "25000"),
            ("cpu/cpu.cfs_period_us", "50000"),
            ("cpu/cpu.shares", "512"),
            ("memory/memory.limit_in_bytes", "67108864"),
            ("cpuset/cpuset.cpus", "0"),
            ("cpuset/cpuset.mems", "0"),
        ]
    };
    for (file, value) in files {
        assert_eq!(
            place.daemon.sh(&id, &format!("cat /sys/fs/cgroup/{file}")).await.trim(),
            *value,
            "{file}"
        );
    }
    let swap = "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes 2> /dev/null || echo 100663296";
    assert_eq!(place.daemon.sh(&id, swap).await.trim(), "100663296");
    assert_eq!(
        place.daemon.sh(&id, "cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status").await,
        "500\nCpus_allowed_list:\t0\n"
    );
    let told = place.daemon.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!(told, asked);

    type Change = fn(&mut v1::LinuxContainerResources);
    let bad: &[(Code, &str, Change)] = &[
        (Code::FailedPrecondition, "hugepage", |r| {
            r.hugepage_limits = vec![v1::HugepageLimit { page_size: "16GB".into(), limit: 1 << 34 }]
        }),
        (Code::InvalidArgument, "hugepage", |r| {
            r.hugepage_limits = vec![v1::HugepageLimit { page_size: "../x".into(), limit: 1 }]
        }),
        (Code::InvalidArgument, "memory_swap", |r| {
            (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (64 << 20, 32 << 20)
        }),
        (Code::InvalidArgument, "cpu_quota", |r| r.cpu_quota = 5),
        (Code::InvalidArgument, "cpu_period", |r| r.cpu_period = 5_000_000),
        (Code::InvalidArgument, "cpu_shares", |r| r.cpu_shares = -1),
        (Code::InvalidArgument, "cpuset_mems", |r| r.cpuset_mems = "a".into()),
    ];
    for (code, words, change) in bad {
        place
            .refused(*code, &[words], |c| {
                change(c.linux.get_or_insert_default().resources.get_or_insert_default())
            })
            .await;
    }
    let unified = |key: &str| [(key.to_owned(), "1".to_owned())].into();
    for key in ["cgroup.kill", "../memory.max", "memory"] {
        let code = if is_v2() { Code::InvalidArgument } else { Code::FailedPrecondition };
        place
            .refused(code, &["unified"], |c| {
                c.linux.get_or_insert_default().resources.get_or_insert_default().unified = unified(key)
            })
            .await;
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambient_capabilities_are_a_plain_users_too() {
    needs_a_node!();
    let place = Place::new().await;
    let field = async |id: &str, name: &str| {
        place.daemon.sh(id, &format!("grep ^{name}: /proc/1/status /proc/self/status | cut -f 2")).await
    };
    let with = |ambient: &[&str], drop: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let capabilities = v1::Capability {
            add_ambient_capabilities: owned(ambient),
            drop_capabilities: owned(drop),
            ..Default::default()
        };
        move |config: &mut v1::ContainerConfig| {
            let context = security(config);
            context.capabilities = Some(capabilities);
            context.run_as_user = user(1000);
            context.namespace_options =
                Some(v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() });
        }
    };
    // CAP_NET_BIND_SERVICE is bit 10.
    let both = "0000000000000400\n0000000000000400\n";
    let id = place.start("ambient", with(&["NET_BIND_SERVICE"], &["ALL"])).await;
    for set in ["CapAmb", "CapEff", "CapPrm", "CapInh", "CapBnd"] {
        assert_eq!(field(&id, set).await, both, "{set}");
    }
    let id = place.start("plain", with(&[], &[])).await;
    for set in ["CapAmb", "CapEff", "CapPrm", "CapInh"] {
        assert_eq!(field(&id, set).await, "0000000000000000\n0000000000000000\n", "{set}");
    }
    let unknown = with(&["MAGIC"], &[]);
    place.refused(Code::InvalidArgument, &["add_ambient_capabilities", "MAGIC"], unknown).await;
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_merged_or_strict() {
    needs_a_node!();
    let place = Place::new().await;
    for (name, policy, groups) in [
        ("merge", v1::SupplementalGroupsPolicy::Merge, vec![1000, 2000, 4000]),
        ("strict", v1::SupplementalGroupsPolicy::Strict, vec![1000, 4000]),
    ] {
        let id = place.start(name, |config| {
            let context = security(config);
            (context.run_as_user, context.supplemental_groups) = (user(1000), vec![4000]);
            context.supplemental_groups_policy = policy.into();
        });
        let id = id.await;
        let words: Vec<_> = groups.iter().map(ToString::to_string).collect();
        assert_eq!(place.daemon.sh(&id, "id -G").await.trim(), words.join(" "), "{name}");
        let told = place.daemon.status(&id).await.unwrap().user.unwrap().linux.unwrap();
        assert_eq!((told.uid, told.gid, told.supplemental_groups), (1000, 1000, groups));
    }
    let id = place
        .start("group", |config| {
            (security(config).run_as_user, security(config).run_as_group) = (user(1000), user(2000))
        })
        .await;
    assert_eq!(place.daemon.sh(&id, "id -u; id -g; echo $HOME").await, "1000\n2000\n/home/user\n");
    place
        .refused(Code::InvalidArgument, &["supplemental_groups_policy"], |config| {
            security(config).supplemental_groups_policy = 7
        })
        .await;
    place
        .refused(Code::InvalidArgument, &["supplemental_groups"], |config| {
            security(config).supplemental_groups = vec![-1]
        })
        .await;
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_are_any_bytes_also_for_exec() {
    needs_a_node!();
    let place = Place::new().await;
    let id = place.start("env", |config| {
        let set = |name: &str, value: &[u8]| v1::KeyValue { key: name.into(), value: value.into() };
        config.envs = vec![
            set("RAW", b"\xff\xfe=x\n\x01"),
            set("TEXT", "grün".as_bytes()),
            set("TWICE", b"first"),
            set("TWICE", b"\xff"),
            set("EMPTY", b""),
        ];
        config.command =
            ["sh", "-c", "echo -n \"$RAW\" > /raw; echo -n \"$TWICE\" > /twice; exec sleep 1000"]
                .map(String::from)
                .into();
    });
    let id = id.await;
    let raw = async |script: &str| place.daemon.exec(&id, &["sh", "-c", script], 10).await.unwrap().stdout;
    assert_eq!(raw("cat /raw").await, b"\xff\xfe=x\n\x01");
    assert_eq!(raw("cat /twice").await, b"\xff");
    assert_eq!(raw("echo -n \"$RAW\"").await, b"\xff\xfe=x\n\x01");
    assert_eq!(raw("echo -n \"$TEXT:$TWICE:$EMPTY:${EMPTY-unset}\"").await, b"gr\xc3\xbcn:\xff::");
    assert_eq!(raw("echo $HOSTNAME").await, raw("hostname").await);
    place
        .refused(Code::InvalidArgument, &["KEY"], |config| {
            config.envs = vec![v1::KeyValue { key: "KEY".into(), value: b"\xff\0".to_vec() }]
        })
        .await;
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_signal_is_the_requests_then_the_images() {
    needs_a_node!();
    let place = Place::new().await;
    let script = "for s in USR1 USR2 TERM; do trap \"echo $s > /dev/stdout; exit 0\" $s; done; echo ready; while :; do sleep 0.02; done";
    let image = place
        .daemon
        .image_with(
            "signal",
            &[Entry::file("x", 0o644, "")],
            serde_json::json!({ "StopSignal": "SIGUSR2", "Env": ["PATH=/bin"] }),
        )
        .await;
    for (name, image, signal, expected) in [
        ("asked", &image, v1::Signal::Sigusr1, (v1::Signal::Sigusr1, "ready\nUSR1\n")),
        ("image", &image, v1::Signal::RuntimeDefault, (v1::Signal::Sigusr2, "ready\nUSR2\n")),
        ("default", &place.daemon.image, v1::Signal::RuntimeDefault, (v1::Signal::Sigterm, "ready\nTERM\n")),
    ] {
        let id = place.start(name, |config| {
            config.command = ["sh", "-c", script].map(String::from).into();
            config.image.as_mut().unwrap().image = image.clone();
            config.stop_signal = signal.into();
        });
        let id = id.await;
        assert_eq!(place.daemon.status(&id).await.unwrap().stop_signal(), expected.0, "{name}");
        while place.daemon.log_of("fields", name) != "ready\n" {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        place.daemon.stop_container(&id, 10).await.unwrap();
        assert_eq!(place.daemon.log_of("fields", name), expected.1);
    }
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_are_masked_as_listed_and_an_empty_list_masks_nothing() {
    needs_a_node!();
    let place = Place::new().await;
    let masked = "cat /proc/keys /proc/timer_list | wc -c; echo 1 > /proc/sys/net/core/somaxconn";
    let usual = place.start("usual", |config| config.linux.as_mut().unwrap().security_context = None).await;
    assert_ne!(place.code(&usual, masked).await, 0, "what a client that sends no context means");
    assert_eq!(place.daemon.sh(&usual, "cat /proc/keys | wc -c").await, "0\n");
    let open = place
        .start("open", |config| {
            security(config);
        })
        .await;
    assert_ne!(place.daemon.sh(&open, "cat /proc/keys /proc/filesystems | wc -c").await, "0\n");
    assert_eq!(place.code(&open, "echo 1 > /proc/sys/net/core/somaxconn").await, 0);
    let listed = place.start("listed", |config| {
        security(config).masked_paths =
            vec!["/etc/passwd".into(), "/no/such/path".into(), "/bin/../tmp".into()];
        security(config).readonly_paths = vec!["/etc".into()];
    });
    let listed = listed.await;
    assert_eq!(place.daemon.sh(&listed, "cat /etc/passwd | wc -c").await, "0\n");
    assert_ne!(place.code(&listed, "echo x > /etc/x").await, 0);
    assert_ne!(place.code(&listed, "touch /tmp/x").await, 0, "a masked folder is empty and read-only");
    place
        .refused(Code::InvalidArgument, &["masked_paths"], |config| {
            security(config).masked_paths = vec!["proc/keys".into()]
        })
        .await;
    place
        .refused(Code::InvalidArgument, &["readonly_paths"], |config| {
            security(config).readonly_paths = vec![String::new()]
        })
        .await;
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_processes_of_a_target_are_joined_while_it_lives() {
    needs_a_node!();
    let place = Place::new().await;
    let own = |config: &mut v1::ContainerConfig| {
        security(config).namespace_options =
            Some(v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() });
    };
    let target_of = |target: &str| {
        let (pid, target_id) = (v1::NamespaceMode::Target.into(), target.to_owned());
        move |config: &mut v1::ContainerConfig| {
            security(config).namespace_options =
                Some(v1::NamespaceOption { pid, target_id, ..Default::default() })
        }
    };
    let target = place.create("target", own).await.unwrap();
    place.refused(Code::InvalidArgument, &["target_id", "not running"], target_of(&target)).await;
    place.daemon.start_container(&target).await.unwrap();
    let debugger = place.start("debugger", target_of(&target)).await;
    assert!(
        place.daemon.sh(&debugger, "cat /proc/1/cmdline | tr '\\000' ' '").await.starts_with("sleep 1000")
    );
    // One that was created, and whose target ends before it is started.
    let late = place.create("late", target_of(&target)).await.unwrap();
    place.daemon.stop_container(&target, 0).await.unwrap();
    let error = place.daemon.start_container(&late).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains(&target), "{error}");
    assert_eq!(place.daemon.exited(&late).await.exit_code, 137);
    assert_eq!(place.daemon.exited(&debugger).await.exit_code, 137, "it went with its target's namespace");
    // What those that have just ended leave is still being put away, so that only the answer is looked at.
    let error = place.create("after", target_of(&target)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("not running"), "{error}");
    place.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sysctls_are_the_pods_own() {
    needs_a_node!();
    let sysctl = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let place = Place::with(|config| {
        config.linux.as_mut().unwrap().sysctls = sysctl("net.ipv4.ip_local_port_range", "1024 1025")
    })
    .await;
    let id = place.start("c", |_| {}).await;
    assert_eq!(place.daemon.sh(&id, "cat /proc/sys/net/ipv4/ip_local_port_range").await, "1024\t1025\n");
    assert_ne!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap(), "1024\t1025\n");
    let before = place.daemon.inventory().await;
    for (host, name) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.shmmax"),
        ("ipc", "fs.mqueue.msg_max"),
        ("", "kernel.panic"),
        ("", "vm.swappiness"),
    ] {
        let mut config = place.daemon.pod("host");
        let linux = config.linux.as_mut().unwrap();
        linux.sysctls = sysctl(name, "1");
        let options =
            linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default();
        match host {
            "network" => options.network = v1::NamespaceMode::Node.into(),
            "ipc" => options.ipc = v1::NamespaceMode::Node.into(),
            _ => {}
        }
        let error = place.daemon.run_pod(&config).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        assert!(error.message().contains("sysctls") && error.message().contains(name), "{error}");
        assert_eq!(place.daemon.changed_since(&before, name).await, None);
    }
    place.done().await;
}

/// Mounts a tmpfs at `path` with this propagation.
fn mount_at(path: &std::path::Path, propagation: &str) {
    let run =
        |args: &[&std::ffi::OsStr]| assert!(Command::new("mount").args(args).status().unwrap().success());
    run(&["-t".as_ref(), "tmpfs".as_ref(), "x".as_ref(), path.as_os_str()]);
    run(&[propagation.as_ref(), path.as_os_str()]);
}

#[test]
fn mounts_are_as_they_were_asked_for() {
    needs_a_node!();
    // What is mounted here is seen by the daemon, and by nobody else.
    sys::namespace::leave(sys::namespace::kind::MOUNT).unwrap();
    assert!(Command::new("mount").args(["--make-rprivate", "/"]).status().unwrap().success());
    in_own_network(async {
        let place = Place::with(|config| {
            config.linux.as_mut().unwrap().security_context.get_or_insert_default().privileged = true
        })
        .await;
        let folder = place.daemon.path("host");
        for name in ["private/below", "shared"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        mount_at(&folder.join("private/below"), "--make-private");
        mount_at(&folder.join("shared"), "--make-shared");
        std::os::unix::fs::symlink("private", folder.join("link")).unwrap();
        std::fs::write(folder.join("private/program"), "#!/bin/sh\necho runs\n").unwrap();
        std::fs::set_permissions(
            folder.join("private/program"),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let host = |name: &str| folder.join(name).display().to_string();
        let mount = |name: &str, target: &str| v1::Mount {
            host_path: host(name),
            container_path: target.into(),
            ..Default::default()
        };
        let with_options = |target: &str, options: &[&str]| v1::Mount {
            mount_options: options.iter().map(ToString::to_string).collect(),
            ..mount("private", target)
        };
        let propagating = |target: &str, propagation: v1::MountPropagation| v1::Mount {
            propagation: propagation.into(),
            ..mount("shared", target)
        };
        let id = place.start("c", |config| {
            security(config).privileged = true;
            config.mounts = vec![
                mount("private", "/rw"),
                v1::Mount { readonly: true, ..mount("private", "/ro") },
                v1::Mount { readonly: true, recursive_read_only: true, ..mount("private", "/rro") },
                with_options("/noexec", &["noexec"]),
                with_options("/nosuid", &["nosuid", "nodev", "nosuid"]),
                mount("link", "/link"),
                mount("private/program", "/file"),
                propagating("/slave", v1::MountPropagation::PropagationHostToContainer),
                propagating("/peer", v1::MountPropagation::PropagationBidirectional),
            ];
        });
        let id = id.await;
        assert_eq!(
            place
                .daemon
                .sh(&id, "/rw/program; /link/program; /file; echo x > /rw/below/x; cat /ro/below/x")
                .await,
            "runs\nruns\nruns\nx\n"
        );
        for script in [
            "touch /ro/x",
            "touch /rro/x",
            "touch /rro/below/x",
            "/noexec/program",
            "mount -o remount,bind,rw /rro/below && false",
        ] {
            assert_ne!(place.code(&id, script).await, 0, "{script}");
        }
        assert_eq!(place.code(&id, "touch /ro/below/y").await, 0, "only the top is read-only");
        let options = place.daemon.sh(&id, "grep ' /nosuid ' /proc/self/mountinfo").await;
        assert!(
            options.contains("nosuid") && options.contains("nodev") && !options.contains("noexec"),
            "{options}"
        );
        // What the host mounts below is seen as asked, and what the container mounts is seen on the host only by Bidirectional.
        std::fs::create_dir_all(folder.join("shared/later")).unwrap();
        mount_at(&folder.join("shared/later"), "--make-shared");
        std::fs::write(folder.join("shared/later/seen"), "").unwrap();
        place.daemon.sh(&id, "test -e /slave/later/seen && test -e /peer/later/seen").await;
        place.daemon.sh(&id, "mkdir /peer/up /slave/down && mount -t tmpfs x /peer/up && touch /peer/up/seen && mount -t tmpfs x /slave/down && touch /slave/down/hidden").await;
        assert!(folder.join("shared/up/seen").exists() && !folder.join("shared/down/hidden").exists());
        let shown = place.daemon.status(&id).await.unwrap().mounts;
        assert!(shown[2].recursive_read_only && shown[2].readonly && shown[3].mount_options == ["noexec"]);

        type Change<'a> = &'a dyn Fn() -> v1::Mount;
        let cases: [(Code, &str, Change<'_>); 8] = [
            (Code::InvalidArgument, "recursive_read_only", &|| v1::Mount {
                recursive_read_only: true,
                ..mount("private", "/m")
            }),
            (Code::InvalidArgument, "recursive_read_only", &|| v1::Mount {
                recursive_read_only: true,
                readonly: true,
                ..propagating("/m", v1::MountPropagation::PropagationHostToContainer)
            }),
            (Code::InvalidArgument, "shared", &|| v1::Mount { propagation: 1, ..mount("private", "/m") }),
            (Code::InvalidArgument, "shared", &|| v1::Mount {
                propagation: 2,
                ..mount("private/below", "/m")
            }),
            (Code::InvalidArgument, "mounts[0]", &|| with_options("/m", &["exec"])),
            (Code::InvalidArgument, "mounts[0]", &|| with_options("/m", &["bind"])),
            (Code::FailedPrecondition, "absent", &|| mount("absent", "/m")),
            (Code::InvalidArgument, "propagation", &|| v1::Mount {
                propagation: 9,
                ..mount("private", "/m")
            }),
        ];
        for (code, words, bad) in cases {
            place.refused(code, &[words], |config| config.mounts = vec![bad()]).await;
        }
        place.daemon.empty().await;
        for name in ["shared/up", "shared/later", "shared", "private/below"] {
            assert!(Command::new("umount").arg(folder.join(name)).status().unwrap().success());
        }
        place.done().await;
    });
}
