//! One pull or push of one repository: the endpoints that may serve it, one after the other, and what is fetched of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::header;
use model::digest::Digest;

use crate::body::Body;
use crate::client::{Answer, Client};
use crate::conversation::{Ask, Conversation, Patience};
use crate::credentials::Credentials;
use crate::endpoint::{Capability, Endpoint};
use crate::error::{Attempt, Attempts, RegistryError};
use crate::hasher::Hasher;

/// How often one request is made to an endpoint that others follow.
const MIRROR_TRIES: u32 = 2;

/// A conversation with all endpoints of a repository. It is shared by the layers of a pull.
pub struct Session {
    pub(crate) client: Arc<Client>,
    endpoints: Vec<(Conversation, AtomicU8)>,
    attempts: Attempts,
}

/// A manifest or index as it was served, under the digest of what was received.
pub struct Fetched {
    pub content_type: String,
    pub body: Bytes,
    pub digest: Digest,
}

/// What became of an endpoint so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Standing {
    /// Nothing went wrong yet.
    Good,
    /// Once it did not have something, or refused it.
    Doubtful,
    /// Once it did not answer.
    Silent,
}

/// The endpoints for one request, in the order in which they are asked.
pub(crate) struct Turns<'a> {
    session: &'a Session,
    order: Vec<usize>,
    next: usize,
    /// The failure of the endpoint that is nearest to the registry itself.
    failure: Option<(usize, RegistryError)>,
}

/// The turn of one endpoint.
#[derive(Clone, Copy)]
pub(crate) struct Turn<'a> {
    session: &'a Session,
    at: usize,
    /// Whether none follows it.
    pub last: bool,
}

impl Session {
    /// Begins a conversation with these endpoints, the first first. `given` goes only to those that it is for.
    pub fn new(client: Arc<Client>, endpoints: Vec<Endpoint>, given: Option<&Credentials>) -> Session {
        Session::for_actions(client, endpoints, given, "pull")
    }

    /// The same, for a push.
    pub fn to_push(client: Arc<Client>, endpoints: Vec<Endpoint>, given: Option<&Credentials>) -> Session {
        Session::for_actions(client, endpoints, given, "pull,push")
    }

    fn for_actions(
        client: Arc<Client>,
        endpoints: Vec<Endpoint>,
        given: Option<&Credentials>,
        actions: &str,
    ) -> Session {
        let begin =
            |endpoint| (Conversation::new(endpoint, given, actions), AtomicU8::new(Standing::Good as u8));
        Session {
            client,
            endpoints: endpoints.into_iter().map(begin).collect(),
            attempts: Attempts::default(),
        }
    }

    /// The failed requests so far, oldest first.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.attempts.all()
    }

    /// A manifest by tag or digest, of one of the media types `accept` lists and of at most `limit` bytes. If by digest, the body is checked
    /// against it; what the registry says the digest is does not count.
    ///
    /// # Errors
    /// What the registry itself said, when no endpoint has it; [`Session::attempts`] has what all said.
    pub async fn manifest(
        &self,
        reference: &str,
        expected: Option<&Digest>,
        accept: &str,
        limit: u64,
    ) -> Result<Fetched, RegistryError> {
        let what = format!("manifest {reference}");
        let capability = if expected.is_some() { Capability::Pull } else { Capability::Resolve };
        let mut turns = self.turns(&what, capability)?;
        while let Some(turn) = turns.next() {
            let target = format!("manifests/{reference}");
            match turn.fetch(&what, &target, Some(accept), expected, limit).await {
                Ok(fetched) => return Ok(fetched),
                Err(why) => turns.failed(turn, why),
            }
        }
        Err(turns.failure(&what))
    }

    /// A small blob, such as a configuration, of at most `limit` bytes, checked against its digest. `what` is what errors call it.
    ///
    /// # Errors
    /// As of [`Session::manifest`].
    pub async fn blob(&self, what: &str, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let mut turns = self.turns(what, Capability::Pull)?;
        while let Some(turn) = turns.next() {
            match turn.fetch(what, &format!("blobs/{digest}"), None, Some(digest), limit).await {
                Ok(fetched) => return Ok(fetched.body),
                Err(why) => turns.failed(turn, why),
            }
        }
        Err(turns.failure(what))
    }

    /// The endpoints that may be asked, those first that have not failed; those that did not answer only if all are such.
    pub(crate) fn turns(&self, what: &str, capability: Capability) -> Result<Turns<'_>, RegistryError> {
        let standing = |at: &usize| self.endpoints[*at].1.load(Ordering::Relaxed);
        let able = |at: &usize| self.endpoints[*at].0.endpoint.capabilities.has(capability);
        let mut order: Vec<usize> = (0..self.endpoints.len()).filter(able).collect();
        order.sort_by_key(standing);
        if order.iter().any(|at| standing(at) != Standing::Silent as u8) {
            order.retain(|at| standing(at) != Standing::Silent as u8);
        }
        if order.is_empty() {
            let action = match capability {
                Capability::Pull | Capability::Resolve => "for",
                Capability::Push => "to take",
                Capability::Referrers => "for what refers to",
            };
            return Err(RegistryError::NoEndpoint { what: what.to_owned(), action });
        }
        Ok(Turns { session: self, order, next: 0, failure: None })
    }
}

