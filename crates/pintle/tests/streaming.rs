//! Exec, attach and port-forward, by WebSocket to the URLs that a real daemon gives.

mod support;

use std::net::{Ipv6Addr, TcpListener};
use std::time::{Duration, Instant};

use cri::runtime_v1 as v1;
use stream::client::{self, Receiver, Sender, channel};
use support::Daemon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Nothing here takes longer, unless it is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's side of an exec or attach.
struct Session {
    sender: Sender,
    receiver: Receiver,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Vec<u8>,
}

impl Session {
    async fn open(url: &str) -> Session {
        let (sender, receiver) = client::connect(url, client::REMOTE).await.unwrap();
        Session { sender, receiver, stdout: vec![], stderr: vec![], status: vec![] }
    }

    async fn send(&self, text: &str) {
        self.sender.send(channel::STDIN, text.as_bytes()).await.unwrap();
    }

    async fn resize(&self, width: u16, height: u16) {
        let size = format!("{{\"Width\":{width},\"Height\":{height}}}");
        self.sender.send(channel::RESIZE, size.as_bytes()).await.unwrap();
    }

    /// Takes the next message; false at the end.
    async fn hear(&mut self) -> bool {
        let heard = tokio::time::timeout(PATIENCE, self.receiver.next()).await;
        let heard = heard.unwrap_or_else(|_| panic!("nothing comes after {:?}", self.text()));
        let Some((channel, bytes)) = heard.unwrap() else { return false };
        match channel {
            channel::STDOUT => self.stdout.extend(bytes),
            channel::STDERR => self.stderr.extend(bytes),
            channel::STATUS => self.status.extend(bytes),
            other => panic!("channel {other}"),
        }
        true
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    async fn until(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.hear().await, "{text:?} does not come after {:?}", self.text());
        }
    }

    /// Hears the rest; the exit code.
    async fn end(&mut self) -> i64 {
        while self.hear().await {}
        let status: serde_json::Value = serde_json::from_slice(&self.status).unwrap();
        if status["status"] == "Success" {
            return 0;
        }
        assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
        status["details"]["causes"][0]["message"].as_str().unwrap().parse().unwrap()
    }
}

/// What `exec` and `attach` ask for.
#[derive(Clone, Copy, Default)]
struct Ask {
    stdin: bool,
    tty: bool,
}

const READS: Ask = Ask { stdin: false, tty: false };
const TALKS: Ask = Ask { stdin: true, tty: false };
const TERMINAL: Ask = Ask { stdin: true, tty: true };

async fn exec_url(daemon: &Daemon, id: &str, ask: Ask, command: &[&str]) -> Result<String, tonic::Status> {
    let request = v1::ExecRequest {
        container_id: id.into(),
        cmd: command.iter().map(ToString::to_string).collect(),
        tty: ask.tty,
        stdin: ask.stdin,
        stdout: true,
        stderr: !ask.tty,
    };
    Ok(daemon.runtime().exec(request).await?.into_inner().url)
}

async fn exec(daemon: &Daemon, id: &str, ask: Ask, script: &str) -> Session {
    Session::open(&exec_url(daemon, id, ask, &["sh", "-c", script]).await.unwrap()).await
}

async fn attach_url(daemon: &Daemon, id: &str, ask: Ask) -> Result<String, tonic::Status> {
    let request = v1::AttachRequest {
        container_id: id.into(),
        stdin: ask.stdin,
        tty: ask.tty,
        stdout: true,
        stderr: !ask.tty,
    };
    Ok(daemon.runtime().attach(request).await?.into_inner().url)
}

async fn attach(daemon: &Daemon, id: &str, ask: Ask) -> Session {
    let mut session = Session::open(&attach_url(daemon, id, ask).await.unwrap()).await;
    assert!(session.receiver.is_joined().await);
    session
}

