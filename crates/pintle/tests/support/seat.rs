//! Commands of `pintle` with somebody before them: at a pipe, or at a terminal.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

use super::support::Daemon;

/// Nothing here takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A command line of pintle that speaks with this daemon.
pub fn pintle(daemon: &Daemon, args: &[&str]) -> Vec<String> {
    let endpoint = format!("unix://{}", daemon.socket().display());
    let program = env!("CARGO_BIN_EXE_pintle").to_owned();
    [program, "--endpoint".into(), endpoint].into_iter().chain(args.iter().map(ToString::to_string)).collect()
}

/// Runs a command of pintle with this standard input.
pub fn piped(daemon: &Daemon, args: &[&str], input: &str) -> Output {
    let line = pintle(daemon, args);
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A command of pintle that somebody sits before.
pub struct Seat {
    pub master: OwnedFd,
    pub child: Child,
    pub shown: Arc<Mutex<Vec<u8>>>,
    before: Termios,
}

impl Seat {
    /// Runs `pintle` with these words.
    pub fn take(daemon: &Daemon, args: &[&str], columns: u16, rows: u16) -> Seat {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let peer = ioctl_tiocgptpeer(&master, flags).unwrap();
        set_size(&master, columns, rows);
        let before = tcgetattr(&master).unwrap();
        let end = || Stdio::from(peer.try_clone().unwrap());
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(pintle(daemon, args)).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (File::from(master.try_clone().unwrap()), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                to.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Seat { master, child, shown, before }
    }

    pub fn type_in(&self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    pub fn until(&self, text: &str) {
        let shown = || String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned();
        assert!(within(|| shown().contains(text)), "{text:?} does not come after {:?}", shown());
    }

    pub fn is_raw(&self) -> bool {
        let now = tcgetattr(&self.master).unwrap();
        !now.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for its end: the exit code, and whether the terminal is as it was.
    pub fn end(&mut self) -> (Option<i32>, bool) {
        assert!(within(|| self.child.try_wait().unwrap().is_some()), "it does not end");
        let now = tcgetattr(&self.master).unwrap();
        let same = now.local_modes == self.before.local_modes
            && now.input_modes == self.before.input_modes
            && now.output_modes == self.before.output_modes;
        (self.child.wait().unwrap().code(), same)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives it another size.
pub fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal.as_fd(), size).unwrap();
}

/// Whether it holds before long.
pub fn within(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
