//! Further processes in a container: their bytes, their ends.

mod support;

use shim::protocol::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use support::{Pod, within};

fn request(exec_id: &str, script: &str) -> ExecRequest {
    ExecRequest {
        container_id: "a".into(),
        exec_id: exec_id.into(),
        process_json: serde_json::to_vec(&support::process(script)).unwrap(),
        ..ExecRequest::default()
    }
}

fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (reader.into(), writer)
}

fn wait(pod: &mut Pod, exec_id: &str) -> Exit {
    let request = WaitExecRequest { container_id: "a".into(), exec_id: exec_id.into() };
    pod.client.call::<WaitResponse>(Method::WaitExec, &request).unwrap().exit.unwrap()
}

#[test]
fn a_hundred_megabytes_pass_in_both_directions_unchanged() {
    needs_containers!();
    const LENGTH: usize = 100 << 20;
    let mut pod = Pod::start();
    pod.run("a", "exec sleep 1000");
    let (stdin, mut input) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map(|(r, w)| (r, File::from(w))).unwrap();
    let (mut output, stdout) = pipe();
    let (mut errors, stderr) = pipe();
    let request = ExecRequest {
        has_stdin: true,
        has_stdout: true,
        has_stderr: true,
        ..request("cat", "cat; echo done >&2; exit 6")
    };
    let _: ExecResponse = pod
        .client
        .call_with(Method::Exec, &request, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
        .unwrap();
    drop((stdin, stdout, stderr));
    let bytes = |at: usize| -> Vec<u8> {
        let mut state = at as u64 | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_le_bytes()
        };
        (0..(1 << 20) / 8).flat_map(|_| next()).collect()
    };
    let block = bytes(1);
    let sent = block.clone();
    let writer = std::thread::spawn(move || {
        for number in 0..LENGTH >> 20 {
            input.write_all(&[number as u8]).unwrap();
            input.write_all(&sent[1..]).unwrap();
        }
    });
    let mut got = vec![0; 1 << 20];
    for number in 0..LENGTH >> 20 {
        output.read_exact(&mut got).unwrap();
        assert_eq!(got[0], number as u8);
        assert!(got[1..] == block[1..], "block {number} was changed");
    }
    assert_eq!(output.read(&mut got).unwrap(), 0, "there is more");
    writer.join().unwrap();
    let exit = wait(&mut pod, "cat");
    assert_eq!((exit.code, exit.signal), (6, 0));
    let mut text = String::new();
    errors.read_to_string(&mut text).unwrap();
    assert_eq!(text, "done\n");
    assert_eq!(wait(&mut pod, "cat"), exit, "a wait after the exit");
    assert_eq!(pod.logged("a"), (vec![], vec![]), "nothing of it is in the container's log");
}

#[test]
fn ends_are_told_apart_and_ids_are_checked() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("a", "exec sleep 1000");
    for (id, script, code) in [("zero", "cat", 0), ("five", "exit 5", 5)] {
        let _: ExecResponse = pod.client.call(Method::Exec, &request(id, script)).unwrap();
        assert_eq!(wait(&mut pod, id).code, code);
    }
    let running: ExecResponse = pod.client.call(Method::Exec, &request("long", "exec sleep 1000")).unwrap();
    assert_eq!(pod.client.refusal(Method::Exec, &request("long", "true")), ErrorCode::AlreadyExists);
    let kill = KillExecRequest { container_id: "a".into(), exec_id: "long".into(), signal: 9 };
    let _: Empty = pod.client.call(Method::KillExec, &kill).unwrap();
    let exit = wait(&mut pod, "long");
    assert_eq!((exit.code, exit.signal, exit.pid), (137, 9, running.pid));
    let _: Empty = pod.client.call(Method::KillExec, &kill).unwrap();
    let absent = WaitExecRequest { container_id: "a".into(), exec_id: "absent".into() };
    assert_eq!(pod.client.refusal(Method::WaitExec, &absent), ErrorCode::NotFound);
    // What cannot be executed is an error of the call and leaves nothing.
    let mut missing = request("missing", "");
    let mut process = support::process("");
    process["args"] = serde_json::json!(["/bin/absent"]);
    missing.process_json = serde_json::to_vec(&process).unwrap();
    let error = pod.client.call::<ExecResponse>(Method::Exec, &missing).unwrap_err();
    assert_eq!(error.code, ErrorCode::ExecFailed);
    assert!(error.message.contains("absent"), "{error}");
    let garbage = ExecRequest { process_json: b"{".to_vec(), ..request("garbage", "") };
    assert_eq!(pod.client.refusal(Method::Exec, &garbage), ErrorCode::InvalidArgument);
    let lying = ExecRequest { has_stdin: true, ..request("lying", "true") };
    assert_eq!(pod.client.refusal(Method::Exec, &lying), ErrorCode::InvalidArgument);
    let info: InfoResponse = pod.client.call(Method::Info, &InfoRequest {}).unwrap();
    let mut known: Vec<_> = info.containers[0].execs.iter().map(|exec| &exec.exec_id[..]).collect();
    known.sort_unstable();
    assert_eq!(known, ["five", "long", "zero"]);
}

