//! The plan for one reference: every endpoint that may serve it, in order, as data that a pull follows and that people can be shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::reference::ImageReference;

use super::auth_file::AuthFile;
use super::error::RouteError;
use super::hosts_toml::{self, HostEntry, HostUrl, HostsFile};
use super::registries_conf::{RegistriesConf, Source};
use super::short_names::ShortNames;
use super::{Sources, certs, file};
use crate::client::Client;
use crate::credentials::{CredentialSource, Credentials};
use crate::endpoint::{Endpoint, Scheme};
use crate::host::{HUB, HUB_HOST, hub, is_loopback, name_of, split_port};
use crate::place::Place;
use crate::session::Session;
use crate::tls::Tls;

/// What a reference leads to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Usually one: several for a short name that is looked for in several registries.
    pub candidates: Vec<Candidate>,
    /// What names without a registry stand for at present.
    pub short_names: ShortNames,
    /// Keys of files that mean nothing to this version, and where they are.
    pub unknown: Vec<(Place, String)>,
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

/// A name as it is asked for, before it is known how its host is reached.
struct Name {
    reference: ImageReference,
    /// The registry that credentials without an address are for, if this is it.
    registry: Option<String>,
    is_mirror: bool,
    /// What `registries.conf` says of TLS and where; nothing: nothing.
    insecure: Option<bool>,
    said: Option<Place>,
}

/// The files that several endpoints need.
struct Files {
    conf: RegistriesConf,
    auth: Vec<Result<AuthFile, RouteError>>,
    unknown: Vec<(Place, String)>,
}

impl Sources {
    /// Who serves what a person or the kubelet wrote. It reads files, and may wait for the disk.
    ///
    /// # Errors
    /// [`RouteError`] with the file and line that is wrong, or that blocks the reference.
    pub fn plan(&self, text: &str) -> Result<Plan, RouteError> {
        let mut conf = self.registries_conf()?;
        let unknown = std::mem::take(&mut conf.unknown);
        let short_names = conf.short_names.clone();
        let mut references: Vec<(ImageReference, Option<Place>)> =
            short_names.resolve(text)?.into_iter().map(|(r, place)| (r, Some(place))).collect();
        if references.is_empty() {
            references.push((ImageReference::parse(text)?, None));
        }
        let mut files = Files { conf, auth: self.auth_files(), unknown };
        let mut candidates = Vec::new();
        for (reference, said) in references {
            let endpoints = self.endpoints(&reference, &mut files)?;
            candidates.push(Candidate { reference, said, endpoints });
        }
        Ok(Plan { candidates, short_names, unknown: files.unknown })
    }

    fn endpoints(&self, reference: &ImageReference, files: &mut Files) -> Result<Vec<Endpoint>, RouteError> {
        let mut endpoints = Vec::new();
        for name in names(reference, &files.conf)? {
            let before = endpoints.len();
            self.add_endpoints(&name, &mut endpoints, &mut files.unknown)?;
            for endpoint in &mut endpoints[before..] {
                endpoint.credentials = files.credentials(endpoint);
                endpoint.said.extend(name.said.clone());
                // What is pushed belongs to the registry; its copies fetch it from there.
                endpoint.capabilities.push &= !name.is_mirror;
            }
        }
        Ok(endpoints)
    }

    /// The endpoints of one name: what its host's folder says, or the host itself.
    fn add_endpoints(
        &self,
        name: &Name,
        endpoints: &mut Vec<Endpoint>,
        unknown: &mut Vec<(Place, String)>,
    ) -> Result<(), RouteError> {
        let folder = self.folder(name.reference.domain())?;
        let Some(hosts) = folder.map(|folder| hosts_file(&folder)).transpose()?.flatten() else {
            endpoints.push(self.itself(name, None)?);
            return Ok(());
        };
        unknown.extend(hosts.unknown);
        for entry in &hosts.hosts {
            endpoints.push(self.entry(name, entry, false)?);
        }
        endpoints.push(self.entry(name, &hosts.server, true)?);
        Ok(())
    }

    /// An endpoint of a `hosts.toml`. Its server, which stands last, is what the registry is, wherever that is; the others are copies.
    fn entry(&self, name: &Name, entry: &HostEntry, is_server: bool) -> Result<Endpoint, RouteError> {
        let Some(url) = &entry.url else { return self.itself(name, Some(entry)) };
        let domain = name.reference.domain();
        let same = hub(&url.authority) == hub(domain);
        let mut endpoint = Endpoint {
            scheme: scheme(url, entry),
            authority: url.authority.clone(),
            path: url.path.clone(),
            namespace: (!same).then(|| domain.to_owned()),
            capabilities: entry.capabilities,
            registry: name.registry.clone().filter(|_| is_server || same),
            said: vec![entry.place.clone()],
            ..self.plain(name)
        };
        self.trust(&mut endpoint, Some(entry))?;
        Ok(endpoint)
    }

    /// The host that the name itself names.
    fn itself(&self, name: &Name, entry: Option<&HostEntry>) -> Result<Endpoint, RouteError> {
        let mut endpoint = self.plain(name);
        self.trust(&mut endpoint, entry)?;
        let trusted = !endpoint.tls.authorities.is_empty() || !endpoint.tls.identities.is_empty();
        endpoint.scheme = match name.insecure {
            Some(true) => Scheme::HttpsElseHttp,
            // Whoever puts certificates there means TLS.
            _ if trusted => Scheme::Https,
            // Nothing that is said on loopback leaves this machine; the original would ask for TLS.
            Some(false) if is_loopback(&endpoint.authority) => Scheme::HttpsElseHttp,
            _ if self.is_insecure(&endpoint.authority) => Scheme::Http,
            _ => Scheme::Https,
        };
        endpoint.tls.skip_verify |= name.insecure == Some(true);
        endpoint.said.extend(entry.map(|entry| entry.place.clone()));
        Ok(endpoint)
    }

