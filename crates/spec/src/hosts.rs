//! The /etc/hosts of a pod whose containers bring none.

use std::fmt::Write;
use std::net::IpAddr;

/// The text of a hosts(5) that names the loopback addresses and, with each address of the pod, its hostname.
///
/// `hostname` has passed [`crate::hostname::check`].
pub fn text(hostname: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\n\
         fe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    if !hostname.is_empty() {
        for address in addresses {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{address}\t{hostname}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_names_the_pod() {
        let addresses = ["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
        let hosts = text("web", &addresses);
        assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(hosts.ends_with("10.0.0.7\tweb\nfd00::7\tweb\n"), "{hosts}");
        assert!(!text("", &addresses).contains("10.0.0.7"));
    }
}