#[test]
fn they_end_with_the_container_also_without_a_pid_namespace_of_its_own() {
    needs_containers!();
    let mut pod = Pod::start();
    let create = pod.create_request_with("a", "exec sleep 1000", |spec| {
        spec["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }]);
    });
    pod.run_request(&create);
    let one: ExecResponse = pod.client.call(Method::Exec, &request("one", "exec sleep 1000")).unwrap();
    let _: ExecResponse =
        pod.client.call(Method::Exec, &request("two", "sleep 1001 & sleep 1002 & wait")).unwrap();
    let waiting = pod
        .client
        .send(Method::WaitExec, &WaitExecRequest { container_id: "a".into(), exec_id: "one".into() });
    let kill = KillRequest { id: "a".into(), signal: 15, all: false };
    let _: Empty = pod.client.call(Method::Kill, &kill).unwrap();
    assert_eq!(pod.wait("a").code, 143);
    assert_eq!(pod.client.result::<WaitResponse>(waiting).unwrap().exit.unwrap().signal, 9);
    assert!(within(Duration::from_secs(5), || !Path::new(&format!("/proc/{}", one.pid)).exists()));
    let tasks = pod.cgroups().iter().any(|cgroup| {
        std::fs::read_to_string(cgroup.join("a/cgroup.procs")).is_ok_and(|processes| !processes.is_empty())
    });
    assert!(!tasks, "a process is left in the cgroup");
    assert_eq!(pod.client.refusal(Method::Exec, &request("late", "true")), ErrorCode::WrongState);
}

#[test]
fn a_terminal_of_a_further_process_goes_straight_to_the_client() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("a", "exec sleep 1000");
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut process = support::process("tty; read line; echo got $line");
    process["terminal"] = true.into();
    let request = ExecRequest {
        terminal: true,
        process_json: serde_json::to_vec(&process).unwrap(),
        ..request("tty", "")
    };
    let _: ExecResponse = pod.client.call_with(Method::Exec, &request, &[theirs.as_fd()]).unwrap();
    drop(theirs);
    let (_, mut descriptors) = sys::socket::receive(ours.as_fd(), &mut [0; 64]).unwrap();
    let mut master = File::from(descriptors.pop().unwrap());
    master.write_all(b"typed\n").unwrap();
    let mut shown = Vec::new();
    // EIO is how a terminal tells that nobody is left.
    let _ = master.read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("/dev/pts/0\r\n") && shown.ends_with("got typed\r\n"), "{shown:?}");
    assert_eq!(wait(&mut pod, "tty").code, 0);
}

#[test]
fn a_hundred_probes_leave_a_bounded_memory_of_themselves() {
    needs_containers!();
    let mut pod = Pod::start();
    pod.run("a", "exec sleep 1000");
    for number in 0..100 {
        let id = format!("probe{number}");
        let _: ExecResponse = pod.client.call(Method::Exec, &request(&id, "true")).unwrap();
        assert_eq!(wait(&mut pod, &id).code, 0);
    }
    let info: InfoResponse = pod.client.call(Method::Info, &InfoRequest {}).unwrap();
    assert!(info.containers[0].execs.len() <= 64, "{}", info.containers[0].execs.len());
}
