//! Which endpoints serve a reference: what this machine's files say of registries, read anew for every plan, so that a change needs no
//! restart and nothing outdated is ever applied.

use std::path::PathBuf;

use model::reference::{BadReference, ImageReference};

use crate::client::Client;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Scheme};
use crate::host::{HUB, hub, is_loopback, name_of};
use crate::place::Place;
use crate::session::Session;

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

/// What a reference leads to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Usually one: several for a short name that is looked for in several registries.
    pub candidates: Vec<Candidate>,
}

/// One whole reference, and who serves it.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub reference: ImageReference,
    /// Who said that the short name stands for this.
    pub said: Option<Place>,
    /// In the order in which they are asked.
    pub endpoints: Vec<Endpoint>,
}

/// Why there is no plan. Each names the file and the line.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    #[error("{0}")]
    BadReference(#[from] BadReference),
}

impl Sources {
    /// Who serves what a person or the kubelet wrote.
    ///
    /// # Errors
    /// [`RouteError`].
    pub fn plan(&self, text: &str) -> Result<Plan, RouteError> {
        let reference = ImageReference::parse(text)?;
        let endpoints = vec![self.registry(reference.domain(), reference.path())];
        Ok(Plan { candidates: vec![Candidate { reference, said: None, endpoints }] })
    }

    /// A registry of which no file says anything.
    fn registry(&self, domain: &str, repository: &str) -> Endpoint {
        let host = if domain == HUB { crate::host::HUB_HOST } else { domain };
        let scheme = if self.is_insecure(host) { Scheme::Http } else { Scheme::Https };
        Endpoint::of_registry(domain, host, repository, scheme)
    }

    fn is_insecure(&self, host: &str) -> bool {
        let listed = |listed: &String| {
            let listed = listed.to_ascii_lowercase();
            listed == host || listed == name_of(host)
        };
        is_loopback(host) || self.insecure.iter().any(listed)
    }
}

impl Candidate {
    /// A conversation with its endpoints.
    ///
    /// Credentials that name no registry were chosen by somebody who took a short name for one of Docker Hub, as the kubelet does; if it
    /// leads elsewhere here, they are not for there.
    pub fn session(&self, client: std::sync::Arc<Client>, given: Option<&Credentials>) -> Session {
        let mistaken = self.said.is_some() && hub(self.reference.domain()) != HUB;
        let given = given.filter(|given| !(mistaken && given.server_address.trim().is_empty()));
        Session::new(client, self.endpoints.clone(), given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_loopback_and_what_is_listed() {
        let insecure = vec!["Plain.example".into(), "ported.example:5000".into()];
        let sources = Sources { insecure, ..Sources::default() };
        let scheme =
            |host: &str| sources.plan(&format!("{host}/a")).unwrap().candidates[0].endpoints[0].scheme;
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert_eq!(scheme(host), Scheme::Http, "{host}");
        }
        for host in ["plain.example", "plain.example:80", "ported.example:5000"] {
            assert_eq!(scheme(host), Scheme::Http, "{host}");
        }
        for host in ["quay.io", "ported.example", "localhost.evil.org", "10.0.0.1:5000", "[fe80::1]:5000"] {
            assert_eq!(scheme(host), Scheme::Https, "{host}");
        }
    }
}
