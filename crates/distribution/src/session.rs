//! One pull's conversation with one registry: its proof, its failed attempts, and what it fetches.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use model::digest::Digest;
use model::reference::ImageReference;
use serde::Deserialize;

use crate::auth::{self, Asking, Proof};
use crate::client::{self, Answer, Client, NoAnswer};
use crate::credentials::Credentials;
use crate::download::Body;
use crate::error::{Attempt, RegistryError};
use crate::hasher::Hasher;
use crate::range::Range;

pub(crate) const USER_AGENT: &str = concat!("pintle/", env!("CARGO_PKG_VERSION"));
const REDIRECTS_MAX: usize = 5;
/// Attempts that are kept for the error.
const ATTEMPTS_MAX: usize = 16;

/// A conversation. It is shared by the layers of a pull.
pub struct Session {
    pub(crate) client: Arc<Client>,
    /// Host and port that answer for the reference's registry.
    pub(crate) host: String,
    base: String,
    scope: String,
    credentials: Option<Credentials>,
    proof: tokio::sync::Mutex<Proof>,
    attempts: Mutex<Vec<Attempt>>,
}

/// A manifest or index as it was served, under the digest of what was received.
pub struct Fetched {
    pub content_type: String,
    pub body: Bytes,
    pub digest: Digest,
}

/// One answer that has to do with what was asked, as opposed to with how it was asked.
enum Outcome {
    Ok(Answer),
    /// The credentials were refused.
    Refused(HeaderMap),
    /// Worth another try, after this long if the registry said so.
    Again(RegistryError, Option<Duration>),
}

impl Session {
    /// Begins a conversation about the repository of `reference`. Credentials for another registry are left out.
    pub fn new(client: Arc<Client>, reference: &ImageReference, credentials: Option<Credentials>) -> Session {
        let host = reference.host().to_owned();
        let credentials = credentials.filter(|c| c.are_for(reference.domain()) || c.are_for(&host));
        Session {
            base: format!("{}://{host}/v2/{}", client.scheme(&host), reference.path()),
            scope: format!("repository:{}:pull", reference.path()),
            proof: tokio::sync::Mutex::new(Proof::first(credentials.as_ref())),
            attempts: Mutex::default(),
            client,
            host,
            credentials,
        }
    }

    /// The failed attempts so far, oldest first.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A manifest by tag or digest, of one of the media types `accept` lists and of at most `limit` bytes. If by digest, the body is checked
    /// against it; what the registry says the digest is does not count.
    ///
    /// # Errors
    /// [`RegistryError`] after as many tries as are worthwhile.
    pub async fn manifest(
        &self,
        reference: &str,
        expected: Option<&Digest>,
        accept: &str,
        limit: u64,
    ) -> Result<Fetched, RegistryError> {
        let what = format!("manifest {reference}");
        let url = format!("{}/manifests/{reference}", self.base);
        let answer = self.get(&what, &url, Some(accept), None).await?;
        let content_type = answer
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let body = self.whole(&what, answer, limit).await?;
        let digest = match expected {
            Some(expected) => check(&what, &body, expected)?,
            None => {
                let mut hasher = Hasher::new();
                hasher.update(&body);
                hasher.finish()
            }
        };
        Ok(Fetched { content_type, body, digest })
    }

    /// A small blob, such as a configuration, of at most `limit` bytes, checked against its digest. `what` is what errors call it.
    ///
    /// # Errors
    /// [`RegistryError`] after as many tries as are worthwhile.
    pub async fn blob(&self, what: &str, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let answer = self.get(what, &self.blob_url(digest), None, None).await?;
        let body = self.whole(what, answer, limit).await?;
        check(what, &body, digest)?;
        Ok(body)
    }

    pub(crate) fn blob_url(&self, digest: &Digest) -> String {
        format!("{}/blobs/{digest}", self.base)
    }

