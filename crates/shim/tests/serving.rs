//! The shim without containers: its namespaces, its answers to strange clients, its end.

mod support;

use shim::config::{NamespaceMode, PidMode, ShimRecord, record_path, socket_path};
use shim::protocol::*;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;
use support::{Pod, within};

fn info(client: &mut support::client::Client) -> InfoResponse {
    client.call(Method::Info, &InfoRequest {}).unwrap()
}

fn shut_down(pod: &mut Pod) {
    let _: Empty = pod.client.call(Method::Shutdown, &ShutdownRequest {}).unwrap();
    assert!(pod.ended());
    assert!(pod.child.wait().unwrap().success());
}

#[test]
fn it_has_namespaces_of_its_own_and_says_who_it_is() {
    needs_containers!();
    let mut pod = Pod::with(|config| {
        config.domainname = Some("example".into());
        config.namespaces.pid = PidMode::Pod;
        config.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
        config.sysctls.insert("kernel.shmmni".into(), "1234".into());
    });
    let info = info(&mut pod.client);
    let pid = pod.child.id();
    assert_eq!((info.pid, info.protocol_version, &info.pod_id[..]), (pid, 1, "pod-under-test"));
    let namespace = |pid: u32, name| std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
    let own = std::process::id();
    for name in ["net", "ipc", "uts"] {
        assert_ne!(namespace(pid, name), namespace(own, name), "{name}");
    }
    for name in ["mnt", "user", "pid", "cgroup"] {
        assert_eq!(namespace(pid, name), namespace(own, name), "{name}");
    }
    assert_ne!(namespace(info.pid_namespace_init, "pid"), namespace(own, "pid"));
    assert_eq!(namespace(info.pid_namespace_init, "net"), namespace(pid, "net"));
    // Nothing of the host is in its mounts.
    let mounts = format!("/proc/{}/mountinfo", info.pid_namespace_init);
    let alone = || {
        let mounts = std::fs::read_to_string(&mounts).unwrap();
        mounts.lines().count() == 1 && mounts.contains(" / / ro,") && mounts.contains(" - tmpfs ")
    };
    assert!(within(Duration::from_secs(5), alone), "{}", std::fs::read_to_string(&mounts).unwrap());
    assert_ne!(namespace(info.pid_namespace_init, "mnt"), namespace(own, "mnt"));
    // A process in its uts, ipc and net namespaces sees what was set.
    let inside = std::process::Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-u", "-i", "-n", "sh", "-c"])
        .arg("uname -n; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(inside.stdout).unwrap(), "tested\nexample\n77\n1234\n");
    let record: ShimRecord = serde_json::from_slice(&std::fs::read(record_path(&pod.dir)).unwrap()).unwrap();
    assert_eq!((record.version, record.pid), (1, pid));
    assert_eq!(record.start_time, sys::process::start_time(pid.cast_signed()).unwrap());
    // It leads a session, holds nothing but what it needs, and nobody may trace it.
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(descriptors <= 9, "{descriptors}");
    let init = info.pid_namespace_init;
    shut_down(&mut pod);
    assert!(!std::path::Path::new(&format!("/proc/{init}")).exists());
    assert_eq!(std::fs::read_dir(&pod.dir).unwrap().count(), 0, "files are left");
}

#[test]
fn a_pod_that_cannot_be_set_up_says_which_step_failed() {
    needs_containers!();
    type Change = fn(&mut shim::config::ShimConfig);
    let cases: [(&str, Change); 6] = [
        ("host name", |config| config.hostname = "x".repeat(65)),
        ("sysctls", |config| drop(config.sysctls.insert("kernel.core_pattern".into(), "|/x".into()))),
        ("sysctls", |config| drop(config.sysctls.insert("net.ipv4.no_such".into(), "1".into()))),
        ("sysctls", |config| {
            config.namespaces.net = NamespaceMode::Host;
            config.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        }),
        ("configuration", |config| config.version = 99),
        ("socket", |config| config.pod_dir = config.pod_dir.parent().unwrap().join("absent")),
    ];
    for (stage, change) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut config = support::config(folder.path());
        let before = config.pod_dir.clone();
        change(&mut config);
        let messages = folder.path().join("messages");
        let wrong_dir = std::mem::replace(&mut config.pod_dir, before);
        // The test itself needs the folder for a file; the shim gets the changed one.
        let (mut child, socket) = launch_with(&config, &wrong_dir, &messages);
        let mut client = support::client::Client::over(socket);
        let error = client.call::<InfoResponse>(Method::Info, &InfoRequest {}).unwrap_err();
        // What no other machine would take either is the caller's fault.
        let code = if stage == "sysctls" { ErrorCode::InvalidArgument } else { ErrorCode::SetupFailed };
        assert_eq!((error.code, &error.stage[..]), (code, stage), "{error}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
        assert!(!socket_path(folder.path()).exists());
    }
}

fn launch_with(
    config: &shim::config::ShimConfig,
    pod_dir: &std::path::Path,
    messages: &std::path::Path,
) -> (std::process::Child, std::os::fd::OwnedFd) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let config = shim::config::ShimConfig { pod_dir: pod_dir.into(), ..config.clone() };
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut child = std::process::Command::new(support::shim_program())
        .arg("shim")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::from(theirs))
        .stderr(std::fs::File::create(messages).unwrap())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(&config).unwrap()).unwrap();
    (child, ours)
}

