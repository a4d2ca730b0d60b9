//! `containerd-shim-pintle-v2`: Pintle's shim and runtime below containerd, as its shim API (version 2 and 3) wants it.
//!
//! containerd runs the program three times in a task's life: with `start`, which leaves a server behind and prints its address; the
//! server, which parents the containers of one pod; and with `delete`, which cleans up what a server that died left behind. The server is
//! the same small program, loop and helpers as the shim of Pintle's own daemon.

mod bundle;
mod flags;
mod idmap;
mod info;
mod launch;
mod options;
mod rootfs;
mod serve;
mod start;
mod stop;

use crate::config::LogLevel;
use crate::messages::{say, set_level};
use flags::{Action, Flags};
use std::process::ExitCode;

/// The name by which the program is found: the runtime `io.containerd.pintle.v2` is a file of this name.
pub const PROGRAM: &str = "containerd-shim-pintle-v2";

/// Whether a program that was started under the name `arg0` is asked to be a shim of containerd.
pub fn is_asked(arg0: &std::ffi::OsStr) -> bool {
    std::path::Path::new(arg0).file_name().is_some_and(|name| name == PROGRAM)
}

/// Does what the arguments say. `server` is the program to execute as the server, the small one; none: this one itself.
///
/// The process must have one thread.
pub fn main(args: impl Iterator<Item = std::ffi::OsString>, server: Option<&[u8]>) -> ExitCode {
    let flags = match Flags::parse(args) {
        Ok(flags) => flags,
        Err(why) => {
            eprintln!("{PROGRAM}: {why}\n{}", flags::USAGE);
            return ExitCode::from(2);
        }
    };
    set_level(if flags.debug { LogLevel::Debug } else { LogLevel::Warn });
    let done = match flags.action {
        Action::Version => info::print_version(),
        Action::Info => info::print_info(),
        Action::Start => start::start(&flags, server),
        Action::Delete => stop::delete(&flags),
        Action::Serve => serve::main(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            match flags.action {
                // It is a file of containerd's, which does not have to be writable.
                Action::Serve => say(LogLevel::Error, format_args!("it ends: {cause}")),
                _ => eprintln!("{PROGRAM}: {cause}"),
            }
            ExitCode::FAILURE
        }
    }
}
