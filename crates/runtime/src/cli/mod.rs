//! The OCI command line (`pintle oci ...`).
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the OCI command line with the arguments behind the program's name.
pub fn main(_arguments: impl Iterator<Item = OsString>) -> ExitCode {
    eprintln!("the command line is not finished in this version");
    ExitCode::FAILURE
}
