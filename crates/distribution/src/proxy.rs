//! Proxies as the environment names them: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, read as Go's programs read them. Pure.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use ipnet::IpNet;

use crate::host::{is_loopback, split_port};

/// What the environment says of proxies.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<Result<Proxy, BadProxy>>,
    https: Option<Result<Proxy, BadProxy>>,
    except: Vec<Except>,
}

/// One proxy. Its password is shown by nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub kind: ProxyKind,
    /// Host and port.
    pub authority: String,
    login: Option<(String, String)>,
    /// The variable that named it.
    pub said: &'static str,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    Http,
    /// HTTP within TLS.
    Https,
    /// RFC 1928; names are looked up by the proxy.
    Socks5,
}

/// A variable that names no proxy. Its value is not quoted, since a password may be in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {why}: expected such as http://proxy.example:3128")]
pub struct BadProxy {
    pub variable: &'static str,
    pub why: &'static str,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Except {
    Everything,
    Net(IpNet),
    Address(IpAddr, Option<u16>),
    /// A domain, beginning with a dot; and whether it is meant itself besides what is below it.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the variables that `get` knows. The upper-case form wins.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |upper: &str, lower: &str| {
            [upper, lower].into_iter().filter_map(&get).find(|value| !value.trim().is_empty())
        };
        let proxy = |upper: &'static str, lower: &'static str| {
            either(upper, lower).map(|value| Proxy::parse(value.trim(), upper))
        };
        let except = either("NO_PROXY", "no_proxy").unwrap_or_default();
        Proxies {
            http: proxy("HTTP_PROXY", "http_proxy"),
            https: proxy("HTTPS_PROXY", "https_proxy"),
            except: except.split(',').filter_map(|entry| Except::parse(entry.trim())).collect(),
        }
    }

    /// Those of this process's environment.
    pub fn of_environment() -> Proxies {
        Proxies::read(|name| std::env::var(name).ok())
    }

    /// The proxy for a URL; none: it is asked directly. Loopback always is.
    ///
    /// # Errors
    /// [`BadProxy`] if the variable that would name it cannot be understood: going around a proxy unasked would be no better.
    pub fn of(&self, scheme: &str, authority: &str) -> Result<Option<&Proxy>, BadProxy> {
        let chosen = if scheme == "https" { &self.https } else { &self.http };
        let Some(chosen) = chosen else { return Ok(None) };
        let (host, port) = split_port(authority);
        let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
        let host = host.to_ascii_lowercase();
        if is_loopback(&host) || self.except.iter().any(|except| except.matches(&host, port)) {
            return Ok(None);
        }
        chosen.as_ref().map(Some).map_err(Clone::clone)
    }
}

