//! Attaching to real containers: input, output, terminals, and clients that are slow, rude or gone.

mod support;

use rustix::pipe::{PipeFlags, pipe_with};
use shim::protocol::*;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use support::{Pod, within};

/// A client's ends of its three pipes.
struct Client {
    stdin: Option<File>,
    stdout: File,
    stderr: File,
}

fn attach_ends(pod: &mut Pod, id: &str, streams: [bool; 3]) -> Result<[Option<OwnedFd>; 3], CallError> {
    let request = AttachRequest {
        container_id: id.into(),
        has_stdin: streams[0],
        has_stdout: streams[1],
        has_stderr: streams[2],
    };
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for (index, wanted) in streams.into_iter().enumerate() {
        let pair = wanted.then(|| pipe_with(PipeFlags::CLOEXEC).unwrap());
        let (ours, theirs) = match (pair, index) {
            (None, _) => (None, None),
            (Some((reader, writer)), 0) => (Some(writer), Some(reader)),
            (Some((reader, writer)), _) => (Some(reader), Some(writer)),
        };
        near.push(ours);
        far.extend(theirs);
    }
    let far_ends: Vec<_> = far.iter().map(AsFd::as_fd).collect();
    let _: Empty = pod.client.call_with(Method::Attach, &request, &far_ends)?;
    Ok(near.try_into().unwrap())
}

fn attach(pod: &mut Pod, id: &str) -> Client {
    let [stdin, stdout, stderr] = attach_ends(pod, id, [true; 3]).unwrap();
    Client { stdin: stdin.map(File::from), stdout: stdout.unwrap().into(), stderr: stderr.unwrap().into() }
}

impl Client {
    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn read_until(&mut self, end: &str) -> String {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(end.as_bytes()) {
            assert_eq!(self.stdout.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }
}

fn end_of(mut file: &File) -> Vec<u8> {
    let mut all = Vec::new();
    file.read_to_end(&mut all).unwrap();
    all
}

/// The shim's open descriptors.
fn descriptors(pod: &Pod) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pod.child.id())).unwrap().count()
}

/// Processor time of the shim, in clock ticks (10 ms).
fn ticks(pod: &Pod) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pod.child.id())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn several_talk_with_a_container_and_the_log_has_it_all() {
    needs_containers!();
    let mut pod = Pod::start();
    let script = "echo begun; while read line; do echo \"got $line\"; echo err >&2; done; echo end";
    let request = CreateRequest { stdin: true, ..pod.create_request("a", script) };
    let _: CreateResponse = pod.client.call(Method::Create, &request).unwrap();
    let mut first = attach(&mut pod, "a");
    let _: StartResponse = pod.client.call(Method::Start, &StartRequest { id: "a".into() }).unwrap();
    assert_eq!(first.read_until("\n"), "begun\n", "who attaches before the start misses nothing");
    let mut second = attach(&mut pod, "a");
    first.write("one\n");
    assert_eq!(first.read_until("one\n"), "got one\n");
    assert_eq!(second.read_until("one\n"), "got one\n");
    drop(first);
    second.write("two\n");
    assert_eq!(
        second.read_until("two\n"),
        "got two\n",
        "an input without stdin_once outlives who wrote to it"
    );
    assert!(within(Duration::from_secs(10), || pod.logged("a").1 == b"err\nerr\n"), "{:?}", pod.logged("a"));
    // One who only looks on, and one who has left his input.
    let [_, watching, _] = attach_ends(&mut pod, "a", [false, true, false]).unwrap();
    second.stdin = None;
    let mut third = attach(&mut pod, "a");
    third.write("three\n");
    assert_eq!(third.read_until("three\n"), "got three\n");
    assert_eq!(second.read_until("three\n"), "got three\n");
    let kill = KillRequest { id: "a".into(), signal: 9, all: false };
    let _: Empty = pod.client.call(Method::Kill, &kill).unwrap();
    assert_eq!(end_of(&File::from(watching.unwrap())), b"got three\n");
    assert_eq!(end_of(&third.stderr), b"err\n");
    assert_eq!(pod.wait("a").code, 137);
    assert_eq!(pod.logged("a").0, b"begun\ngot one\ngot two\ngot three\n");
    let error = attach_ends(&mut pod, "a", [true; 3]).unwrap_err();
    assert_eq!(error.code, ErrorCode::WrongState, "{error}");
}

