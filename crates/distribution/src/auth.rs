//! Proving oneself to one registry during one pull: a password, or a token that a password buys.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;

use crate::challenge::{self, Challenge};
use crate::client::{Client, NoAnswer, Reach};
use crate::credentials::Credentials;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::host::{is_link_local, is_loopback, name_of};
use crate::tls::Tls;

/// What a token lives at least, and lives if nothing is said (Docker's token specification).
const TOKEN_LIFE: u64 = 60;
/// A token is not used any more so long before its end.
const MARGIN: Duration = Duration::from_secs(5);
/// The largest answer of a token endpoint.
const TOKEN_ANSWER_MAX: usize = 256 << 10;

/// What the registry is sent at present, and which time it was worked out: so that of several requests refused together only one renews it.
#[derive(Default)]
pub(crate) struct Proof {
    pub header: Option<HeaderValue>,
    expires: Option<Instant>,
    pub generation: u64,
}

impl Proof {
    /// For the first request: only a token for the registry itself can be known before it asks.
    pub(crate) fn first(credentials: Option<&Credentials>) -> Proof {
        Proof { header: credentials.and_then(Credentials::bearer), ..Proof::default() }
    }

    /// Whether it should be renewed before it is used.
    pub(crate) fn is_stale(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires)
    }

    fn renew(&mut self, header: Option<HeaderValue>, expires: Option<Instant>) {
        *self = Proof { header, expires, generation: self.generation + 1 };
    }

    /// Forgets a token that has run out, so that the registry asks again.
    pub(crate) fn drop_stale(&mut self) {
        self.renew(None, None);
    }
}

/// Who asks for what.
pub(crate) struct Asking<'a> {
    pub client: &'a Client,
    pub endpoint: &'a Endpoint,
    /// Whether it is spoken to with TLS.
    pub secure: bool,
    pub scope: &'a str,
    pub credentials: Option<&'a Credentials>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Answers the challenges of a refused request.
pub(crate) async fn answer(
    asking: &Asking<'_>,
    headers: &HeaderMap,
    proof: &mut Proof,
) -> Result<(), RegistryError> {
    let challenges: Vec<Challenge> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect();
    // A token from a file, which the first request did not have yet.
    let token = asking.credentials.and_then(Credentials::bearer);
    if token.is_some() && token != proof.header && challenges.iter().any(|c| c.scheme == "bearer") {
        proof.renew(token, None);
        return Ok(());
    }
    if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer" && c.get("realm").is_some()) {
        return buy_token(asking, bearer, proof).await;
    }
    let login = asking.credentials.and_then(Credentials::basic);
    match (challenges.iter().any(|c| c.scheme == "basic"), login) {
        (true, Some((username, password))) => {
            let header = basic(&username, &password);
            // The same password again would only bring an account nearer to being locked.
            if header == proof.header {
                return Err(asking.refused());
            }
            proof.renew(header, None);
            Ok(())
        }
        _ => Err(asking.refused()),
    }
}

impl Asking<'_> {
    fn refused(&self) -> RegistryError {
        let given = self.credentials.is_some_and(|c| !c.is_empty());
        RegistryError::Unauthorized { host: self.endpoint.authority.clone(), given }
    }

    fn unreachable(&self, host: &str, why: NoAnswer) -> RegistryError {
        let why = format!("its token service: {}", why.why());
        RegistryError::Unreachable { host: host.to_owned(), why }
    }

    /// How far the host of the token service is trusted: what is said of the registry's certificates holds for it too, but that none is to be
    /// checked only where both are one host, since a password goes there.
    fn trust_of(&self, host: &str) -> Tls {
        let tls = &self.endpoint.tls;
        if name_of(host) == name_of(&self.endpoint.authority) {
            return tls.clone();
        }
        Tls { skip_verify: false, ..tls.without_identity() }
    }
}

