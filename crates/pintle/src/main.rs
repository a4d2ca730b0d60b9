//! The one binary: it only chooses which part of Pintle this process is.
//!
//! The choice is made before anything starts a thread, because the OCI runtime and the shim have to be alone in their process.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Engines take the path of an OCI runtime, and no words behind it: a link of this name is one.
    if std::env::args_os()
        .next()
        .is_some_and(|called| Path::new(&called).file_name() == Some("pintle-oci".as_ref()))
    {
        return runtime::main(std::env::args_os().skip(1), pintle::shim_elf::SHIM_ELF);
    }
    // A CNI plugin is told what to do by this variable and not by arguments; whoever installs it may name it as they like.
    if std::env::var_os("CNI_COMMAND").is_some() {
        return network::plugin::plugin_main();
    }
    let mut args = std::env::args_os();
    if args.next().is_some_and(|name| shim::task::is_asked(&name)) {
        return shim::task::main(args, pintle::shim_elf::SHIM_ELF);
    }
    if let Some(ended) = pintle::userland::main(std::env::args_os()) {
        return ended;
    }
    match args.next().as_deref().and_then(|command| command.to_str()) {
        Some("shim") => shim::main(),
        Some("oci") => runtime::main(args, pintle::shim_elf::SHIM_ELF),
        Some("serve") => pintle::serve::main(args),
        Some("cni") => network::plugin::plugin_main(),
        _ => pintle::cli::main(std::env::args_os()),
    }
}