#[test]
fn input_that_is_kept_once_ends_with_the_first_who_leaves() {
    needs_containers!();
    let mut pod = Pod::start();
    let request =
        CreateRequest { stdin: true, stdin_once: true, ..pod.create_request("a", "cat; echo end; exit 3") };
    pod.run_request(&request);
    let onlooker = attach_ends(&mut pod, "a", [false, true, true]).unwrap();
    drop(onlooker);
    let mut client = attach(&mut pod, "a");
    // As much as the daemon has for whoever attaches: a reader that is not let in for a moment misses nothing.
    rustix::pipe::fcntl_setpipe_size(&client.stdout, 512 << 10).unwrap();
    // More than all pipes to the container hold, and then at once the end.
    let text: String = (0..40_000).map(|number| format!("{number}\n")).collect();
    let mut stdin = client.stdin.take().unwrap();
    let sent = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()).unwrap());
    let stdout = client.stdout.try_clone().unwrap();
    let reader = std::thread::spawn(move || end_of(&stdout));
    writer.join().unwrap();
    assert_eq!(pod.wait("a").code, 3);
    assert_eq!(pod.logged("a").0.len(), text.len() + 4);
    let got = String::from_utf8_lossy(&reader.join().unwrap()).into_owned();
    assert!(got.ends_with("end\n"), "{}", &got[got.len() - 100..]);
}

#[test]
fn a_terminal_is_shared_and_resized() {
    needs_containers!();
    let mut pod = Pod::start();
    let script = "while read line; do stty size; done";
    let terminal = |spec: &mut serde_json::Value| spec["process"]["terminal"] = true.into();
    let request = CreateRequest {
        terminal: true,
        stdin: true,
        stdin_once: true,
        ..pod.create_request_with("a", script, terminal)
    };
    pod.run_request(&request);
    let resize = |width, height| ResizeRequest { container_id: "a".into(), width, height };
    let mut client = attach(&mut pod, "a");
    assert_eq!(end_of(&client.stderr), b"", "a terminal has no second output");
    let _: Empty = pod.client.call(Method::Resize, &resize(132, 43)).unwrap();
    client.write("x\n");
    assert!(client.read_until("43 132\r\n").starts_with("x\r\n"), "the terminal echoes");
    assert_eq!(pod.client.refusal(Method::Resize, &resize(0, 1)), ErrorCode::InvalidArgument);
    assert_eq!(pod.client.refusal(Method::Resize, &resize(1, 65536)), ErrorCode::InvalidArgument);
    drop(client);
    let mut client = attach(&mut pod, "a");
    let _: Empty = pod.client.call(Method::Resize, &resize(80, 24)).unwrap();
    client.write("y\n");
    client.read_until("24 80\r\n");
    // The terminal's own end of input.
    client.write("\x04");
    end_of(&client.stdout);
    assert_eq!(pod.wait("a").code, 0);
    assert_eq!(pod.client.refusal(Method::Resize, &resize(80, 24)), ErrorCode::WrongState);
}

#[test]
fn who_does_not_read_stalls_nothing_and_is_told_what_he_missed() {
    needs_containers!();
    const BYTES: usize = 20_000_000;
    let long = "y".repeat(999);
    let mut pod = Pod::start();
    let request = CreateRequest {
        stdin: true,
        ..pod.create_request("a", &format!("read go; yes {long} | head -c {BYTES}"))
    };
    pod.run_request(&request);
    let mut client = attach(&mut pod, "a");
    client.write("go\n");
    assert_eq!(pod.wait("a").code, 0);
    assert_eq!(pod.logged("a").0.len(), BYTES);
    let got = String::from_utf8(end_of(&client.stdout)).unwrap();
    // The notice had no room before the end; what was there before is complete.
    assert!(got.len() < 1 << 20 && got.starts_with(&long), "{}", got.len());

    let script = format!("read go; yes {long} | head -c 3000000; read go; echo later");
    let request = CreateRequest { stdin: true, ..pod.create_request("b", &script) };
    pod.run_request(&request);
    let mut client = attach(&mut pod, "b");
    client.write("go\n");
    // Three thousand lines, each with a record's head of forty bytes.
    let logged = || std::fs::metadata(pod.log("b")).unwrap().len();
    assert!(within(Duration::from_secs(5), || logged() == 3_120_000), "{}", logged());
    let notice = client.read_until("slowly]\r\n");
    let (before, notice) = notice.split_once("\r\n[pintle: ").unwrap();
    let lost: usize = notice.split_once(' ').unwrap().0.parse().unwrap();
    assert_eq!(before.len() + lost, 3_000_000, "told as soon as there is room, without further output");
    client.write("go\n");
    assert_eq!(end_of(&client.stdout), b"later\n");
}

