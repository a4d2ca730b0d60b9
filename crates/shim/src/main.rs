//! The small program that a shim runs: the shim and the OCI runtime, and nothing of the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => shim::main(),
        Some("oci") => runtime::main(arguments),
        _ => ExitCode::from(2),
    }
}
