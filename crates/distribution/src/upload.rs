//! Pushing (OCI distribution specification, "Push"): what is there already is not sent, what another repository of the registry has is
//! mounted, and a blob goes in pieces, so that one that was cut goes on where it was.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use model::digest::Digest;

use crate::client::Answer;
use crate::conversation::Ask;
use crate::endpoint::Capability;
use crate::error::RegistryError;
use crate::session::{Session, Turn};

/// How often one piece is taken up again after a cut.
const TAKEN_UP: u32 = 3;

/// A blob on its way to a registry.
pub struct Upload<'a> {
    turn: Turn<'a>,
    what: String,
    /// Where the next piece goes, as the registry said: a path with its query.
    place: String,
    sent: u64,
}

/// What a registry answered to the wish for an upload.
pub enum Begun<'a> {
    /// Another repository had the blob, and now this one has it too.
    Mounted,
    Upload(Upload<'a>),
}

impl Session {
    /// The size of a blob that the registry has; none if it has not.
    ///
    /// # Errors
    /// What the registry says, save that it is not there.
    pub async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, RegistryError> {
        let what = format!("blob {digest}");
        let ask = Ask { method: Method::HEAD, ..Ask::get(&what, None) };
        match self.pushes(&what)?.ask(&format!("blobs/{digest}"), &ask).await {
            Ok(answer) => {
                let length = answer.headers().get(header::CONTENT_LENGTH);
                Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(why) => Err(why),
        }
    }

    /// Begins to send a blob, or has it mounted from the repository `from`, if that has it.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn begin_upload(
        &self,
        what: &str,
        mount: Option<(&Digest, &str)>,
    ) -> Result<Begun<'_>, RegistryError> {
        let turn = self.pushes(what)?;
        let ask = Ask { method: Method::POST, ..Ask::get(what, None) };
        // Both are made of characters that a query has as they are.
        let query = mount.map(|(digest, from)| format!("?mount={digest}&from={from}")).unwrap_or_default();
        let answer = turn.ask(&format!("blobs/uploads/{query}"), &ask).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Begun::Mounted);
        }
        let place = turn.place(what, &answer)?;
        Ok(Begun::Upload(Upload { turn, what: what.to_owned(), place, sent: 0 }))
    }

    /// Puts a manifest under a tag or its digest.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn put_manifest(
        &self,
        reference: &str,
        media_type: &str,
        body: Bytes,
    ) -> Result<(), RegistryError> {
        let what = format!("manifest {reference}");
        let mut headers = HeaderMap::new();
        let media_type =
            HeaderValue::from_str(media_type).map_err(|why| RegistryError::malformed(&what, why))?;
        headers.insert(header::CONTENT_TYPE, media_type);
        let ask = Ask { what: &what, method: Method::PUT, headers, body, detours: None };
        self.pushes(&what)?.ask(&format!("manifests/{reference}"), &ask).await.map(drop)
    }

    /// The endpoint that takes what is pushed: all of it goes to one.
    fn pushes(&self, what: &str) -> Result<Turn<'_>, RegistryError> {
        let none = || RegistryError::NoEndpoint { what: what.to_owned(), action: "to take" };
        self.turns(what, Capability::Push)?.next().ok_or_else(none)
    }
}

