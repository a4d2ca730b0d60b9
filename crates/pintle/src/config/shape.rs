//! What a setting's value may look like: reading it from TOML, saying what was expected, writing it back.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use toml::de::{DeArray, DeValue};

use super::nearest::nearest;

/// Why a value was refused, without the place, which the caller knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What stands there: ``the string "x"``, `an array`.
    pub(super) found: String,
    /// The nearest value that would be right, if one is near.
    pub(super) meant: Option<String>,
}

/// The form of a value of type `T`.
pub(super) trait Shape<T> {
    /// What may be written, to follow the words "it takes".
    fn takes(&self) -> String;
    /// The value, or why not.
    fn read(&self, value: &DeValue<'_>) -> Result<T, Refusal>;
    /// The value as TOML; [`Shape::read`] gives the same value again.
    fn write(&self, value: &T) -> String;
}

/// A path from `/` on, without `..`.
pub(super) struct AbsolutePath;

impl Shape<PathBuf> for AbsolutePath {
    fn takes(&self) -> String {
        "an absolute path".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
        let text = value.as_str().ok_or_else(|| refuse(value))?;
        let path = Path::new(text);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.is_absolute() || !plain || text.contains('\0') {
            return Err(refuse(value));
        }
        Ok(path.to_owned())
    }

