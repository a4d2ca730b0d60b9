//! The OCI command line alone, for the tests of this crate and for trying it out; `pintle oci` is the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::main(std::env::args_os().skip(1), None)
}
