//! Real containers: their logs, their ends, what is left of them.

mod support;

use shim::config::exit_path;
use shim::protocol::*;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Pod, within};

fn delete(pod: &mut Pod, id: &str) -> Option<Exit> {
    let deleted: DeleteResponse = pod.client.call(Method::Delete, &DeleteRequest { id: id.into() }).unwrap();
    deleted.exit
}

fn kill(pod: &mut Pod, id: &str, signal: u32, all: bool) {
    let _: Empty = pod.client.call(Method::Kill, &KillRequest { id: id.into(), signal, all }).unwrap();
}

fn info(pod: &mut Pod) -> Vec<ContainerInfo> {
    let info: InfoResponse = pod.client.call(Method::Info, &InfoRequest {}).unwrap();
    info.containers
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn output_is_logged_and_the_exit_recorded_before_it_is_told() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("a", "hostname; echo err >&2; echo -n half; exit 7");
    let exit = pod.wait("a");
    let record: Exit = serde_json::from_slice(&std::fs::read(exit_path(&pod.dir, "a")).unwrap()).unwrap();
    assert_eq!(record, exit);
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, 0, false));
    assert!(exit.started_at_ns > 1_600_000_000_000_000_000 && exit.exited_at_ns >= exit.started_at_ns);
    assert_eq!(pod.logged("a"), (b"tested\nhalf".to_vec(), b"err\n".to_vec()));
    assert_eq!(pod.wait("a"), exit, "a wait after the exit");
    assert_eq!(info(&mut pod)[0].exit.as_ref(), Some(&exit));
    assert_eq!(
        pod.client.refusal(Method::ReopenLog, &ReopenLogRequest { id: "a".into() }),
        ErrorCode::WrongState
    );
    assert_eq!(delete(&mut pod, "a"), Some(exit));
    assert!(!exit_path(&pod.dir, "a").exists());
    assert!(!pod.dir.join("runtime/a").exists());
    assert_eq!(pod.client.refusal(Method::Wait, &WaitRequest { id: "a".into() }), ErrorCode::NotFound);
    assert!(pod.cgroups().iter().all(|cgroup| !cgroup.join("a").exists()));
}

#[test]
fn every_way_to_end_is_told_apart() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("zero", "true");
    assert_eq!((pod.wait("zero").code, pod.wait("zero").signal), (0, 0));
    pod.run("one", "exit 1");
    assert_eq!((pod.wait("one").code, pod.wait("one").signal), (1, 0));
    pod.run("killed", "exec sleep 1000");
    kill(&mut pod, "killed", 9, false);
    let exit = pod.wait("killed");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, false));
    kill(&mut pod, "killed", 9, false);
    pod.run("asked", "trap 'exit 3' TERM; while true; do sleep 0.02; done");
    std::thread::sleep(Duration::from_millis(100));
    kill(&mut pod, "asked", 15, false);
    assert_eq!(pod.wait("asked").code, 3);
    let bad = KillRequest { id: "asked".into(), signal: 65, all: false };
    assert_eq!(pod.client.refusal(Method::Kill, &bad), ErrorCode::InvalidArgument);
}

#[test]
fn running_out_of_memory_is_told_truthfully() {
    needs_containers!();
    let mut pod = Pod::start();
    let limit = |spec: &mut serde_json::Value| {
        spec["linux"]["resources"] = serde_json::json!({ "memory": { "limit": 24 << 20, "swap": 24 << 20 } });
    };
    let request =
        pod.create_request_with("hungry", "exec dd if=/dev/zero of=/dev/null bs=96M count=1", limit);
    pod.run_request(&request);
    let exit = pod.wait("hungry");
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, 9, true), "{}", pod.messages());
    let request = pod.create_request_with("modest", "exec sleep 1000", limit);
    pod.run_request(&request);
    kill(&mut pod, "modest", 9, false);
    assert!(!pod.wait("modest").oom_killed);
}