    fn write(&self, value: &PathBuf) -> String {
        quoted(&value.to_string_lossy())
    }
}

/// What the inner shape takes, or nothing.
pub(super) struct OrNone<S>(pub(super) S);

impl<T, S: Shape<T>> Shape<Option<T>> for OrNone<S> {
    fn takes(&self) -> String {
        format!("{}, or \"\" for none", self.0.takes())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Option<T>, Refusal> {
        match value.as_str() {
            Some("") => Ok(None),
            _ => self.0.read(value).map(Some),
        }
    }

    fn write(&self, value: &Option<T>) -> String {
        value.as_ref().map_or_else(|| quoted(""), |value| self.0.write(value))
    }
}

/// A host's name or address with a port.
pub(super) struct HostAndPort;

impl Shape<String> for HostAndPort {
    fn takes(&self) -> String {
        "a host with a port, such as \"127.0.0.1:4317\"".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, Refusal> {
        let text = value.as_str().ok_or_else(|| refuse(value))?;
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) || !is_host(text) {
            return Err(refuse(value));
        }
        Ok(text.to_owned())
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// Yes or no.
pub(super) struct YesOrNo;

impl Shape<bool> for YesOrNo {
    fn takes(&self) -> String {
        "true or false".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<bool, Refusal> {
        value.as_bool().ok_or_else(|| refuse(value))
    }

    fn write(&self, value: &bool) -> String {
        value.to_string()
    }
}

/// A program: a path from `/` on, or a name.
pub(super) struct Program;

impl Shape<PathBuf> for Program {
    fn takes(&self) -> String {
        "an absolute path, or a name without a slash".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<PathBuf, Refusal> {
        match value.as_str() {
            Some(name) if !name.is_empty() && !name.contains(['/', '\0']) => Ok(name.into()),
            _ => AbsolutePath.read(value),
        }
    }

    fn write(&self, value: &PathBuf) -> String {
        quoted(&value.display().to_string())
    }
}

/// The name of a runtime handler, as Kubernetes allows it in a RuntimeClass: a label of DNS (RFC 1123).
pub(super) struct HandlerName;

impl HandlerName {
    /// Whether a handler may have this name.
    pub(super) fn is_one(name: &str) -> bool {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&name.len())
            && name.bytes().all(inside)
            && !name.starts_with('-')
            && !name.ends_with('-')
    }
}

impl Shape<String> for HandlerName {
    fn takes(&self) -> String {
        "the name of a handler".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, Refusal> {
        let name = value.as_str().filter(|name| HandlerName::is_one(name));
        name.map(str::to_owned).ok_or_else(|| refuse(value))
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// Words of a command line.
pub(super) struct Words;

impl Shape<Vec<String>> for Words {
    fn takes(&self) -> String {
        "a list of words of a command line".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, Refusal> {
        let is_one = |text: &&str| !text.is_empty() && !text.contains('\0');
        list(value)?
            .iter()
            .map(|item| {
                let text = item.get_ref().as_str().filter(is_one);
                text.map(str::to_owned).ok_or_else(|| refuse(item.get_ref()))
            })
            .collect()
    }

    fn write(&self, value: &Vec<String>) -> String {
        Hosts.write(value)
    }
}

/// What a loaded AppArmor profile is called.
pub(super) struct ProfileName;

impl Shape<String> for ProfileName {
    fn takes(&self) -> String {
        "the name of an AppArmor profile, or \"unconfined\"".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<String, Refusal> {
        match value.as_str() {
            Some(name) if (1..=255).contains(&name.len()) && !name.contains(char::is_control) => {
                Ok(name.to_owned())
            }
            _ => Err(refuse(value)),
        }
    }

    fn write(&self, value: &String) -> String {
        quoted(value)
    }
}

/// An IP address with a port.
pub(super) struct AddressAndPort;

impl Shape<SocketAddr> for AddressAndPort {
    fn takes(&self) -> String {
        "an IP address with a port, such as \"127.0.0.1:10010\" or \"[::1]:0\"".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<SocketAddr, Refusal> {
        value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| refuse(value))
    }

    fn write(&self, value: &SocketAddr) -> String {
        quoted(&value.to_string())
    }
}

/// A list of absolute paths.
pub(super) struct AbsolutePaths;

impl Shape<Vec<PathBuf>> for AbsolutePaths {
    fn takes(&self) -> String {
        "a list of absolute paths".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<PathBuf>, Refusal> {
        list(value)?.iter().map(|item| AbsolutePath.read(item.get_ref())).collect()
    }

    fn write(&self, value: &Vec<PathBuf>) -> String {
        let items: Vec<String> = value.iter().map(|path| AbsolutePath.write(path)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A list of registries, each `host` or `host:port`.
pub(super) struct Hosts;

impl Shape<Vec<String>> for Hosts {
    fn takes(&self) -> String {
        "a list of `host` or `host:port`".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, Refusal> {
        list(value)?
            .iter()
            .map(|item| match item.get_ref().as_str() {
                Some(text) if is_host(text) => Ok(text.to_owned()),
                Some(text) => Err(Refusal { found: describe(item.get_ref()), meant: host_in(text) }),
                None => Err(refuse(item.get_ref())),
            })
            .collect()
    }

    fn write(&self, value: &Vec<String>) -> String {
        let items: Vec<String> = value.iter().map(|host| quoted(host)).collect();
        format!("[{}]", items.join(", "))
    }
}

/// A list of scopes of image references, after containers-policy.json(5), and `*`.
pub(super) struct Scopes;

impl Shape<Vec<String>> for Scopes {
    fn takes(&self) -> String {
        "a list of registries, folders of repositories or repositories, such as \"docker.io/library\" or \"*.example.com\", or \"*\"".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, Refusal> {
        list(value)?
            .iter()
            .map(|item| {
                let text = item.get_ref().as_str().ok_or_else(|| refuse(item.get_ref()))?;
                match scope(text) {
                    Some(meant) if meant == text => Ok(meant),
                    meant => Err(Refusal { found: describe(item.get_ref()), meant }),
                }
            })
            .collect()
    }

    fn write(&self, value: &Vec<String>) -> String {
        Hosts.write(value)
    }
}

/// The scope that a text stands for, written out: `library/busybox` is `docker.io/library/busybox`.
fn scope(text: &str) -> Option<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let (wildcard, rest) = match text.strip_prefix("*.") {
        Some(rest) if rest.contains([':', '/']) => return None,
        Some(rest) => ("*.", rest),
        None => ("", text),
    };
    let whole = model::reference::ImageReference::parse(&format!("{rest}/a/x")).ok()?;
    whole.name().strip_suffix("/a/x").map(|scope| format!("{wildcard}{scope}"))
}

/// Patterns of names.
pub(super) struct Patterns;

impl Shape<Vec<String>> for Patterns {
    fn takes(&self) -> String {
        "a list of patterns".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Vec<String>, Refusal> {
        let is_blank = |c: char| c.is_control() || c.is_whitespace();
        let is_one = |text: &&str| !text.is_empty() && text.len() <= 1024 && !text.contains(is_blank);
        list(value)?
            .iter()
            .map(|item| {
                let text = item.get_ref().as_str().filter(is_one);
                text.map(str::to_owned).ok_or_else(|| refuse(item.get_ref()))
            })
            .collect()
    }

    fn write(&self, value: &Vec<String>) -> String {
        Hosts.write(value)
    }
}

/// A whole number of seconds.
pub(super) struct Seconds(pub(super) RangeInclusive<u64>);

impl Shape<Duration> for Seconds {
    fn takes(&self) -> String {
        format!("whole seconds from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<Duration, Refusal> {
        number(value).filter(|n| self.0.contains(n)).map(Duration::from_secs).ok_or_else(|| refuse(value))
    }

    fn write(&self, value: &Duration) -> String {
        value.as_secs().to_string()
    }
}

/// So many bytes.
pub(super) struct Size;

/// The units with their bytes, the largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Shape<u64> for Size {
    fn takes(&self) -> String {
        "a size such as \"512MiB\" or \"20GiB\"".into()
    }

    fn read(&self, value: &DeValue<'_>) -> Result<u64, Refusal> {
        let text = value.as_str().ok_or_else(|| refuse(value))?;
        let read = UNITS.iter().find_map(|(unit, bytes)| {
            let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
            number.checked_mul(*bytes)
        });
        read.filter(|bytes| (1..=1 << 60).contains(bytes)).ok_or_else(|| refuse(value))
    }

    fn write(&self, value: &u64) -> String {
        let whole = UNITS.iter().find(|(_, bytes)| value.is_multiple_of(*bytes));
        // What was read is whole in one of them.
        let (unit, bytes) = whole.unwrap_or(&UNITS[3]);
        quoted(&format!("{}{unit}", value / bytes))
    }
}

/// A whole number of things.
pub(super) struct Count(pub(super) RangeInclusive<u32>);

impl Shape<u32> for Count {
    fn takes(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, value: &DeValue<'_>) -> Result<u32, Refusal> {
        let count = number(value).and_then(|n| u32::try_from(n).ok());
        count.filter(|n| self.0.contains(n)).ok_or_else(|| refuse(value))
    }

    fn write(&self, value: &u32) -> String {
        value.to_string()
    }
}

/// A value with a few names.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// Each name with its value.
    const ALL: &'static [(&'static str, Self)];
}

/// One of the names of a [`Choice`].
pub(super) struct OneOf<T>(PhantomData<T>);

impl<T> OneOf<T> {
    /// The shape of `T`.
    pub(super) const fn new() -> OneOf<T> {
        OneOf(PhantomData)
    }
}

impl<T: Choice> Shape<T> for OneOf<T> {
    fn takes(&self) -> String {
        let names: Vec<String> = T::ALL.iter().map(|(name, _)| quoted(name)).collect();
        format!("one of {}", names.join(", "))
    }

    fn read(&self, value: &DeValue<'_>) -> Result<T, Refusal> {
        let text = value.as_str().ok_or_else(|| refuse(value))?;
        if let Some((_, value)) = T::ALL.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let meant = nearest(text, T::ALL.iter().map(|(name, _)| *name)).map(quoted);
        Err(Refusal { found: describe(value), meant })
    }

    fn write(&self, value: &T) -> String {
        let name = T::ALL.iter().find(|(_, other)| other == value).map_or("", |(name, _)| *name);
        quoted(name)
    }
}

fn list<'a, 'i>(value: &'a DeValue<'i>) -> Result<&'a DeArray<'i>, Refusal> {
    value.as_array().ok_or_else(|| refuse(value))
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn refuse(value: &DeValue<'_>) -> Refusal {
    Refusal { found: describe(value), meant: None }
}

/// What stands in the file, short enough for a message.
pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let mut short: String = text.chars().take(60).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            format!("the string {short:?}")
        }
        DeValue::Integer(number) => format!("the number {number}").chars().take(60).collect(),
        DeValue::Float(number) => format!("the number {}", number.as_str()).chars().take(60).collect(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// `host` or `host:port`: a DNS name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return address.parse::<std::net::Ipv6Addr>().is_ok() && port_ok;
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The registry in something that has a scheme or a path too, which is the usual mistake.
fn host_in(text: &str) -> Option<String> {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split('/').next()?;
    (host != text && is_host(host)).then(|| quoted(host))
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> DeValue<'_> {
        DeValue::parse(text).unwrap().into_inner()
    }

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for good in ["docker.io", "localhost", "10.0.0.1:5000", "[::1]:5000", "[fd00::1]", "my_host:1"] {
            assert!(is_host(good), "{good}");
        }
        for bad in
            ["", "http://a", "a/b", "a:", "a:0", "a:65536", "a:+1", "[::1", "[x]", "a..b", "-a", "a b", "*.a"]
        {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_registry_with_a_scheme_is_answered_with_the_host_in_it() {
        let refusal = Hosts.read(&value(r#"["http://reg:5000/v2"]"#)).unwrap_err();
        assert_eq!(refusal.meant.as_deref(), Some("\"reg:5000\""));
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        assert_eq!(AbsolutePath.read(&value(r#""/a/b""#)).unwrap(), Path::new("/a/b"));
        for bad in [r#""a""#, r#""""#, r#""/a/../b""#, r#""/a\u0000b""#, "1", "true", "[]"] {
            assert!(AbsolutePath.read(&value(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_may_be_absent_is_written_as_nothing() {
        assert_eq!(OrNone(AbsolutePath).read(&value("''")), Ok(None));
        assert_eq!(OrNone(AbsolutePath).read(&value("'/a'")), Ok(Some("/a".into())));
        assert!(OrNone(AbsolutePath).read(&value("'a'")).is_err());
        assert_eq!(
            OrNone(HostAndPort).read(&value("'otel.example:4317'")),
            Ok(Some("otel.example:4317".into()))
        );
        for bad in ["'otel.example'", "'http://a:1'", "':1'", "'a:0'", "'a:70000'", "1"] {
            assert!(HostAndPort.read(&value(bad)).is_err(), "{bad}");
        }
        assert_eq!(AddressAndPort.read(&value("'[::1]:5'")), Ok("[::1]:5".parse().unwrap()));
        assert_eq!(Program.read(&value("'criu'")), Ok("criu".into()));
        assert_eq!(Program.read(&value("'/opt/criu'")), Ok("/opt/criu".into()));
        assert!(Program.read(&value("'./criu'")).is_err() && Program.read(&value("''")).is_err());
        assert_eq!(ProfileName.read(&value("'my profile'")), Ok("my profile".into()));
        assert!(ProfileName.read(&value("''")).is_err() && ProfileName.read(&value("\"a\\nb\"")).is_err());
        for bad in ["'localhost:1'", "'127.0.0.1'", "'127.0.0.1:65536'", "10010"] {
            assert!(AddressAndPort.read(&value(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(Count(1..=64).read(&value("0x10")), Ok(16));
        for bad in ["0", "65", "-1", "1.0", "99999999999999999999999", "\"4\""] {
            assert!(Count(1..=64).read(&value(bad)).is_err(), "{bad}");
        }
    }
}
