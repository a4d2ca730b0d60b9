//! The workspace's test programs: building them all, running one and keeping what it says.

use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::outcome::Outcome;
use crate::command;

/// What is kept of a program's output; beyond it, a test is shouting.
const OUTPUT_LIMIT: usize = 64 << 20;

/// One test program, built.
pub(crate) struct Program {
    /// Crate, and the file where it is not the crate itself.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    /// The folder of its crate, in which it runs.
    pub(crate) folder: PathBuf,
}

/// What one run of cargo built.
pub(crate) struct Built {
    pub(crate) programs: Vec<Program>,
    /// Programs that are no tests; tests start them.
    beside: Vec<PathBuf>,
}

impl Built {
    /// One program that is no test.
    pub(crate) fn only(program: PathBuf) -> Built {
        Built { programs: Vec::new(), beside: vec![program] }
    }

    /// All files that can be run.
    pub(crate) fn executables(&self) -> impl Iterator<Item = &Path> {
        self.programs.iter().map(|program| &program.executable).chain(&self.beside).map(PathBuf::as_path)
    }
}

/// Runs `cargo test --no-run --message-format json...` and finds what it built.
pub(crate) fn build(cargo: &mut Command) -> Result<Built> {
    let messages = command::capture(cargo)?;
    let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let programs: Vec<Program> = messages.iter().filter_map(Program::from_message).collect();
    if programs.is_empty() {
        bail!("cargo built no test program");
    }
    let beside = messages.iter().filter(|message| message["profile"]["test"] == false);
    let beside = beside.filter_map(|message| message["executable"].as_str()).map(PathBuf::from);
    // Build scripts are programs too, and have no `executable`.
    Ok(Built { programs, beside: beside.collect() })
}

/// What builds every test of the workspace, with these features of its crates.
pub(crate) fn everything(features: &[&str]) -> Command {
    let arguments =
        ["test", "--workspace", "--no-run", "--locked", "--message-format", "json-render-diagnostics"];
    let mut cargo = command::cargo(&arguments);
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    cargo
}

impl Program {
    /// Builds every test of the workspace, with these features of its crates.
    pub(super) fn build_all(features: &[&str]) -> Result<Vec<Program>> {
        Ok(build(&mut everything(features))?.programs)
    }

    fn from_message(message: &Value) -> Option<Program> {
        if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
            return None;
        }
        let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_owned();
        let package = folder.file_name()?.to_string_lossy().into_owned();
        let target = message["target"]["name"].as_str()?;
        let kind = message["target"]["kind"][0].as_str()?;
        let name = match kind {
            "lib" => package,
            "bin" => format!("{package} (main)"),
            _ => format!("{package} ({target})"),
        };
        Some(Program { name, executable: message["executable"].as_str()?.into(), folder })
    }

    /// Runs it with `scratch` as the place for temporary files. What it printed is shown if something went wrong.
    pub(super) fn run(&self, filter: Option<&str>, scratch: &Path, deadline: Duration) -> Result<Outcome> {
        let (reader, writer) = io::pipe()?;
        let mut command = Command::new(&self.executable);
        command.arg("--show-output").args(filter).current_dir(&self.folder);
        command.env("CARGO_MANIFEST_DIR", &self.folder).env("TMPDIR", scratch);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.executable.display()))?;
        // It holds the pipe's writing end, and reading would never end.
        drop(command);
        let output = collect(reader);

        let status = wait(&mut child, deadline)?;
        // Somebody left behind may still hold the pipe; the test program's own output is there already.
        let output =
            output.recv_timeout(Duration::from_secs(2)).unwrap_or_else(|_| b"(output cut short)\n".to_vec());
        let output = String::from_utf8_lossy(&output);
        let mut outcome = Outcome::read(&output);
        if let Some(why) = trouble(status, &outcome) {
            outcome.failed.push(why);
        }
        if !outcome.failed.is_empty() {
            io::stdout().write_all(output.as_bytes())?;
        }
        Ok(outcome)
    }
}

/// Reads in the background, so that a full pipe stops nobody; gives everything at the end of the stream.
fn collect(mut reader: io::PipeReader) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut piece = [0; 1 << 16];
        while let Ok(read @ 1..) = reader.read(&mut piece) {
            let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(read);
            kept.extend_from_slice(&piece[..room]);
        }
        // Nobody is left to tell if the receiver is gone.
        let _ = sender.send(kept);
    });
    receiver
}

/// How often the processes that tests left are reaped while a program runs.
const REAP_EVERY: Duration = Duration::from_millis(100);

/// The status, or `None` where the deadline passed and the program was killed.
fn wait(child: &mut Child, deadline: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut reaped = start;
    while start.elapsed() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if reaped.elapsed() >= REAP_EVERY {
            super::orphans::reap_beside(Pid::from_child(child));
            reaped = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let group = Pid::from_child(child);
    kill_process_group(group, Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

/// What is wrong with the program itself, beside the tests that it says have failed.
fn trouble(status: Option<ExitStatus>, outcome: &Outcome) -> Option<String> {
    let Some(status) = status else { return Some("it did not end in time and was killed".into()) };
    if let Some(signal) = status.signal() {
        return Some(format!("it was ended by signal {signal}"));
    }
    match (status.success(), outcome.complete, outcome.failed.is_empty()) {
        (true, true, true) | (false, true, false) => None,
        (success, ..) => Some(format!(
            "it ended with {status} and {} a summary",
            if success { "without" } else { "no matching" }
        )),
    }
}
