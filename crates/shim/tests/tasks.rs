//! `containerd-shim-pintle-v2` by its wire, with a test in containerd's place: what each call does, in which order events come, and that
//! nothing that hangs elsewhere makes the server hang.

mod support;

use shim::protocol::ErrorCode;
use std::io::Write;
use std::time::{Duration, Instant};
use support::tasks::*;
use task::*;

fn kinds(served: &mut Served, id: &str) -> Vec<(u32, bool)> {
    let request = PidsRequest { id: id.into() };
    let response: PidsResponse = served.call(Method::Pids, &request).unwrap();
    response.processes.iter().map(|process| (process.pid, process.info.is_some())).collect()
}

#[test]
fn a_task_lives_from_create_to_shutdown_and_every_step_is_told() {
    needs_containers!();
    let containerd = Containerd::new();
    let bundle = containerd.make_bundle("one", "echo out; echo err >&2; sleep 100", |_| {});
    let mut served = containerd.start("one");
    let (stdout, stderr) = (containerd.fifo("stdout"), containerd.fifo("stderr"));
    let (out, err) = (reader(&stdout), reader(&stderr));
    let pid = served.create(&bundle, |request| (request.stdout, request.stderr) = (stdout, stderr)).unwrap();
    assert_eq!(served.status("one", "").unwrap(), Status::Created);
    // What a container could reach of the server's program cannot be written to.
    let program = std::fs::File::options().write(true).open(format!("/proc/{}/exe", served.pid));
    assert_eq!(program.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(served.run("one", "").unwrap(), pid);
    assert_eq!(served.status("one", "").unwrap(), Status::Running);

    let _: Empty = served.call(Method::Exec, &exec_request("one", "more", "sleep 100")).unwrap();
    assert_eq!(served.status("one", "more").unwrap(), Status::Created);
    let more = served.run("one", "more").unwrap();
    let found = kinds(&mut served, "one");
    assert!(found.contains(&(more, true)) && found.contains(&(pid, false)), "{found:?}");
    served.kill("one", "more", 9).unwrap();
    assert_eq!(served.wait("one", "more").unwrap(), 137);
    assert_eq!(served.delete("one", "more").unwrap().pid, more);
    assert_eq!(served.status("one", "more").unwrap_err().code, ErrorCode::NotFound);

    let id = || "one".to_owned();
    let _: Empty = served.call(Method::Pause, &PauseRequest { id: id() }).unwrap();
    assert_eq!(served.status("one", "").unwrap(), Status::Paused);
    let _: Empty = served.call(Method::Exec, &exec_request("one", "frozen", "true")).unwrap();
    let error = served.run("one", "frozen").unwrap_err();
    assert!(error.code == ErrorCode::WrongState && error.message.contains("paused"), "{error}");
    served.delete("one", "frozen").unwrap();
    let _: Empty = served.call(Method::Resume, &ResumeRequest { id: id() }).unwrap();
    let limits = pack_json(OCI_RESOURCES, br#"{"memory":{"limit":67108864}}"#.to_vec());
    let update = UpdateTaskRequest { id: id(), resources: Some(limits), ..Default::default() };
    let _: Empty = served.call(Method::Update, &update).unwrap();
    let stats: StatsResponse = served.call(Method::Stats, &StatsRequest { id: id() }).unwrap();
    let stats = stats.stats.unwrap();
    let limit = match type_name(&stats) {
        "io.containerd.cgroups.v1.Metrics" => {
            let metrics: metrics_v1::Metrics = unpack(&stats).unwrap().unwrap();
            assert!(metrics.cpu.unwrap().usage.unwrap().total > 0);
            metrics.memory.unwrap().usage.unwrap().limit
        }
        _ => unpack::<metrics_v2::Metrics>(&stats).unwrap().unwrap().memory.unwrap().usage_limit,
    };
    assert_eq!(limit, 64 << 20);

    let waiting = served.send(Method::Wait, &WaitRequest { id: id(), exec_id: String::new() });
    served.kill("one", "", 15).unwrap();
    served.kill("one", "", 9).unwrap();
    assert_eq!(served.client.result::<WaitResponse>(waiting).unwrap().exit_status, 137);
    assert_eq!(served.kill("one", "", 9).unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(served.status("one", "").unwrap(), Status::Stopped);
    let pids: Result<PidsResponse, _> = served.call(Method::Pids, &PidsRequest { id: id() });
    assert_eq!(pids.unwrap_err().code, ErrorCode::WrongState, "containerd would take none for a leak");
    let deleted = served.delete("one", "").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert_eq!((out.join().unwrap(), err.join().unwrap()), ("out\n".into(), "err\n".into()));
    let _: Empty = served.call(Method::Shutdown, &ShutdownRequest::default()).unwrap();
    assert!(served.is_gone());
    assert!(!std::path::Path::new(served.address.strip_prefix("unix://").unwrap()).exists());
    assert_eq!(
        containerd.events_until("Delete"),
        [
            "Create",
            "Start",
            "ExecAdded",
            "ExecStarted",
            "Exit",
            "Paused",
            "ExecAdded",
            "Resumed",
            "Exit",
            "Delete"
        ]
    );
}

#[test]
fn tasks_of_a_pod_share_a_server_that_ends_with_the_last() {
    needs_containers!();
    let containerd = Containerd::new();
    let of_pod = |spec: &mut serde_json::Value| {
        spec["annotations"] = serde_json::json!({ "io.kubernetes.cri.sandbox-id": "pod" });
    };
    let first = containerd.make_bundle("pod", "sleep 100", of_pod);
    let second = containerd.make_bundle("other", "exit 7", of_pod);
    let mut served = containerd.start("pod");
    served.create(&first, |_| {}).unwrap();
    served.run("pod", "").unwrap();
    let again = containerd.start("other");
    assert_eq!((again.pid, &again.address), (served.pid, &served.address));
    served.create(&second, |_| {}).unwrap();
    served.run("other", "").unwrap();
    assert_eq!(served.wait("other", "").unwrap(), 7);
    served.delete("other", "").unwrap();
    let _: Empty =
        served.call(Method::Shutdown, &ShutdownRequest { id: "other".into(), now: false }).unwrap();
    assert_eq!(served.status("pod", "").unwrap(), Status::Running);
    served.kill("pod", "", 9).unwrap();
    served.wait("pod", "").unwrap();
    served.delete("pod", "").unwrap();
    let _: Empty = served.call(Method::Shutdown, &ShutdownRequest::default()).unwrap();
    assert!(served.is_gone());
}

#[test]
fn older_containerds_get_json_or_the_bare_address() {
    needs_containers!();
    let containerd = Containerd::new();
    containerd.make_bundle("old", "exit 0", |_| {});
    let bare = containerd.command("old", &["start"]).output().unwrap();
    let bare = String::from_utf8(bare.stdout).unwrap();
    assert!(bare.starts_with("unix:///run/containerd/s/pintle-"), "{bare}");
    assert_eq!(std::fs::read_to_string(containerd.bundle("old").join("address")).unwrap(), bare);
    let json = containerd.command("old", &["start"]).env("MAX_SHIM_VERSION", "2").output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "version": 2, "address": bare, "protocol": "ttrpc" }));
    let mut served = Served::at(bare);
    // The older of the two names of the service.
    let stream = served.client.send_raw(SERVICE_V2, "Shutdown", Vec::new(), 0, &[]);
    let _: Empty = served.client.result(stream).unwrap();
    assert!(served.is_gone());
}