/// A pod, and in it a container that runs `script` with an input of this kind.
async fn run(daemon: &Daemon, name: &str, script: &str, ask: Ask, stdin_once: bool) -> (String, String) {
    run_in(daemon, &daemon.pod(name), script, ask, stdin_once).await
}

async fn run_in(
    daemon: &Daemon,
    sandbox: &v1::PodSandboxConfig,
    script: &str,
    ask: Ask,
    stdin_once: bool,
) -> (String, String) {
    let pod = daemon.run_pod(sandbox).await.unwrap();
    let mut container =
        v1::ContainerConfig { stdin: ask.stdin, tty: ask.tty, stdin_once, ..daemon.container("c", script) };
    let context = sandbox.linux.clone().unwrap().security_context.unwrap_or_default();
    container.linux.get_or_insert_default().security_context = Some(v1::LinuxContainerSecurityContext {
        namespace_options: context.namespace_options,
        ..Default::default()
    });
    let id = daemon.create(&pod, sandbox, &container).await.unwrap();
    daemon.start_container(&id).await.unwrap();
    (pod, id)
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Whether these processes have no more descriptors than they had.
fn not_more(before: &[usize], processes: &[u32]) -> bool {
    before.iter().zip(processes).all(|(before, process)| descriptors(*process) <= *before)
}

async fn within(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_are_streamed_and_their_ends_told() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let (_, id) = run(&daemon, "p", "exec sleep 1000", READS, false).await;
    for (script, stdout, stderr, code) in [
        ("echo out; echo err >&2", "out\n", "err\n", 0),
        ("exit 3", "", "", 3),
        ("echo -n half; kill -9 $$", "half", "", 137),
    ] {
        let mut session = exec(&daemon, &id, READS, script).await;
        assert_eq!(session.end().await, code, "{script}");
        assert_eq!((session.text().as_str(), &session.stderr[..]), (stdout, stderr.as_bytes()), "{script}");
    }
    // The end of the input is passed on, and all that was sent before it comes back.
    let mut session = exec(&daemon, &id, TALKS, "cat; echo end >&2").await;
    let text = "0123456789abcdef".repeat(1 << 16);
    let (sender, sent) = (session.sender.clone(), text.clone());
    let sending = tokio::spawn(async move {
        for piece in sent.as_bytes().chunks(10_000) {
            sender.send(channel::STDIN, piece).await.unwrap();
        }
        sender.end(channel::STDIN).await.unwrap();
    });
    assert_eq!(session.end().await, 0);
    sending.await.unwrap();
    assert!(session.text() == text && session.stderr == b"end\n");
    // What is not there is told to who comes with the URL, and a URL is good once.
    let url = exec_url(&daemon, &id, READS, &["/absent"]).await.unwrap();
    let mut session = Session::open(&url).await;
    while session.hear().await {}
    assert!(String::from_utf8_lossy(&session.status).contains("absent"));
    assert!(client::connect(&url, client::REMOTE).await.is_err());
    daemon.stop_container(&id, 0).await.unwrap();
    let refused = exec_url(&daemon, &id, READS, &["true"]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    let refused = attach_url(&daemon, &id, READS).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_passes_both_ways_at_once_unchanged_in_little_memory() {
    needs_a_node!();
    const PIECES: usize = 2000;
    let daemon = Daemon::start().await;
    let (_, id) = run(&daemon, "p", "exec sleep 1000", READS, false).await;
    let piece = |number: usize| [number.to_le_bytes(), (!number).to_le_bytes()].concat().repeat(2 << 10);
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    let before = resident();
    let mut session = exec(&daemon, &id, TALKS, "exec cat").await;
    let sender = session.sender.clone();
    let sending = tokio::spawn(async move {
        for number in 0..PIECES {
            sender.send(channel::STDIN, &piece(number)).await.unwrap();
        }
        sender.end(channel::STDIN).await.unwrap();
    });
    for number in 0..PIECES {
        let expected = piece(number);
        while session.stdout.len() < expected.len() {
            assert!(session.hear().await, "it ends in piece {number}");
        }
        assert!(session.stdout.drain(..expected.len()).eq(expected), "piece {number}");
    }
    assert_eq!(session.end().await, 0);
    assert!(session.stdout.is_empty());
    sending.await.unwrap();
    let grown = resident() - before;
    assert!(grown < 24 << 10, "the daemon grew by {grown} KiB for {PIECES} pieces of 32 KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_a_size_and_a_name() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let (_, id) = run(&daemon, "p", "exec sleep 1000", READS, false).await;
    let mut session =
        exec(&daemon, &id, TERMINAL, "trap 'stty size' WINCH; echo $TERM; while true; do sleep 0.05; done")
            .await;
    session.until("xterm\r\n").await;
    session.resize(132, 43).await;
    session.until("43 132\r\n").await;
    session.resize(0, 5).await;
    session.resize(80, 24).await;
    session.until("24 80\r\n").await;
    session.send("\x03").await;
    assert_eq!(session.end().await, 130, "Ctrl-C is the terminal's");
    // A shell as somebody uses it.
    let mut session = exec(&daemon, &id, TERMINAL, "exec sh").await;
    session.send("tty; exit 5\n").await;
    assert_eq!(session.end().await, 5);
    assert!(session.text().contains("/dev/pts/"), "{}", session.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_closes_its_streams_and_kills_nobody() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let (_, id) = run(&daemon, "p", "exec sleep 1000", READS, false).await;
    let shim = daemon.shim_of(&id);
    let before = [descriptors(daemon.pid()), descriptors(shim)];
    let running = async |what: &str| {
        daemon.sh(&id, &format!("ps | grep -c '[{}]{}' || true", &what[..1], &what[1..])).await == "1\n"
    };
    let mut reading = exec(&daemon, &id, TALKS, "echo begun; exec cat -").await;
    let mut idle = exec(&daemon, &id, TALKS, "echo begun; exec sleep 4321").await;
    let mut shell = exec(&daemon, &id, TERMINAL, "echo begun; sleep 5432").await;
    for session in [&mut reading, &mut idle, &mut shell] {
        session.until("begun").await;
    }
    assert!(running("cat -").await && running("sleep 4321").await && running("sleep 5432").await);
    drop((reading, idle, shell));
    within("its input has ended", async || !running("cat -").await).await;
    within("its terminal has hung up", async || !running("sleep 5432").await).await;
    assert!(running("sleep 4321").await, "it neither reads nor writes");
    within("nothing is kept of them", async || not_more(&before, &[daemon.pid(), shim])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_can_leave_a_container_and_come_back_also_to_another_daemon() {
    needs_a_node!();
    let mut daemon = Daemon::start().await;
    let script = "while read line; do echo \"got $line\"; done; echo closed";
    let (_, id) = run(&daemon, "open", script, TALKS, false).await;
    let mut first = attach(&daemon, &id, TALKS).await;
    first.send("one\n").await;
    first.until("got one\n").await;
    first.sender.end(channel::STDIN).await.unwrap();
    let mut second = attach(&daemon, &id, TALKS).await;
    second.send("two\n").await;
    second.until("got two\n").await;
    first.until("got two\n").await;
    drop(first);
    let terminal = "trap 'stty size' WINCH; while true; do read line && echo \"$line there\"; done";
    let (_, with_terminal) = run(&daemon, "terminal", terminal, TERMINAL, true).await;
    let mut shown = attach(&daemon, &with_terminal, TERMINAL).await;
    shown.resize(99, 33).await;
    shown.send("you\n").await;
    shown.until("you there\r\n").await;

    daemon.kill();
    daemon.launch().await;
    let mut third = attach(&daemon, &id, TALKS).await;
    third.send("three\n").await;
    third.until("got three\n").await;
    assert_eq!(third.text(), "got three\n", "what was before is in the log");
    let mut shown = attach(&daemon, &with_terminal, TERMINAL).await;
    shown.resize(100, 34).await;
    shown.send("again\n").await;
    shown.until("again there\r\n").await;
    shown.until("34 100\r\n").await;
    // A container that ends while somebody is attached: he sees its last words, and that it is over.
    daemon.stop_container(&id, 0).await.unwrap();
    assert_eq!(third.end().await, 0);
    assert_eq!(daemon.log_of("open", "c"), "got one\ngot two\ngot three\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_kept_once_ends_with_its_first_client() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let (_, id) = run(&daemon, "once", "cat; echo closed; exit 4", TALKS, true).await;
    let mut session = attach(&daemon, &id, TALKS).await;
    session.send("hello\n").await;
    session.sender.end(channel::STDIN).await.unwrap();
    session.end().await;
    assert_eq!(session.text(), "hello\nclosed\n");
    assert_eq!(daemon.exited(&id).await.exit_code, 4);
    // Attached before the start: nothing is missed.
    let sandbox = daemon.pod("early");
    let pod = daemon.run_pod(&sandbox).await.unwrap();
    let id = daemon.create(&pod, &sandbox, &daemon.container("c", "echo first")).await.unwrap();
    let mut session = attach(&daemon, &id, READS).await;
    daemon.start_container(&id).await.unwrap();
    session.end().await;
    assert_eq!(session.text(), "first\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_stalls_neither_log_nor_container() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let line = "y".repeat(999);
    let script = format!("read go; yes {line} | head -c 20000000");
    let (_, id) = run(&daemon, "loud", &script, TALKS, false).await;
    let deaf = attach(&daemon, &id, TALKS).await;
    deaf.send("go\n").await;
    assert_eq!(daemon.exited(&id).await.exit_code, 0);
    assert_eq!(daemon.log_of("loud", "c").len(), 20_000_000);
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_failed_attaches_leave_no_descriptor() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let (_, id) = run(&daemon, "p", "exec sleep 1000", TALKS, false).await;
    let shim = daemon.shim_of(&id);
    // One goes well before, so that what is made once is made.
    drop(attach(&daemon, &id, TALKS).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = [descriptors(daemon.pid()), descriptors(shim)];
    let url = attach_url(&daemon, &id, TALKS).await.unwrap();
    let bad = format!("{url}x");
    let mut runtime = daemon.runtime();
    let good =
        v1::AttachRequest { container_id: id.clone(), stdin: true, stdout: true, ..Default::default() };
    let absent = v1::AttachRequest { container_id: "ff".repeat(32), ..good.clone() };
    for number in 0..10_000 {
        match number % 20 {
            // He comes with a bad URL.
            0 => assert!(client::connect(&bad, client::REMOTE).await.is_err()),
            // He leaves before anything is said.
            1 => {
                let url = runtime.attach(good.clone()).await.unwrap().into_inner().url;
                drop(client::connect(&url, client::REMOTE).await.unwrap());
            }
            // He asks for what is not there.
            _ => {
                let refused = runtime.attach(absent.clone()).await.unwrap_err();
                assert_eq!(refused.code(), tonic::Code::NotFound);
            }
        }
    }
    drop(runtime);
    within("nothing is kept of them", async || not_more(&before, &[daemon.pid(), shim])).await;
    // The container still has its input.
    drop(attach(&daemon, &id, TALKS).await);
}

async fn forward_url(daemon: &Daemon, pod: &str, port: u16) -> Result<String, tonic::Status> {
    let request = v1::PortForwardRequest { pod_sandbox_id: pod.into(), port: vec![port.into()] };
    Ok(daemon.runtime().port_forward(request).await?.into_inner().url)
}

/// Sends `text` to a port of a pod: what comes back, and what is said of an error.
async fn through(daemon: &Daemon, pod: &str, port: u16, text: &str) -> (String, String) {
    let url = forward_url(daemon, pod, port).await.unwrap();
    let (sender, mut receiver) = client::connect(&url, client::FORWARD).await.unwrap();
    sender.send(0, text.as_bytes()).await.unwrap();
    let mut heard = [Vec::new(), Vec::new()];
    let wanted = text.len() + 2;
    while heard[0].len() < wanted
        && let Some((channel, bytes)) =
            tokio::time::timeout(PATIENCE, receiver.next()).await.expect("an answer in time").unwrap()
    {
        heard[usize::from(channel)].extend(bytes);
    }
    heard
        .map(|heard| {
            assert_eq!(heard[..2], port.to_le_bytes());
            String::from_utf8(heard[2..].to_vec()).unwrap()
        })
        .into()
}

/// Gives back what it gets.
fn echo(listener: TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut buffer = [0; 100];
            if let Ok(length) = connection.read(&mut buffer).await {
                let _ = connection.write_all(&buffer[..length]).await;
            }
        }
    });
}

#[test]
fn ports_of_pods_are_reached() {
    needs_a_node!();
    support::in_own_network(async {
        let daemon = Daemon::start().await;
        let (pod, id) = run(&daemon, "own", "exec nc -ll -p 7000 -e cat", READS, false).await;
        within("it listens", async || {
            daemon.sh(&id, "ip a; grep -c :1B58 /proc/net/tcp /proc/net/tcp6 || true").await.contains(":1\n")
        })
        .await;
        assert_eq!(through(&daemon, &pod, 7000, "hello").await, ("hello".into(), String::new()));
        let (_, refused) = through(&daemon, &pod, 7001, "hello").await;
        assert!(refused.contains("refused") && refused.contains("7001"), "{refused}");
        // In the host's network, which here is this test's.
        let mut sandbox = daemon.pod("host");
        let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
        sandbox.linux = Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            }),
            ..Default::default()
        });
        let host = daemon.run_pod(&sandbox).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        echo(listener);
        assert_eq!(through(&daemon, &host, port, "over four").await.0, "over four");
        assert!(through(&daemon, &pod, port, "x").await.1.contains("refused"), "a pod is not its host");
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        echo(listener);
        assert_eq!(through(&daemon, &host, port, "over six").await.0, "over six");
        daemon.stop_pod(&host).await.unwrap();
        let refused = forward_url(&daemon, &host, 80).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_with_users_of_its_own_streams_as_any_other() {
    needs_a_node!();
    let daemon = Daemon::start().await;
    let mut sandbox = daemon.pod("users");
    let ids = vec![v1::IdMapping { host_id: 500_000, container_id: 0, length: 65_536 }];
    let users = v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids };
    let options = v1::NamespaceOption {
        pid: v1::NamespaceMode::Container.into(),
        userns_options: Some(users),
        ..Default::default()
    };
    sandbox.linux.get_or_insert_default().security_context =
        Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() });
    let script =
        "nc -ll -p 7000 -e cat & while read line; do echo \"$line there $(stty size) end-$line\"; done";
    let (pod, id) = run_in(&daemon, &sandbox, script, TERMINAL, false).await;
    let mut session = exec(&daemon, &id, TERMINAL, "read go; id -u; stty size; cat /proc/self/uid_map").await;
    session.resize(101, 31).await;
    session.send("\n").await;
    assert_eq!(session.end().await, 0);
    assert!(
        session.text().contains("0\r\n31 101\r\n") && session.text().contains("500000"),
        "{}",
        session.text()
    );
    let mut session = attach(&daemon, &id, TERMINAL).await;
    session.resize(77, 17).await;
    let mut said = 0;
    within("the size has arrived", async || {
        said += 1;
        session.send(&format!("you{said}\n")).await;
        session.until(&format!("end-you{said}")).await;
        session.text().contains("17 77")
    })
    .await;
    assert_eq!(through(&daemon, &pod, 7000, "hello").await.0, "hello");
}