impl Upload<'_> {
    /// Sends the next piece.
    ///
    /// # Errors
    /// What the registry says; the upload is of no use then.
    pub async fn send(&mut self, piece: Bytes) -> Result<(), RegistryError> {
        let (begin, end) = (self.sent, self.sent + piece.len() as u64);
        let mut taken_up = 0;
        while self.sent < end {
            let rest = piece.slice((self.sent - begin) as usize..);
            match self.patch(rest).await {
                Ok(()) => self.sent = end,
                // Some of it may have arrived before the cut; then the same piece again does not fit.
                Err(why) if taken_up < TAKEN_UP && may_go_on(&why) => {
                    taken_up += 1;
                    let has = self.received().await.map_err(|_| why.clone())?;
                    if !(begin..=end).contains(&has) {
                        return Err(why);
                    }
                    self.sent = has;
                }
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }

    /// Ends the upload of a blob that has this digest.
    ///
    /// # Errors
    /// What the registry says, for example that what came has another digest.
    pub async fn finish(self, session: &Session, digest: &Digest) -> Result<(), RegistryError> {
        let separator = if self.place.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}digest={digest}", self.place);
        let ask = Ask { method: Method::PUT, ..Ask::get(&self.what, None) };
        match self.turn.ask_at(&url, &ask).await {
            Ok(_) => Ok(()),
            // The answer to the first try may have been lost.
            Err(why) => match session.has_blob(digest).await {
                Ok(Some(_)) => Ok(()),
                _ => Err(why),
            },
        }
    }

    async fn patch(&mut self, piece: Bytes) -> Result<(), RegistryError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let last = (self.sent + piece.len() as u64).saturating_sub(1);
        if let Ok(range) = HeaderValue::from_str(&format!("{}-{last}", self.sent)) {
            headers.insert(header::CONTENT_RANGE, range);
        }
        let ask = Ask { what: &self.what, method: Method::PATCH, headers, body: piece, detours: None };
        let answer = self.turn.ask_at(&self.place, &ask).await?;
        self.place = self.turn.place(&self.what, &answer)?;
        Ok(())
    }

    /// How many bytes the registry has.
    async fn received(&mut self) -> Result<u64, RegistryError> {
        let answer = self.turn.ask_at(&self.place, &Ask::get(&self.what, None)).await?;
        if let Ok(place) = self.turn.place(&self.what, &answer) {
            self.place = place;
        }
        let range = answer.headers().get(header::RANGE).and_then(|range| range.to_str().ok());
        let last =
            range.and_then(|range| range.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok());
        // Of nothing the range is 0-0 as well; that a single byte arrived is not worth a thought.
        Ok(last.filter(|last| *last > 0).map_or(0, |last| last + 1))
    }
}

/// Whether the upload itself may still be there.
fn may_go_on(why: &RegistryError) -> bool {
    match why {
        RegistryError::Unreachable { .. } | RegistryError::Stalled { .. } => true,
        RegistryError::Status { status, .. } => *status == 416 || *status >= 500,
        _ => false,
    }
}

impl Turn<'_> {
    /// Where the registry wants the next piece. Only to the registry itself it is sent, with the scheme that it was reached by: what
    /// stands behind a proxy often names another.
    fn place(&self, what: &str, answer: &Answer) -> Result<String, RegistryError> {
        let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location =
            location.ok_or_else(|| RegistryError::malformed(what, "its answer says no place to send to"))?;
        place(location, self.host()).ok_or_else(|| RegistryError::BadRedirect {
            what: what.to_owned(),
            to: location.split('?').next().unwrap_or_default().chars().take(200).collect(),
            why: "uploads go to the registry itself",
        })
    }
}

/// Path and query of a `Location` on `host`; none if it is elsewhere.
fn place(location: &str, host: &str) -> Option<String> {
    let rest = location.strip_prefix("https://").or_else(|| location.strip_prefix("http://"));
    let path = match rest {
        None => location,
        Some(rest) => {
            let (authority, _) = rest.split_at(rest.find('/')?);
            let name = |host: &str| {
                host.rsplit_once(':')
                    .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
                    .map_or(host.to_owned(), |(name, _)| name.to_owned())
            };
            if !name(authority).eq_ignore_ascii_case(&name(host)) {
                return None;
            }
            &rest[authority.len()..]
        }
    };
    (path.starts_with('/') && !path.starts_with("//")).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn uploads_go_to_the_registry_itself() {
        for (location, found) in [
            ("/v2/a/blobs/uploads/1?_state=x", Some("/v2/a/blobs/uploads/1?_state=x")),
            ("http://r.example/v2/x", Some("/v2/x")),
            ("https://R.example:5000/v2/x?y=1", Some("/v2/x?y=1")),
            ("https://evil.example/v2/x", None),
            ("https://r.example.evil/v2/x", None),
            ("https://user@r.example/v2/x", None),
            ("//evil.example/x", None),
            ("ftp://r.example/x", None),
            ("https://r.example", None),
            ("uploads/1", None),
        ] {
            assert_eq!(place(location, "r.example:5000").as_deref(), found, "{location}");
        }
    }
}