#[test]
fn a_command_that_is_not_there_fails_the_start() {
    needs_containers!();
    let mut pod = Pod::start();
    let request =
        pod.create_request_with("a", "", |spec| spec["process"]["args"] = serde_json::json!(["/bin/absent"]));
    // Some runtimes find out at create, some at start; nothing of it may be left either way.
    match pod.client.call::<CreateResponse>(Method::Create, &request) {
        Err(error) => {
            assert_eq!(error.code, ErrorCode::CreateFailed, "{error}");
            assert!(error.message.contains("absent"), "{error}");
        }
        Ok(created) => {
            let error = pod
                .client
                .call::<StartResponse>(Method::Start, &StartRequest { id: "a".into() })
                .unwrap_err();
            assert_eq!(error.code, ErrorCode::StartFailed, "{error}");
            assert!(error.message.contains("absent"), "{error}");
            let exit = pod.wait("a");
            assert_eq!((exit.pid, exit.started_at_ns), (created.pid, 0));
            delete(&mut pod, "a");
        }
    }
    assert!(info(&mut pod).is_empty());
    assert!(pod.cgroups().iter().all(|cgroup| !cgroup.join("a").exists()));
}

#[test]
fn a_created_container_waits_and_can_be_deleted() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = pod.create_request("a", "echo ran");
    let created: CreateResponse = pod.client.call(Method::Create, &request).unwrap();
    assert_eq!(pod.client.refusal(Method::Create, &request), ErrorCode::AlreadyExists);
    let containers = info(&mut pod);
    assert_eq!((containers[0].state(), containers[0].pid), (ContainerState::Created, created.pid));
    let waiting = pod.client.send(Method::Wait, &WaitRequest { id: "a".into() });
    assert_eq!(delete(&mut pod, "a").unwrap().signal, 9);
    let waited: WaitResponse = pod.client.result(waiting).unwrap();
    assert_eq!((waited.exit.as_ref().unwrap().signal, waited.exit.unwrap().started_at_ns), (9, 0));
    assert!(!is_alive(created.pid));
    // The id is free again, and a running container is not deleted.
    pod.run("a", "exec sleep 1000");
    assert_eq!(pod.client.refusal(Method::Delete, &DeleteRequest { id: "a".into() }), ErrorCode::WrongState);
    let again = pod.client.refusal(Method::Start, &StartRequest { id: "a".into() });
    assert_eq!(again, ErrorCode::WrongState);
}

#[test]
fn a_root_by_descriptor_and_an_environment_without_strays() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = pod.create_request_with("a", "ls -l /proc/self/fd >&2; echo here; cat /marker", |spec| {
        spec["root"]["path"] = "absent".into();
    });
    let request = CreateRequest { has_rootfs: true, ..request };
    let bundle = Path::new(&request.bundle);
    std::fs::write(bundle.join("rootfs/marker"), "from the mount\n").unwrap();
    std::os::unix::fs::symlink("busybox", bundle.join("rootfs/bin/ls")).unwrap();
    use rustix::mount::OpenTreeFlags;
    let rootfs = rustix::mount::open_tree(
        rustix::fs::CWD,
        bundle.join("rootfs"),
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .unwrap();
    let _: CreateResponse = pod.client.call_with(Method::Create, &request, &[rootfs.as_fd()]).unwrap();
    let _: StartResponse = pod.client.call(Method::Start, &StartRequest { id: "a".into() }).unwrap();
    assert_eq!(pod.wait("a").code, 0);
    let (stdout, stderr) = pod.logged("a");
    assert_eq!(String::from_utf8(stdout).unwrap(), "here\nfrom the mount\n");
    // Beside the standard streams only what ls itself opened on the folder.
    let listed = String::from_utf8(stderr).unwrap();
    assert_eq!(listed.lines().filter(|line| line.contains(" -> ")).count(), 3, "{listed}");
    assert_eq!(
        listed.lines().filter(|line| line.contains("r-x---") || line.contains("rwx---")).count(),
        2,
        "{listed}"
    );
}

