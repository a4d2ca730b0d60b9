//! Starting the machine, and understanding what its init says on the second serial line.

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::options::Options;
use crate::command;

/// The longest that nothing is heard of it; a test program is killed before.
const SILENCE: Duration = Duration::from_secs(900);

/// critest says nothing before its end.
const LONG_SILENCE: Duration = Duration::from_secs(7200);

/// Quiet, deterministic, without what costs time under emulation. Emulated, the processor's own
/// counter is this machine's, whose speed the guest would measure at its start: beside other work that fails, and its clock runs wrong.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off random.trust_cpu=on no_timer_check \
                            tsc=unstable clocksource=hpet";

/// A machine to be started.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    pub(super) disk: &'a Path,
    /// Where the kernel's messages go, if not to a shell's terminal.
    pub(super) console: &'a Path,
    pub(super) options: &'a Options,
    /// What more the network card is told.
    pub(super) forwarding: Option<String>,
}

/// What the machine said.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    Booted { host: String, took: Duration },
    Ran { index: usize, status: i32, took: Duration, output: String },
}

/// How the machine ended.
pub(super) enum Ended {
    PoweredOff,
    Otherwise(String),
}

impl Machine<'_> {
    /// Runs it to its end and hands over what it says.
    pub(super) fn run(&self, mut tell: impl FnMut(Event)) -> Result<Ended> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("results");
        let listener = UnixListener::bind(&socket)?;
        let start = Instant::now();
        let mut child = self.command(&socket).spawn().context("cannot start qemu-system-x86_64")?;
        let finished = connection(&listener, &mut child).and_then(|stream| {
            stream.set_read_timeout(Some(if self.options.suite.is_some() {
                LONG_SILENCE
            } else {
                SILENCE
            }))?;
            listen(BufReader::new(stream), start, &mut tell)
        });
        let ended = match finished {
            Ok(true) => Ended::PoweredOff,
            Ok(false) => Ended::Otherwise("it ended before all was done".into()),
            Err(error) => {
                child.kill()?;
                Ended::Otherwise(format!("nothing was heard of it any more: {error:#}"))
            }
        };
        let status = child.wait()?;
        Ok(match ended {
            Ended::PoweredOff if !status.success() => Ended::Otherwise(format!("qemu ended with {status}")),
            ended => ended,
        })
    }

    fn command(&self, results: &Path) -> Command {
        let mut qemu =
            Command::new(command::find("qemu-system-x86_64").unwrap_or("qemu-system-x86_64".into()));
        // One processor: with two, emulated, a process was seen that no signal ended.
        let accelerator = if self.options.kvm { "kvm" } else { "tcg,thread=multi" };
        qemu.args(["-M", "q35", "-accel", accelerator, "-cpu", "max", "-smp", "1", "-m", "2048"]);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        qemu.arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &self.command_line()]);
        // The first serial line is the console.
        if self.options.keep {
            qemu.args(["-serial", "mon:stdio"]);
        } else {
            qemu.arg("-serial").arg(format!("file:{}", self.console.display())).stdin(Stdio::null());
        }
        qemu.arg("-chardev").arg(format!("socket,id=results,path={}", results.display()));
        qemu.args(["-serial", "chardev:results"]);
        // What is written to the disk is forgotten.
        qemu.arg("-drive").arg(format!("file={},if=virtio,format=raw,snapshot=on", self.disk.display()));
        let forwarding = self.forwarding.iter().map(|forwarding| format!(",{forwarding}"));
        let card = std::iter::once("user,model=virtio-net-pci,restrict=on".to_owned()).chain(forwarding);
        qemu.arg("-nic").arg(card.collect::<String>());
        qemu
    }

    fn command_line(&self) -> String {
        let modules = if self.options.selinux { "security=selinux selinux=1 audit=1" } else { "audit=0" };
        let unit = if self.options.systemd { " systemd.unit=pintle-vm.service" } else { "" };
        let version = if self.options.cgroup_v1 {
            "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
        } else {
            "cgroup_no_v1=all"
        };
        format!("{COMMAND_LINE} {modules} {version}{unit}")
    }
}

/// Waits for qemu to connect; it may end instead, with its own words on standard error.
fn connection(listener: &UnixListener, child: &mut Child) -> Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            anyhow::bail!("qemu ended with {status}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads to the end of the stream; true where the machine said that all was done.
fn listen(stream: impl BufRead, start: Instant, tell: &mut impl FnMut(Event)) -> Result<bool> {
    let mut output = String::new();
    let mut done = false;
    for line in stream.split(b'\n') {
        let line = line.context("the line with results")?;
        let line = String::from_utf8_lossy(&line);
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["@booted", host @ ..] => {
                tell(Event::Booted { host: host.join(" "), took: start.elapsed() });
            }
            ["@begin", _] => output.clear(),
            ["@end", index, status, from, to] => {
                let took = Duration::try_from_secs_f64(to.parse::<f64>()? - from.parse::<f64>()?)?;
                let output = std::mem::take(&mut output);
                tell(Event::Ran { index: index.parse()?, status: status.parse()?, took, output });
            }
            ["@done"] => done = true,
            _ => {
                output.push_str(&line);
                output.push('\n');
            }
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_end_with_their_output() {
        let said = "@booted Linux\n@begin 0\nrunning 1 test\n\n@end 0 0 2.50 4.00\n@begin 1\nx\n@end 1 137 4.00 4.25\n@done\n";
        let mut events = Vec::new();
        assert!(listen(said.as_bytes(), Instant::now(), &mut |event| events.push(event)).unwrap());
        assert!(matches!(&events[0], Event::Booted { host, .. } if host == "Linux"));
        let ran = |index, status, millis, output: &str| Event::Ran {
            index,
            status,
            took: Duration::from_millis(millis),
            output: output.into(),
        };
        assert_eq!(events[1..], [ran(0, 0, 1500, "running 1 test\n\n"), ran(1, 137, 250, "x\n")]);
    }

    #[test]
    fn a_machine_that_stops_half_way_is_not_done() {
        assert!(!listen(&b"@begin 0\nrunning"[..], Instant::now(), &mut |_| {}).unwrap());
    }
}
