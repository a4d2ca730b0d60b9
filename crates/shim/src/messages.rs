//! What the shim has to say to people, on its standard error. It never waits for a reader and never fails.

use crate::config::LogLevel;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fmt::Arguments;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};

static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Warn as u8);

/// From now on says what is at least as grave as `level`.
pub(crate) fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Says something, unless a pipe that nobody empties would have to be waited for.
pub(crate) fn say(level: LogLevel, message: Arguments<'_>) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    let stderr = std::io::stderr();
    let mut set = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    if !matches!(poll(&mut set, Some(&now)), Ok(1)) {
        return;
    }
    let name = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warning",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    // At most a page, which a pipe that is writable takes at once.
    let mut line = format!("shim: {name}: {message}");
    line.truncate(line.floor_char_boundary(4000));
    line.push('\n');
    let _ = stderr.lock().write_all(line.as_bytes());
}

macro_rules! warning {
    ($($part:tt)*) => { $crate::messages::say($crate::config::LogLevel::Warn, format_args!($($part)*)) };
}
macro_rules! info {
    ($($part:tt)*) => { $crate::messages::say($crate::config::LogLevel::Info, format_args!($($part)*)) };
}
pub(crate) use {info, warning};
