//! `hosts.toml`, after containerd's docs/hosts.md: who serves the registry that the file's folder is named after. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use toml::de::{DeTable, DeValue};

use super::error::RouteError;
use super::toml::{Text, Value, in_order};
use crate::endpoint::Capabilities;
use crate::place::Place;

/// What a file says.
#[derive(Debug, Clone)]
pub struct HostsFile {
    /// Those that are asked first, in the order of the file.
    pub hosts: Vec<HostEntry>,
    /// What is asked last. Without a URL it is the registry itself.
    pub server: HostEntry,
    /// Keys that mean nothing to this version.
    pub unknown: Vec<(Place, String)>,
}

/// One host.
#[derive(Debug, Clone)]
pub struct HostEntry {
    pub url: Option<HostUrl>,
    pub place: Place,
    pub capabilities: Capabilities,
    /// Certificates of authorities.
    pub ca: Vec<PathBuf>,
    /// Certificates to show, each with its key, which may be in the same file.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    pub skip_verify: Option<bool>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub dial_timeout: Option<Duration>,
}

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostUrl {
    pub https: bool,
    /// Host and port.
    pub authority: String,
    /// What comes before the repository.
    pub path: String,
}

/// Reads a file's bytes; `file` is what errors call it, and the folder of relative paths.
///
/// # Errors
/// [`RouteError`] with the line.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<HostsFile, RouteError> {
    let text = Text::new(file, bytes)?;
    let table = text.parse()?;
    let mut unknown = Vec::new();
    let mut hosts = Vec::new();
    let mut server = None;
    for (key, value) in in_order(&table) {
        match key.get_ref().as_ref() {
            "server" => server = Some((text.string("server", value)?, text.place(key))),
            "host" => {
                for (name, value) in in_order(text.table("host", value)?) {
                    let settings = text.table("host", value)?;
                    let entry =
                        entry(text, settings, Some((name.get_ref(), text.place(name))), &mut unknown)?;
                    hosts.push(entry);
                }
            }
            _ => {}
        }
    }
    let server = entry(text, &table, server, &mut unknown)?;
    Ok(HostsFile { hosts, server, unknown })
}

fn entry(
    text: Text<'_>,
    table: &DeTable<'_>,
    url: Option<(&str, Place)>,
    unknown: &mut Vec<(Place, String)>,
) -> Result<HostEntry, RouteError> {
    let mut entry = HostEntry {
        url: None,
        place: Place::whole(text.file),
        capabilities: Capabilities::ALL,
        ca: Vec::new(),
        client: Vec::new(),
        skip_verify: None,
        headers: Vec::new(),
        dial_timeout: None,
    };
    let mut override_path = false;
    for (key, value) in in_order(table) {
        match key.get_ref().as_ref() {
            "server" | "host" => {}
            "capabilities" => entry.capabilities = capabilities(text, value)?,
            "ca" => entry.ca = paths(text, text.one_or_more("ca", value)?),
            "client" => entry.client = client(text, value)?,
            "skip_verify" => entry.skip_verify = Some(text.boolean("skip_verify", value)?),
            "header" => entry.headers = headers(text, value)?,
            "override_path" => override_path = text.boolean("override_path", value)?,
            "dial_timeout" => entry.dial_timeout = Some(duration(text, value)?),
            other => unknown.push((text.place(key), other.to_owned())),
        }
    }
    if let Some((url, place)) = url {
        entry.url =
            Some(HostUrl::parse(url, override_path).ok_or_else(|| {
                RouteError::wrong(place.clone(), format!("{url:?} is no URL of a registry"))
            })?);
        entry.place = place;
    }
    Ok(entry)
}

impl HostUrl {
    fn parse(text: &str, override_path: bool) -> Option<HostUrl> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = whole.parse().ok()?;
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str().to_ascii_lowercase();
        if authority.contains('@') || authority.ends_with(':') || uri.query().is_some() {
            return None;
        }
        let path = uri.path().trim_end_matches('/');
        // What the URL names is the registry, unless it says that it is the API itself.
        let path = match override_path || path.ends_with("/v2") {
            true => path.to_owned(),
            false => format!("{path}/v2"),
        };
        Some(HostUrl { https, authority, path })
    }
}

