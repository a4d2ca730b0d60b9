//! Parents a pod's containers: holds its namespaces, writes logs and exit records, answers the daemon.

pub mod config;
pub mod log;
pub mod protocol;

mod foreign;
mod messages;
mod parent;
mod server;
mod setup;
pub mod task;

pub use foreign::unmount_below;
use std::process::ExitCode;

/// The command `shim`: serves one pod until it is shut down.
///
/// Standard input is a [`config::ShimConfig`] as JSON, standard output a connected unix stream socket that is the first connection,
/// standard error a file or pipe for messages. The process must have one thread. A pod that cannot be set up is told of in the answer to
/// the first request; the exit code is 1 then.
pub fn main() -> ExitCode {
    let first = match setup::first_connection() {
        Ok(first) => first,
        Err(cause) => {
            messages::say(
                config::LogLevel::Error,
                format_args!(
                    "standard output is not a connection to the daemon: {cause}; a shim is not started by hand"
                ),
            );
            return ExitCode::from(2);
        }
    };
    let outcome = match setup::set_up() {
        Ok(pod) => server::serve(pod, first),
        Err(error) => {
            messages::say(config::LogLevel::Error, format_args!("{error}"));
            server::refuse(first, &error).and(Err(std::io::Error::other("the pod was not set up")))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            messages::say(config::LogLevel::Error, format_args!("it ends: {cause}"));
            ExitCode::FAILURE
        }
    }
}