impl<'a> Turns<'a> {
    pub(crate) fn next(&mut self) -> Option<Turn<'a>> {
        let at = *self.order.get(self.next)?;
        self.next += 1;
        Some(Turn { session: self.session, at, last: self.next == self.order.len() })
    }

    /// Takes note that an endpoint failed.
    pub(crate) fn failed(&mut self, turn: Turn<'a>, why: RegistryError) {
        let standing = match why {
            RegistryError::Unreachable { .. } => Standing::Silent,
            _ => Standing::Doubtful,
        };
        self.session.endpoints[turn.at].1.fetch_max(standing as u8, Ordering::Relaxed);
        if self.failure.as_ref().is_none_or(|(at, _)| *at <= turn.at) {
            self.failure = Some((turn.at, why));
        }
    }

    /// What to tell when all failed.
    pub(crate) fn failure(self, what: &str) -> RegistryError {
        let none = || RegistryError::NoEndpoint { what: what.to_owned(), action: "for" };
        self.failure.map_or_else(none, |(_, why)| why)
    }
}

impl Turn<'_> {
    /// Host and port.
    pub(crate) fn host(&self) -> &str {
        &self.conversation().endpoint.authority
    }

    /// Notes a failure of something that began well.
    pub(crate) fn note(&self, of: &str, outcome: &str) {
        if let Ok(uri) = self.conversation().url(of).parse() {
            self.session.attempts.note(&uri, outcome);
        }
    }

    /// Asks the endpoint for something of the repository, such as `blobs/...`.
    pub(crate) async fn ask(&self, of: &str, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        self.ask_url(|conversation| conversation.url(of), ask).await
    }

    /// Asks the endpoint for a path that it named itself.
    pub(crate) async fn ask_at(&self, path: &str, ask: &Ask<'_>) -> Result<Answer, RegistryError> {
        let of_host = |conversation: &Conversation| {
            let whole = conversation.url("");
            let host = whole.find("://").and_then(|at| Some(at + 3 + whole[at + 3..].find('/')?));
            format!("{}{path}", &whole[..host.unwrap_or(whole.len())])
        };
        self.ask_url(of_host, ask).await
    }

    async fn ask_url(
        &self,
        url: impl Fn(&Conversation) -> String,
        ask: &Ask<'_>,
    ) -> Result<Answer, RegistryError> {
        let Session { client, attempts, .. } = self.session;
        let conversation = self.conversation();
        loop {
            let until = (!self.last).then(|| Instant::now() + client.timeouts.mirror);
            let patience = Patience { until, tries: self.tries() };
            let url = url(conversation);
            match conversation.ask(client, attempts, &url, ask, patience).await {
                Err(why) if conversation.fall_back(&url, &why) => {}
                answered => return answered,
            }
        }
    }

    /// How often one request is made.
    pub(crate) fn tries(&self) -> u32 {
        let tries = self.session.client.timeouts.tries;
        if self.last { tries } else { tries.min(MIRROR_TRIES) }
    }

    /// The body of an answer, which stalls sooner where others can be asked instead.
    pub(crate) fn body(&self, answer: Answer) -> Body {
        let timeouts = &self.session.client.timeouts;
        let window = if self.last { timeouts.stall } else { timeouts.stall.min(timeouts.mirror) };
        Body::new(answer.into_body(), window, timeouts.stall_bytes)
    }

    pub(crate) async fn fetch(
        &self,
        what: &str,
        of: &str,
        accept: Option<&str>,
        expected: Option<&Digest>,
        limit: u64,
    ) -> Result<Fetched, RegistryError> {
        let answer = self.ask(of, &Ask::get(what, accept)).await?;
        let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or("").to_owned();
        let fetched = async {
            let body = self.whole(what, answer, limit).await?;
            let digest = check(what, &body, expected)?;
            Ok(Fetched { content_type, body, digest })
        };
        fetched.await.inspect_err(|why: &RegistryError| self.note(of, &why.to_string()))
    }

    async fn whole(&self, what: &str, answer: Answer, limit: u64) -> Result<Bytes, RegistryError> {
        let mut body = self.body(answer);
        let mut bytes = Vec::new();
        loop {
            match body.next().await {
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes.into()),
                Err(why) => return Err(why.cause(what, self.host(), bytes.len() as u64)),
            }
            if bytes.len() as u64 > limit {
                return Err(RegistryError::TooLarge { what: what.to_owned(), limit });
            }
        }
    }

    fn conversation(&self) -> &Conversation {
        &self.session.endpoints[self.at].0
    }
}

/// The digest of a body, which is the expected one if there is one.
fn check(what: &str, body: &[u8], expected: Option<&Digest>) -> Result<Digest, RegistryError> {
    let mut hasher = expected.map_or_else(Hasher::new, Hasher::like);
    hasher.update(body);
    let actual = hasher.finish();
    match expected {
        Some(expected) if *expected != actual => {
            Err(RegistryError::DigestMismatch { what: what.to_owned(), expected: expected.clone(), actual })
        }
        _ => Ok(actual),
    }
}
