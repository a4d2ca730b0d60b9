//! What images and their programs try: users, descriptors, the runtime's program, links, logs.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use registry::tar::Entry;
use serde_json::json;
use tonic::{Code, Status};

use crate::support::{self, Daemon, in_own_network};
use crate::{needs_a_node, security};

/// A pod with a container of `image`, which runs `script`.
async fn run_image(
    daemon: &Daemon,
    name: &str,
    image: &str,
    script: &str,
) -> Result<(String, String), Status> {
    let config = daemon.pod(name);
    let pod = daemon.run_pod(&config).await?;
    let mut asked = daemon.container("c", script);
    asked.image.as_mut().unwrap().image = image.into();
    let id = daemon.create(&pod, &config, &asked).await?;
    daemon.start_container(&id).await?;
    Ok((pod, id))
}

#[test]
fn the_users_of_images_are_never_guessed() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let as_user = async |number: usize, user: &str, files: &[Entry]| {
            let run = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"], "User": user });
            let image = daemon.image_with(&format!("user{number}"), files, run).await;
            let mut asked = daemon.container(&format!("c{number}"), "id -u; id -g; id -G");
            asked.image.as_mut().unwrap().image = image;
            let id = daemon.create(&pod, &config, &asked).await?;
            daemon.start_container(&id).await?;
            daemon.exited(&id).await;
            Ok::<_, Status>(daemon.log_of("p", &format!("c{number}")))
        };
        let bad = [
            "-1",
            "4294967295",
            "4294967296",
            "2147483648",
            "100000000000000000000",
            "0x0",
            "1:",
            ":1",
            "1000:0x0",
            "+0",
            " 0",
            "nobody",
            "root\n0",
            "1000:-1",
            "1000:4294967296",
            "a:b:c",
            "1e0",
            "0:",
        ];
        let mut failures = Vec::new();
        for (number, user) in bad.iter().enumerate() {
            match as_user(number, user, &[]).await {
                Err(error) if error.code() == Code::InvalidArgument => {}
                other => failures.push(format!("{user:?}: {other:?}")),
            }
        }
        let good = [
            ("", "0\n0\n0"),
            ("user", "1000\n1000\n1000 2000"),
            ("1000:2000", "1000\n2000\n2000"),
            ("7", "7\n0\n0"),
        ];
        for (number, (user, said)) in good.iter().enumerate() {
            match as_user(100 + number, user, &[]).await {
                Ok(log) if log.trim() == *said => {}
                other => failures.push(format!("{user:?}: {other:?}, not {said:?}")),
            }
        }
        // Databases that hang, never end, or are somebody else's.
        let passwd = |entry: Entry| [Entry::directory("etc", 0o755), entry];
        let shadow = "../../../../../../../../etc/shadow";
        let odd = [
            ("a fifo", passwd(Entry::fifo("etc/passwd"))),
            ("endless", passwd(Entry::symlink("etc/passwd", "/dev/zero"))),
            ("eleven megabytes", passwd(Entry::file("etc/passwd", 0o644, vec![b'x'; 11 << 20]))),
            ("the host's", passwd(Entry::symlink("etc/passwd", shadow))),
            ("a device", passwd(Entry::device("etc/passwd", 1, 5))),
            ("a line of two", passwd(Entry::file("etc/passwd", 0o644, "user:x:0\r:0::/:/bin/sh\n"))),
        ];
        for (number, (what, files)) in odd.iter().enumerate() {
            let begun = Instant::now();
            match as_user(200 + number, "user", files).await {
                Err(error) if error.code() == Code::InvalidArgument && begun.elapsed().as_secs() < 5 => {}
                other => failures.push(format!("passwd is {what}: {other:?} after {:?}", begun.elapsed())),
            }
        }
        let home = passwd(Entry::file("etc/passwd", 0o644, "user:x:1000:1000::/x\u{1}y:/bin/sh\n"));
        let injected = as_user(300, "user", &home).await;
        if !injected.as_ref().is_err_and(|error| error.code() == Code::InvalidArgument) {
            failures.push(format!("a home with control characters: {injected:?}"));
        }
        assert!(failures.is_empty(), "{failures:#?}");
        daemon.empty().await;
    });
}

