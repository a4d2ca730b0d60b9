//! The resolv.conf(5) of a pod.

use std::net::IpAddr;

use model::request::Dns;

/// More than any resolver reads: the C library takes three servers, the kubelet sends 32 search domains at most.
const MAX_ENTRIES: usize = 64;
const MAX_ENTRY: usize = 255;

/// Why a DNS configuration is refused. All of these would otherwise be lines that somebody else wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDns {
    #[error("dns_config.servers[{index}] {given:?} is not an IP address")]
    Server { index: usize, given: String },
    #[error(
        "dns_config.{field}[{index}] {given:?} is empty, longer than 255 bytes, or holds spaces or control characters"
    )]
    Entry { field: &'static str, index: usize, given: String },
    #[error("dns_config.{field} has {count} entries; at most 64 are taken")]
    TooMany { field: &'static str, count: usize },
}

/// The text of the file; none if the configuration is empty, which in CRI means the host's file.
pub fn text(dns: &Dns) -> Result<Option<String>, BadDns> {
    let lists = [("servers", &dns.servers), ("searches", &dns.searches), ("options", &dns.options)];
    for (field, list) in lists {
        if list.len() > MAX_ENTRIES {
            return Err(BadDns::TooMany { field, count: list.len() });
        }
        if let Some((index, given)) = list.iter().enumerate().find(|(_, entry)| !is_word(entry)) {
            return Err(BadDns::Entry { field, index, given: given.chars().take(80).collect() });
        }
    }
    if lists.iter().all(|(_, list)| list.is_empty()) {
        return Ok(None);
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for (index, server) in dns.servers.iter().enumerate() {
        if !is_address(server) {
            return Err(BadDns::Server { index, given: server.clone() });
        }
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    Ok(Some(text))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ENTRY && text.bytes().all(|b| b.is_ascii_graphic())
}

/// An address, link-local ones with their interface (`fe80::1%eth0`).
fn is_address(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, z)| (a, Some(z)));
    match (address.parse::<IpAddr>(), zone) {
        (Ok(_), None) => true,
        (Ok(IpAddr::V6(_)), Some(zone)) => !zone.is_empty() && zone.len() < 16,
        (Ok(IpAddr::V4(_)) | Err(_), _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dns(servers: &[&str], searches: &[&str], options: &[&str]) -> Dns {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Dns { servers: owned(servers), searches: owned(searches), options: owned(options) }
    }

    #[test]
    fn lines() {
        let all = dns(&["10.0.0.10", "fe80::1%eth0"], &["ns.svc", "."], &["ndots:5"]);
        let expected = "search ns.svc .\nnameserver 10.0.0.10\nnameserver fe80::1%eth0\noptions ndots:5\n";
        assert_eq!(text(&all), Ok(Some(expected.into())));
        assert_eq!(text(&Dns::default()), Ok(None));
    }

    #[test]
    fn no_line_can_be_slipped_in() {
        for server in ["dns.example", "1.2.3.4%eth0", "fe80::1%", "1.2.3", "::1%0123456789abcdef"] {
            assert!(matches!(text(&dns(&[server], &[], &[])), Err(BadDns::Server { .. })), "{server:?}");
        }
        for entry in ["", "a b", "a\nnameserver 6.6.6.6", "a\r", "ä", &"a".repeat(256)] {
            assert!(matches!(text(&dns(&[], &[entry], &[])), Err(BadDns::Entry { field: "searches", .. })));
            assert!(matches!(text(&dns(&[], &[], &[entry])), Err(BadDns::Entry { field: "options", .. })));
        }
        let many = Dns { servers: vec!["1.1.1.1".into(); 65], ..Default::default() };
        assert_eq!(text(&many), Err(BadDns::TooMany { field: "servers", count: 65 }));
    }

    proptest! {
        #[test]
        fn lines_are_as_many_as_entries(searches in proptest::collection::vec(".{0,6}", 0..4), server in ".{0,12}") {
            let dns = Dns { servers: vec![server], searches, options: vec![] };
            if let Ok(Some(text)) = text(&dns) {
                let expected = usize::from(!dns.searches.is_empty()) + 1;
                prop_assert_eq!(text.lines().count(), expected);
            }
        }
    }
}
