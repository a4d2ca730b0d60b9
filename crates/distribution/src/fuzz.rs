//! What fuzzers feed: each takes any text, and has to come to an end without a panic.

use std::path::Path;

use model::reference::ImageReference;

use crate::challenge;
use crate::routes::{auth_file, hosts_toml, registries_conf};

/// The value of a `WWW-Authenticate` header.
pub fn challenge(value: &str) {
    for challenge in challenge::parse(value) {
        assert!(!challenge.scheme.bytes().any(|byte| byte.is_ascii_uppercase()), "{challenge:?}");
        let _ = challenge.get("realm");
    }
}

/// A `hosts.toml`.
pub fn hosts_toml(bytes: &[u8]) {
    if let Ok(file) = hosts_toml::parse(Path::new("/certs.d/x/hosts.toml"), bytes) {
        for url in file.hosts.iter().chain([&file.server]).filter_map(|entry| entry.url.as_ref()) {
            assert!(!url.authority.contains(['@', '/']), "{url:?}");
        }
    }
}

/// A `registries.conf`, and what it makes of a reference.
pub fn registries_conf(bytes: &[u8]) {
    let Ok(conf) = registries_conf::parse(Path::new("registries.conf"), bytes) else { return };
    let _ = conf.check();
    for name in ["busybox", "quay.io/a/b:1", "a.b.example.com:5000/c"] {
        let _ = conf.short_names.resolve(name);
        let Ok(reference) = ImageReference::parse(name) else { continue };
        if let Some(registry) = conf.find(&reference) {
            let _ = registry.sources(&reference);
        }
    }
}

/// Docker's `config.json`.
pub fn auth_file(bytes: &[u8]) {
    if let Ok(file) = auth_file::parse(Path::new("config.json"), bytes) {
        let _ = file.sources("docker.io", "library/busybox");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_ends(text in ".{0,200}") {
            super::challenge(&text);
            super::hosts_toml(text.as_bytes());
            super::registries_conf(text.as_bytes());
            super::auth_file(text.as_bytes());
        }
    }
}
