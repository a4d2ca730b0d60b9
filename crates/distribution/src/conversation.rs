//! What is said to one endpoint during one pull or push: its proof, its tries, its redirects.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use crate::auth::{self, Asking, Proof};
use crate::client::{self, Answer, Client, NoAnswer, Reach};
use crate::credentials::Credentials;
use crate::detours::Detours;
use crate::endpoint::{Endpoint, Scheme};
use crate::error::{Attempts, RegistryError};
use crate::range::Range;

pub(crate) const USER_AGENT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"));
const REDIRECTS_MAX: usize = 5;

/// A conversation with one endpoint.
pub(crate) struct Conversation {
    pub endpoint: Endpoint,
    scope: String,
    given: Option<Credentials>,
    found: OnceCell<Option<Credentials>>,
    proof: Mutex<Proof>,
    /// Whether it turned out not to speak TLS.
    plain: AtomicBool,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    /// As errors call it.
    pub what: &'a str,
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Where earlier requests for the same were sent on to.
    pub detours: Option<&'a Detours>,
}

/// How long an endpoint is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Until when it has to answer, all tries together: when others follow that may be asked instead.
    pub until: Option<Instant>,
    pub tries: u32,
}

/// One answer that has to do with what was asked, as opposed to with how it was asked.
enum Outcome {
    Ok(Answer),
    /// The credentials were refused.
    Refused(HeaderMap),
    /// Worth another try, after this long if the registry said so.
    Again(RegistryError, Option<Duration>),
}

impl<'a> Ask<'a> {
    /// To get something, perhaps one that is of a media type which `accept` lists.
    pub(crate) fn get(what: &'a str, accept: Option<&str>) -> Ask<'a> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept.and_then(|accept| HeaderValue::from_str(accept).ok()) {
            headers.insert(header::ACCEPT, accept);
        }
        Ask { what, method: Method::GET, headers, body: Bytes::new(), detours: None }
    }
}

impl<'a> Ask<'a> {
    /// The same, asked where earlier requests for it were sent on to, as long as that answers.
    pub(crate) fn by(self, detours: &'a Detours) -> Self {
        Ask { detours: Some(detours), ..self }
    }

    /// The same, of these bytes only.
    pub(crate) fn range(mut self, range: Option<Range>) -> Self {
        if let Some(range) = range.and_then(|range| HeaderValue::from_str(&range.to_string()).ok()) {
            self.headers.insert(header::RANGE, range);
        }
        self
    }
}

