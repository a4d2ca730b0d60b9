//! Files of credentials: Docker's `config.json` and containers-auth.json(5), which have one form. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::RouteError;
use crate::credentials::{CredentialSource, Credentials};
use crate::helper;
use crate::host::{HUB, hub};
use crate::place::Place;

/// As Docker's programs call Docker Hub.
const HUB_SERVER: &str = "https://index.docker.io/v1/";

/// What a file says. No secret of it is shown by `Debug`.
#[derive(Debug, Clone, Default)]
pub struct AuthFile {
    /// By what they are for: `host`, `host/repository`, or a URL.
    entries: Vec<Entry>,
    /// The helper of single hosts.
    helpers: Vec<(String, String, Place)>,
    /// The helper of all others.
    store: Option<(String, Place)>,
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    place: Place,
    /// Empty ones are there if a helper has what they stand for.
    credentials: Credentials,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    auths: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "credHelpers")]
    helpers: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "credsStore")]
    store: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Login {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    #[serde(alias = "identityToken")]
    identitytoken: Option<String>,
    #[serde(alias = "registryToken")]
    registrytoken: Option<String>,
}

type Raw<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Reads a file's bytes; `file` is what errors call it. An empty file says nothing.
///
/// # Errors
/// [`RouteError`] with the line. Nothing of the file is quoted.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<AuthFile, RouteError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(AuthFile::default());
    }
    let reading = Reading { file, bytes };
    let raw: File<'_> = serde_json::from_slice(bytes).map_err(|error| reading.wrong(None, &error))?;
    let mut found = AuthFile::default();
    for (key, value) in reading.map(raw.auths)? {
        let login: Option<Login> = reading.read(value)?;
        let login = login.unwrap_or_default();
        let credentials = Credentials {
            username: login.username.unwrap_or_default(),
            password: login.password.unwrap_or_default(),
            auth: login.auth.unwrap_or_default(),
            server_address: String::new(),
            identity_token: login.identitytoken.unwrap_or_default(),
            registry_token: login.registrytoken.unwrap_or_default(),
        };
        found.entries.push(Entry { key: key.into_owned(), place: reading.place(value), credentials });
    }
    let named = |value: &RawValue, name: String| match helper::is_name(&name) {
        true => Ok((name, reading.place(value))),
        false => Err(RouteError::wrong(reading.place(value), "this is not the name of a credential helper")),
    };
    for (key, value) in reading.map(raw.helpers)? {
        let name: String = reading.read(value)?;
        // Docker takes an empty one for none.
        if !name.is_empty() {
            let (name, place) = named(value, name)?;
            found.helpers.push((key.into_owned(), name, place));
        }
    }
    if let Some(value) = raw.store {
        let name: Option<String> = reading.read(value)?;
        found.store = name.filter(|name| !name.is_empty()).map(|name| named(value, name)).transpose()?;
    }
    Ok(found)
}

#[derive(Clone, Copy)]
struct Reading<'a> {
    file: &'a Path,
    bytes: &'a [u8],
}

impl<'a> Reading<'a> {
    fn map(self, value: Option<&'a RawValue>) -> Result<Raw<'a>, RouteError> {
        let Some(value) = value else { return Ok(Raw::new()) };
        let map: Option<Raw<'a>> = self.read(value)?;
        Ok(map.unwrap_or_default())
    }

    fn read<T: Deserialize<'a>>(self, value: &'a RawValue) -> Result<T, RouteError> {
        serde_json::from_str(value.get()).map_err(|error| self.wrong(Some(value), &error))
    }

    /// A value's line: it is a part of the file's bytes.
    fn place(self, value: &RawValue) -> Place {
        let offset = (value.get().as_ptr() as usize).saturating_sub(self.bytes.as_ptr() as usize);
        Place::at(self.file, self.bytes, offset)
    }

    /// Only the kind of the error is told: its text may quote a secret.
    fn wrong(self, within: Option<&RawValue>, error: &serde_json::Error) -> RouteError {
        let mut place =
            within.map_or(Place { file: self.file.to_owned(), line: 1 }, |value| self.place(value));
        place.line += error.line().saturating_sub(1);
        RouteError::wrong(
            place,
            match error.classify() {
                serde_json::error::Category::Data => "this is not what belongs there",
                serde_json::error::Category::Eof => "the file ends too early",
                serde_json::error::Category::Syntax | serde_json::error::Category::Io => "this is no JSON",
            },
        )
    }
}

impl AuthFile {
    /// Where this file says that credentials for a repository of a registry are, best first.
    ///
    /// A helper of just this host goes first, then what is for the longest part of the name, then the helper for all.
    pub fn sources(&self, host: &str, repository: &str) -> Vec<CredentialSource> {
        let mut found = Vec::new();
        let host = hub(host);
        if let Some((key, name, place)) = self.helpers.iter().find(|(key, ..)| host_of(key) == host) {
            let (name, server, place) = (name.clone(), key.clone(), place.clone());
            found.push(CredentialSource::Helper { place, name, server });
        }
        let whole = format!("{host}/{repository}");
        let about = self.entries.iter().filter_map(|entry| Some((entry.fit(host, &whole)?, entry)));
        let mut about: Vec<_> = about.collect();
        about.sort_by_key(|(fit, _)| std::cmp::Reverse(*fit));
        let filled = about.iter().filter(|(_, entry)| !entry.credentials.is_empty());
        found.extend(filled.map(|(_, entry)| CredentialSource::File {
            place: entry.place.clone(),
            key: entry.key.clone(),
            credentials: entry.credentials.clone(),
        }));
        if let Some((name, place)) = &self.store {
            let listed = about.iter().find(|(_, entry)| entry.credentials.is_empty());
            let server = match listed {
                Some((_, entry)) => entry.key.clone(),
                None if host == HUB => HUB_SERVER.to_owned(),
                None => host.to_owned(),
            };
            found.push(CredentialSource::Helper { place: place.clone(), name: name.clone(), server });
        }
        found
    }
}

