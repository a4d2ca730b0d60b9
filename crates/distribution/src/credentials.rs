//! Credentials for one pull. They are shown by nothing: neither `Debug` nor any error has a secret in it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

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

    /// Whether they may be sent to the registry `domain` (as references name it, with its port).
    pub fn are_for(&self, domain: &str) -> bool {
        let address = self.server_address.trim();
        if address.is_empty() {
            return true;
        }
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

    /// Whether there is anything to prove oneself with.
    pub(crate) fn is_empty(&self) -> bool {
        self.basic().is_none() && self.identity_token.is_empty() && self.registry_token.is_empty()
    }
}

/// Docker Hub goes by several names.
fn hub(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" | "docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
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
        let of = |address: &str| Credentials { server_address: address.into(), ..Credentials::default() };
        assert!(of("").are_for("quay.io"));
        assert!(of("https://quay.io/v2/").are_for("quay.io"));
        assert!(of("quay.io").are_for("QUAY.io"));
        assert!(of("https://index.docker.io/v1/").are_for("docker.io"));
        assert!(of("127.0.0.1:5000").are_for("127.0.0.1:5000"));
        assert!(!of("127.0.0.1:5000").are_for("127.0.0.1:5001"));
        assert!(!of("quay.io").are_for("evil-quay.io"));
        assert!(!of("quay.io").are_for("quay.io.evil.org"));
        assert!(!of("https://quay.io@evil.org/").are_for("quay.io"));
        assert!(!of("https://evil.org/quay.io").are_for("quay.io"));
    }

    #[test]
    fn packed_logins_are_unpacked() {
        let auth = |text: &str| Credentials { auth: text.into(), ..Credentials::default() }.basic();
        assert_eq!(auth(&STANDARD.encode("a:b:c")), Some(("a".into(), "b:c".into())));
        assert_eq!(auth("not base64 at all!"), None);
        assert_eq!(auth(""), None);
    }
}
