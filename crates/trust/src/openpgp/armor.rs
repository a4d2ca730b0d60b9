//! ASCII armor (RFC 9580, section 6): keys as text.

use base64::Engine as _;

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// The packets of all public key blocks of a text; `None` if it is no text with such blocks.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = std::str::from_utf8(bytes).ok()?;
    let mut packets = Vec::new();
    while let Some(begin) = rest.find(BEGIN) {
        let after = &rest[begin + BEGIN.len()..];
        let end = after.find(END)?;
        packets.extend(block(&after[..end])?);
        rest = &after[end + END.len()..];
    }
    (!packets.is_empty()).then_some(packets)
}

/// Header lines up to an empty one, then base64, then perhaps a checksum, which protects from nothing that matters here.
fn block(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines().map(str::trim).skip(1).skip_while(|line| line.contains(": ")).peekable();
    if lines.peek().is_some_and(|line| line.is_empty()) {
        lines.next();
    }
    let body: String = lines.take_while(|line| !line.starts_with('=')).collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}
