//! The small program that a shim runs: the shim and the OCI runtime, and nothing of the daemon.

use std::process::ExitCode;

/// Helpers and the init that becomes a container's command are copies of this process that are over in a moment.
#[global_allocator]
static ALLOCATOR: sys::arena::Arena = sys::arena::Arena;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| shim::task::is_asked(&name)) {
        return shim::task::main(arguments, None);
    }
    match arguments.next().as_deref().and_then(std::ffi::OsStr::to_str) {
        Some("shim") => shim::main(),
        Some("oci") => runtime::main(arguments, None),
        _ => ExitCode::from(2),
    }
}