#[test]
fn standard_input_is_kept_open_or_is_null() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("null", "cat; echo end");
    assert_eq!(pod.wait("null").code, 0);
    assert_eq!(pod.logged("null").0, b"end\n");
    let request = CreateRequest { stdin: true, ..pod.create_request("open", "cat; echo end") };
    pod.run_request(&request);
    std::thread::sleep(Duration::from_millis(150));
    assert_eq!(info(&mut pod).iter().find(|c| c.id == "open").unwrap().state(), ContainerState::Running);
    kill(&mut pod, "open", 9, false);
    assert_eq!(pod.wait("open").code, 137);
}

#[test]
fn a_terminal_is_logged_as_the_program_wrote_it() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = pod.create_request_with("a", "tty; echo two >&2; echo -n end", |spec| {
        spec["process"]["terminal"] = true.into();
    });
    let request = CreateRequest { terminal: true, stdin: true, ..request };
    pod.run_request(&request);
    assert_eq!(pod.wait("a").code, 0);
    assert_eq!(String::from_utf8(pod.logged("a").0).unwrap(), "/dev/pts/0\ntwo\nend");
}

#[test]
fn what_init_leaves_behind_ends_with_it() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = pod.create_request_with("a", "sleep 1000 & echo $!; exit 5", |spec| {
        spec["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }, { "type": "cgroup" }]);
    });
    pod.run_request(&request);
    let begun = Instant::now();
    assert_eq!(pod.wait("a").code, 5);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let orphan: u32 = String::from_utf8(pod.logged("a").0).unwrap().trim().parse().unwrap();
    assert!(!is_alive(orphan), "it is neither alive nor a zombie");
}

#[test]
fn a_log_is_whole_through_rotations_under_load() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("a", "seq 1 400000; head -c 300000 /dev/zero");
    let log = pod.log("a");
    let mut rotated = Vec::new();
    loop {
        std::thread::sleep(Duration::from_millis(10));
        let old = log.with_extension(format!("old{}", rotated.len()));
        std::fs::rename(&log, &old).unwrap();
        rotated.push(old);
        match pod.client.call::<Empty>(Method::ReopenLog, &ReopenLogRequest { id: "a".into() }) {
            Ok(_) => assert!(log.exists()),
            Err(error) => {
                assert_eq!(error.code, ErrorCode::WrongState);
                assert!(!log.exists(), "a reopening that failed made a file");
                break;
            }
        }
    }
    assert_eq!(pod.wait("a").code, 0);
    assert!(!log.exists());
    assert!(rotated.len() > 2, "{}", rotated.len());
    let mut streams = (Vec::new(), Vec::new());
    rotated.iter().for_each(|path| support::read_log(path, &mut streams));
    let mut expected: Vec<u8> = (1..=400_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    expected.extend_from_slice(&[0; 300_000]);
    assert!(streams.0 == expected, "{} bytes instead of {}", streams.0.len(), expected.len());
    assert_eq!(info(&mut pod)[0].dropped_log_records, 0);
}

/// A kubelet that finds a log and no container takes it for that of an earlier run.
#[test]
fn what_never_started_leaves_no_log_and_takes_none_away() {
    needs_containers!();
    let mut pod = Pod::start();
    let create = |pod: &mut Pod, id: &str| {
        let request = pod.create_request(id, "true");
        let _: CreateResponse = pod.client.call(Method::Create, &request).unwrap();
    };
    create(&mut pod, "a");
    assert!(pod.log("a").exists());
    delete(&mut pod, "a");
    assert!(!pod.log("a").exists(), "a log of nothing");
    std::fs::write(pod.log("b"), "of before").unwrap();
    create(&mut pod, "b");
    delete(&mut pod, "b");
    assert_eq!(std::fs::read_to_string(pod.log("b")).unwrap(), "of before");
    pod.run("c", "true");
    pod.wait("c");
    delete(&mut pod, "c");
    assert!(pod.log("c").exists(), "it ran, and said nothing");
}

