//! Images, network plugins and registries that do not do what they should.

use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use registry::Fault;
use registry::tar::Entry;
use tonic::Code;

use crate::support::{self, Daemon, Setup, in_own_network};
use crate::{lacking, needs_a_node, refused};

/// A 64-bit ELF program that wants a loader which no image has.
fn program_without_its_loader() -> Vec<u8> {
    let loader = b"/lib/ld-absent.so.7\0";
    let mut elf = vec![0u8; 120];
    elf[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &2u16.to_le_bytes());
    put(18, &machine.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    // One program header: PT_INTERP, whose text follows it.
    put(64, &3u32.to_le_bytes());
    put(72, &120u64.to_le_bytes());
    put(96, &(loader.len() as u64).to_le_bytes());
    put(104, &(loader.len() as u64).to_le_bytes());
    elf.extend_from_slice(loader);
    elf
}

#[test]
fn commands_that_cannot_run_say_why() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start().await;
        let entries = [
            Entry::directory("odd", 0o755),
            Entry::file("odd/plain", 0o644, "#!/bin/sh\n"),
            Entry::file("odd/script", 0o755, "#!/no/such/shell -x\n"),
            Entry::file("odd/program", 0o755, program_without_its_loader()),
            Entry::file("odd/noise", 0o755, "\u{1}\u{2}\u{3}no program"),
            Entry::file("odd/empty", 0o755, ""),
            Entry::fifo("odd/fifo"),
            Entry::symlink("odd/loop", "loop"),
        ];
        let image = daemon.image_with("odd", &entries, serde_json::json!({ "Env": ["PATH=/bin"] })).await;
        let sandbox = daemon.pod("p");
        let pod = daemon.run_pod(&sandbox).await.unwrap();
        let host = daemon.run(&pod, &sandbox, "host", "sleep 1000").await;
        // The first container that ends makes a folder that the next ones find.
        let ended = daemon.run(&pod, &sandbox, "ended", "true").await;
        daemon.exited(&ended).await;
        let before = daemon.inventory().await;
        let cases: &[(&str, &[&str])] = &[
            ("/bin/absent", &["not", "/bin/absent"]),
            ("absent", &["absent", "PATH"]),
            ("./absent", &["absent"]),
            ("/odd/plain", &["/odd/plain", "execut"]),
            ("/odd", &["/odd", "directory"]),
            ("/odd/script", &["/odd/script", "interpreter /no/such/shell"]),
            ("/odd/program", &["/odd/program", "interpreter /lib/ld-absent.so.7"]),
            ("/odd/noise", &["/odd/noise"]),
            ("/odd/empty", &["/odd/empty"]),
            ("/odd/fifo", &["/odd/fifo"]),
            ("/odd/loop", &["/odd/loop"]),
            ("/bin/sh/x", &["/bin/sh/x"]),
        ];
        let mut failures = Vec::new();
        for (command, parts) in cases {
            let mut asked = daemon.container("c", "");
            asked.image.as_mut().unwrap().image = image.clone();
            asked.command = vec![command.to_string()];
            let id = daemon.create(&pod, &sandbox, &asked).await.unwrap();
            failures.extend(lacking(
                command,
                daemon.start_container(&id).await,
                Code::FailedPrecondition,
                parts,
            ));
            let status = daemon.status(&id).await.unwrap();
            let ended = (status.exit_code, status.reason.as_str(), status.state());
            if ended != (128, "StartError", v1::ContainerState::ContainerExited) || status.finished_at == 0 {
                failures.push(format!("{command}: {status:?}"));
            }
            failures.extend(lacking(
                "again",
                daemon.start_container(&id).await,
                Code::FailedPrecondition,
                &["exited"],
            ));
            daemon.remove_container(&id).await.unwrap();
            assert!(!daemon.path("logs/p/c.log").exists(), "{command}: a log of what never ran");
            failures.extend(daemon.changed_since(&before, command).await);
        }
        for (command, parts) in [("/bin/absent", &["/bin/absent"]), ("/etc/passwd", &["/etc/passwd"])] {
            failures.extend(lacking(
                command,
                daemon.exec(&host, &[command], 5).await,
                Code::FailedPrecondition,
                parts,
            ));
        }
        failures.extend(lacking(
            "no command",
            daemon.exec(&host, &[], 5).await,
            Code::InvalidArgument,
            &["cmd"],
        ));
        failures.extend(lacking(
            "an empty one",
            daemon.exec(&host, &[""], 5).await,
            Code::InvalidArgument,
            &[],
        ));
        failures.extend(lacking(
            "a time before",
            daemon.exec(&host, &["true"], -1).await,
            Code::InvalidArgument,
            &["timeout"],
        ));
        failures.extend(lacking(
            "NUL",
            daemon.exec(&host, &["echo", "a\0b"], 1).await,
            Code::InvalidArgument,
            &[],
        ));
        failures.extend(daemon.changed_since(&before, "execs").await);
        assert!(failures.is_empty(), "{failures:#?}");
        daemon.empty().await;
        assert_eq!(daemon.remains(), Vec::<String>::new());
    });
}

