//! Policies as files: what is understood, what is refused and where, and which part of one decides.

use std::path::Path;
use std::time::SystemTime;

use model::reference::ImageReference;
use proptest::prelude::*;
use trust::{Place, Policy, Subject, Verdict, Wanted};

fn parse(text: &str) -> Result<Policy, String> {
    Policy::parse(Path::new("/etc/p.json"), text.as_bytes()).map_err(|error| error.to_string())
}

/// What decides about an image: accepted or not, and the rule.
fn decide(policy: &Policy, place: &Place) -> (bool, String) {
    let subject = Subject { place, digests: &[], unnamed_counts: false, now: SystemTime::now() };
    match policy.requirements(place).judge(&subject, &[]) {
        Verdict::Accepted { rule } => (true, rule.to_string()),
        Verdict::Rejected { rule, .. } => (false, rule.to_string()),
    }
}

const ACCEPT: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
const REJECT: &str = r#"[{"type":"reject"}]"#;

#[test]
fn the_narrowest_scope_decides_alone() {
    let policy = format!(
        "{{\"default\": {REJECT},\n \"transports\": {{\n\"docker\": {{\n\"\": {REJECT},\n\"*.example.com\": {ACCEPT},\n\"r.example.com\": {REJECT},\n\
         \"r.example.com/ok\": {ACCEPT},\n\"r.example.com/ok/not:1\": {REJECT}}},\n\"oci-archive\": {{\"/srv/ok\": {ACCEPT}}},\n\
         \"unknown-transport\": {{\"x\": {REJECT}}}}}}}"
    );
    let policy = parse(&policy).unwrap();
    let rows = [
        ("docker.io/library/a", false, "/etc/p.json:4: reject for the default of docker"),
        ("x.example.com/a", true, "/etc/p.json:5: insecureAcceptAnything for docker *.example.com"),
        ("y.x.example.com:80/a", true, "/etc/p.json:5: insecureAcceptAnything for docker *.example.com"),
        ("example.com/a", false, "/etc/p.json:4: reject for the default of docker"),
        ("r.example.com/a", false, "/etc/p.json:6: reject for docker r.example.com"),
        // A port makes another registry.
        ("r.example.com:80/a", true, "/etc/p.json:5: insecureAcceptAnything for docker *.example.com"),
        ("r.example.com/ok/a:1", true, "/etc/p.json:7: insecureAcceptAnything for docker r.example.com/ok"),
        ("r.example.com/okay", false, "/etc/p.json:6: reject for docker r.example.com"),
        ("r.example.com/ok/not:1", false, "/etc/p.json:8: reject for docker r.example.com/ok/not:1"),
        ("r.example.com/ok/not:2", true, "/etc/p.json:7: insecureAcceptAnything for docker r.example.com/ok"),
    ];
    for (name, accepted, rule) in rows {
        let place = Place::Registry(ImageReference::parse(name).unwrap());
        assert_eq!(decide(&policy, &place), (accepted, rule.to_owned()), "{name}");
    }
    let archive = |path: &str| decide(&policy, &Place::OciArchive(Some(path.into())));
    assert_eq!(
        archive("/srv/ok/a.tar"),
        (true, "/etc/p.json:9: insecureAcceptAnything for oci-archive /srv/ok".into())
    );
    assert_eq!(archive("/srv/okay/a.tar"), (false, "/etc/p.json:1: reject for the default".into()));
    assert_eq!(decide(&policy, &Place::DockerArchive).1, "/etc/p.json:1: reject for the default");
}

