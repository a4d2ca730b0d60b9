//! Which images are pinned because of how they are called: patterns that an administrator wrote.

use model::reference::ImageReference;

/// Patterns of image names. `*` stands for any characters, slashes too, and `?` for one. A pattern is held against each whole name of an
/// image, with a tag or digest and without. One without `*` and `?` may be short, as in a pull: `busybox` is `docker.io/library/busybox`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pinned {
    patterns: Vec<(String, String)>,
}

impl Pinned {
    /// The patterns as somebody wrote them.
    pub fn new(patterns: impl IntoIterator<Item = impl Into<String>>) -> Pinned {
        let whole = |written: String| {
            let plain = !written.contains(['*', '?']);
            let short = plain.then(|| ImageReference::parse(&written).ok()).flatten();
            let pattern = match short {
                // A name without a tag means every tag, where a pull takes `latest`.
                Some(name) if !has_version(&written) => name.name().to_string(),
                Some(name) => crate::catalog::stored_name(&name),
                None => written.clone(),
            };
            (written, pattern)
        };
        Pinned { patterns: patterns.into_iter().map(|pattern| whole(pattern.into())).collect() }
    }

    /// The first pattern, as it was written, that one of these names is like.
    pub fn matches<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<&str> {
        if self.patterns.is_empty() {
            return None;
        }
        let is_like = |pattern: &str, name: &str| {
            matches(pattern.as_bytes(), name.as_bytes())
                || matches(pattern.as_bytes(), without_version(name).as_bytes())
        };
        names.into_iter().find_map(|name| {
            let found = self.patterns.iter().find(|(_, pattern)| is_like(pattern, name));
            found.map(|(written, _)| written.as_str())
        })
    }
}

fn has_version(name: &str) -> bool {
    without_version(name).len() < name.len()
}

/// A name without its tag or digest. A colon before the last slash is a port's.
fn without_version(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// Whether a text is like a pattern, in a time that is the product of their lengths at worst.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and up to where it reaches.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, reached)) = star else { return false };
                star = Some((at, reached + 1));
                p = at + 1;
                t = reached + 1;
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_pinned_as_people_mean_it() {
        let is = |pattern: &str, name: &str| Pinned::new([pattern]).matches([name]).is_some();
        let pause = "registry.k8s.io/pause:3.10";
        for pattern in [
            "registry.k8s.io/pause:3.10",
            "registry.k8s.io/pause",
            "registry.k8s.io/*",
            "*/pause*",
            "*pause*",
            "registry.k8s.io/pause:3.*",
            "registry.k8s.io/paus?",
            "*",
        ] {
            assert!(is(pattern, pause), "{pattern}");
        }
        for pattern in ["pause", "registry.k8s.io/pause:3.1", "registry.k8s.io/paus", "k8s.io/pause", "", "?"]
        {
            assert!(!is(pattern, pause), "{pattern}");
        }
        assert!(is("busybox", "docker.io/library/busybox:1"));
        assert!(is("busybox:1", "docker.io/library/busybox:1"));
        assert!(!is("busybox:1", "docker.io/library/busybox:2"));
        assert!(is("registry/*/pause*", "registry/a/b/pause:1"));
        assert!(is("host:5000/a", "host:5000/a:1"));
        assert!(!is("host", "host:5000/a:1"));
        let digest = format!("docker.io/library/busybox@sha256:{}", "0".repeat(64));
        assert!(is("busybox", &digest) && is(&digest, &digest));
        assert_eq!(Pinned::new(["x", "busy*", "*box"]).matches(["docker.io/busybox:1"]), Some("*box"));
    }

    proptest! {
        #[test]
        fn stars_match_as_a_slow_and_simple_way_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn slow(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        slow(rest, text) || text.split_first().is_some_and(|(_, text)| slow(pattern, text))
                    }
                    (Some((&p, rest)), Some((&t, text))) => (p == b'?' || p == t) && slow(rest, text),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