/// A network whose plugin is a script of a few lines.
fn scripted(daemon: &Daemon, add: &str, del: &str) {
    let versions = r#"{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}"#;
    let script = format!(
        "#!/bin/sh\ncase $CNI_COMMAND in\nVERSION) echo '{versions}';;\nADD) {add};;\nDEL) {del};;\nesac\n"
    );
    let beside = daemon.path("bin/new");
    std::fs::write(&beside, script).unwrap();
    std::fs::set_permissions(&beside, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(beside, daemon.path("bin/odd")).unwrap();
}

const SCRIPTED: &str = r#"{"cniVersion":"1.0.0","name":"odd","plugins":[{"type":"odd"}]}"#;
const ADDRESS: &str = r#"echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.9.9.9/24"}]}'"#;

#[test]
fn network_plugins_that_misbehave_are_named_and_undone() {
    needs_a_node!();
    in_own_network(async {
        let daemon = Daemon::start_as(Setup { network: Some(SCRIPTED.into()), ..Setup::default() }).await;
        let config = daemon.pod("a");
        let before = daemon.inventory().await;
        let mut failures = Vec::new();
        std::fs::create_dir_all(daemon.path("logs")).unwrap();
        let absent = daemon.run_pod(&config).await;
        failures.extend(lacking("no program", absent, Code::Unavailable, &["odd", "bin"]));
        failures.extend(daemon.changed_since(&before, "no program").await);
        let cases: &[(&str, &str, &[&str])] = &[
            ("garbage", "echo garbage", &["odd", "garbage"]),
            ("nothing", "true", &["odd"]),
            ("a failure in words", "echo the cable is cut >&2; exit 3", &["odd", "the cable is cut"]),
            (
                "a failure as told",
                r#"echo '{"code":100,"msg":"no address left"}'; exit 1"#,
                &["odd", "no address left"],
            ),
            ("a hang", "sleep 31415", &["odd", "2 s"]),
            ("a hang of a child", "sleep 31415 & wait", &["odd", "2 s"]),
            ("too much", "yes", &["odd"]),
            ("no address", r#"echo '{"cniVersion":"1.0.0"}'"#, &["address", "odd"]),
            ("death", "kill -9 $$", &["odd", "9"]),
        ];
        for (what, add, parts) in cases {
            scripted(&daemon, add, "true");
            let begun = Instant::now();
            failures.extend(lacking(what, daemon.run_pod(&config).await, Code::Unavailable, parts));
            if begun.elapsed().as_secs() > 5 {
                failures.push(format!("{what}: took {:?}", begun.elapsed()));
            }
            failures.extend(daemon.changed_since(&before, what).await);
        }
        assert!(failures.is_empty(), "{failures:#?}");
        // A plugin that cannot even undo keeps its debt, and neither the name nor the pod.
        scripted(&daemon, "echo garbage", "echo stuck >&2; exit 1");
        refused("owed", daemon.run_pod(&config).await, Code::Unavailable, &["stuck", "owed"]);
        assert_eq!(daemon.pods().await, vec![]);
        refused("owed again", daemon.run_pod(&config).await, Code::Unavailable, &["stuck", "owed"]);
        scripted(&daemon, ADDRESS, "true");
        let pod = daemon.run_pod(&config).await.unwrap();
        // A DEL that fails keeps the pod until it does not.
        scripted(&daemon, ADDRESS, "echo stuck >&2; exit 1");
        refused("stop", daemon.stop_pod(&pod).await, Code::Unavailable, &["stuck", "owed"]);
        refused("remove", daemon.remove_pod(&pod).await, Code::Unavailable, &["stuck", "owed"]);
        scripted(&daemon, ADDRESS, "true");
        daemon.remove_pod(&pod).await.unwrap();
        assert_eq!(daemon.remains(), Vec::<String>::new());
        let owed = || std::fs::read_dir(daemon.path("state/network/attachments")).unwrap().count();
        let begun = Instant::now();
        while owed() > 0 && begun.elapsed().as_secs() < 5 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(owed(), 0, "debts are paid once the plugin can");
    });
}

#[test]
fn registries_that_misbehave_are_told_apart() {
    needs_a_node!();
    in_own_network(async {
        let config = "[image]\nstall_timeout_secs = 1\n".into();
        let daemon = Daemon::start_as(Setup { config, ..Setup::default() }).await;
        let image = format!("{}/library/other:1", daemon.registry.host());
        daemon.contents.add(
            "library/other",
            "1",
            &support::busybox_with(&[Entry::file("new", 0o644, "new")], serde_json::json!({})),
        );
        let before = daemon.inventory().await;
        let html = Fault::Answer {
            status: 200,
            headers: vec![("Content-Type".into(), "text/html".into())],
            body: b"<html>login".to_vec(),
        };
        // So the kubelet tells a registry that is at fault: by the beginning of the message, under this code only.
        const UNAVAILABLE: Code = Code::Unknown;
        let cases: &[(&str, &str, Fault, Code)] = &[
            ("401", "/manifests/", Fault::status(401), Code::Unauthenticated),
            ("403", "/manifests/", Fault::status(403), Code::PermissionDenied),
            ("404", "/manifests/", Fault::status(404), Code::NotFound),
            ("429", "/manifests/", Fault::status(429), Code::ResourceExhausted),
            ("500", "/manifests/", Fault::status(500), UNAVAILABLE),
            ("500 for a layer", "/blobs/", Fault::status(500), UNAVAILABLE),
            ("404 for a layer", "/blobs/", Fault::status(404), Code::NotFound),
            ("a login page", "/manifests/", html, Code::FailedPrecondition),
            ("wrong bits in layers", "/blobs/", Fault::Corrupt, Code::DataLoss),
            (
                "an endless redirect",
                "/manifests/",
                Fault::redirect("/v2/library/other/manifests/1"),
                Code::FailedPrecondition,
            ),
            (
                "a redirect to the machine's metadata",
                "/blobs/",
                Fault::redirect("http://169.254.169.254/latest"),
                Code::FailedPrecondition,
            ),
            (
                "a redirect to a file",
                "/blobs/",
                Fault::redirect("file:///etc/shadow"),
                Code::FailedPrecondition,
            ),
            ("silence", "/manifests/", Fault::HangUp, UNAVAILABLE),
            ("half a layer", "/blobs/", Fault::Truncate(100), UNAVAILABLE),
            ("a stall", "/blobs/", Fault::Stall(100), UNAVAILABLE),
        ];
        let mut failures = Vec::new();
        for (what, target, fault, code) in cases {
            let (target, fault) = (target.to_string(), fault.clone());
            daemon.contents.set_hook(move |asked| asked.target.contains(&target).then(|| fault.clone()));
            let begun = Instant::now();
            let parts: &[&str] = if *code == UNAVAILABLE {
                &["RegistryUnavailable: pull", "library/other"]
            } else {
                &["library/other"]
            };
            failures.extend(lacking(what, daemon.pull(&image).await, *code, parts));
            if begun.elapsed().as_secs() > 5 {
                failures.push(format!("{what}: took {:?}", begun.elapsed()));
            }
            failures.extend(daemon.changed_since(&before, what).await);
        }
        daemon.contents.set_hook(|_| None);
        for (bad, code) in [
            ("", Code::InvalidArgument),
            ("UPPER/case", Code::InvalidArgument),
            ("a b", Code::InvalidArgument),
            ("../../etc", Code::InvalidArgument),
            ("r/x@sha256:12", Code::InvalidArgument),
            ("r/x@md5:d41d8cd98f00b204e9800998ecf8427e", Code::InvalidArgument),
        ] {
            failures.extend(lacking(bad, daemon.pull(bad).await, code, &[]));
        }
        let empty = daemon.images().pull_image(v1::PullImageRequest::default()).await;
        failures.extend(lacking("no image", empty, Code::InvalidArgument, &["image"]));
        let nobody = daemon.pull("127.0.0.1:1/library/other:1").await;
        failures.extend(lacking(
            "nobody there",
            nobody,
            UNAVAILABLE,
            &["RegistryUnavailable", "127.0.0.1:1"],
        ));
        failures.extend(daemon.changed_since(&before, "references").await);
        assert!(failures.is_empty(), "{failures:#?}");
        // After all that, it is pulled as if nothing had been.
        daemon.pull(&image).await.unwrap();
    });
}