#[test]
fn only_signatures_that_matter_are_wanted() {
    let wanted = |requirements: &str| {
        let policy = parse(&format!("{{\"default\": {requirements}}}")).unwrap();
        policy.requirements(&Place::DockerArchive).wanted()
    };
    let gpg = r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#;
    let sigstore = r#"{"type":"sigstoreSigned","keyPath":"/k"}"#;
    let lookaside = Wanted { lookaside: true, attached: false };
    let both = Wanted { lookaside: true, attached: true };
    assert!(wanted(ACCEPT).is_nothing() && wanted(REJECT).is_nothing());
    assert_eq!(wanted(&format!("[{gpg}]")), lookaside);
    assert_eq!(wanted(&format!("[{{\"type\":\"insecureAcceptAnything\"}},{gpg}]")), lookaside);
    assert_eq!(wanted(&format!("[{gpg},{sigstore}]")), both);
    assert!(wanted(&format!("[{gpg},{{\"type\":\"reject\"}}]")).is_nothing());
    assert!(wanted(r#"[{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}]"#).is_nothing());
}

#[test]
fn mistakes_are_named_with_their_line() {
    let of = |requirement: &str| format!("{{\"default\":\n[\n{requirement}]}}");
    let scope = |transport: &str, scope: &str| {
        format!(
            "{{\"default\": {REJECT},\n\"transports\": {{\"{transport}\": {{\n\"{scope}\":\n{ACCEPT}}}}}}}"
        )
    };
    let rows: Vec<(String, u32, &str)> = vec![
        ("".into(), 1, "EOF"),
        ("[]".into(), 1, "an object is expected"),
        ("{}".into(), 1, "\"default\" is missing"),
        (format!("{{\"default\": {REJECT}, /* no */ \"x\": 1}}"), 1, "key must be a string"),
        (format!("{{\"default\": {REJECT},\n\"defaults\": {REJECT}}}"), 2, "\"defaults\" is not known"),
        (format!("{{\"default\": {REJECT},\n\"default\": {ACCEPT}}}"), 1, "\"default\" is there twice"),
        ("{\"default\":\n[]}".into(), 2, "the list of requirements is empty"),
        ("{\"default\":\n{}}".into(), 2, "a list is expected"),
        (of("{\"type\":\"accept\"}"), 3, "\"accept\" is no requirement"),
        (of("{\"type\":\"reject\",\n\"keyPath\":\"/x\"}"), 4, "\"keyPath\" is not known"),
        (of("{}"), 3, "\"type\" is missing"),
        (
            of("{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\"}"),
            3,
            "\"keyPath\", \"keyPaths\" and \"keyData\"",
        ),
        (of("{\"type\":\"signedBy\",\"keyPath\":\"/x\"}"), 3, "\"keyType\" is missing"),
        (of("{\"type\":\"signedBy\",\"keyType\":\"PGP\",\"keyPath\":\"/x\"}"), 3, "no keyType"),
        (of("{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\"keyPath\":\"x\"}"), 3, "absolute path"),
        (of("{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\"keyPaths\":[]}"), 3, "the list is empty"),
        (of("{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\"keyData\":\"?\"}"), 3, "base64"),
        (
            of("{\"type\":\"signedBy\",\"keyType\":\"GPGKeys\",\"keyPath\":\"/x\",\n\"keyData\":\"\"}"),
            4,
            "exclude each other",
        ),
        (of("{\"type\":\"sigstoreSigned\"}"), 3, "\"fulcio\" and \"pki\" is needed"),
        (of("{\"type\":\"sigstoreSigned\",\"keyPath\":\"/x\",\n\"fulcio\":{}}"), 4, "exclude each other"),
        (
            of(
                "{\"type\":\"sigstoreSigned\",\"fulcio\":{\"caPath\":\"/c\",\"oidcIssuer\":\"i\",\"subjectEmail\":\"e\"}}",
            ),
            3,
            "\"fulcio\" needs a \"rekorPublicKeyPath\"",
        ),
        (
            of(
                "{\"type\":\"sigstoreSigned\",\"rekorPublicKeyPath\":\"/r\",\"fulcio\":{\"caPath\":\"/c\",\"oidcIssuer\":\"\"}}",
            ),
            3,
            "it is empty",
        ),
        (
            of("{\"type\":\"sigstoreSigned\",\"pki\":{\"caRootsPath\":\"/c\"}}"),
            3,
            "\"subjectHostname\" is needed",
        ),
        (
            of(
                "{\"type\":\"sigstoreSigned\",\"rekorPublicKeyPath\":\"/r\",\"pki\":{\"caRootsPath\":\"/c\",\"subjectEmail\":\"e\"}}",
            ),
            3,
            "exclude each other",
        ),
        (
            of("{\"type\":\"sigstoreSigned\",\"keyPath\":\"/x\",\"signedIdentity\":\n{\"type\":\"any\"}}"),
            4,
            "no kind of identity",
        ),
        (scope("docker", "example*.com"), 4, "never matches"),
        (scope("docker", "*.example.com:80"), 4, "never matches"),
        (scope("docker", "*.example.com/a"), 4, "never matches"),
        (scope("docker-archive", "/a"), 4, "never match"),
        (scope("oci", "relative"), 4, "absolute path"),
        (scope("oci-archive", "/a/../b"), 4, "absolute path"),
        (scope("oci-archive", "/a/"), 4, "absolute path"),
    ];
    for (text, line, part) in rows {
        let error = parse(&text).unwrap_err();
        assert!(
            error.starts_with(&format!("/etc/p.json:{line}: ")) && error.contains(part),
            "{text}\n{error}"
        );
    }
}

#[test]
fn what_nobody_implements_is_not_met() {
    for (requirement, what) in [
        (r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#, "signedBaseLayer"),
        (r#"{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}"#, "keyType X509Certificates"),
    ] {
        let policy = parse(&format!("{{\"default\": [{requirement}]}}")).unwrap();
        let place = Place::DockerArchive;
        let subject = Subject { place: &place, digests: &[], unnamed_counts: true, now: SystemTime::now() };
        match policy.requirements(&place).judge(&subject, &[]) {
            Verdict::Rejected { why, .. } => assert_eq!(why.to_string(), format!("{what} is not supported")),
            Verdict::Accepted { rule } => panic!("{rule}"),
        }
    }
}

#[test]
fn a_file_that_is_absent_or_too_large_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.json");
    let error = Policy::read(&path).unwrap_err().to_string();
    assert!(error.contains("policy.json cannot be read: No such file"), "{error}");
    std::fs::write(&path, vec![b' '; (4 << 20) + 1]).unwrap();
    assert!(Policy::read(&path).unwrap_err().to_string().contains("larger than"));
}

proptest! {
    /// Nothing panics, and nothing but a whole policy is one.
    #[test]
    fn damaged_policies_are_read_without_harm(at in 0usize..400, byte: u8, cut in 0usize..400) {
        let whole = format!(
            "{{\"default\": {REJECT}, \"transports\": {{\"docker\": {{\"r.io\": [{{\"type\": \"sigstoreSigned\", \"keyData\": \"AAAA\", \"signedIdentity\": \
             {{\"type\": \"remapIdentity\", \"prefix\": \"a.io\", \"signedPrefix\": \"b.io\"}}}}, {{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPaths\": [\"/a\", \"/b\"]}}]}}}}}}"
        );
        prop_assert!(parse(&whole).is_ok());
        let mut bytes = whole.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        trust::fuzz::policy(&bytes);
        trust::fuzz::policy(&bytes[..cut.min(bytes.len())]);
        prop_assert!(cut >= whole.len() || Policy::parse(Path::new("p"), &whole.as_bytes()[..cut]).is_err());
    }

    #[test]
    fn strangers_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        trust::fuzz::signature(&bytes);
        trust::fuzz::policy(&bytes);
    }
}