#[test]
fn no_descriptor_leads_out() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let first = daemon
            .run(&pod, &config, "ls", "ls /proc/self/fd; ls -l /proc/self/fd >&2; exec sleep 1000")
            .await;
        let begun = Instant::now();
        while daemon.log_of("p", "ls").lines().count() < 8 && begun.elapsed().as_secs() < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let log = daemon.log_of("p", "ls");
        // The fourth is the directory that `ls` reads.
        assert!(log.contains("0\n1\n2\n3\n") && !log.contains("\n4\n"), "{log}");
        assert!(!log.contains("socket:") && !log.contains("memfd") && !log.contains(".sock"), "{log}");
        assert_eq!(daemon.sh(&first, "ls /proc/self/fd").await, "0\n1\n2\n3\n");
        let canary = daemon.path("canary");
        std::fs::write(&canary, "host").unwrap();
        for number in 3..24 {
            let mut asked = daemon.container(&format!("c{number}"), "sleep 1000");
            asked.working_dir = format!("/proc/self/fd/{number}");
            let Ok(id) = daemon.create(&pod, &config, &asked).await else { continue };
            let Err(_) = daemon.start_container(&id).await else {
                let up = "../".repeat(20) + canary.to_str().unwrap();
                let seen = daemon.exec(&id, &["sh", "-c", &format!("cat {up}; ls -a ..")], 5).await;
                panic!("descriptor {number} is a working directory: {seen:?}");
            };
        }
        // Also where the image says so, and to an exec in a container whose own directory is plain.
        let run = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"], "WorkingDir": "/proc/1/root" });
        let image = daemon.image_with("cwd", &[], run).await;
        if let Ok((_, id)) = run_image(&daemon, "cwd", &image, "sleep 1000").await {
            let up = "../".repeat(20) + canary.to_str().unwrap();
            let seen = daemon.exec(&id, &["cat", &up], 5).await.unwrap();
            assert_ne!(seen.exit_code, 0, "{seen:?}");
        }
        daemon.empty().await;
    });
}