#[test]
fn without_a_log_path_output_is_read_and_let_go() {
    needs_containers!();
    let mut pod = Pod::start();
    let request =
        CreateRequest { log_path: String::new(), ..pod.create_request("a", "seq 1 100000; exit 4") };
    pod.run_request(&request);
    assert_eq!(pod.wait("a").code, 4);
    assert!(!pod.log("a").exists());
}

#[test]
fn a_client_may_vanish_and_another_one_asks_on() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = pod.create_request("a", "sleep 0.3; exit 9");
    let mut other = pod.connect();
    // Gone before the answer of its create, and another before that of its wait.
    other.send(Method::Create, &request);
    drop(other);
    assert!(within(Duration::from_secs(5), || {
        let containers = info(&mut pod);
        containers.len() == 1 && containers[0].state() == ContainerState::Created
    }));
    let _: StartResponse = pod.client.call(Method::Start, &StartRequest { id: "a".into() }).unwrap();
    let mut other = pod.connect();
    other.send(Method::Wait, &WaitRequest { id: "a".into() });
    drop(other);
    let mut waiting = pod.connect();
    let first = waiting.send(Method::Wait, &WaitRequest { id: "a".into() });
    let second = waiting.send(Method::Wait, &WaitRequest { id: "a".into() });
    use prost::Message;
    let payload = WaitRequest { id: "a".into() }.encode_to_vec();
    let short = waiting.send_raw(SERVICE, "Wait", payload, 50_000_000, &[]);
    assert_eq!(waiting.result::<WaitResponse>(short).unwrap_err().code, ErrorCode::DeadlineExceeded);
    for stream in [second, first] {
        assert_eq!(waiting.result::<WaitResponse>(stream).unwrap().exit.unwrap().code, 9);
    }
}

#[test]
fn a_create_that_hangs_holds_up_nobody_and_can_be_cancelled() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = pod.create_request("hung", "true");
    let config = Path::new(&request.bundle).join("config.json");
    std::fs::remove_file(&config).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &config, rustix::fs::Mode::RWXU).unwrap();
    let creating = pod.client.send(Method::Create, &request);
    let begun = Instant::now();
    assert_eq!(info(&mut pod)[0].state(), ContainerState::Creating);
    pod.run("other", "echo works");
    assert_eq!(pod.wait("other").code, 0);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let deleting = pod.client.send(Method::Delete, &DeleteRequest { id: "hung".into() });
    let error = pod.client.result::<CreateResponse>(creating).unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled, "{error}");
    assert_eq!(pod.client.result::<DeleteResponse>(deleting).unwrap().exit, None);
    assert_eq!(info(&mut pod).len(), 1);
    let pid = pod.child.id();
    let children = || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    assert!(within(Duration::from_secs(5), || children().is_empty()), "{}", children());
}

#[test]
fn shutdown_leaves_no_process_no_cgroup_and_no_file_but_the_records() {
    needs_containers!();
    let mut pod = Pod::with(|config| config.namespaces.pid = shim::config::PidMode::Pod);
    let mut pids =
        vec![pod.run("a", "trap '' TERM; sleep 1000 & sleep 1001 & wait"), pod.run("b", "exec sleep 1002")];
    pod.run("done", "exit 2");
    pod.wait("done");
    let created: CreateResponse = {
        let request = pod.create_request("c", "true");
        pod.client.call(Method::Create, &request).unwrap()
    };
    pids.push(created.pid);
    let hung = pod.create_request("hung", "true");
    let config = Path::new(&hung.bundle).join("config.json");
    std::fs::remove_file(&config).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &config, rustix::fs::Mode::RWXU).unwrap();
    let creating = pod.client.send(Method::Create, &hung);
    let waiting = pod.client.send(Method::Wait, &WaitRequest { id: "b".into() });
    let ending = pod.client.send(Method::Shutdown, &ShutdownRequest {});
    assert_eq!(pod.client.result::<WaitResponse>(waiting).unwrap().exit.unwrap().signal, 9);
    assert_eq!(pod.client.result::<CreateResponse>(creating).unwrap_err().code, ErrorCode::Cancelled);
    let _: Empty = pod.client.result(ending).unwrap();
    assert!(pod.ended());
    for pid in pids {
        assert!(!is_alive(pid), "{pid}");
    }
    let mut left: Vec<_> =
        std::fs::read_dir(&pod.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["containers", "exits"], "the bundles are the daemon's");
    let mut records: Vec<_> =
        std::fs::read_dir(pod.dir.join("exits")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    records.sort();
    assert_eq!(records, ["a.json", "b.json", "c.json", "done.json"]);
    for cgroup in pod.cgroups() {
        let below = std::fs::read_dir(&cgroup).unwrap().flatten();
        assert_eq!(below.filter(|entry| entry.file_type().unwrap().is_dir()).count(), 0, "{cgroup:?}");
    }
}

