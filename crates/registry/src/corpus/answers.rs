//! Answers that stall, lie and lead elsewhere, to pulls of an image that is good.

use super::{Case, Expected, file, of};
use crate::make::{Compression, ImageBuilder, Layer};
use crate::tar::Entry;
use crate::{Fault, Rule};

pub(super) fn cases() -> Vec<Case> {
    let mut all = manifests();
    all.extend(blobs());
    all.extend(redirects());
    all
}

fn refused(name: &str, part: &str, fault: Fault, code: &'static str, says: &str) -> Case {
    let says = vec![says.to_owned()];
    spoilt(name, part, fault, Expected::Refused { code, says })
}

fn spoilt(name: &str, part: &str, fault: Fault, expected: Expected) -> Case {
    let image = of(&[file("a")]);
    Case {
        name: name.to_owned(),
        image,
        rules: vec![Rule::always(part, fault)],
        expected,
        needs_low_limits: false,
    }
}

fn manifests() -> Vec<Case> {
    let at = "/manifests/";
    let giant = |size: usize| {
        let headers = vec![("X-Giant".into(), "x".repeat(size))];
        Fault::Answer { status: 200, headers, body: Vec::new() }
    };
    let many = Fault::Answer {
        status: 200,
        headers: (0..5000).map(|n| (format!("X-{n}"), "x".into())).collect(),
        body: Vec::new(),
    };
    vec![
        refused("no such manifest", at, Fault::status(404), "NotFound", "manifest"),
        refused("no permission", at, Fault::status(403), "PermissionDenied", "manifest"),
        refused("an error without a name", at, Fault::status(418), "Unavailable", "418"),
        refused("errors of the server", at, Fault::status(500), "Unavailable", "500"),
        refused("an answer without content", at, Fault::status(204), "FailedPrecondition", "manifest"),
        refused("too many requests", at, Fault::busy(429, "3600"), "ResourceExhausted", "3600"),
        refused(
            "no requests for a thousand years",
            at,
            Fault::busy(429, "99999999999999999999"),
            "ResourceExhausted",
            "rate",
        ),
        refused("a login page", at, Fault::page("<html>log in</html>"), "FailedPrecondition", "text/html"),
        refused("a header of a megabyte", at, giant(1 << 20), "Unavailable", ""),
        refused("five thousand headers", at, many, "Unavailable", ""),
        refused("a manifest without end", at, Fault::Endless, "FailedPrecondition", "larger than"),
        refused("a connection that closes", at, Fault::HangUp, "Unavailable", ""),
        refused("a manifest that stops", at, Fault::Truncate(20), "Unavailable", "20 bytes"),
        // The tag's own manifest has no digest to be checked against; that the registry claims another one counts for nothing.
        spoilt(
            "a digest in a header that is another's",
            at,
            Fault::header("Docker-Content-Digest", "sha256:0"),
            Expected::Harmless,
        ),
        spoilt(
            "a wrong media type in a header",
            at,
            Fault::header("Content-Type", "text/html"),
            Expected::Harmless,
        ),
    ]
}

fn blobs() -> Vec<Case> {
    let mut all = vec![
        refused(
            "a blob with a bit turned over",
            "/blobs/",
            Fault::Corrupt,
            "DataLoss",
            "not what was asked for",
        ),
        refused(
            "a login page for a blob",
            "/blobs/",
            Fault::page("<html>"),
            "DataLoss",
            "not what was asked for",
        ),
        refused(
            "a configuration without end",
            "/blobs/",
            Fault::Endless,
            "FailedPrecondition",
            "larger than",
        ),
    ];
    // A layer large enough to break in its middle, and what is done to the requests for its rest.
    let layer = Layer::new(&[Entry::file("a", 0o644, vec![7; 300_000])], Compression::Plain);
    let image = ImageBuilder::new().layer(layer.clone()).build();
    let target = layer.digest.clone();
    let broken = |name: &str, then: Fault, expected: Expected| Case {
        name: name.to_owned(),
        image: image.clone(),
        rules: vec![Rule::first(1, &target, Fault::Truncate(100_000)), Rule::always(&target, then)],
        expected,
        needs_low_limits: false,
    };
    let whole = Expected::Unpacked(vec![super::Seen {
        path: b"a".to_vec(),
        what: super::What::File(300_000, vec![7; 10]),
    }]);
    let lost = |says: &str| Expected::Refused {
        code: "DataLoss",
        says: vec![layer.digest.clone(), says.to_owned()],
    };
    all.extend([
        broken("a range that is ignored", Fault::IgnoreRange, whole.clone()),
        broken(
            "another range than was asked for",
            Fault::header("Content-Range", "bytes 200000-301055/301056"),
            whole.clone(),
        ),
        broken("a range that is none", Fault::header("Content-Range", "octets"), whole),
        broken("a blob that changes meanwhile", Fault::Body(vec![8; 400_000].into()), lost("")),
        broken("a length that is too short", Fault::header("Content-Length", "10"), Expected::Harmless),
        broken(
            "a blob that cannot be gone on with",
            Fault::status(416),
            Expected::Refused { code: "Unavailable", says: vec!["416".into()] },
        ),
    ]);
    all
}

fn redirects() -> Vec<Case> {
    let secret = "?signature=s3cret";
    [
        ("a link-local address", "http://169.254.169.254/latest/meta-data", "link-local"),
        ("a link-local address as one number", "http://2852039166/latest/meta-data", "link-local"),
        ("a link-local address of version 6", "http://[fe80::1]/x", "link-local"),
        (
            "a link-local address of version 4 in one of version 6",
            "http://[::ffff:169.254.169.254]/x",
            "link-local",
        ),
        ("another protocol", "ftp://127.0.0.1/x", "not HTTP"),
        ("a file", "file:///etc/shadow", "no whole URL"),
        ("credentials of its own", "http://user:password@127.0.0.1/x", "credentials of its own"),
        ("itself, for ever", "/v2/hostile/blobs/loop", "too many"),
        ("nowhere", "", "no whole URL"),
    ]
    .into_iter()
    .map(|(what, to, says)| {
        let to = if to.is_empty() { String::new() } else { format!("{to}{secret}") };
        refused(&format!("a redirect to {what}"), "/blobs/", Fault::redirect(&to), "FailedPrecondition", says)
    })
    .collect()
}
