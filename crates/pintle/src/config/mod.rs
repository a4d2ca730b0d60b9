//! The daemon's configuration: `/etc/pintle/config.toml`, then `config.d/*.toml` beside it, each key optional and each mistake named by file, line and key.

mod declare;
mod error;
mod example;
mod files;
mod keys;
mod nearest;
mod read;
mod shape;

use std::collections::BTreeSet;
use std::path::Path;

pub use declare::{Applies, Key};
pub use error::{ConfigError, Place, Problem};
pub use example::{example, reference};
pub use keys::{
    CgroupDriver, Config, Daemon, HandlerKind, Image, Log, LogFormat, LogLevel, Network, Nri, PauseContainer,
    Privileged, Runtime, RuntimeHandler, Streaming, keys,
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
        config.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError { problems }) }
    }

    /// Reads one file's text; `file` is what mistakes call it.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        read::read(&mut config, file, text, &mut problems);
        config.check(&mut problems);
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
        let changed = changed.map(|(key, _)| key.full_name());
        let names = self.runtimes.keys().chain(old.runtimes.keys()).collect::<BTreeSet<_>>().into_iter();
        let handlers = names
            .filter(|name| {
                applies == Applies::AtRestart && self.runtimes.get(*name) != old.runtimes.get(*name)
            })
            .map(|name| format!("runtimes.{name}"));
        changed.chain(handlers).collect()
    }

    /// Adds what is wrong with settings that depend on each other.
    fn check(&self, problems: &mut Vec<Problem>) {
        for (name, handler) in &self.runtimes {
            if let Some(why) = handler.contradiction() {
                problems
                    .push(Problem::Contradiction { section: format!("runtimes.{name}"), why: why.into() });
            }
        }
        if let Some(name) = &self.runtime.default_handler
            && !self.runtimes.contains_key(name)
        {
            let why = format!("`default_handler` is {name:?}, and there is no section `[runtimes.{name}]`");
            problems.push(Problem::Contradiction { section: "runtime".into(), why });
        }
    }
}

impl RuntimeHandler {
    /// Why these settings do not go together, if they do not.
    fn contradiction(&self) -> Option<&'static str> {
        match (self.kind, &self.path) {
            (HandlerKind::Oci, None) => Some("`kind = \"oci\"` needs `path`, the program"),
            (HandlerKind::Shim, None) => Some("`kind = \"shim\"` needs `path`, the program or its name"),
            (HandlerKind::Shim, Some(_)) if !self.arguments.is_empty() => {
                Some("`arguments` are for `kind = \"oci\"`: a shim is called as it always is")
            }
            (HandlerKind::Oci | HandlerKind::Builtin, _)
                if self.runtime.is_some() || self.config_path.is_some() =>
            {
                Some("`runtime` and `config_path` are for `kind = \"shim\"`")
            }
            (HandlerKind::Builtin, _) if self.pause != PauseContainer::Auto => {
                Some("`pause` is for a program, and `kind = \"builtin\"` runs none")
            }
            (HandlerKind::Builtin, Some(_)) => Some(
                "`path` is a program, and `kind = \"builtin\"` runs none; did you mean `kind = \"oci\"`?",
            ),
            (HandlerKind::Builtin, None) if !self.arguments.is_empty() || self.root.is_some() => {
                Some("`arguments` and `root` are for a program, and `kind = \"builtin\"` runs none")
            }
            (HandlerKind::Builtin, None) | (HandlerKind::Oci | HandlerKind::Shim, Some(_)) => None,
        }
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
