//! Who may pull: everybody, whoever has a password, or whoever got a token for a password.

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
    Bearer {
        /// Where tokens are given out; none: at `/token` of the registry itself.
        realm: Option<String>,
        /// Without: everybody gets a token.
        login: Option<(String, String)>,
        /// What `POST /token` takes as a refresh token.
        identity_token: Option<String>,
        /// Seconds that a token is said to live.
        expires_in: Option<u64>,
    },
}

/// The challenge that a request without the right credentials gets; none: it may pass.
pub(crate) fn challenge(
    registry: &Registry,
    headers: &HeaderMap,
    host: &str,
    repository: &str,
) -> Option<String> {
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    match &*lock(&registry.auth) {
        Auth::None => None,
        Auth::Basic { username, password } => {
            (given != basic(username, password)).then(|| "Basic realm=\"test, registry\"".to_owned())
        }
        Auth::Bearer { realm, .. } => {
            let token = given.strip_prefix("Bearer ").unwrap_or("");
            let valid = lock(&registry.tokens).iter().any(|known| known == token);
            let realm = realm.clone().unwrap_or_else(|| format!("http://{host}/token"));
            (!valid).then(|| {
                format!(
                    "Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:{repository}:pull\",error=\"invalid_token\""
                )
            })
        }
    }
}

/// The answer of the token endpoint.
pub(crate) fn token(
    registry: &Registry,
    method: &Method,
    headers: &HeaderMap,
    body: &[u8],
) -> (StatusCode, String) {
    let auth = lock(&registry.auth).clone();
    let Auth::Bearer { login, identity_token, expires_in, .. } = auth else {
        return (StatusCode::NOT_FOUND, String::new());
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or("");
    let form = String::from_utf8_lossy(body);
    let allowed = match (&login, &identity_token) {
        (_, Some(token)) if *method == Method::POST => {
            form.split('&').any(|pair| pair == format!("refresh_token={token}"))
        }
        (Some((username, password)), _) => given == basic(username, password),
        (None, _) => true,
    };
    if !allowed {
        return (StatusCode::UNAUTHORIZED, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}".to_owned());
    }
    let token = format!("token-{}", registry.next());
    lock(&registry.tokens).push(token.clone());
    // Both spellings exist in the world; which one a client reads must not matter.
    let key = if registry.next().is_multiple_of(2) { "token" } else { "access_token" };
    let expiry = expires_in.map(|seconds| format!(",\"expires_in\":{seconds}")).unwrap_or_default();
    (StatusCode::OK, format!("{{\"{key}\":\"{token}\"{expiry}}}"))
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}