#[test]
fn a_container_that_does_not_read_holds_up_only_who_writes_to_it() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = CreateRequest { stdin: true, ..pod.create_request("a", "exec sleep 1000") };
    pod.run_request(&request);
    let before = descriptors(&pod);
    let fill = |client: &Client| {
        let stdin = client.stdin.as_ref().unwrap();
        rustix::io::ioctl_fionbio(stdin, true).unwrap();
        let mut written = 0;
        within(Duration::from_millis(300), || {
            while let Ok(length) = rustix::io::write(stdin, &[b'x'; 4096]) {
                written += length;
            }
            false
        });
        assert!((64 << 10..1 << 20).contains(&written), "{written} bytes went to who reads nothing");
    };
    let clients = [attach(&mut pod, "a"), attach(&mut pod, "a")];
    clients.iter().for_each(fill);
    let busy = ticks(&pod);
    std::thread::sleep(Duration::from_millis(500));
    assert!(ticks(&pod) <= busy + 2, "the shim turns in circles");
    drop(clients);
    assert!(within(Duration::from_secs(2), || descriptors(&pod) == before), "{before}");
    let busy = ticks(&pod);
    std::thread::sleep(Duration::from_millis(300));
    assert!(ticks(&pod) <= busy + 2, "the shim turns in circles");
}

#[test]
fn a_terminal_that_nobody_reads_from_fills_up_and_that_is_all() {
    needs_containers!();
    let mut pod = Pod::start();
    let terminal = |spec: &mut serde_json::Value| spec["process"]["terminal"] = true.into();
    let request = CreateRequest {
        terminal: true,
        stdin: true,
        ..pod.create_request_with(
            "a",
            "stty -echo; echo quiet; read go; sleep 0.7; exec cat > /dev/null",
            terminal,
        )
    };
    pod.run_request(&request);
    let mut client = attach(&mut pod, "a");
    client.write("\n");
    let stdin = client.stdin.as_ref().unwrap();
    rustix::io::ioctl_fionbio(stdin, true).unwrap();
    let fill = || {
        let mut written = 0;
        within(Duration::from_millis(200), || {
            while let Ok(length) = rustix::io::write(stdin, &b"0123456\n".repeat(512)) {
                written += length;
            }
            false
        });
        written
    };
    let written = fill();
    assert!((64 << 10..1 << 20).contains(&written), "{written} bytes went to who reads nothing");
    let busy = ticks(&pod);
    std::thread::sleep(Duration::from_millis(300));
    assert!(ticks(&pod) <= busy + 2, "the shim turns in circles");
    // Once it is read, everything flows again.
    assert!(within(Duration::from_secs(3), || fill() > 64 << 10));
}

#[test]
fn an_input_that_the_container_closed_is_closed_for_who_writes() {
    needs_containers!();
    let mut pod = Pod::start();
    let request =
        CreateRequest { stdin: true, ..pod.create_request("a", "exec <&-; echo closed; exec sleep 1000") };
    pod.run_request(&request);
    let mut client = attach(&mut pod, "a");
    assert!(within(Duration::from_secs(5), || pod.logged("a").0 == b"closed\n"));
    let stdin = client.stdin.as_mut().unwrap();
    assert!(within(Duration::from_secs(2), || stdin.write_all(b"x").is_err()), "nobody reads it");
    // Whoever attaches later learns it at once.
    let late = attach(&mut pod, "a").stdin.unwrap().write_all(b"x");
    assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn thousands_who_leave_or_are_refused_leave_nothing() {
    needs_containers!();
    let mut pod = Pod::start();
    let request = CreateRequest { stdin: true, ..pod.create_request("a", "exec sleep 1000") };
    pod.run_request(&request);
    let before = descriptors(&pod);
    let begun = Instant::now();
    for number in 0..3000 {
        let id = if number % 3 == 0 { "absent" } else { "a" };
        let _ = attach_ends(&mut pod, id, [number % 2 == 0, true, number % 5 == 0]);
    }
    assert!(begun.elapsed() < Duration::from_secs(8));
    let none = AttachRequest { container_id: "a".into(), ..AttachRequest::default() };
    assert_eq!(pod.client.refusal(Method::Attach, &none), ErrorCode::InvalidArgument);
    let three = AttachRequest { has_stdout: true, ..none };
    assert_eq!(pod.client.refusal(Method::Attach, &three), ErrorCode::InvalidArgument);
    let file = File::open(pod.log("a")).unwrap();
    let refused = pod.client.call_with::<Empty>(Method::Attach, &three, &[file.as_fd()]);
    assert_eq!(refused.unwrap_err().code, ErrorCode::InvalidArgument, "a file is no pipe");
    let mut clients: Vec<_> = (0..64).map(|_| attach(&mut pod, "a")).collect();
    assert_eq!(attach_ends(&mut pod, "a", [true; 3]).unwrap_err().code, ErrorCode::Exhausted);
    clients.pop();
    assert!(within(Duration::from_secs(2), || attach_ends(&mut pod, "a", [true; 3]).is_ok()));
    drop(clients);
    assert!(within(Duration::from_secs(2), || descriptors(&pod) == before), "{before} {}", descriptors(&pod));
}