async fn buy_token(asking: &Asking<'_>, bearer: &Challenge, proof: &mut Proof) -> Result<(), RegistryError> {
    let realm: Uri = bearer
        .get("realm")
        .and_then(|realm| realm.parse().ok())
        .filter(|realm: &Uri| realm.authority().is_some())
        .ok_or_else(|| {
            RegistryError::malformed(
                format!("the challenge of {}", asking.endpoint.authority),
                "its realm is no URL",
            )
        })?;
    let host = realm.authority().map(|a| a.as_str().to_owned()).unwrap_or_default();
    // A password is said in the clear only to the host that is spoken to so already, or within this machine.
    let same = name_of(&host) == name_of(&asking.endpoint.authority);
    let in_the_clear = realm.scheme_str() != Some("https");
    let may = !asking.secure && (same || is_loopback(&host));
    if (in_the_clear && !may) || host.contains('@') || (is_link_local(&host) && !same) {
        let what = format!("the challenge of {}", asking.endpoint.authority);
        return Err(RegistryError::malformed(what, "its realm is not a URL that may be asked for a token"));
    }
    let scope = bearer.get("scope").unwrap_or(asking.scope);
    let request = token_request(asking, &realm, bearer.get("service"), scope).map_err(|why| {
        RegistryError::malformed(format!("the challenge of {}", asking.endpoint.authority), why)
    })?;
    let trust = asking.trust_of(&host);
    let reach = Reach { tls: &trust, connect: None, answer: asking.client.timeouts.headers };
    let answer = asking.client.send(reach, request).await.map_err(|why| asking.unreachable(&host, why))?;
    let status = answer.status();
    match status {
        StatusCode::UNAUTHORIZED => return Err(asking.refused()),
        StatusCode::FORBIDDEN => {
            return Err(RegistryError::Forbidden { what: scope.to_owned(), host });
        }
        status if !status.is_success() => {
            return Err(RegistryError::Status { what: "a token".into(), host, status: status.as_u16() });
        }
        _ => {}
    }
    let body = tokio::time::timeout(
        asking.client.timeouts.headers,
        Limited::new(answer.into_body(), TOKEN_ANSWER_MAX).collect(),
    );
    let body = match body.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(why)) => return Err(asking.unreachable(&host, NoAnswer::Failed(why.to_string()))),
        Err(_) => return Err(asking.unreachable(&host, NoAnswer::Failed("it stopped answering".into()))),
    };
    // The text of a JSON error quotes nothing, so that no part of a token can get into a log.
    let token: TokenAnswer = serde_json::from_slice(&body).map_err(|_| {
        RegistryError::malformed(format!("the token of {host}"), "it is not the JSON it should be")
    })?;
    let text = token.token.or(token.access_token).filter(|token| !token.is_empty());
    let header = text.and_then(|token| secret(format!("Bearer {token}")));
    if header.is_none() {
        return Err(RegistryError::malformed(format!("the token of {host}"), "it is empty"));
    }
    let life = Duration::from_secs(token.expires_in.unwrap_or(TOKEN_LIFE).clamp(TOKEN_LIFE, 86_400));
    proof.renew(header, Some(Instant::now() + life.saturating_sub(MARGIN)));
    Ok(())
}

fn token_request(
    asking: &Asking<'_>,
    realm: &Uri,
    service: Option<&str>,
    scope: &str,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut fields = vec![("scope", scope)];
    fields.extend(service.map(|service| ("service", service)));
    let identity = asking.credentials.map(|c| c.identity_token.as_str()).filter(|token| !token.is_empty());
    if let Some(identity) = identity {
        fields.extend([
            ("grant_type", "refresh_token"),
            ("client_id", "pintle"),
            ("refresh_token", identity),
        ]);
        return Request::builder()
            .method(Method::POST)
            .uri(realm)
            .header(header::USER_AGENT, crate::conversation::USER_AGENT)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(encode(&fields)));
    }
    let separator = if realm.query().is_some() { '&' } else { '?' };
    let mut request = Request::builder()
        .uri(format!("{realm}{separator}{}", encode(&fields)))
        .header(header::USER_AGENT, crate::conversation::USER_AGENT);
    if let Some((username, password)) = asking.credentials.and_then(Credentials::basic)
        && let Some(value) = basic(&username, &password)
    {
        request = request.header(header::AUTHORIZATION, value);
    }
    request.body(Full::default())
}

impl Credentials {
    /// The header of a token for the registry itself.
    fn bearer(&self) -> Option<HeaderValue> {
        let token = Some(&self.registry_token).filter(|token| !token.is_empty())?;
        secret(format!("Bearer {token}"))
    }
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// A header's value that `Debug` does not show.
fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// As forms and queries have it.
fn encode(fields: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                    out.push(char::from(byte));
                }
                other => out.push_str(&format!("%{other:02X}")),
            }
        }
    }
    out
}