impl Patience {
    fn left(self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

impl Conversation {
    /// Begins one. Credentials that are not for this endpoint are left out.
    pub(crate) fn new(endpoint: Endpoint, given: Option<&Credentials>, actions: &str) -> Conversation {
        let given = given.filter(|given| !given.is_empty() && given.are_for(&endpoint)).cloned();
        Conversation {
            scope: format!("repository:{}:{actions}", endpoint.repository),
            proof: Mutex::new(Proof::first(given.as_ref())),
            given,
            found: OnceCell::new(),
            plain: AtomicBool::new(false),
            endpoint,
        }
    }

    /// The URL of something of the repository.
    pub(crate) fn url(&self, of: &str) -> String {
        let plain = self.plain.load(Ordering::Relaxed) || self.endpoint.scheme == Scheme::Http;
        self.endpoint.url_in(if plain { "http" } else { "https" }, of)
    }

    /// Asks for a whole URL, with as many tries as `patience` allows.
    pub(crate) async fn ask(
        &self,
        client: &Client,
        attempts: &Attempts,
        url: &str,
        ask: &Ask<'_>,
        patience: Patience,
    ) -> Result<Answer, RegistryError> {
        let timeouts = &client.timeouts;
        let origin: Uri = url.parse().map_err(|why| RegistryError::malformed("the registry's URL", why))?;
        let (mut tries, mut refusals) = (1, 0);
        loop {
            let generation = self.fresh_generation().await;
            let wait = match self.once(client, attempts, &origin, ask, patience).await? {
                Outcome::Ok(answer) => return Ok(answer),
                Outcome::Refused(headers) => {
                    // Once to learn what is asked for, and once more if a token ran out meanwhile.
                    refusals += 1;
                    let proved = match refusals {
                        1 | 2 => self.prove(client, generation, &headers).await,
                        _ => Err(RegistryError::Unauthorized {
                            host: self.endpoint.authority.clone(),
                            given: self.credentials().await?.is_some(),
                        }),
                    };
                    proved.inspect_err(|why| attempts.note(&origin, &format!("401; {why}")))?;
                    continue;
                }
                Outcome::Again(cause, _) if tries >= patience.tries => return Err(cause),
                Outcome::Again(cause, Some(wait)) if wait > timeouts.retry_after_max => return Err(cause),
                Outcome::Again(cause, wait) => {
                    let wait = wait.unwrap_or(timeouts.backoff * 2u32.saturating_pow(tries - 1));
                    if patience.left().is_some_and(|left| wait >= left) {
                        return Err(cause);
                    }
                    wait
                }
            };
            tokio::time::sleep(wait).await;
            tries += 1;
        }
    }

    async fn fresh_generation(&self) -> u64 {
        let mut proof = self.proof.lock().await;
        if proof.is_stale() {
            proof.drop_stale();
        }
        proof.generation
    }

    /// Works out a proof, unless another request of this pull did so since `generation`.
    async fn prove(
        &self,
        client: &Client,
        generation: u64,
        headers: &HeaderMap,
    ) -> Result<(), RegistryError> {
        let mut proof = self.proof.lock().await;
        if proof.generation != generation {
            return Ok(());
        }
        let asking = Asking {
            client,
            endpoint: &self.endpoint,
            secure: !self.plain.load(Ordering::Relaxed) && self.endpoint.scheme != Scheme::Http,
            scope: &self.scope,
            credentials: self.credentials().await?,
        };
        auth::answer(&asking, headers, &mut proof).await
    }

    /// What this side can prove itself with. It is looked for when it is first asked for, and never if it is not.
    async fn credentials(&self) -> Result<Option<&Credentials>, RegistryError> {
        if self.given.is_some() {
            return Ok(self.given.as_ref());
        }
        let found = self.found.get_or_try_init(|| async {
            for source in &self.endpoint.credentials {
                if let Some(found) = source.find().await? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        });
        let host = || self.endpoint.authority.clone();
        let found = found.await.map_err(|why| RegistryError::NoCredentials { host: host(), why })?;
        Ok(found.as_ref())
    }

    /// One try with the redirects it leads to.
    async fn once(
        &self,
        client: &Client,
        attempts: &Attempts,
        origin: &Uri,
        ask: &Ask<'_>,
        patience: Patience,
    ) -> Result<Outcome, RegistryError> {
        let known = ask.detours.and_then(|detours| detours.of(origin));
        let mut on_detour = known.is_some();
        let mut uri = known.unwrap_or_else(|| origin.clone());
        // One more for a detour that has ended.
        for _ in 0..=REDIRECTS_MAX + usize::from(on_detour) {
            // Proof, headers and certificates are for the registry: a host that it redirects to, storage as a rule, does not get them.
            let same_host = uri.scheme() == origin.scheme() && uri.authority() == origin.authority();
            let request = self.request(ask, &uri, same_host).await?;
            let limit = client.timeouts.headers;
            let elsewhere;
            let reach = Reach {
                tls: if same_host {
                    &self.endpoint.tls
                } else {
                    elsewhere = self.endpoint.tls.without_identity();
                    &elsewhere
                },
                connect: self.endpoint.connect,
                answer: patience.left().map_or(limit, |left| left.min(limit)),
            };
            let answer = match client.send(reach, request).await {
                // A signed address that ran out, as a rule: the registry gives another.
                Ok(answer) if on_detour && !answer.status().is_success() => {
                    (on_detour, uri) = (false, self.end_of_detour(ask, origin));
                    continue;
                }
                Err(_) if on_detour => {
                    (on_detour, uri) = (false, self.end_of_detour(ask, origin));
                    continue;
                }
                Ok(answer) => answer,
                Err(no_answer) => return self.no_answer(attempts, &uri, no_answer),
            };
            let may_follow = matches!(ask.method, Method::GET | Method::HEAD);
            if may_follow && answer.status().is_redirection() && answer.status() != StatusCode::NOT_MODIFIED {
                uri = follow(ask.what, &uri, answer.headers()).inspect_err(|why| {
                    attempts.note(&uri, &why.to_string());
                })?;
                continue;
            }
            if let Some(detours) = ask.detours.filter(|_| uri != *origin && answer.status().is_success()) {
                detours.note(origin, &uri);
            }
            return judge(attempts, ask.what, &uri, answer, same_host).await;
        }
        let bad = RegistryError::BadRedirect {
            what: ask.what.to_owned(),
            to: shown(&uri),
            why: "there are too many in a row",
        };
        attempts.note(&uri, &bad.to_string());
        Err(bad)
    }

    fn end_of_detour(&self, ask: &Ask<'_>, origin: &Uri) -> Uri {
        if let Some(detours) = ask.detours {
            detours.forget(origin);
        }
        origin.clone()
    }

    async fn request(
        &self,
        ask: &Ask<'_>,
        uri: &Uri,
        same_host: bool,
    ) -> Result<Request<Full<Bytes>>, RegistryError> {
        let mut request = Request::builder().method(&ask.method).uri(uri);
        request = request.header(header::USER_AGENT, USER_AGENT);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if same_host {
            for (name, value) in &self.endpoint.headers {
                request = request.header(name, value);
            }
            if let Some(proof) = self.proof.lock().await.header.clone() {
                if let Some(headers) = request.headers_mut() {
                    headers.remove(header::AUTHORIZATION);
                }
                request = request.header(header::AUTHORIZATION, proof);
            }
        }
        request.body(Full::from(ask.body.clone())).map_err(|why| RegistryError::malformed("the request", why))
    }

    fn no_answer(
        &self,
        attempts: &Attempts,
        uri: &Uri,
        no_answer: NoAnswer,
    ) -> Result<Outcome, RegistryError> {
        let host = uri.authority().map_or("", |a| a.as_str()).to_owned();
        let final_word = matches!(no_answer, NoAnswer::Refused(_));
        let why = no_answer.why();
        attempts.note(uri, &why);
        Err(match final_word {
            true => RegistryError::Unreachable { host, why },
            false => return Ok(Outcome::Again(RegistryError::Unreachable { host, why }, None)),
        })
    }

    /// Whether the same should be asked without TLS, since that is allowed here and TLS was not answered. It is then, from now on.
    pub(crate) fn fall_back(&self, url: &str, why: &RegistryError) -> bool {
        let may = self.endpoint.scheme == Scheme::HttpsElseHttp && url.starts_with("https:");
        let falls = may && matches!(why, RegistryError::Unreachable { .. });
        if falls {
            self.plain.store(true, Ordering::Relaxed);
        }
        falls
    }
}

async fn judge(
    attempts: &Attempts,
    what: &str,
    uri: &Uri,
    answer: Answer,
    same_host: bool,
) -> Result<Outcome, RegistryError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(Outcome::Ok(answer));
    }
    let host = uri.authority().map_or("", |a| a.as_str()).to_owned();
    let what = what.to_owned();
    let headers = answer.headers().clone();
    // That a registry first asks who is there is no failure.
    if status == StatusCode::UNAUTHORIZED && same_host {
        return Ok(Outcome::Refused(headers));
    }
    let code = error_code(answer).await;
    let wait = retry_after(&headers);
    let asked = wait.map(|wait| format!(", Retry-After {} s", wait.as_secs())).unwrap_or_default();
    attempts.note(uri, &format!("{}{code}{asked}", status.as_u16()));
    match status {
        StatusCode::NOT_FOUND => Err(RegistryError::NotFound { what, host }),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Forbidden { what, host }),
        StatusCode::TOO_MANY_REQUESTS => {
            let retry_after_secs = wait.map(|wait| wait.as_secs());
            Ok(Outcome::Again(RegistryError::TooManyRequests { host, retry_after_secs }, wait))
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            Ok(Outcome::Again(RegistryError::Status { what, host, status: status.as_u16() }, wait))
        }
        status => Err(RegistryError::Status { what, host, status: status.as_u16() }),
    }
}

