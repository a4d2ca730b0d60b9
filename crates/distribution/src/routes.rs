//! Which endpoints serve a reference: what this machine's files say of registries, read anew for every plan, so that a change needs no
//! restart and nothing outdated is ever applied.
//!
//! Two kinds of files speak, one after the other. `registries.conf` says which names a reference stands for: mirrors, and what the
//! registry is. The folder of a name's host says how that host is reached: `hosts.toml`, or certificates. A file that cannot be understood
//! fails the plans that need it, with its line: a slower way, or one that somebody meant to forbid, is not taken silently.

pub mod auth_file;
mod certs;
mod error;
mod file;
pub mod hosts_toml;
mod plan;
pub mod registries_conf;
mod short_names;
mod toml;

use std::path::PathBuf;

pub use error::RouteError;
pub use plan::{Candidate, Plan};
pub use short_names::{Alias, ShortNameMode, ShortNames};

use auth_file::AuthFile;
use registries_conf::RegistriesConf;

/// Where this machine says something of registries.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Registries (`host` or `host:port`) that are spoken to without TLS. Loopback addresses are so without being listed.
    pub insecure: Vec<String>,
    /// Folders with a folder for each host: `hosts.toml`, or certificates.
    pub certs_dirs: Vec<PathBuf>,
    /// The file after containers-registries.conf(5), with drop-ins in the folder of its name and `.d`.
    pub registries_conf: Option<PathBuf>,
    /// Docker's `config.json` and containers-auth.json(5), in the order in which credentials are looked for.
    pub auth_files: Vec<PathBuf>,
}

impl Sources {
    /// `registries.conf` and its drop-ins together.
    ///
    /// # Errors
    /// [`RouteError`] with the line of whichever is wrong.
    pub fn registries_conf(&self) -> Result<RegistriesConf, RouteError> {
        let mut conf = RegistriesConf::default();
        let Some(path) = &self.registries_conf else { return Ok(conf) };
        let mut drop_ins = path.clone().into_os_string();
        drop_ins.push(".d");
        let drop_ins = file::with_suffix(drop_ins.as_ref(), ".conf")?;
        for path in std::iter::once(path).chain(&drop_ins) {
            if let Some(bytes) = file::read(path)? {
                conf.merge(registries_conf::parse(path, &bytes)?);
            }
        }
        conf.check()?;
        Ok(conf)
    }

    /// The files of credentials that there are. One that is wrong fails only what needs credentials.
    fn auth_files(&self) -> Vec<Result<AuthFile, RouteError>> {
        let read = |path: &PathBuf| match file::read(path) {
            Ok(None) => None,
            Ok(Some(bytes)) => Some(auth_file::parse(path, &bytes)),
            Err(error) => Some(Err(error)),
        };
        self.auth_files.iter().filter_map(read).collect()
    }
}