impl Entry {
    /// How well this is about a repository: the more of its name, the better; none: it is about others.
    fn fit(&self, host: &str, whole: &str) -> Option<usize> {
        let key = &self.key;
        if let Some((_, rest)) = key.split_once("://") {
            // A URL, whose path says which version of Docker wrote it.
            return (host_of(rest) == host).then_some(0);
        }
        if host_of(key) != host {
            return None;
        }
        let path = key.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
        // Docker's own names, without the scheme.
        if matches!(path, "" | "v1" | "v2") {
            return Some(1);
        }
        let name = format!("{host}/{path}");
        let below = whole.strip_prefix(&name)?;
        (below.is_empty() || below.starts_with('/')).then_some(1 + name.len())
    }
}

/// The host in a key, by the one name it has.
fn host_of(key: &str) -> String {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or("").to_ascii_lowercase();
    hub(&host).to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<AuthFile, RouteError> {
        parse(Path::new("config.json"), text.as_bytes())
    }

    fn shown(file: &AuthFile, host: &str, repository: &str) -> Vec<String> {
        let one = |source: &CredentialSource| match source {
            CredentialSource::File { place, key, credentials } => {
                let user = credentials.basic().map(|(user, _)| user).unwrap_or_default();
                format!("{}: {key} {user}", place.line)
            }
            CredentialSource::Helper { place, name, server } => format!("{}: {name}({server})", place.line),
            CredentialSource::Unreadable { why } => why.clone(),
        };
        file.sources(host, repository).iter().map(one).collect()
    }

    #[test]
    fn the_longest_name_wins_and_helpers_have_their_places() {
        let file = read(
            r#"{
  "auths": {
    "https://index.docker.io/v1/": { "auth": "aHViOng=" },
    "quay.io": { "username": "all", "password": "x" },
    "quay.io/team": { "auth": "dGVhbTp4" },
    "quay.io/team/app": { "auth": "YXBwOng=", "email": "a@b" },
    "kept.example": {},
    "http://old.example:5000/v2/": { "auth": "b2xkOng=" }
  },
  "credHelpers": { "eu.gcr.example": "gcr", "none.example": "" },
  "credsStore": "desktop",
  "HttpHeaders": { "User-Agent": "x" }
}"#,
        )
        .unwrap();
        assert_eq!(
            shown(&file, "quay.io", "team/app"),
            ["6: quay.io/team/app app", "5: quay.io/team team", "4: quay.io all", "11: desktop(quay.io)"]
        );
        assert_eq!(shown(&file, "quay.io", "team2/app")[0], "4: quay.io all");
        for hub in ["docker.io", "registry-1.docker.io"] {
            assert_eq!(shown(&file, hub, "library/busybox")[0], "3: https://index.docker.io/v1/ hub");
        }
        assert_eq!(shown(&file, "kept.example", "a"), ["11: desktop(kept.example)"]);
        assert_eq!(shown(&file, "old.example:5000", "a")[0], "8: http://old.example:5000/v2/ old");
        assert_eq!(shown(&file, "old.example", "a"), ["11: desktop(old.example)"]);
        assert_eq!(shown(&file, "eu.gcr.example", "a")[0], "10: gcr(eu.gcr.example)");
        let hub_only = read(r#"{"credsStore": "x"}"#).unwrap();
        assert_eq!(shown(&hub_only, "docker.io", "library/a"), ["1: x(https://index.docker.io/v1/)"]);
        assert!(shown(&read("{}").unwrap(), "quay.io", "a").is_empty());
        assert!(shown(&read(" \n").unwrap(), "quay.io", "a").is_empty());
        let tokens = read(r#"{"auths":{"a.example":{"identitytoken":"i","registrytoken":"r"}}}"#).unwrap();
        let CredentialSource::File { credentials, .. } = &tokens.sources("a.example", "x")[0] else {
            panic!()
        };
        assert_eq!((credentials.identity_token.as_str(), credentials.registry_token.as_str()), ("i", "r"));
    }

    #[test]
    fn mistakes_are_named_by_line_and_quote_nothing() {
        for (text, line) in [
            ("{\n\"auths\": 5}", 2),
            ("{\n\"auths\": {\n\"a\": \"s3cret\"}}", 3),
            ("{\"auths\": {\n\"a\": {\n\"auth\": [\"s3cret\"]}}}", 3),
            ("{\n\"credHelpers\": {\"a\":\n\"../s3cret\"}}", 3),
            ("{\n\"credsStore\": \"/bin/s3cret\"}", 2),
            ("{\n\"auths\": {\"a\": {\"auth\": \"s3cret\"", 2),
            ("s3cret", 1),
        ] {
            let error = read(text).unwrap_err();
            let RouteError::Wrong { place, .. } = &error else { panic!("{error}") };
            assert_eq!(place.line, line, "{text:?}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in "(\\{|\\}|\"auths\"|\"credHelpers\"|:|,|\"[a-z./:]{0,9}\"|\n|\\PC){0,40}", host in "[a-z.:]{0,12}") {
            if let Ok(file) = read(&text) {
                let _ = file.sources(&host, "a/b");
            }
        }
    }
}