#[test]
fn a_hook_that_hangs_is_ended_with_its_container() {
    needs_containers!();
    let mut pod = Pod::start();
    let hook = |kind: &str| {
        let hooks = serde_json::json!({ kind: [{ "path": "/bin/sleep", "args": ["sleep", "1003"] }] });
        move |spec: &mut serde_json::Value| spec["hooks"] = hooks
    };
    let pid = pod.child.id();
    let children = move || std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    // While it is created: the half-made container has a process, a cgroup and a hook.
    let request = pod.create_request_with("making", "true", hook("createRuntime"));
    let creating = pod.client.send(Method::Create, &request);
    assert!(within(Duration::from_secs(5), || pod.cgroups().iter().any(|c| c.join("making").exists())));
    std::thread::sleep(Duration::from_millis(100));
    delete(&mut pod, "making");
    assert_eq!(pod.client.result::<CreateResponse>(creating).unwrap_err().code, ErrorCode::Cancelled);
    assert!(pod.cgroups().iter().all(|cgroup| !cgroup.join("making").exists()));
    assert!(within(Duration::from_secs(5), || children().is_empty()), "{}", children());
    // While it is started: the command runs, the call is not answered.
    let request = pod.create_request_with("starting", "exec sleep 1004", hook("poststart"));
    let _: CreateResponse = pod.client.call(Method::Create, &request).unwrap();
    let starting = pod.client.send(Method::Start, &StartRequest { id: "starting".into() });
    assert!(!pod.client.answered_within(starting, Duration::from_millis(300)));
    assert_eq!(info(&mut pod).len(), 1);
    kill(&mut pod, "starting", 9, false);
    let begun = Instant::now();
    assert_eq!(pod.wait("starting").signal, 9);
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert_eq!(pod.client.result::<StartResponse>(starting).unwrap_err().code, ErrorCode::StartFailed);
    delete(&mut pod, "starting");
    assert!(within(Duration::from_secs(5), || children().is_empty()), "{}", children());
    // And a hook that ends is waited for.
    let request = pod.create_request_with("fine", "exit 8", |spec| {
        spec["hooks"] = serde_json::json!({ "poststart": [{ "path": "/bin/true" }] });
    });
    pod.run_request(&request);
    let exit = pod.wait("fine");
    assert!(exit.code == 8 && exit.started_at_ns > 0, "{exit:?}");
}

#[test]
fn a_command_starts_with_the_signals_of_a_fresh_process() {
    needs_containers!();
    let mut pod = Pod::start();
    // Without a shell, which sets signals of its own.
    let request = pod.create_request_with("a", "", |spec| {
        spec["process"]["args"] = serde_json::json!(["/bin/cat", "/proc/self/status"]);
    });
    pod.run_request(&request);
    pod.wait("a");
    let shown = String::from_utf8(pod.logged("a").0).unwrap();
    let of = |name: &str| {
        let line = shown.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    assert_eq!((of("SigBlk:"), of("SigIgn:")), (0, 0));
}
