//! Who may pull and push: everybody, whoever has a password or a token, or whoever got a token for a password.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, StatusCode, header};

use crate::{Registry, lock};

/// What credentials are asked for.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    #[default]
    None,
    Basic {
        username: String,
        password: String,
    },
    /// A token that was agreed on elsewhere: what the kubelet calls a registry token.
    Token(String),
    /// A token that is bought at a realm. It is good for the scopes it was bought for.
    Bearer {
        /// Where tokens are given out; none: at `/token` of the registry itself.
        realm: Option<String>,
        /// Without: everybody gets a token.
        login: Option<(String, String)>,
        /// What `POST /token` takes as a refresh token.
        identity_token: Option<String>,
        /// Seconds that a token lives and is said to live; none: nothing is said, and it lives for ever.
        expires_in: Option<u64>,
    },
}

/// A token that was given out.
#[derive(Debug)]
pub(crate) struct Token {
    text: String,
    /// As they were asked for: `repository:NAME:pull,push`.
    scopes: Vec<String>,
    ends: Option<Instant>,
}

impl Token {
    fn permits(&self, repository: &str, action: &str) -> bool {
        let ended = self.ends.is_some_and(|ends| Instant::now() >= ends);
        !ended
            && (repository.is_empty()
                || self.scopes.iter().any(|scope| {
                    let rest =
                        scope.strip_prefix("repository:").and_then(|rest| rest.strip_prefix(repository));
                    let actions = rest.and_then(|rest| rest.strip_prefix(':')).unwrap_or("");
                    actions.split(',').any(|known| known == action || known == "*")
                }))
    }
}

/// One request, as far as it matters to who may make it.
pub(crate) struct Visitor<'a> {
    pub headers: &'a HeaderMap,
    /// `http` or `https`, by which the realm of the registry itself is reached.
    pub scheme: &'static str,
    /// Empty for `/v2/` itself.
    pub repository: &'a str,
    /// `pull` or `push`.
    pub action: &'static str,
}

/// The challenge that a request without the right credentials gets; none: it may pass.
pub(crate) fn challenge(registry: &Registry, visitor: &Visitor<'_>) -> Option<String> {
    let Visitor { headers, repository, action, .. } = visitor;
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("");
    let given = text(header::AUTHORIZATION);
    let bearer = given.strip_prefix("Bearer ").unwrap_or("");
    match &*lock(&registry.auth) {
        Auth::None => None,
        Auth::Basic { username, password } => {
            (given != basic(username, password)).then(|| "Basic realm=\"test, registry\"".to_owned())
        }
        Auth::Token(token) => (bearer != token).then(|| "Bearer error=\"invalid_token\"".to_owned()),
        Auth::Bearer { realm, .. } => {
            let valid = lock(&registry.tokens)
                .iter()
                .any(|token| token.text == bearer && token.permits(repository, action));
            let own = || format!("{}://{}/token", visitor.scheme, text(header::HOST));
            let realm = realm.clone().unwrap_or_else(own);
            let actions = if *action == "push" { "pull,push" } else { "pull" };
            let scope = match repository.is_empty() {
                true => String::new(),
                false => format!(",scope=\"repository:{repository}:{actions}\""),
            };
            (!valid)
                .then(|| format!("Bearer realm=\"{realm}\",service=\"test\"{scope},error=\"invalid_token\""))
        }
    }
}

/// The answer of the token endpoint.
pub(crate) fn token(
    registry: &Registry,
    method: &Method,
    headers: &HeaderMap,
    query: &str,
    body: &str,
) -> (StatusCode, String) {
    let auth = lock(&registry.auth).clone();
    let Auth::Bearer { login, identity_token, expires_in, .. } = auth else {
        return (StatusCode::NOT_FOUND, String::new());
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    let fields = fields(if *method == Method::POST { body } else { query });
    let field =
        |name: &'static str| fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value);
    let allowed = match (&login, &identity_token) {
        (_, Some(token)) if *method == Method::POST => field("refresh_token").any(|given| given == token),
        (Some((username, password)), _) => given == basic(username, password),
        (None, _) => true,
    };
    if !allowed {
        return (StatusCode::UNAUTHORIZED, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}".to_owned());
    }
    let token = format!("token-{}", registry.next());
    lock(&registry.tokens).push(Token {
        text: token.clone(),
        scopes: field("scope").flat_map(|scope| scope.split(' ')).map(str::to_owned).collect(),
        ends: expires_in.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
    });
    // Both spellings exist in the world; which one a client reads must not matter.
    let key = if registry.next().is_multiple_of(2) { "token" } else { "access_token" };
    let expiry = expires_in.map(|seconds| format!(",\"expires_in\":{seconds}")).unwrap_or_default();
    (StatusCode::OK, format!("{{\"{key}\":\"{token}\"{expiry}}}"))
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// The fields of a query or a form.
pub(crate) fn fields(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let hex = more.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &more[2..];
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
        rest = more;
    }
    String::from_utf8_lossy(&out).into_owned()
}
