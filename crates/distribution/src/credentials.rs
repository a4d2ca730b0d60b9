//! Credentials for one pull. They are shown by nothing: neither `Debug` nor any error has a secret in it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::endpoint::Endpoint;
use crate::helper;
use crate::host::hub;
use crate::place::Place;

/// What CRI's `AuthConfig` carries. Empty fields are absent ones.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Base64 of `username:password`; used if `username` is empty.
    pub auth: String,
    /// The registry they are for, as a host or a URL; empty: whichever is asked.
    pub server_address: String,
    /// A refresh token, which buys an access token.
    pub identity_token: String,
    /// A bearer token for the registry itself.
    pub registry_token: String,
}

impl Credentials {
    /// A user with a password.
    pub fn login(username: &str, password: &str) -> Credentials {
        Credentials { username: username.into(), password: password.into(), ..Credentials::default() }
    }

    /// Whether they may be sent to an endpoint: they name it, or the registry that it is. Those that name nothing are for the registry of
    /// the reference, and not for a copy of it, whose owner may be somebody else.
    pub fn are_for(&self, endpoint: &Endpoint) -> bool {
        let registry = endpoint.registry.as_deref();
        if self.server_address.trim().is_empty() {
            return registry.is_some();
        }
        self.name(&endpoint.authority) || registry.is_some_and(|registry| self.name(registry))
    }

    /// Whether they say that they are for the registry `domain` (with its port).
    fn name(&self, domain: &str) -> bool {
        let address = self.server_address.trim();
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let host = rest.split(['/', '?']).next().unwrap_or("").to_ascii_lowercase();
        hub(&host) == hub(&domain.to_ascii_lowercase())
    }

    /// User and password, decoded if need be.
    pub(crate) fn basic(&self) -> Option<(String, String)> {
        if !self.username.is_empty() {
            return Some((self.username.clone(), self.password.clone()));
        }
        let auth = self.auth.trim_end_matches(['\0', '\n', '\r', ' ']);
        let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        (!username.is_empty()).then(|| (username.to_owned(), password.trim_end_matches('\0').to_owned()))
    }

    /// The same, as if for whatever they are sent to.
    #[cfg(test)]
    pub(crate) fn to(address: &str) -> Credentials {
        Credentials { server_address: address.into(), ..Credentials::default() }
    }

    /// Whether there is anything to prove oneself with.
    pub(crate) fn is_empty(&self) -> bool {
        self.basic().is_none() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }
}

/// Where credentials come from that nobody gave with the request.
#[derive(Debug, Clone)]
pub enum CredentialSource {
    /// They stand in a file, under this key.
    File { place: Place, key: String, credentials: Credentials },
    /// A program knows them: `docker-credential-` and its name.
    Helper { place: Place, name: String, server: String },
    /// A file that might have some cannot be understood.
    Unreadable { why: String },
}

impl CredentialSource {
    /// The credentials; none: it has none for this registry.
    pub(crate) async fn find(&self) -> Result<Option<Credentials>, String> {
        match self {
            CredentialSource::File { credentials, .. } => Ok(Some(credentials.clone())),
            CredentialSource::Helper { place, name, server } => {
                helper::get(name, server).await.map_err(|why| format!("{why}, which {place} names"))
            }
            CredentialSource::Unreadable { why } => Err(why.clone()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |secret: &str| if secret.is_empty() { "none" } else { "given" };
        out.debug_struct("Credentials")
            .field("username", &has(&self.username))
            .field("password", &has(&self.password))
            .field("auth", &has(&self.auth))
            .field("server_address", &self.server_address)
            .field("identity_token", &has(&self.identity_token))
            .field("registry_token", &has(&self.registry_token))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Scheme;

    #[test]
    fn nothing_shows_a_secret() {
        let credentials = Credentials {
            username: "alice".into(),
            password: "hunter2".into(),
            auth: STANDARD.encode("alice:hunter2"),
            server_address: "https://quay.io/v2/".into(),
            identity_token: "idtoken".into(),
            registry_token: "regtoken".into(),
        };
        let text = format!("{credentials:?}");
        for secret in ["alice", "hunter2", "idtoken", "regtoken", &credentials.auth] {
            assert!(!text.contains(secret), "{text}");
        }
    }

    #[test]
    fn they_are_only_for_their_registry() {
        let names = |address: &str, domain: &str| Credentials::to(address).name(domain);
        assert!(names("https://quay.io/v2/", "quay.io"));
        assert!(names("quay.io", "QUAY.io"));
        assert!(names("https://index.docker.io/v1/", "docker.io"));
        assert!(names("127.0.0.1:5000", "127.0.0.1:5000"));
        assert!(!names("127.0.0.1:5000", "127.0.0.1:5001"));
        assert!(!names("quay.io", "evil-quay.io"));
        assert!(!names("quay.io", "quay.io.evil.org"));
        assert!(!names("https://quay.io@evil.org/", "quay.io"));
        assert!(!names("https://evil.org/quay.io", "quay.io"));
    }

    #[test]
    fn a_copy_gets_none_that_do_not_name_it() {
        let registry = Endpoint::of_registry("quay.io", "quay.io", "a", Scheme::Https);
        let mirror = Endpoint { registry: None, authority: "mirror.example".into(), ..registry.clone() };
        for (address, to_registry, to_mirror) in
            [("", true, false), ("quay.io", true, false), ("mirror.example", false, true)]
        {
            let given = Credentials::to(address);
            assert_eq!((given.are_for(&registry), given.are_for(&mirror)), (to_registry, to_mirror));
        }
    }

    #[test]
    fn packed_logins_are_unpacked() {
        let auth = |text: &str| Credentials { auth: text.into(), ..Credentials::default() }.basic();
        assert_eq!(auth(&STANDARD.encode("a:b:c")), Some(("a".into(), "b:c".into())));
        assert_eq!(auth("not base64 at all!"), None);
        assert_eq!(auth(""), None);
    }
}