    async fn whole(&self, what: &str, answer: Answer, limit: u64) -> Result<Bytes, RegistryError> {
        let mut body = Body::new(answer.into_body(), &self.client.timeouts);
        let mut bytes = Vec::new();
        loop {
            match body.next().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes.into()),
                Err(why) => return Err(why.cause(what, &self.host, bytes.len() as u64)),
            }
            if bytes.len() as u64 > limit {
                return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
            }
        }
    }

    /// Gets `url`, or the `range` of it, with as many tries as the configuration allows.
    pub(crate) async fn get(
        &self,
        what: &str,
        url: &str,
        accept: Option<&str>,
        range: Option<Range>,
    ) -> Result<Answer, RegistryError> {
        let timeouts = &self.client.timeouts;
        let (mut tries, mut refusals) = (1, 0);
        loop {
            let generation = self.fresh_generation().await;
            let cause = match self.once(what, url, accept, range).await? {
                Outcome::Ok(answer) => return Ok(answer),
                Outcome::Refused(headers) => {
                    // Once to learn what is asked for, and once more if a token ran out meanwhile.
                    refusals += 1;
                    if refusals > 2 {
                        return Err(RegistryError::Unauthorized {
                            host: self.host.clone(),
                            given: self.credentials.is_some(),
                        });
                    }
                    self.prove(generation, &headers).await?;
                    continue;
                }
                Outcome::Again(cause, _) if tries >= timeouts.tries => return Err(cause),
                Outcome::Again(cause, Some(wait)) if wait > timeouts.retry_after_max => return Err(cause),
                Outcome::Again(_, wait) => wait,
            };
            let backoff = timeouts.backoff * 2u32.saturating_pow(tries - 1);
            tokio::time::sleep(cause.unwrap_or(backoff)).await;
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
    async fn prove(&self, generation: u64, headers: &HeaderMap) -> Result<(), RegistryError> {
        let mut proof = self.proof.lock().await;
        if proof.generation != generation {
            return Ok(());
        }
        let asking = Asking {
            client: &self.client,
            host: &self.host,
            secure: self.base.starts_with("https:"),
            scope: &self.scope,
            credentials: self.credentials.as_ref(),
        };
        auth::answer(&asking, headers, &mut proof).await
    }

    /// One try with the redirects it leads to.
    async fn once(
        &self,
        what: &str,
        url: &str,
        accept: Option<&str>,
        range: Option<Range>,
    ) -> Result<Outcome, RegistryError> {
        let origin: Uri = url.parse().map_err(|why| RegistryError::malformed("the registry's URL", why))?;
        let mut uri = origin.clone();
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::builder().uri(&uri).header(header::USER_AGENT, USER_AGENT);
            if let Some(accept) = accept {
                request = request.header(header::ACCEPT, accept);
            }
            if let Some(range) = range {
                request = request.header(header::RANGE, range.to_string());
            }
            // The proof is for the registry: a host that it redirects to, storage as a rule, does not get it.
            let same_host = uri.scheme() == origin.scheme() && uri.authority() == origin.authority();
            if same_host && let Some(proof) = self.proof.lock().await.header.clone() {
                request = request.header(header::AUTHORIZATION, proof);
            }
            let request =
                request.body(Full::default()).map_err(|why| RegistryError::malformed("the request", why))?;
            let answer = match self.client.send(request).await {
                Ok(answer) => answer,
                Err(no_answer) => return self.no_answer(&uri, no_answer),
            };
            if answer.status().is_redirection() && answer.status() != StatusCode::NOT_MODIFIED {
                uri = follow(what, &uri, answer.headers())?;
                continue;
            }
            return self.judge(what, &uri, answer, same_host).await;
        }
        let to = shown(&uri);
        Err(RegistryError::BadRedirect { what: what.to_owned(), to, why: "there are too many in a row" })
    }

    fn no_answer(&self, uri: &Uri, no_answer: NoAnswer) -> Result<Outcome, RegistryError> {
        let host = uri.authority().map_or("", |a| a.as_str()).to_owned();
        match no_answer {
            NoAnswer::Refused(why) => {
                self.note(uri, &why);
                Err(RegistryError::Unreachable { host, why })
            }
            NoAnswer::Failed(why) => {
                self.note(uri, &why);
                Ok(Outcome::Again(RegistryError::Unreachable { host, why }, None))
            }
        }
    }

    async fn judge(
        &self,
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
        let code = self.error_code(answer).await;
        self.note(uri, &format!("{}{code}", status.as_u16()));
        match status {
            StatusCode::NOT_FOUND => Err(RegistryError::NotFound { what, host }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(RegistryError::Forbidden { what, host }),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = retry_after(&headers);
                let retry_after_secs = wait.map(|wait| wait.as_secs());
                Ok(Outcome::Again(RegistryError::TooManyRequests { host, retry_after_secs }, wait))
            }
            status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
                Ok(Outcome::Again(
                    RegistryError::Status { what, host, status: status.as_u16() },
                    retry_after(&headers),
                ))
            }
            status => Err(RegistryError::Status { what, host, status: status.as_u16() }),
        }
    }

    /// The code in an error's body, such as `MANIFEST_UNKNOWN`. Nothing else of it is shown: it is whatever the registry pleases.
    async fn error_code(&self, answer: Answer) -> String {
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
        let plain =
            |code: &str| code.len() <= 40 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        match errors.errors.first() {
            Some(error) if plain(&error.code) => format!(" {}", error.code),
            _ => String::new(),
        }
    }

    pub(crate) fn note(&self, uri: &Uri, outcome: &str) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let (url, outcome) = (shown(uri), outcome.chars().take(200).collect::<String>());
        let is_full = attempts.len() >= ATTEMPTS_MAX;
        match attempts.last_mut() {
            Some(last) if last.url == url && last.outcome == outcome => last.times += 1,
            _ if is_full => {}
            _ => attempts.push(Attempt { url, outcome, times: 1 }),
        }
    }
}

fn check(what: &str, body: &[u8], expected: &Digest) -> Result<Digest, RegistryError> {
    let mut hasher = Hasher::like(expected);
    hasher.update(body);
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(actual);
    }
    Err(RegistryError::DigestMismatch { what: what.to_owned(), expected: expected.clone(), actual })
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

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    // The other form, a date, would need a clock that agrees with the registry's.
    text.trim().parse().ok().map(Duration::from_secs)
}

/// A URL without its query, which may hold a signature.
fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |a| a.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or(""), uri.path())
}
