//! One place that may serve a repository: where it is, what it may be asked, how it is trusted, and who said so.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::credentials::CredentialSource;
use crate::place::Place;
use crate::tls::Tls;

/// A registry, or a copy of one, and the repository there.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// Host and port.
    pub authority: String,
    /// What comes before the repository: `/v2`.
    pub path: String,
    /// The repository as this endpoint calls it: `library/busybox`.
    pub repository: String,
    /// The registry for which this one answers, told to it as `ns` with every request: what caches of several registries go by.
    pub namespace: Option<String>,
    pub capabilities: Capabilities,
    pub tls: Tls,
    /// Sent with every request to it. Their values are secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How long a TCP connection may take, if not what all have.
    pub connect: Option<Duration>,
    /// The registry of the reference, if this endpoint is it and no copy: credentials for it are for this endpoint.
    pub registry: Option<String>,
    /// Where credentials for it are looked for when it asks for some, in this order.
    pub credentials: Vec<CredentialSource>,
    /// Who said that it is asked; none: that is so if nobody says otherwise.
    pub said: Vec<Place>,
}

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Https,
    Http,
    /// With TLS, and without if it does not speak that.
    HttpsElseHttp,
}

/// What an endpoint may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Things by their digests.
    pub pull: bool,
    /// Which digest a tag stands for.
    pub resolve: bool,
    pub push: bool,
    /// What refers to a manifest.
    pub referrers: bool,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    Pull,
    Resolve,
    Push,
    Referrers,
}

impl Capabilities {
    pub const ALL: Capabilities = Capabilities { pull: true, resolve: true, push: true, referrers: true };
    pub const NONE: Capabilities =
        Capabilities { pull: false, resolve: false, push: false, referrers: false };

    /// Whether `capability` is among them.
    pub fn has(self, capability: Capability) -> bool {
        match capability {
            Capability::Pull => self.pull,
            Capability::Resolve => self.resolve,
            Capability::Push => self.push,
            Capability::Referrers => self.referrers,
        }
    }

    /// Their names, as `hosts.toml` has them.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.pull, "pull"),
            (self.resolve, "resolve"),
            (self.push, "push"),
            (self.referrers, "referrers"),
        ];
        all.into_iter().filter_map(|(has, name)| has.then_some(name)).collect()
    }
}

impl Endpoint {
    /// A registry itself, spoken to in the usual way.
    pub fn of_registry(domain: &str, host: &str, repository: &str, scheme: Scheme) -> Endpoint {
        Endpoint {
            scheme,
            authority: host.to_owned(),
            path: "/v2".to_owned(),
            repository: repository.to_owned(),
            namespace: None,
            capabilities: Capabilities::ALL,
            tls: Tls::default(),
            headers: Vec::new(),
            connect: None,
            registry: Some(domain.to_owned()),
            credentials: Vec::new(),
            said: Vec::new(),
        }
    }

    /// The scheme it is asked in first.
    pub fn first_scheme(&self) -> &'static str {
        match self.scheme {
            Scheme::Http => "http",
            Scheme::Https | Scheme::HttpsElseHttp => "https",
        }
    }

    /// The URL of something of the repository, such as `manifests/latest`, in the scheme it is asked in first.
    pub fn url(&self, of: &str) -> String {
        self.url_in(self.first_scheme(), of)
    }

    pub(crate) fn url_in(&self, scheme: &str, of: &str) -> String {
        let Endpoint { authority, path, repository, .. } = self;
        let url = format!("{scheme}://{authority}{path}/{repository}/{of}");
        // As containerd writes it; nothing else in a host with its port needs to be encoded.
        let encoded = |host: &String| host.replace(':', "%3A").replace('[', "%5B").replace(']', "%5D");
        match self.namespace.as_ref().map(encoded) {
            Some(namespace) if of.contains('?') => format!("{url}&ns={namespace}"),
            Some(namespace) => format!("{url}?ns={namespace}"),
            None => url,
        }
    }
}