#[test]
fn the_runtime_cannot_be_overwritten_from_inside() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let program = Path::new(env!("CARGO_BIN_EXE_pintle"));
        let before = (std::fs::metadata(program).unwrap().mtime(), std::fs::read(program).unwrap());
        let files =
            [Entry::file("self", 0o755, "#!/proc/self/exe\n"), Entry::symlink("alias", "/proc/self/exe")];
        let image = daemon.image_with("self", &files, json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"] })).await;
        let script =
            "while :; do for p in /proc/[0-9]*; do echo overwritten > $p/exe; done 2>/dev/null; done";
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let mut asked = daemon.container("writer", script);
        asked.image.as_mut().unwrap().image = image.clone();
        security(&mut asked).namespace_options =
            Some(v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() });
        let writer = daemon.create(&pod, &config, &asked).await.unwrap();
        daemon.start_container(&writer).await.unwrap();
        for _ in 0..20 {
            for command in ["/self", "/alias", "/proc/self/exe"] {
                let _ = daemon.exec(&writer, &[command], 2).await;
            }
        }
        for (number, command) in ["/self", "/alias", "/proc/self/exe"].into_iter().enumerate() {
            let mut asked = daemon.container(&format!("c{number}"), "");
            asked.image.as_mut().unwrap().image = image.clone();
            asked.command = vec![command.into()];
            if let Ok(id) = daemon.create(&pod, &config, &asked).await {
                let _ = daemon.start_container(&id).await;
            }
        }
        let after = (std::fs::metadata(program).unwrap().mtime(), std::fs::read(program).unwrap());
        assert!(before == after, "the program was changed");
        // What later pods are made of is as good as before.
        let (_, id) = run_image(&daemon, "later", &image, "sleep 1000").await.unwrap();
        assert_eq!(daemon.sh(&id, "echo well").await, "well\n");
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn links_in_images_lead_nowhere_outside() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let canary = daemon.path("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("file"), "host").unwrap();
        let (absolute, file) = (canary.display().to_string(), canary.join("file").display().to_string());
        let up = |path: &str| format!("{}{path}", "../".repeat(15));
        let etc = Entry::directory("etc", 0o755);
        let cases: Vec<(&str, Vec<Entry>)> = vec![
            ("resolv.conf leads out", vec![etc.clone(), Entry::symlink("etc/resolv.conf", &file)]),
            ("resolv.conf climbs out", vec![etc.clone(), Entry::symlink("etc/resolv.conf", &up(&file))]),
            ("hosts leads to itself", vec![etc.clone(), Entry::symlink("etc/hosts", "hosts")]),
            ("etc leads out", vec![Entry::symlink("etc", &up(&absolute))]),
            ("dev leads out", vec![Entry::symlink("dev", &absolute)]),
            ("dev climbs out", vec![Entry::symlink("dev", &up(&absolute))]),
            (
                "dev/shm leads out",
                vec![Entry::directory("dev", 0o755), Entry::symlink("dev/shm", &up(&absolute))],
            ),
            (
                "dev/null leads out",
                vec![Entry::directory("dev", 0o755), Entry::symlink("dev/null", &up(&file))],
            ),
            ("proc leads out", vec![Entry::symlink("proc", &up(&absolute))]),
            ("sys leads out", vec![Entry::symlink("sys", &up(&absolute))]),
            ("proc is a file", vec![Entry::file("proc", 0o644, "")]),
            ("the mount's target leads out", vec![Entry::symlink("data", &up(&absolute))]),
            ("the working directory leads out", vec![Entry::symlink("work", &up(&absolute))]),
        ];
        let mut failures = Vec::new();
        let mounts =
            || daemon.remains().into_iter().filter(|thing| thing.starts_with("mount")).collect::<Vec<_>>();
        for (number, (what, files)) in cases.iter().enumerate() {
            let run = json!({ "Cmd": ["sh"], "Env": ["PATH=/bin"], "Volumes": { "../../etc": {}, "/../../tmp": {} } });
            let image = daemon.image_with(&format!("links{number}"), files, run).await;
            let config = daemon.pod(&format!("p{number}"));
            let pod = daemon.run_pod(&config).await.unwrap();
            let mounts_before = mounts();
            let mut asked =
                daemon.container("c", "echo x > /data/written; echo y > work-here; exec sleep 1000");
            asked.image.as_mut().unwrap().image = image;
            asked.working_dir = "/work".into();
            asked.mounts.push(v1::Mount {
                host_path: "/usr".into(),
                container_path: "/data".into(),
                readonly: true,
                ..Default::default()
            });
            security(&mut asked).masked_paths = vec!["/proc/kcore".into(), "/proc/acpi".into()];
            security(&mut asked).readonly_paths = vec!["/proc/sys".into()];
            match daemon.create(&pod, &config, &asked).await {
                Err(error) if matches!(error.code(), Code::Unknown | Code::Internal) => {
                    failures.push(format!("{what}: {error}"))
                }
                Err(_) => {}
                Ok(id) => {
                    if daemon.start_container(&id).await.is_ok() {
                        // Where it runs, proc, sys and dev are real, and inside.
                        let seen = daemon
                            .exec(&id, &["sh", "-c", &format!("cat {file}; test -c /dev/null")], 5)
                            .await;
                        if seen
                            .as_ref()
                            .is_ok_and(|seen| seen.exit_code != 0 || seen.stdout.starts_with(b"host"))
                        {
                            failures.push(format!("{what}: {seen:?}"));
                        }
                        if mounts() != mounts_before {
                            failures.push(format!("{what}: mounts of the host changed"));
                        }
                    }
                }
            }
            let names: Vec<_> =
                std::fs::read_dir(&canary).unwrap().flatten().map(|entry| entry.file_name()).collect();
            if names != ["file"] || std::fs::read_to_string(canary.join("file")).unwrap() != "host" {
                failures.push(format!("{what}: the host's folder holds {names:?}"));
            }
            daemon.remove_pod(&pod).await.unwrap();
        }
        assert!(failures.is_empty(), "{failures:#?}");
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

#[test]
fn logs_are_written_where_they_belong() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let canary = daemon.path("canary");
        std::fs::write(&canary, "host").unwrap();
        let config = daemon.pod("p");
        let pod = daemon.run_pod(&config).await.unwrap();
        let log = daemon.path("logs/p/c.log");
        std::os::unix::fs::symlink(&canary, &log).unwrap();
        let asked = daemon.container("c", "while :; do echo tick; sleep 0.02; done");
        let error = daemon.create(&pod, &config, &asked).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("c.log"), "{error}");
        std::fs::remove_file(&log).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&log).status().unwrap();
        assert!(made.success());
        let begun = Instant::now();
        daemon.create(&pod, &config, &asked).await.unwrap_err();
        assert!(begun.elapsed().as_secs() < 5 && std::fs::metadata(&log).unwrap().file_type().is_fifo());
        std::fs::remove_file(&log).unwrap();
        let id = daemon.create(&pod, &config, &asked).await.unwrap();
        daemon.start_container(&id).await.unwrap();
        std::fs::rename(&log, daemon.path("logs/p/c.log.1")).unwrap();
        std::os::unix::fs::symlink(&canary, &log).unwrap();
        let reopen = || v1::ReopenContainerLogRequest { container_id: id.clone() };
        let error = daemon.runtime().reopen_container_log(reopen()).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        assert!(error.message().contains("c.log"), "{error}");
        std::fs::remove_file(&log).unwrap();
        daemon.runtime().reopen_container_log(reopen()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(daemon.log_of("p", "c").contains("tick"));
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "host");
        daemon.stop_container(&id, 0).await.unwrap();
        let error = daemon.runtime().reopen_container_log(reopen()).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        daemon.empty().await;
    });
}
