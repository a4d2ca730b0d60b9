//! The daemon's configuration: `/etc/pintle/config.toml`, then `config.d/*.toml` beside it, each key optional and each mistake named by file, line and key.

mod declare;
mod error;
mod example;
mod files;
mod keys;
mod nearest;
mod read;
mod shape;

use std::path::Path;

pub use declare::{Applies, Key};
pub use error::{ConfigError, Place, Problem};
pub use example::{example, reference};
pub use keys::{
    CgroupDriver, Config, Daemon, Image, Log, LogFormat, LogLevel, Network, Nri, Runtime, Streaming, keys,
};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/pintle/config.toml";

/// Whether the main file has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Main {
    /// Somebody named it: that it is missing is an error.
    Named,
    /// The usual place: missing means all defaults.
    Usual,
}

impl Config {
    /// Reads `file` and the `config.d/*.toml` beside it, in the order of their names; a later setting wins.
    ///
    /// Returns every mistake of every file at once. Nothing is changed by reading, so that a reload that fails leaves the old configuration in force.
    pub fn load(file: &Path, main: Main) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        for file in files::all(file, main == Main::Named, &mut problems) {
            match files::text(&file) {
                Ok(text) => read::read(&mut config, &file, &text, &mut problems),
                Err(problem) => problems.push(*problem),
            }
        }
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Reads one file's text; `file` is what mistakes call it.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        read::read(&mut config, file, text, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// The settings, as `section.name`, that differ from `old` and that only a restart applies.
    pub fn changes_needing_restart(&self, old: &Config) -> Vec<String> {
        self.changes(old, Applies::AtRestart)
    }

    /// The settings, as `section.name`, that differ from `old` and that apply at once.
    pub fn changes_by_reload(&self, old: &Config) -> Vec<String> {
        self.changes(old, Applies::OnReload)
    }

    fn changes(&self, old: &Config, applies: Applies) -> Vec<String> {
        let values = keys::written(self).into_iter().zip(keys::written(old));
        let changed =
            keys().into_iter().zip(values).filter(|(key, (new, old))| key.applies == applies && new != old);
        changed.map(|(key, _)| key.full_name()).collect()
    }
}

impl Image {
    /// Where this machine says something of registries.
    pub(crate) fn sources(&self) -> distribution::Sources {
        distribution::Sources {
            insecure: self.insecure_registries.clone(),
            certs_dirs: self.certs_dirs.clone(),
            registries_conf: self.registries_conf.clone(),
            auth_files: self.auth_files.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