    fn plain(&self, name: &Name) -> Endpoint {
        let domain = name.reference.domain();
        let host = if domain == HUB { HUB_HOST } else { domain };
        let registry = name.registry.clone();
        Endpoint { registry, ..Endpoint::of_registry(domain, host, name.reference.path(), Scheme::Https) }
    }

    /// How an endpoint is trusted: what is said of it where it is named, and the certificates in its own folder.
    fn trust(&self, endpoint: &mut Endpoint, entry: Option<&HostEntry>) -> Result<(), RouteError> {
        let mut tls = Tls::default();
        if let Some(entry) = entry {
            certs::add_named(&mut tls, &entry.ca, &entry.client)?;
            tls.skip_verify = entry.skip_verify.unwrap_or(false);
            endpoint.headers = entry.headers.clone();
            endpoint.connect = entry.dial_timeout;
        }
        for root in &self.certs_dirs {
            for name in certs::folder_names(&endpoint.authority) {
                let folder = root.join(name);
                // Beside a `hosts.toml` they are for whom it names.
                if !folder.join("hosts.toml").exists() {
                    certs::add(&mut tls, &folder)?;
                }
            }
        }
        endpoint.tls = tls;
        Ok(())
    }

    /// The folder that speaks for a registry: the first there is, and in each place that of its own name before that of all.
    fn folder(&self, domain: &str) -> Result<Option<PathBuf>, RouteError> {
        for root in &self.certs_dirs {
            for name in certs::folder_names(domain).into_iter().chain(["_default".to_owned()]) {
                let folder = root.join(name);
                if file::is_folder(&folder)? {
                    return Ok(Some(folder));
                }
            }
        }
        Ok(None)
    }

    fn is_insecure(&self, host: &str) -> bool {
        let listed = |listed: &String| {
            let listed = listed.to_ascii_lowercase();
            listed == host || listed == name_of(host)
        };
        is_loopback(host) || self.insecure.iter().any(listed)
    }
}

impl Files {
    /// Where credentials for an endpoint are looked for.
    fn credentials(&self, endpoint: &Endpoint) -> Vec<CredentialSource> {
        let mut found = Vec::new();
        let in_files = |found: &mut Vec<CredentialSource>| {
            for file in &self.auth {
                match file {
                    Ok(file) => found.extend(file.sources(&endpoint.authority, &endpoint.repository)),
                    Err(error) => found.push(CredentialSource::Unreadable { why: error.to_string() }),
                }
            }
        };
        let Some((helpers, place)) = &self.conf.credential_helpers else {
            in_files(&mut found);
            return found;
        };
        for helper in helpers {
            match helper.as_str() {
                "containers-auth.json" => in_files(&mut found),
                name => found.push(CredentialSource::Helper {
                    place: place.clone(),
                    name: name.to_owned(),
                    server: hub(&endpoint.authority).to_owned(),
                }),
            }
        }
        found
    }
}

/// The names that a reference stands for, in order.
fn names(reference: &ImageReference, conf: &RegistriesConf) -> Result<Vec<Name>, RouteError> {
    let registry = Some(reference.domain().to_owned());
    let Some(entry) = conf.find(reference) else {
        return Ok(vec![Name {
            reference: reference.clone(),
            registry,
            is_mirror: false,
            insecure: None,
            said: None,
        }]);
    };
    let name = |source: Source| Name {
        reference: source.reference,
        registry: registry.clone().filter(|_| !source.is_mirror),
        is_mirror: source.is_mirror,
        insecure: Some(source.insecure),
        said: Some(source.place),
    };
    Ok(entry.sources(reference)?.into_iter().map(name).collect())
}

/// What the `hosts.toml` of a folder says; none: there is none, or it is empty.
fn hosts_file(folder: &Path) -> Result<Option<HostsFile>, RouteError> {
    let path = folder.join("hosts.toml");
    match file::read(&path)? {
        Some(bytes) if !bytes.is_empty() => hosts_toml::parse(&path, &bytes).map(Some),
        _ => Ok(None),
    }
}

/// Whoever says something of certificates beside an URL without TLS may mean either, unless the port does not.
fn scheme(url: &HostUrl, entry: &HostEntry) -> Scheme {
    let speaks_of_tls = entry.skip_verify.is_some() || !entry.ca.is_empty() || !entry.client.is_empty();
    match url.https {
        true => Scheme::Https,
        false if speaks_of_tls && split_port(&url.authority).1 != Some(80) => Scheme::HttpsElseHttp,
        false => Scheme::Http,
    }
}

impl Candidate {
    /// A conversation with its endpoints, in which it is not told that credentials were given that are not for it.
    pub fn session(&self, client: Arc<Client>, given: Option<&Credentials>) -> Session {
        Session::new(client, self.endpoints.clone(), given.filter(|given| self.is_meant(given)))
    }

    /// The same, for a push.
    pub fn session_to_push(&self, client: Arc<Client>, given: Option<&Credentials>) -> Session {
        Session::to_push(client, self.endpoints.clone(), given.filter(|given| self.is_meant(given)))
    }

    /// Credentials that name no registry were chosen by somebody who took a short name for one of Docker Hub, as the kubelet does; if it
    /// leads elsewhere here, they are not for there.
    fn is_meant(&self, given: &Credentials) -> bool {
        self.said.is_none() || self.reference.domain() == HUB || !given.server_address.trim().is_empty()
    }
}

#[cfg(test)]
mod tests;