/// The code in an error's body, such as `MANIFEST_UNKNOWN`. Nothing else of it is shown: it is whatever the registry pleases.
async fn error_code(answer: Answer) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Code>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: String,
    }
    let body = Limited::new(answer.into_body(), 64 << 10).collect();
    let Ok(Ok(body)) = tokio::time::timeout(Duration::from_secs(2), body).await else {
        return String::new();
    };
    let Ok(errors) = serde_json::from_slice::<Errors>(&body.to_bytes()) else { return String::new() };
    let plain = |code: &str| code.len() <= 40 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    match errors.errors.first() {
        Some(error) if plain(&error.code) => format!(" {}", error.code),
        _ => String::new(),
    }
}

/// Where a redirect leads.
fn follow(what: &str, from: &Uri, headers: &HeaderMap) -> Result<Uri, RegistryError> {
    let bad = |to: &str, why| RegistryError::BadRedirect {
        what: what.to_owned(),
        to: to.split('?').next().unwrap_or("").chars().take(200).collect(),
        why,
    };
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let whole = match (location.starts_with("//"), location.starts_with('/')) {
        (true, _) => format!("{}:{location}", from.scheme_str().unwrap_or("https")),
        (_, true) => {
            let authority = from.authority().map_or("", |a| a.as_str());
            format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https"))
        }
        _ => location.to_owned(),
    };
    let to: Uri = whole.parse().map_err(|_| bad(location, "it is no whole URL"))?;
    match client::refuse_redirect(from, &to) {
        Some(why) => Err(bad(&whole, why)),
        None => Ok(to),
    }
}

/// How long the registry asks to wait: a number of seconds, or a date, which is taken from the answer's own so that no clocks have to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let after = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    Some(date(after)?.duration_since(date(text(header::DATE)?)?).unwrap_or_default())
}

/// A URL without its query, which may hold a signature.
pub(crate) fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |a| a.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or(""), uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_numbers_or_dates() {
        let wait = |after: &str, date: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, after.parse().unwrap());
            if !date.is_empty() {
                headers.insert(header::DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(wait(" 7 ", ""), Some(7));
        let date = "Fri, 20 Nov 2026 14:00:00 GMT";
        assert_eq!(wait("Fri, 20 Nov 2026 14:00:09 GMT", date), Some(9));
        assert_eq!(wait("Fri, 20 Nov 2026 13:00:00 GMT", date), Some(0));
        for (after, date) in
            [("Fri, 20 Nov 2026 14:00:09 GMT", ""), ("soon", date), ("-1", date), ("1.5", date)]
        {
            assert_eq!(wait(after, date), None, "{after}");
        }
    }
}