#[test]
fn strange_clients_lose_their_connection_and_nobody_elses() {
    needs_containers!();
    let mut pod = Pod::start();
    info(&mut pod.client);
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: shim\r\n\r\n",
        &[0xff; 64],
        // A response, and a request whose message is none.
        &[0, 0, 0, 0, 0, 0, 0, 1, 2, 0],
        &[0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0xff, 0xff],
        // Too long.
        &[0, 0x40, 0, 1, 0, 0, 0, 1, 1, 0],
    ];
    for bytes in garbage {
        let mut client = pod.connect();
        client.socket.write_all(bytes).unwrap();
        assert_eq!(client.socket.read(&mut [0; 16]).unwrap_or(0), 0, "{bytes:?}");
    }
    // Descriptors that were announced and did not come.
    let mut client = pod.connect();
    let request = Request {
        service: SERVICE.into(),
        method: "Create".into(),
        metadata: vec![KeyValue { key: DESCRIPTORS_KEY.into(), value: "1".into() }],
        ..Request::default()
    };
    let mut frame = Vec::new();
    encode(&mut frame, 1, FrameKind::Request, &request).unwrap();
    client.socket.write_all(&frame).unwrap();
    assert_eq!(client.socket.read(&mut [0; 16]).unwrap_or(0), 0);
    // Half a frame, and gone.
    let mut client = pod.connect();
    client.socket.write_all(&[0, 0, 0, 9, 0]).unwrap();
    drop(client);
    // What is well formed and unknown is answered.
    let stream = pod.client.send_raw(SERVICE, "Fly", vec![], 0, &[]);
    assert_eq!(pod.client.result::<Empty>(stream).unwrap_err().code, ErrorCode::Unimplemented);
    let stream = pod.client.send_raw("other.Service", "Info", vec![], 0, &[]);
    assert_eq!(pod.client.result::<Empty>(stream).unwrap_err().code, ErrorCode::Unimplemented);
    let stream = pod.client.send_raw(SERVICE, "Wait", vec![0xff], 0, &[]);
    assert_eq!(pod.client.result::<Empty>(stream).unwrap_err().code, ErrorCode::InvalidArgument);
    let absent = WaitRequest { id: "absent".into() };
    assert_eq!(pod.client.refusal(Method::Wait, &absent), ErrorCode::NotFound);
    shut_down(&mut pod);
}

