//! The small program that a shim runs: the shim and the OCI runtime, and nothing of the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1).as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => shim::main(),
        _ => ExitCode::from(2),
    }
}