impl Proxy {
    fn parse(text: &str, variable: &'static str) -> Result<Proxy, BadProxy> {
        let bad = |why| BadProxy { variable, why };
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let kind = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyKind::Http,
            "https" => ProxyKind::Https,
            "socks5" | "socks5h" => ProxyKind::Socks5,
            _ => return Err(bad("has a scheme that is not supported (http, https and socks5 are)")),
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (login, host) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((login, host)) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let decoded = (percent_decoded(user), percent_decoded(password));
                let (Some(user), Some(password)) = decoded else {
                    return Err(bad("has a user or a password that is not percent-encoded as it should be"));
                };
                (Some((user, password)), host)
            }
        };
        let (name, port) = split_port(host);
        let port = match (port, kind) {
            (Some(port), _) => port,
            (None, ProxyKind::Http) => 80,
            (None, ProxyKind::Https) => 443,
            (None, ProxyKind::Socks5) => 1080,
        };
        let authority =
            if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") };
        let whole: Option<Uri> = format!("http://{authority}/").parse().ok();
        if name.is_empty() || whole.is_none() {
            return Err(bad("is not the URL of a proxy"));
        }
        Ok(Proxy { kind, authority, login, said: variable })
    }

    /// User and password, if it asks for some.
    pub(crate) fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The value of `Proxy-Authorization`.
    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        let (user, password) = self.login()?;
        let mut value =
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl Except {
    /// None for what says nothing.
    fn parse(entry: &str) -> Option<Except> {
        let entry = entry.to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Except::Everything);
        }
        if let Ok(net) = entry.parse() {
            return Some(Except::Net(net));
        }
        let (host, port) = split_port(&entry);
        if let Ok(address) = host.parse() {
            return Some(Except::Address(address, port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        if host.is_empty() {
            return None;
        }
        let itself = !host.starts_with('.');
        let suffix = if itself { format!(".{host}") } else { host.to_owned() };
        Some(Except::Domain { suffix, itself, port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let is_port = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Except::Everything => true,
            Except::Net(net) => host.parse::<IpAddr>().is_ok_and(|address| net.contains(&address)),
            Except::Address(wanted, only) => {
                is_port(only) && host.parse::<IpAddr>().is_ok_and(|address| address == *wanted)
            }
            Except::Domain { suffix, itself, port: only } => {
                is_port(only) && (host.ends_with(suffix.as_str()) || (*itself && host == &suffix[1..]))
            }
        }
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// With its scheme, and without a password.
impl fmt::Display for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            ProxyKind::Http => "http",
            ProxyKind::Https => "https",
            ProxyKind::Socks5 => "socks5",
        };
        write!(out, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Proxy({self} of {})", self.said)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned()))
    }

    fn to(proxies: &Proxies, scheme: &str, authority: &str) -> String {
        match proxies.of(scheme, authority) {
            Ok(proxy) => proxy.map_or("directly".into(), ToString::to_string),
            Err(bad) => bad.to_string(),
        }
    }

    #[test]
    fn each_scheme_has_its_variable() {
        let both = proxies(&[("HTTPS_PROXY", "http://s.example:3128"), ("http_proxy", "p.example")]);
        assert_eq!(to(&both, "https", "quay.io"), "http://s.example:3128");
        assert_eq!(to(&both, "http", "quay.io"), "http://p.example:80");
        for authority in ["localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"] {
            assert_eq!(to(&both, "http", authority), "directly", "{authority}");
        }
        assert_eq!(to(&proxies(&[]), "https", "quay.io"), "directly");
        let upper = proxies(&[("HTTPS_PROXY", "socks5://u.example"), ("https_proxy", "l.example")]);
        assert_eq!(to(&upper, "https", "quay.io"), "socks5://u.example:1080");
        let six = proxies(&[("HTTPS_PROXY", "https://[2001:db8::1]:8443/")]);
        assert_eq!(to(&six, "https", "quay.io"), "https://[2001:db8::1]:8443");
    }

    #[test]
    fn exceptions_are_those_of_go() {
        let except = |list: &str| proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", list)]);
        for (list, direct, proxied) in [
            ("example.com", "example.com", "notexample.com"),
            ("example.com", "a.b.example.com:5000", "example.com.evil.org"),
            (".example.com", "a.example.com", "example.com"),
            ("*.example.com", "a.example.com", "example.com"),
            ("Example.COM:5000", "EXAMPLE.com:5000", "example.com"),
            ("10.0.0.0/8, quay.io", "10.1.2.3:5000", "11.0.0.1"),
            ("10.0.0.1", "10.0.0.1:5000", "10.0.0.2"),
            ("10.0.0.1:5000", "10.0.0.1:5000", "10.0.0.1:5001"),
            ("2001:db8::/32", "[2001:db8::7]:5000", "[2001:db9::7]"),
            ("[2001:db8::7]:5000", "[2001:db8::7]:5000", "[2001:db8::7]:5001"),
        ] {
            assert_eq!(to(&except(list), "https", direct), "directly", "{list} {direct}");
            assert_eq!(to(&except(list), "https", proxied), "http://p:1", "{list} {proxied}");
        }
        assert_eq!(to(&except("a,*"), "https", "quay.io"), "directly");
        assert_eq!(to(&except(" , ,"), "https", "quay.io"), "http://p:1");
    }

    #[test]
    fn a_password_is_shown_by_nothing_and_a_bad_value_stops() {
        let with = proxies(&[("HTTPS_PROXY", "http://al%3Aice:s%40cret@p.example:3128")]);
        let proxy = with.of("https", "quay.io").unwrap().unwrap();
        assert_eq!(proxy.login(), Some(("al:ice", "s@cret")));
        assert!(!format!("{with:?}{proxy}{:?}", proxy.authorization()).contains("s@cret"));
        for bad in ["ftp://p", "http://user:s%zzecret@p", "http://", "http://a b"] {
            let with = proxies(&[("HTTPS_PROXY", bad)]);
            let error = with.of("https", "quay.io").unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains("ecret"), "{error}");
            assert!(with.of("http", "quay.io").unwrap().is_none());
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "\\PC{0,60}", list in "[a-z0-9.:,/*\\[\\] %@-]{0,60}", host in "[a-z0-9.:\\[\\]-]{0,30}") {
            let read = proxies(&[("HTTPS_PROXY", &value), ("NO_PROXY", &list)]);
            let _ = read.of("https", &host);
        }
    }
}
