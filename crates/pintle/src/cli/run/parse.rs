//! The values of `run`'s options: ports, volumes, environment, users. Pure.

use cri::runtime_v1::Protocol;
use std::net::IpAddr;
use std::str::FromStr;

/// `KEY=VALUE`, or `KEY` for what this process has under that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Env {
    pub key: String,
    pub value: Option<String>,
}

impl FromStr for Env {
    type Err = String;

    fn from_str(text: &str) -> Result<Env, String> {
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (text, None),
        };
        match key {
            "" => Err("a variable needs a name: KEY=VALUE or KEY".into()),
            key => Ok(Env { key: key.to_owned(), value }),
        }
    }
}

/// A port of the container, made reachable on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub ip: Option<IpAddr>,
    pub host: u16,
    pub container: u16,
    pub protocol: Protocol,
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Port, String> {
        let bad = |why: String| format!("{why}; write it as 8080:80, 127.0.0.1:8080:80 or 5353:53/udp");
        let (ports, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((ports, "sctp")) => (ports, Protocol::Sctp),
            Some((_, other)) => return Err(bad(format!("{other:?} is no protocol"))),
        };
        let number = |text: &str| match text.parse::<u16>() {
            Ok(0) | Err(_) => Err(bad(format!("{text:?} is no port"))),
            Ok(port) => Ok(port),
        };
        let (rest, container) =
            ports.rsplit_once(':').ok_or_else(|| bad("the port of this machine is missing".into()))?;
        let (ip, host) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((ip, host)) => {
                let ip = ip.trim_start_matches('[').trim_end_matches(']');
                let ip = ip.parse().map_err(|_| bad(format!("{ip:?} is no address")))?;
                (Some(ip), host)
            }
        };
        Ok(Port { ip, host: number(host)?, container: number(container)?, protocol })
    }
}

/// A file or directory of the host inside the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Volume {
    pub source: String,
    pub target: String,
    pub readonly: bool,
}

impl FromStr for Volume {
    type Err = String;

    fn from_str(text: &str) -> Result<Volume, String> {
        let usage = "write it as /host/dir:/container/dir, with :ro to make it read-only";
        let (rest, readonly) = match text.strip_suffix(":ro") {
            Some(rest) => (rest, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        let (source, target) = rest.split_once(':').ok_or(format!("the target is missing; {usage}"))?;
        if !target.starts_with('/') {
            return Err(format!("the target {target:?} is not an absolute path; {usage}"));
        }
        if !source.contains('/') && source != "." && source != ".." {
            return Err(format!("{source:?} is no path: there are no named volumes; {usage}"));
        }
        Ok(Volume { source: source.to_owned(), target: target.to_owned(), readonly })
    }
}

/// Who a container runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum User {
    /// A name that is looked up in the container's `/etc/passwd`.
    Name(String),
    Ids {
        uid: u32,
        gid: Option<u32>,
    },
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<User, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        match (user.parse::<u32>(), group.map(str::parse::<u32>)) {
            (Ok(uid), None) => Ok(User::Ids { uid, gid: None }),
            (Ok(uid), Some(Ok(gid))) => Ok(User::Ids { uid, gid: Some(gid) }),
            (Ok(_), Some(Err(_))) => Err("CRI takes groups only by number: UID:GID".into()),
            (Err(_), Some(_)) => Err("CRI takes a group only with a user by number: UID:GID".into()),
            (Err(_), None) if user.is_empty() => Err("it is empty".into()),
            (Err(_), None) => Ok(User::Name(user.to_owned())),
        }
    }
}

/// A number of processors, kept as the quota of a 100 ms period in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpus {
    pub quota_micros: i64,
}

impl Cpus {
    /// The period the quota belongs to: the kernel's and the kubelet's default.
    pub(crate) const PERIOD_MICROS: i64 = 100_000;
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        // The kernel refuses a quota below 1 ms.
        match text.parse::<f64>() {
            Ok(cpus) if (0.01..=4096.0).contains(&cpus) => {
                Ok(Cpus { quota_micros: (cpus * Cpus::PERIOD_MICROS as f64).round() as i64 })
            }
            _ => Err("write a number of processors from 0.01 up, such as 0.5 or 2".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let port = |ip: Option<&str>, host, container, protocol| Port {
            ip: ip.map(|ip| ip.parse().unwrap()),
            host,
            container,
            protocol,
        };
        assert_eq!("8080:80".parse(), Ok(port(None, 8080, 80, Protocol::Tcp)));
        assert_eq!("127.0.0.1:53:5353/udp".parse(), Ok(port(Some("127.0.0.1"), 53, 5353, Protocol::Udp)));
        assert_eq!("[::1]:1:2/sctp".parse(), Ok(port(Some("::1"), 1, 2, Protocol::Sctp)));
        for bad in ["80", "a:80", "80:0", "65536:80", "80:80/icmp", "x:80:80", ""] {
            assert!(bad.parse::<Port>().is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes() {
        let volume = |source: &str, target: &str, readonly| Volume {
            source: source.into(),
            target: target.into(),
            readonly,
        };
        assert_eq!("/a:/b".parse(), Ok(volume("/a", "/b", false)));
        assert_eq!("./a:/b:ro".parse(), Ok(volume("./a", "/b", true)));
        for bad in ["/a", "/a:b", "name:/b", ""] {
            assert!(bad.parse::<Volume>().is_err(), "{bad}");
        }
    }

    #[test]
    fn users() {
        assert_eq!("1000".parse(), Ok(User::Ids { uid: 1000, gid: None }));
        assert_eq!("1000:5".parse(), Ok(User::Ids { uid: 1000, gid: Some(5) }));
        assert_eq!("www".parse(), Ok(User::Name("www".into())));
        for bad in ["", "www:5", "5:www"] {
            assert!(bad.parse::<User>().is_err(), "{bad}");
        }
    }

    #[test]
    fn processors() {
        assert_eq!("1.5".parse(), Ok(Cpus { quota_micros: 150_000 }));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
    }

    #[test]
    fn variables() {
        assert_eq!("A=b=c".parse(), Ok(Env { key: "A".into(), value: Some("b=c".into()) }));
        assert_eq!("A".parse(), Ok(Env { key: "A".into(), value: None }));
        assert!("=x".parse::<Env>().is_err());
    }
}
