//! What a signature says of an image: container-signature(5), and cosign's variant of it.

use model::digest::Digest;

use crate::identity::Name;
use crate::json::{JsonError, Node};

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) digest: Digest,
    pub(crate) name: Name,
}

/// Who made it, which the payload has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Simple,
    Cosign,
}

impl Format {
    fn kind(self) -> &'static str {
        match self {
            Format::Simple => "atomic container signature",
            Format::Cosign => "cosign container image signature",
        }
    }
}

/// Reads a payload whose signature has been verified. What it does not understand in `critical` refuses it; `optional` may say anything.
pub(crate) fn read(format: Format, bytes: &[u8]) -> Result<Payload, JsonError> {
    let mut top = Node::parse(bytes)?.object()?;
    let critical = top.require("critical")?;
    let optional = top.require("optional")?;
    top.finish()?;
    // cosign writes `null` where there is nothing.
    if !(format == Format::Cosign && optional.is_null()) {
        let mut optional = optional.object()?;
        if let Some(creator) = optional.take("creator") {
            creator.string()?;
        }
        if let Some(timestamp) = optional.take("timestamp") {
            timestamp.integer()?;
        }
    }
    let mut critical = critical.object()?;
    let kind = critical.require("type")?;
    if kind.string()? != format.kind() {
        return Err(kind.error(format!("the type is not {:?}", format.kind())));
    }
    let mut image = critical.require("image")?.object()?;
    let mut identity = critical.require("identity")?.object()?;
    critical.finish()?;
    let digest = image.require("docker-manifest-digest")?;
    let digest = Digest::parse(&digest.string()?).map_err(|why| digest.error(why))?;
    image.finish()?;
    let name = identity.require("docker-reference")?;
    let name = Name::parse(&name.string()?).map_err(|why| name.error(why))?;
    identity.finish()?;
    Ok(Payload { digest, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn text(kind: &str, image: &str, identity: &str, optional: &str) -> String {
        format!(
            r#"{{"critical":{{"type":"{kind}","image":{{{image}}},"identity":{{{identity}}}}},"optional":{optional}}}"#
        )
    }

    #[test]
    fn only_what_is_understood_whole_is_taken() {
        let (simple, cosign) = (Format::Simple.kind(), Format::Cosign.kind());
        let image = format!(r#""docker-manifest-digest":"{DIGEST}""#);
        let identity = r#""docker-reference":"r.io/a:1""#;
        let good =
            read(Format::Simple, text(simple, &image, identity, r#"{"x":[1],"timestamp":5}"#).as_bytes())
                .unwrap();
        assert_eq!((good.digest.as_str(), good.name.to_string().as_str()), (DIGEST, "r.io/a:1"));
        assert!(read(Format::Cosign, text(cosign, &image, identity, "null").as_bytes()).is_ok());
        for bad in [
            text(cosign, &image, identity, "{}"),
            text(simple, &image, identity, "null"),
            text(simple, &image, identity, "[]"),
            text(simple, &image, identity, r#"{"timestamp":1.5}"#),
            text(simple, &image, identity, r#"{"creator":7}"#),
            text(simple, &format!("{image},\"x\":1"), identity, "{}"),
            text(simple, &format!("{image},{image}"), identity, "{}"),
            text(simple, &image, &format!("{identity},\"x\":1"), "{}"),
            text(simple, r#""docker-manifest-digest":"md5:00""#, identity, "{}"),
            text(simple, &image, r#""docker-reference":"A B""#, "{}"),
            text(simple, &image, r#""docker-reference":1"#, "{}"),
            text(simple, "", identity, "{}"),
            text(simple, &image, "", "{}"),
            "{}".to_owned(),
            "[]".to_owned(),
        ] {
            assert!(read(Format::Simple, bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