fn capabilities(text: Text<'_>, value: &Value<'_>) -> Result<Capabilities, RouteError> {
    let mut found = Capabilities::NONE;
    let names = text.strings("capabilities", value)?;
    for name in &names {
        match name.to_ascii_lowercase().as_str() {
            "pull" => found.pull = true,
            "resolve" => found.resolve = true,
            "push" => found.push = true,
            "referrers" => found.referrers = true,
            _ => {
                let why = format!("{name:?} is no capability: pull, resolve, push and referrers are");
                return Err(RouteError::wrong(text.place(value), why));
            }
        }
    }
    Ok(if names.is_empty() { Capabilities::ALL } else { found })
}

fn paths(text: Text<'_>, names: Vec<&str>) -> Vec<PathBuf> {
    names.into_iter().map(|name| path(text, name)).collect()
}

/// A path, from the file's folder on.
fn path(text: Text<'_>, name: &str) -> PathBuf {
    text.file.parent().unwrap_or(Path::new("/")).join(name)
}

/// A file with both certificate and key; a list of such; or a list of pairs.
fn client(text: Text<'_>, value: &Value<'_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, RouteError> {
    let DeValue::Array(list) = value.get_ref() else {
        return Ok(vec![(path(text, text.string("client", value)?), None)]);
    };
    let mut found = Vec::new();
    for one in list {
        let DeValue::Array(_) = one.get_ref() else {
            found.push((path(text, text.string("client", one)?), None));
            continue;
        };
        match text.strings("client", one)?.as_slice() {
            [certificate, ""] => found.push((path(text, certificate), None)),
            [certificate, key] => found.push((path(text, certificate), Some(path(text, key)))),
            _ => {
                return Err(RouteError::wrong(
                    text.place(one),
                    "a pair in client has a certificate and a key",
                ));
            }
        }
    }
    Ok(found)
}

fn headers(text: Text<'_>, value: &Value<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, RouteError> {
    let mut found = Vec::new();
    for (name, value) in in_order(text.table("header", value)?) {
        let wrong = |why: &str| RouteError::wrong(text.place(name), why);
        let key = HeaderName::try_from(name.get_ref().as_ref())
            .map_err(|_| wrong("this is no name of a header"))?;
        // What the connection itself goes by is not for a file to say.
        if matches!(key.as_str(), "host" | "content-length" | "transfer-encoding" | "connection") {
            return Err(wrong("this header cannot be set"));
        }
        for one in text.one_or_more("header", value)? {
            let mut one =
                HeaderValue::try_from(one).map_err(|_| wrong("this header's value cannot be sent"))?;
            one.set_sensitive(true);
            found.push((key.clone(), one));
        }
    }
    Ok(found)
}

/// A duration as Go writes it: `300ms`, `1.5s`, `1m30s`.
fn duration(text: Text<'_>, value: &Value<'_>) -> Result<Duration, RouteError> {
    let written = text.string("dial_timeout", value)?;
    go_duration(written).filter(|time| !time.is_zero()).ok_or_else(|| {
        RouteError::wrong(
            text.place(value),
            format!("{written:?} is no duration such as \"5s\" or \"300ms\""),
        )
    })
}

fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut whole = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        whole += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(whole).ok().filter(|time| *time < Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<HostsFile, RouteError> {
        parse(Path::new("/certs.d/x/hosts.toml"), text.as_bytes())
    }

    #[test]
    fn everything_that_containerd_reads() {
        let file = read(
            r#"server = "https://up.example"
ca = "up.pem"
[host."https://z.example:5000"]
  capabilities = ["Pull", "resolve"]
  ca = ["/etc/a.pem", "b.pem"]
  client = [["c.cert", "c.key"], ["both.pem", ""]]
  skip_verify = false
  dial_timeout = "1.5s"
  [host."https://z.example:5000".header]
    x-one = "a"
    x-two = ["b", "c"]
[host."http://a.example/mirror"]
  client = "one.pem"
  rewrite = true
[host."https://o.example/v2/upstream"]
  override_path = true
  client = ["one.pem", "two.pem"]
[host."plain.example"]
"#,
        )
        .unwrap();
        let urls: Vec<_> = file.hosts.iter().map(|host| host.url.clone().unwrap()).collect();
        let url = |https, authority: &str, path: &str| HostUrl {
            https,
            authority: authority.into(),
            path: path.into(),
        };
        assert_eq!(
            urls,
            [
                url(true, "z.example:5000", "/v2"),
                url(false, "a.example", "/mirror/v2"),
                url(true, "o.example", "/v2/upstream"),
                url(true, "plain.example", "/v2"),
            ]
        );
        let first = &file.hosts[0];
        assert_eq!(first.place.to_string(), "/certs.d/x/hosts.toml:3");
        assert_eq!(first.capabilities.names(), ["pull", "resolve"]);
        assert_eq!(first.ca, [Path::new("/etc/a.pem"), Path::new("/certs.d/x/b.pem")]);
        let pair = |certificate: &str, key: Option<&str>| {
            let path = |name: &str| Path::new("/certs.d/x").join(name);
            (path(certificate), key.map(path))
        };
        assert_eq!(first.client, [pair("c.cert", Some("c.key")), pair("both.pem", None)]);
        assert_eq!((first.skip_verify, first.dial_timeout), (Some(false), Some(Duration::from_millis(1500))));
        let headers: Vec<_> =
            first.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(headers, [("x-one", "a"), ("x-two", "b"), ("x-two", "c")]);
        assert!(!format!("{file:?}").contains("\"a\""), "headers are secrets");
        assert_eq!(file.hosts[2].client.len(), 2);
        assert_eq!(file.server.url, Some(url(true, "up.example", "/v2")));
        assert_eq!(file.server.ca, [Path::new("/certs.d/x/up.pem")]);
        assert_eq!(file.unknown[0].0.line, 14);
        let empty = read("").unwrap();
        assert!(empty.hosts.is_empty() && empty.server.url.is_none());
    }

    #[test]
    fn mistakes_are_named_by_line() {
        for (text, line, why) in [
            ("server = 1", 1, "takes a text"),
            ("\n\nserver = \"ftp://x\"", 3, "no URL"),
            ("server = \"https://u:p@x\"", 1, "no URL"),
            ("[host.\"https://a b\"]", 1, "no URL"),
            ("[host.\"https://a\"]\ncapabilities = [\"push\", \"steal\"]", 2, "no capability"),
            ("[host.\"https://a\"]\nskip_verify = \"yes\"", 2, "true or false"),
            ("[host.\"https://a\"]\nclient = [[\"a\"]]", 2, "a certificate and a key"),
            ("[host.\"https://a\"]\ndial_timeout = \"5\"", 2, "no duration"),
            ("[host.\"https://a\".header]\nHost = \"b\"", 2, "cannot be set"),
            ("host = 5", 1, "takes a table"),
            ("a = [\n", 1, ""),
            ("x = \"\u{0}\"", 1, ""),
        ] {
            let error = read(text).unwrap_err();
            let RouteError::Wrong { place, why: said } = &error else { panic!("{error}") };
            assert_eq!(place.line, line, "{text:?}: {error}");
            assert!(said.contains(why), "{error}");
        }
        assert!(parse(Path::new("x"), b"a = \"\xff\"").is_err());
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("300ms"), Some(Duration::from_millis(300)));
        for bad in ["s", "5", "1x", "-1s", "1..5s", "99999h", "1e9s"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\[host\\.\"[a-z:/.@\\[\\]]{0,20}\"\\]\n|[a-z_]{1,12} = [\\[\\]\"a-z0-9, .]{0,20}\n|\\PC{0,20}){0,8}") {
            let _ = read(&text);
        }
    }
}
