//! What the command line of `pintle serve` says: it goes before the configuration.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use super::error::ServeError;
use crate::config::{Config, DEFAULT_FILE, Main};

/// Serve CRI to the kubelet.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "pintle serve",
    about = "Serve CRI: the daemon that the kubelet talks to",
    disable_version_flag = true
)]
pub(super) struct Options {
    /// The configuration file; drop-ins are in config.d beside it [default: /etc/pintle/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What survives a reboot: images, layers and the database
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What a reboot forgets: sockets, shims, exit records
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The socket on which CRI is served
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Options {
    /// Parses the words behind `serve`. The error is how the process ends: help was asked for, or a word is wrong.
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Options, ExitCode> {
        let words = std::iter::once(OsString::from("pintle serve")).chain(arguments);
        Options::try_parse_from(words).map_err(|error| {
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
        })
    }

    /// The configuration with what the command line says put over it.
    pub(super) fn config(&self) -> Result<Config, ServeError> {
        let mut config = match &self.config {
            Some(file) => Config::load(file, Main::Named)?,
            None => Config::load(DEFAULT_FILE.as_ref(), Main::Usual)?,
        };
        let daemon = &mut config.daemon;
        for (given, place) in [
            (&self.root, &mut daemon.root),
            (&self.state, &mut daemon.state),
            (&self.socket, &mut daemon.socket),
        ] {
            if let Some(given) = given {
                // Shims and mounts are told these paths, so they must not depend on where the daemon was started.
                *place = std::path::absolute(given).map_err(|source| ServeError::Folder {
                    what: "folder",
                    path: given.clone(),
                    source,
                })?;
            }
        }
        Ok(config)
    }
}