#[test]
fn output_that_nobody_reads_holds_up_nothing() {
    needs_containers!();
    let containerd = Containerd::new();
    let bundle = containerd.make_bundle("loud", "yes", |_| {});
    let mut served = containerd.start("loud");
    let stdout = containerd.fifo("stdout");
    served.create(&bundle, |request| request.stdout = stdout.clone()).unwrap();
    served.run("loud", "").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let before = Instant::now();
    assert_eq!(served.status("loud", "").unwrap(), Status::Running);
    let _: Empty = served.call(Method::Exec, &exec_request("loud", "e", "exit 3")).unwrap();
    served.run("loud", "e").unwrap();
    assert_eq!(served.wait("loud", "e").unwrap(), 3);
    // Who comes later reads what was kept, and the process goes on.
    let reader = open_end(&stdout, false);
    let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
    let end = Instant::now() + Duration::from_secs(5);
    while got < 400_000 && Instant::now() < end {
        match rustix::io::read(&reader, &mut buffer) {
            Ok(length) => got += length,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    assert!(got >= 400_000, "only {got} bytes came");
    drop(reader);
    served.kill("loud", "", 9).unwrap();
    served.wait("loud", "").unwrap();
    served.delete("loud", "").unwrap();
    assert!(before.elapsed() < Duration::from_secs(7), "{:?}", before.elapsed());
}

#[test]
fn events_wait_for_containerd_and_hold_up_nothing() {
    needs_containers!();
    let containerd = Containerd::silent();
    let bundle = containerd.make_bundle("quiet", "exit 5", |_| {});
    let mut served = containerd.start("quiet");
    // Somebody listens and answers nothing: containerd, stopped.
    let hanging = std::os::unix::net::UnixListener::bind(containerd.events_socket()).unwrap();
    let before = Instant::now();
    served.create(&bundle, |_| {}).unwrap();
    served.run("quiet", "").unwrap();
    assert_eq!(served.wait("quiet", "").unwrap(), 5);
    served.delete("quiet", "").unwrap();
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    let again = containerd.make_bundle("stays", "sleep 100", |_| {});
    served.create(&again, |_| {}).unwrap();
    drop(hanging);
    std::fs::remove_file(containerd.events_socket()).unwrap();
    containerd.take_events();
    let mut names = containerd.events_until("Delete");
    names.truncate(4);
    assert_eq!(names, ["Create", "Start", "Exit", "Delete"]);
    served.delete("stays", "").unwrap();
}

#[test]
fn a_killed_server_is_cleaned_up_after() {
    needs_containers!();
    let containerd = Containerd::new();
    let bundle = containerd.make_bundle("orphan", "sleep 100", |_| {});
    let source = containerd.folder.path().join("source");
    make_root(&source);
    let mut served = containerd.start("orphan");
    let mount = Mount {
        r#type: "bind".into(),
        source: source.to_str().unwrap().into(),
        options: vec!["rbind".into(), "ro".into()],
        ..Default::default()
    };
    let pid = served.create(&bundle, |request| request.rootfs = vec![mount]).unwrap();
    served.run("orphan", "").unwrap();
    let mounted = || std::fs::read_to_string("/proc/self/mounts").unwrap().contains(bundle.to_str().unwrap());
    assert!(mounted());
    let server = rustix::process::Pid::from_raw(served.pid).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    assert!(served.is_gone());
    let deleted = containerd.delete("orphan");
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    assert!(!mounted());
    let gone = || !matches!(sys::process::stat_fields(pid as i32), Ok((state, _)) if state != 'Z');
    let end = Instant::now() + Duration::from_secs(5);
    while !gone() {
        assert!(Instant::now() < end, "the task's process {pid} lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!std::path::Path::new(served.address.strip_prefix("unix://").unwrap()).exists());
    // A second time there is nothing to do.
    assert_eq!(containerd.delete("orphan").exit_status, 137);
}

#[test]
fn all_tasks_of_a_pod_go_with_its_killed_server() {
    needs_containers!();
    let containerd = Containerd::new();
    let of_pod = |spec: &mut serde_json::Value| {
        spec["annotations"] = serde_json::json!({ "io.kubernetes.cri.sandbox-id": "pod" });
    };
    let bundles = ["pod", "other", "ended"]
        .map(|id| containerd.make_bundle(id, if id == "ended" { "exit 8" } else { "sleep 100" }, of_pod));
    let mut served = containerd.start("pod");
    let mut pids = Vec::new();
    for bundle in &bundles {
        let id = bundle.file_name().unwrap().to_str().unwrap();
        pids.push(served.create(bundle, |_| {}).unwrap());
        served.run(id, "").unwrap();
        // containerd 2 leaves this mark, and asks for the first only.
        std::fs::write(bundle.join("sandbox"), "pod").unwrap();
    }
    assert_eq!(served.wait("ended", "").unwrap(), 8);
    let server = rustix::process::Pid::from_raw(served.pid).unwrap();
    rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
    assert!(served.is_gone());
    assert_eq!(containerd.delete("pod").exit_status, 137);
    for pid in pids {
        let end = Instant::now() + Duration::from_secs(5);
        while matches!(sys::process::stat_fields(pid as i32), Ok((state, _)) if state != 'Z') {
            assert!(Instant::now() < end, "process {pid} lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let state = |id: &str| containerd.bundle(id).join("pintle").exists();
    assert!(!state("pod") && !state("other") && !state("ended"));
    // What had ended before has its true exit.
    assert_eq!(containerd.delete("ended").exit_status, 8);
}

#[test]
fn a_creation_that_hangs_holds_up_nothing_and_is_cancelled() {
    needs_containers!();
    let containerd = Containerd::new();
    let hangs = containerd.make_bundle("hangs", "true", |spec| {
        let hook = serde_json::json!({ "path": "/bin/sleep", "args": ["sleep", "100"] });
        spec["hooks"] = serde_json::json!({ "createRuntime": [hook] });
    });
    let fine = containerd.make_bundle("fine", "exit 4", |_| {});
    let mut served = containerd.start("hangs");
    let request = CreateTaskRequest {
        id: "hangs".into(),
        bundle: hangs.to_str().unwrap().into(),
        ..Default::default()
    };
    let creating = served.send(Method::Create, &request);
    let before = Instant::now();
    served.create(&fine, |_| {}).unwrap();
    served.run("fine", "").unwrap();
    assert_eq!(served.wait("fine", "").unwrap(), 4);
    assert_eq!(served.status("hangs", "").unwrap(), Status::Created);
    assert_eq!(served.run("hangs", "").unwrap_err().code, ErrorCode::WrongState);
    served.delete("hangs", "").unwrap();
    assert!(served.client.result::<CreateTaskResponse>(creating).is_err());
    assert!(before.elapsed() < Duration::from_secs(6), "{:?}", before.elapsed());
    assert_eq!(served.status("hangs", "").unwrap_err().code, ErrorCode::NotFound);
    served.delete("fine", "").unwrap();
    assert!(!containerd.events_until("Delete").contains(&"OOM".to_owned()));
}

#[test]
fn a_root_is_mounted_for_a_task_and_unmounted_after_it() {
    needs_containers!();
    let containerd = Containerd::new();
    let bundle = containerd.make_bundle("layers", "cat /tmp/below; echo written > /tmp/above", |_| {});
    std::fs::remove_dir_all(bundle.join("rootfs")).unwrap();
    let place = |name: &str| containerd.folder.path().join(name);
    make_root(&place("lower"));
    std::fs::write(place("lower/tmp/below"), "from below\n").unwrap();
    for name in ["upper", "work"] {
        std::fs::create_dir(place(name)).unwrap();
    }
    let option = |key: &str, name: &str| format!("{key}={}", place(name).display());
    let mount = Mount {
        r#type: "overlay".into(),
        source: "overlay".into(),
        options: vec![option("lowerdir", "lower"), option("upperdir", "upper"), option("workdir", "work")],
        ..Default::default()
    };
    let mut served = containerd.start("layers");
    let stdout = containerd.fifo("stdout");
    let out = reader(&stdout);
    served
        .create(&bundle, |request| (request.rootfs, request.stdout) = (vec![mount.clone()], stdout))
        .unwrap();
    served.run("layers", "").unwrap();
    assert_eq!(served.wait("layers", "").unwrap(), 0);
    served.delete("layers", "").unwrap();
    assert_eq!(out.join().unwrap(), "from below\n");
    assert_eq!(std::fs::read_to_string(place("upper/tmp/above")).unwrap(), "written\n");
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts().contains(bundle.to_str().unwrap()));
    // One that cannot be mounted leaves nothing.
    let bad = Mount { r#type: "nofs".into(), ..mount.clone() };
    let error = served.create(&bundle, |request| request.rootfs = vec![mount, bad]).unwrap_err();
    assert!(error.message.contains("nofs"), "{error}");
    assert!(!mounts().contains(bundle.to_str().unwrap()));
    assert_eq!(served.status("layers", "").unwrap_err().code, ErrorCode::NotFound);
}

#[test]
fn the_layers_of_a_task_with_users_of_its_own_are_theirs() {
    needs_containers!();
    let containerd = Containerd::new();
    let script = "busybox stat -c %u:%g /tmp/below";
    let bundle = containerd.make_bundle("mapped", script, |_| {});
    std::fs::remove_dir_all(bundle.join("rootfs")).unwrap();
    let place = |name: &str| containerd.folder.path().join(name);
    make_root(&place("lower"));
    std::fs::write(place("lower/tmp/below"), "").unwrap();
    for name in ["other", "upper", "work"] {
        std::fs::create_dir(place(name)).unwrap();
    }
    let maps = ["uidmap=0:100000:65536".to_owned(), "gidmap=0:200000:65536".to_owned()];
    let lowers = format!("lowerdir={}:{}", place("other").display(), place("lower").display());
    let upper =
        [("upperdir", "upper"), ("workdir", "work")].map(|(k, n)| format!("{k}={}", place(n).display()));
    let mount = Mount {
        r#type: "overlay".into(),
        source: "overlay".into(),
        options: [&maps[..], &[lowers], &upper].concat(),
        ..Default::default()
    };
    let mut served = containerd.start("mapped");
    let stdout = containerd.fifo("stdout");
    let out = reader(&stdout);
    let created =
        served.create(&bundle, |request| (request.rootfs, request.stdout) = (vec![mount], stdout.clone()));
    if let Err(error) = &created
        && error.message.contains("Invalid argument")
    {
        println!("SKIPPED: the file system of {} does not map owners", place("lower").display());
        drop(open_end(&stdout, true));
        return;
    }
    served.run("mapped", "").unwrap();
    assert_eq!(served.wait("mapped", "").unwrap(), 0);
    served.delete("mapped", "").unwrap();
    assert_eq!(out.join().unwrap(), "100000:200000\n");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(containerd.folder.path().to_str().unwrap()), "{mounts}");
    assert!(!bundle.join("rootfs.lower").exists());
}

#[test]
fn a_terminal_has_input_output_and_a_size() {
    needs_containers!();
    let containerd = Containerd::new();
    let script = "read line; echo got:$line; stty size; tty";
    let bundle = containerd.make_bundle("tty", script, |spec| spec["process"]["terminal"] = true.into());
    let mut served = containerd.start("tty");
    let (stdin, stdout) = (containerd.fifo("stdin"), containerd.fifo("stdout"));
    let out = reader(&stdout);
    served
        .create(&bundle, |request| {
            (request.stdin, request.stdout, request.terminal) = (stdin.clone(), stdout, true);
        })
        .unwrap();
    let resize = ResizePtyRequest { id: "tty".into(), width: 91, height: 37, ..Default::default() };
    let _: Empty = served.call(Method::ResizePty, &resize).unwrap();
    served.run("tty", "").unwrap();
    std::fs::File::from(open_end(&stdin, true)).write_all(b"hello\n").unwrap();
    assert_eq!(served.wait("tty", "").unwrap(), 0);
    served.delete("tty", "").unwrap();
    let out = out.join().unwrap();
    assert!(out.contains("got:hello") && out.contains("37 91") && out.contains("/dev/"), "{out:?}");
}

#[test]
fn input_ends_when_it_is_closed_and_not_before() {
    needs_containers!();
    let containerd = Containerd::new();
    let bundle = containerd.make_bundle("in", "cat; echo end", |_| {});
    let mut served = containerd.start("in");
    let (stdin, stdout) = (containerd.fifo("stdin"), containerd.fifo("stdout"));
    let out = reader(&stdout);
    served.create(&bundle, |request| (request.stdin, request.stdout) = (stdin.clone(), stdout)).unwrap();
    served.run("in", "").unwrap();
    for word in ["one\n", "two\n"] {
        // Whoever writes may come and go, as a containerd that is restarted.
        std::fs::File::from(open_end(&stdin, true)).write_all(word.as_bytes()).unwrap();
    }
    let waiting = served.send(Method::Wait, &WaitRequest { id: "in".into(), exec_id: String::new() });
    assert!(!served.client.answered_within(waiting, Duration::from_millis(200)));
    let close = CloseIoRequest { id: "in".into(), stdin: true, ..Default::default() };
    let _: Empty = served.call(Method::CloseIo, &close).unwrap();
    assert_eq!(served.client.result::<WaitResponse>(waiting).unwrap().exit_status, 0);
    served.delete("in", "").unwrap();
    assert_eq!(out.join().unwrap(), "one\ntwo\nend\n");
}

#[test]
fn output_goes_to_files_and_programs() {
    needs_containers!();
    let containerd = Containerd::new();
    let place = |name: &str| containerd.folder.path().join(name);
    let bundle = containerd.make_bundle("logs", "echo out; echo err >&2", |_| {});
    let mut served = containerd.start("logs");
    let file = format!("file://{}", place("new/log").display());
    served.create(&bundle, |request| (request.stdout, request.stderr) = (file.clone(), file)).unwrap();
    served.run("logs", "").unwrap();
    assert_eq!(served.wait("logs", "").unwrap(), 0);
    served.delete("logs", "").unwrap();
    let log = std::fs::read_to_string(place("new/log")).unwrap();
    assert!(log.contains("out\n") && log.contains("err\n"), "{log:?}");

    let program = place("logger");
    let script = "#!/bin/sh\nexec 5>&-\necho \"$CONTAINER_NAMESPACE/$CONTAINER_ID $1=$2\" > \"$2\"\ncat <&3 >> \"$2\"\ncat <&4 >> \"$2\"\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let uri = format!("binary://{}?to={}", program.display(), place("taken").display());
    served.create(&bundle, |request| (request.stdout, request.stderr) = (uri.clone(), uri)).unwrap();
    served.run("logs", "").unwrap();
    assert_eq!(served.wait("logs", "").unwrap(), 0);
    served.delete("logs", "").unwrap();
    let taken = std::fs::read_to_string(place("taken")).unwrap();
    assert_eq!(taken, format!("tested/logs to={}\nout\nerr\n", place("taken").display()));

    let none = format!("binary-v2://{}", place("none").display());
    let error = served.create(&bundle, |request| request.stdout = none).unwrap_err();
    assert!(error.message.contains("ready"), "{error}");
    let _: Empty = served.call(Method::Shutdown, &ShutdownRequest::default()).unwrap();
    assert!(served.is_gone());
}

#[test]
fn an_end_for_want_of_memory_is_told_while_the_task_lives() {
    needs_containers!();
    let containerd = Containerd::new();
    let script = "sh -c 'tail /dev/zero'; echo $?; sleep 100";
    let bundle = containerd.make_bundle("greedy", script, |spec| {
        spec["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 16 << 20, "swap": 16 << 20 } });
        let devices = serde_json::json!([
            { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 438 }
        ]);
        spec["linux"]["devices"] = devices;
    });
    let mut served = containerd.start("greedy");
    served.create(&bundle, |_| {}).unwrap();
    served.run("greedy", "").unwrap();
    let names = containerd.events_until("OOM");
    assert!(!names.contains(&"Exit".to_owned()), "{names:?}");
    served.kill("greedy", "", 9).unwrap();
    served.wait("greedy", "").unwrap();
    served.delete("greedy", "").unwrap();
    let names = containerd.events_until("Delete");
    assert_eq!(names, ["Create", "Start", "OOM", "Exit", "Delete"]);
}

#[test]
fn bad_requests_are_refused_by_name_and_leave_nothing() {
    needs_containers!();
    let containerd = Containerd::new();
    let bundle = containerd.make_bundle("fine", "sleep 100", |_| {});
    let broken = containerd.make_bundle("broken", "", |spec| spec["process"]["cwd"] = "relative".into());
    let mut served = containerd.start("fine");
    type Change = Box<dyn Fn(&mut CreateTaskRequest)>;
    let cases: [(&str, ErrorCode, &str, Change); 6] = [
        ("an id that leads elsewhere", ErrorCode::InvalidArgument, "id", Box::new(|r| r.id = "../x".into())),
        ("a relative bundle", ErrorCode::InvalidArgument, "bundle", Box::new(|r| r.bundle = "x".into())),
        (
            "a stream of no kind",
            ErrorCode::InvalidArgument,
            "npipe",
            Box::new(|r| r.stdout = "npipe:///x".into()),
        ),
        (
            "a fifo that is not there",
            ErrorCode::InvalidArgument,
            "/no/such",
            Box::new(|r| r.stdin = "/no/such".into()),
        ),
        (
            "unknown options",
            ErrorCode::InvalidArgument,
            "kata",
            Box::new(|r| {
                r.options = Some(Any { type_url: "kata.Options".into(), value: Vec::new() });
            }),
        ),
        (
            "a checkpoint that is not there",
            ErrorCode::Unknown,
            "/no/checkpoint",
            Box::new(|r| {
                r.checkpoint = "/no/checkpoint".into();
            }),
        ),
    ];
    for (what, code, word, change) in cases {
        let error = served.create(&bundle, change).unwrap_err();
        assert_eq!(error.code, code, "{what}: {error}");
        assert!(error.message.contains(word), "{what}: {error}");
    }
    let error = served.create(&broken, |_| {}).unwrap_err();
    assert!(error.message.contains("cwd"), "{error}");
    assert_eq!(served.run("fine", "").unwrap_err().code, ErrorCode::NotFound);
    served.create(&bundle, |_| {}).unwrap();
    assert_eq!(served.create(&bundle, |_| {}).unwrap_err().code, ErrorCode::AlreadyExists);
    assert_eq!(served.run("fine", "none").unwrap_err().code, ErrorCode::NotFound);
    served.run("fine", "").unwrap();
    assert_eq!(served.run("fine", "").unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(served.delete("fine", "").unwrap_err().code, ErrorCode::WrongState);
    assert_eq!(served.kill("fine", "", 99).unwrap_err().code, ErrorCode::InvalidArgument);
    let mut request = exec_request("fine", "e", "x");
    request.spec = Some(pack_json(OCI_PROCESS, b"{".to_vec()));
    assert_eq!(served.call::<Empty>(Method::Exec, &request).unwrap_err().code, ErrorCode::InvalidArgument);
    let mut request = exec_request("fine", "e", "x");
    let spec = serde_json::json!({ "user": {"uid":0,"gid":0}, "args": ["/no/program"], "cwd": "/" });
    request.spec = Some(pack_json(OCI_PROCESS, spec.to_string().into_bytes()));
    let _: Empty = served.call(Method::Exec, &request).unwrap();
    let error = served.run("fine", "e").unwrap_err();
    assert!(error.message.contains("/no/program"), "{error}");
    served.delete("fine", "e").unwrap();
    let stream =
        served.client.send_raw("containerd.runtime.sandbox.v1.Sandbox", "PingSandbox", Vec::new(), 0, &[]);
    assert_eq!(served.client.result::<Empty>(stream).unwrap_err().code, ErrorCode::Unimplemented);
    let resize = ResizePtyRequest { id: "fine".into(), width: 1, height: 1, ..Default::default() };
    assert_eq!(served.call::<Empty>(Method::ResizePty, &resize).unwrap_err().code, ErrorCode::WrongState);
    let options = options::CheckpointOptions { work_path: "/no/such/\0".into(), ..Default::default() };
    let checkpoint =
        CheckpointTaskRequest { id: "fine".into(), path: "/x\0".into(), options: Some(pack(&options)) };
    let error = served.call::<Empty>(Method::Checkpoint, &checkpoint).unwrap_err();
    assert!(error.message.contains("task fine"), "{error}");
    assert_eq!(served.status("fine", "").unwrap(), Status::Running);
    served.kill("fine", "", 9).unwrap();
    served.wait("fine", "").unwrap();
    served.delete("fine", "").unwrap();
    let no_bundle = std::process::Command::new(containerd.folder.path().join(shim::task::PROGRAM))
        .args(["-namespace", "n", "-id", "x", "start"])
        .current_dir(containerd.folder.path())
        .output()
        .unwrap();
    let why = String::from_utf8_lossy(&no_bundle.stderr).into_owned();
    assert!(!no_bundle.status.success() && why.contains("config.json"), "{why}");
}
