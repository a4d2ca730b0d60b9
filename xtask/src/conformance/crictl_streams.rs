//! crictl's commands that stream: exec and attach, with a terminal and without, and port-forward.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::crictl::{IMAGE, Walk};

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The port that the walk's container listens on.
const PORT: u16 = 7070;

/// A crictl that somebody talks with.
struct Talk {
    line: String,
    child: Child,
    said: mpsc::Receiver<Vec<u8>>,
    heard: String,
}

impl Talk {
    /// Starts `command`, which writes to its standard output.
    fn begin(line: &str, command: &mut Command) -> Result<Talk> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{line}`"))?;
        let mut from = child.stdout.take().context("its output")?;
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Talk { line: line.to_owned(), child, said, heard: String::new() })
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("its input is closed")?;
        stdin.write_all(text.as_bytes()).with_context(|| format!("`{}` does not listen", self.line))
    }

    fn until(&mut self, text: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.heard.contains(text) {
            match self.said.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(bytes) => self.heard.push_str(&String::from_utf8_lossy(&bytes)),
                Err(_) => bail!("`{}` does not say {text:?} but:\n{}", self.line, self.heard),
            }
        }
        Ok(())
    }

    /// Waits for its end; the exit code.
    fn end(mut self) -> Result<Option<i32>> {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                println!("ok             {}", self.line);
                return Ok(status.code());
            }
            ensure!(begun.elapsed() < PATIENCE, "`{}` does not end; it said:\n{}", self.line, self.heard);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        // Already ended, mostly.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Walk {
    /// In a container with a terminal: what streams.
    pub(super) fn streams(&self, pod: &str) -> Result<()> {
        let listen = format!("nc -ll -p {PORT} -e cat & exec sh");
        let config = json!({
            "metadata": { "name": "streams", "attempt": 0 },
            "image": { "image": IMAGE },
            "command": ["/bin/sh", "-c", listen],
            "log_path": "streams.log",
            "stdin": true,
            "tty": true,
            "linux": {}
        });
        let container = self.file("streams.json", &config)?;
        let pod_config = self.scratch.join("pod.json").display().to_string();
        let id = self.ok(&["create", pod, &container, &pod_config])?.id()?;
        self.ok(&["start", &id])?;

        let mut exec = self.talk(&["exec", "-i", &id, "sh", "-c", "read word; echo heard $word"])?;
        exec.say("hello\n")?;
        exec.until("heard hello")?;
        ensure!(exec.end()? == Some(0), "`crictl exec -i` does not end well");

        let mut exec = self.talk_in_terminal(&["exec", "-i", "-t", &id, "sh"])?;
        exec.say("tty; exit 3\n")?;
        exec.until("/dev/pts/")?;
        ensure!(exec.end()? != Some(0), "`crictl exec -i -t` forgets the exit code");

        let mut attach = self.talk_in_terminal(&["attach", "-i", "-t", &id])?;
        attach.say("echo at''tached\n")?;
        attach.until("attached")?;
        drop(attach);
        let mut attach = self.talk_in_terminal(&["attach", "-i", "-t", &id])?;
        attach.say("echo ag''ain\n")?;
        attach.until("again")?;
        self.forward(pod)?;
        attach.say("exit\n")?;
        attach.end()?;
        self.ok(&["rm", "-f", &id])?;
        Ok(())
    }

    fn forward(&self, pod: &str) -> Result<()> {
        let mut forward = self.talk(&["port-forward", pod, &format!("0:{PORT}")])?;
        forward.until("-> ")?;
        let address = forward.heard.lines().find_map(|line| {
            line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).map(str::to_owned)
        });
        let address = address.with_context(|| format!("no address in {:?}", forward.heard))?;
        for text in ["over the first connection\n", "over the second\n"] {
            let mut connection = TcpStream::connect(&address).context("the forwarded port")?;
            connection.set_read_timeout(Some(PATIENCE))?;
            connection.write_all(text.as_bytes())?;
            let mut back = String::new();
            BufReader::new(connection).read_line(&mut back)?;
            ensure!(back == text, "`crictl port-forward` gives back {back:?}");
        }
        println!("ok             {}", forward.line);
        Ok(())
    }

    fn talk(&self, args: &[&str]) -> Result<Talk> {
        Talk::begin(&format!("crictl {}", args.join(" ")), &mut self.command(args)?)
    }

    /// The same from a terminal, which script(1) makes.
    fn talk_in_terminal(&self, args: &[&str]) -> Result<Talk> {
        let inner = self.command(args)?;
        let words = std::iter::once(inner.get_program()).chain(inner.get_args());
        let line: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
        Talk::begin(&format!("crictl {}", args.join(" ")), &mut script)
    }
}
