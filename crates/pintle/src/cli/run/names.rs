//! Names for what was given none, and random ids.

use rustix::rand::{GetRandomFlags, getrandom};

const QUALITIES: &[&str] = &[
    "able", "amber", "bold", "brisk", "calm", "clear", "deep", "even", "fair", "fast", "firm", "fresh",
    "gentle", "grand", "hardy", "keen", "light", "lively", "mild", "neat", "nimble", "plain", "proud",
    "quick", "quiet", "ready", "sharp", "smooth", "steady", "stout", "sure", "swift",
];

const THINGS: &[&str] = &[
    "anchor", "beacon", "bowline", "bowsprit", "buoy", "capstan", "cleat", "compass", "cutter", "dinghy",
    "fender", "galley", "gudgeon", "halyard", "hawser", "helm", "jetty", "keel", "ketch", "lantern",
    "mainsail", "mast", "mooring", "oar", "pilot", "rudder", "sextant", "sloop", "spar", "tiller", "wharf",
    "yawl",
];

/// A name such as `steady-halyard` that is not among `taken`.
pub(crate) fn name<'a>(taken: impl Iterator<Item = &'a str> + Clone) -> String {
    for _ in 0..16 {
        let [a, b] = random();
        let name = format!("{}-{}", pick(QUALITIES, a), pick(THINGS, b));
        if taken.clone().all(|taken| taken != name) {
            return name;
        }
    }
    let [a, b, c, d] = random();
    format!("{}-{}-{:02x}{:02x}", pick(QUALITIES, a), pick(THINGS, b), c, d)
}

/// A random UUID (RFC 9562, version 4), which is what Kubernetes uses for the uid of a pod.
pub(crate) fn uid() -> String {
    let mut bytes: [u8; 16] = random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn pick(words: &[&'static str], byte: u8) -> &'static str {
    words[usize::from(byte) % words.len()]
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if !matches!(getrandom(&mut bytes, GetRandomFlags::empty()), Ok(filled) if filled == N) {
        // Only an old kernel in early boot has none; names and uids need to differ, not to be secret.
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos());
        let seed = nanos ^ u128::from(std::process::id()) << 64;
        bytes.iter_mut().zip(seed.to_le_bytes().iter().cycle()).for_each(|(byte, seed)| *byte = *seed);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_have_the_form_of_a_uuid_and_differ() {
        let (a, b) = (uid(), uid());
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert_eq!(a.as_bytes()[14], b'4');
    }

    #[test]
    fn a_taken_name_is_not_given_again() {
        let all: Vec<String> =
            QUALITIES.iter().flat_map(|q| THINGS.iter().map(move |t| format!("{q}-{t}"))).collect();
        let name = name(all.iter().map(String::as_str));
        assert!(!all.contains(&name), "{name}");
    }
}