#[test]
fn bad_requests_are_refused_and_name_the_field() {
    needs_containers!();
    let mut pod = Pod::start();
    let good = CreateRequest { id: "a".into(), bundle: "/absent".into(), ..CreateRequest::default() };
    let cases = [
        ("id", CreateRequest { id: "".into(), ..good.clone() }),
        ("id", CreateRequest { id: "../x".into(), ..good.clone() }),
        ("id", CreateRequest { id: "x".repeat(201), ..good.clone() }),
        ("id", CreateRequest { id: "a\nb".into(), ..good.clone() }),
        ("bundle", CreateRequest { bundle: "relative".into(), ..good.clone() }),
        ("has_rootfs", CreateRequest { has_rootfs: true, ..good.clone() }),
    ];
    for (field, request) in cases {
        let error = pod.client.call::<CreateResponse>(Method::Create, &request).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert!(error.message.starts_with(field), "{error}");
    }
    let null = std::fs::File::open("/dev/null").unwrap();
    let error = pod.client.call_with::<CreateResponse>(Method::Create, &good, &[null.as_fd()]).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArgument);
    let bad_log = CreateRequest { log_path: "/absent/folder/0.log".into(), ..good.clone() };
    assert_eq!(pod.client.refusal(Method::Create, &bad_log), ErrorCode::LogFailed);
    // A bundle that is not there is the runtime's to tell; nothing of the container is left.
    assert_eq!(pod.client.refusal(Method::Create, &good), ErrorCode::CreateFailed);
    assert!(info(&mut pod.client).containers.is_empty());
    shut_down(&mut pod);
}

#[test]
fn many_connections_are_bounded_and_slow_readers_held_back() {
    needs_containers!();
    let mut pod = Pod::start();
    info(&mut pod.client);
    let mut clients: Vec<_> = (0..80).map(|_| pod.connect()).collect();
    let served = clients
        .iter_mut()
        .filter_map(|client| {
            let _ = client.socket.set_read_timeout(Some(Duration::from_secs(5)));
            let mut frame = Vec::new();
            let request = Request { service: SERVICE.into(), method: "Info".into(), ..Request::default() };
            encode(&mut frame, 1, FrameKind::Request, &request).unwrap();
            client.socket.write_all(&frame).ok()?;
            client.read_more().ok().filter(|more| *more)
        })
        .count();
    assert_eq!(served, 63, "with the first connection 64");
    drop(clients);
    assert!(within(Duration::from_secs(5), || {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", pod.child.id())).unwrap().count();
        descriptors < 12
    }));
    // A client that asks and asks and does not read: the shim stops reading from it and serves the others.
    let slow = pod.connect();
    slow.socket.set_nonblocking(true).unwrap();
    let mut frame = Vec::new();
    let request = Request { service: SERVICE.into(), method: "Info".into(), ..Request::default() };
    encode(&mut frame, 1, FrameKind::Request, &request).unwrap();
    let mut asked = 0;
    let blocked = within(Duration::from_secs(8), || {
        while (&slow.socket).write(&frame).is_ok_and(|written| written == frame.len()) {
            asked += 1;
            if asked % 50 == 0 {
                info(&mut pod.client);
            }
        }
        std::thread::sleep(Duration::from_millis(20));
        (&slow.socket).write(&frame).is_err()
    });
    assert!(blocked, "the shim took {asked} requests of a client that reads nothing");
    info(&mut pod.client);
    drop(slow);
    shut_down(&mut pod);
}

/// Memory of a process that is its own, in kB.
fn anonymous_kb(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let anonymous = text.lines().filter(|line| line.starts_with("Anonymous:"));
    anonymous.filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

#[test]
fn ten_thousand_requests_leave_its_memory_flat() {
    needs_containers!();
    let mut pod = Pod::start();
    let pid = pod.child.id();
    let absent = WaitRequest { id: "absent".into() };
    let ask = |pod: &mut Pod, times: usize| {
        for _ in 0..times {
            info(&mut pod.client);
            assert_eq!(pod.client.refusal(Method::Wait, &absent), ErrorCode::NotFound);
        }
        for _ in 0..20 {
            info(&mut pod.connect());
        }
    };
    ask(&mut pod, 200);
    let before = anonymous_kb(pid);
    ask(&mut pod, 5000);
    let after = anonymous_kb(pid);
    assert!(after <= before + 8, "{before} kB became {after} kB");
    shut_down(&mut pod);
}
