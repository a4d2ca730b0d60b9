//! Signatures by certificate (Fulcio's, or an authority of one's own) and log entries of Rekor, made on the spot: what counts, and what
//! is said of each thing that is not as it should be.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::reference::ImageReference;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType, SigningKey as _, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use trust::{Attachment, Evidence, Place, Policy, Signature, Subject, Verdict};

type Authority = CertifiedIssuer<'static, KeyPair>;

const ISSUER: &str = "https://issuer.example";
const EMAIL: &str = "me@example.org";
/// 2024-06-15, 12:00.
const SIGNED_AT: i64 = 1_718_452_800;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a signer's certificate says, to be changed by a row.
struct Leaf {
    email: &'static str,
    host: Option<&'static str>,
    issuers: Vec<CustomExtension>,
    usage: ExtendedKeyUsagePurpose,
    years: (i32, i32),
}

/// Fulcio's two ways to tell who established the identity: bare, and as ASN.1.
fn issuer_extension(asn1: bool, issuer: &str) -> CustomExtension {
    let id: &[u64] = if asn1 { &[1, 3, 6, 1, 4, 1, 57264, 1, 8] } else { &[1, 3, 6, 1, 4, 1, 57264, 1, 1] };
    let mut content = issuer.as_bytes().to_vec();
    if asn1 {
        content.splice(0..0, [0x0c, u8::try_from(issuer.len()).unwrap()]);
    }
    CustomExtension::from_oid_content(id, content)
}

impl Leaf {
    fn new() -> Leaf {
        Leaf {
            email: EMAIL,
            host: None,
            issuers: vec![issuer_extension(false, ISSUER), issuer_extension(true, ISSUER)],
            usage: ExtendedKeyUsagePurpose::CodeSigning,
            years: (2024, 2025),
        }
    }

    fn issue(&self, by: &Authority, key: &KeyPair) -> (String, Vec<u8>) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::Rfc822Name(self.email.try_into().unwrap())];
        params.subject_alt_names.extend(self.host.map(|host| SanType::DnsName(host.try_into().unwrap())));
        params.extended_key_usages = vec![self.usage.clone()];
        params.custom_extensions = self.issuers.clone();
        params.not_before = date_time_ymd(self.years.0, 1, 1);
        params.not_after = date_time_ymd(self.years.1, 1, 1);
        let certificate = params.signed_by(key, by).unwrap();
        (certificate.pem(), certificate.der().to_vec())
    }
}

fn image() -> Digest {
    Digest::sha256([9; 32])
}

fn payload() -> Vec<u8> {
    let critical = json!({
        "identity": { "docker-reference": "r.io/app" },
        "image": { "docker-manifest-digest": image().as_str() },
        "type": "cosign container image signature",
    });
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

/// The body of a log entry.
fn entry_body(key_pem: &str, signature: &[u8], payload: &[u8]) -> Value {
    json!({
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": { "hash": { "algorithm": "sha256", "value": hex(digest(&SHA256, payload).as_ref()) } },
            "signature": { "content": STANDARD.encode(signature), "publicKey": { "content": STANDARD.encode(key_pem) } },
        },
    })
}

/// The annotation with a log entry, which `log` promises.
fn promised(log: &KeyPair, body: &Value, at: i64) -> String {
    let body = STANDARD.encode(body.to_string());
    let signed = format!(r#"{{"body":"{body}","integratedTime":{at},"logID":"c0ffee","logIndex":7}}"#);
    let payload = json!({ "logIndex": 7, "body": body, "logID": "c0ffee", "integratedTime": at });
    json!({ "SignedEntryTimestamp": STANDARD.encode(log.sign(signed.as_bytes()).unwrap()), "Payload": payload }).to_string()
}

fn judge(requirement: &Value, annotations: &[(&str, String)], now: SystemTime) -> Result<(), String> {
    let policy = json!({ "default": [requirement] }).to_string();
    let policy = Policy::parse(Path::new("policy.json"), policy.as_bytes()).unwrap();
    let place = Place::Registry(ImageReference::parse("r.io/app:1").unwrap());
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let signature = Signature::Sigstore(Attachment { payload: payload(), annotations });
    let evidence = [Evidence { from: "x".to_owned(), signature }];
    let subject = Subject { place: &place, digests: &[image()], unnamed_counts: false, now };
    match policy.requirements(&place).judge(&subject, &evidence) {
        Verdict::Accepted { .. } => Ok(()),
        Verdict::Rejected { why, .. } => Err(why.to_string()),
    }
}

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const LOG: &str = "dev.sigstore.cosign/bundle";

fn fulcio(ca: &Authority, log: &KeyPair) -> Value {
    json!({
        "type": "sigstoreSigned",
        "fulcio": { "caData": STANDARD.encode(ca.pem()), "oidcIssuer": ISSUER, "subjectEmail": EMAIL },
        "rekorPublicKeyData": STANDARD.encode(log.public_key_pem()),
        "signedIdentity": { "type": "matchRepository" },
    })
}

#[test]
fn a_certificate_of_fulcio_counts_at_the_time_that_the_log_says() {
    let (ca, other_ca, namesake) = (authority("ca"), authority("other"), authority("ca"));
    let (log, other_log, signer) = (key(), key(), key());
    let signature = signer.sign(&payload()).unwrap();
    let encoded = STANDARD.encode(&signature);
    let policy = fulcio(&ca, &log);
    let now = SystemTime::now();
    let with = |leaf: &Leaf, by: &Authority, log: &KeyPair, at: i64| {
        let (pem, _) = leaf.issue(by, &signer);
        let entry = promised(log, &entry_body(&pem, &signature, &payload()), at);
        judge(&policy, &[(SIGNATURE, encoded.clone()), (CERTIFICATE, pem), (LOG, entry)], now)
    };
    with(&Leaf::new(), &ca, &log, SIGNED_AT).unwrap();
    for asn1 in [false, true] {
        with(&Leaf { issuers: vec![issuer_extension(asn1, ISSUER)], ..Leaf::new() }, &ca, &log, SIGNED_AT)
            .unwrap();
    }
    let contradiction = vec![issuer_extension(false, ISSUER), issuer_extension(true, "https://x")];
    let rows = [
        ("another log", with(&Leaf::new(), &ca, &other_log, SIGNED_AT), "none of the Rekor keys"),
        ("another authority", with(&Leaf::new(), &other_ca, &log, SIGNED_AT), "none of the authorities"),
        ("of the same name", with(&Leaf::new(), &namesake, &log, SIGNED_AT), "none of the authorities"),
        ("after its end", with(&Leaf::new(), &ca, &log, SIGNED_AT + 86_400 * 365), "not valid any more"),
        ("before its beginning", with(&Leaf::new(), &ca, &log, SIGNED_AT - 86_400 * 365), "not valid yet"),
        (
            "another e-mail address",
            with(&Leaf { email: "you@example.org", ..Leaf::new() }, &ca, &log, SIGNED_AT),
            "for you@example.org, not for me@example.org",
        ),
        (
            "another issuer",
            with(
                &Leaf { issuers: vec![issuer_extension(true, "https://x")], ..Leaf::new() },
                &ca,
                &log,
                SIGNED_AT,
            ),
            "established by \"https://x\"",
        ),
        (
            "two issuers",
            with(&Leaf { issuers: contradiction, ..Leaf::new() }, &ca, &log, SIGNED_AT),
            "malformed",
        ),
        ("no issuer", with(&Leaf { issuers: vec![], ..Leaf::new() }, &ca, &log, SIGNED_AT), "malformed"),
        (
            "for servers",
            with(&Leaf { usage: ExtendedKeyUsagePurpose::ServerAuth, ..Leaf::new() }, &ca, &log, SIGNED_AT),
            "not for signing code",
        ),
    ];
    for (what, verdict, expected) in rows {
        let why = verdict.expect_err(what);
        assert!(why.contains(expected), "{what}: {why}");
    }
    let (pem, _) = Leaf::new().issue(&ca, &signer);
    let entry = |body: &Value| promised(&log, body, SIGNED_AT);
    let good = entry(&entry_body(&pem, &signature, &payload()));
    let all = |signature: &str, pem: &str, entry: &str| {
        [(SIGNATURE, signature.to_owned()), (CERTIFICATE, pem.to_owned()), (LOG, entry.to_owned())]
    };
    judge(&policy, &all(&encoded, &pem, &good), now).unwrap();
    let (stranger, _) = Leaf::new().issue(&ca, &other_log);
    let forged = STANDARD.encode(other_log.sign(&payload()).unwrap());
    let moved = good.replace(
        &format!("\"integratedTime\":{SIGNED_AT}"),
        &format!("\"integratedTime\":{}", SIGNED_AT + 1),
    );
    let mut intoto = entry_body(&pem, &signature, &payload());
    intoto["kind"] = "intoto".into();
    let rows = [
        ("no entry", all(&encoded, &pem, &good)[..2].to_vec(), "it has no log entry"),
        ("no certificate", vec![(SIGNATURE, encoded.clone()), (LOG, good.clone())], "it has no certificate"),
        ("no signature", vec![(CERTIFICATE, pem.clone()), (LOG, good.clone())], "it lacks \"signature\""),
        ("a promise for another time", all(&encoded, &pem, &moved).to_vec(), "none of the Rekor keys"),
        (
            "another's certificate",
            all(&encoded, &stranger, &entry(&entry_body(&stranger, &signature, &payload()))).to_vec(),
            "none of the policy's keys made it",
        ),
        ("an entry of another key", all(&encoded, &stranger, &good).to_vec(), "the key differs"),
        ("an entry of another signature", all(&forged, &pem, &good).to_vec(), "the signature differs"),
        (
            "an entry of another payload",
            all(&encoded, &pem, &entry(&entry_body(&pem, &signature, b"x"))).to_vec(),
            "the payload differs",
        ),
        (
            "an entry of another kind",
            all(&encoded, &pem, &entry(&intoto)).to_vec(),
            "kind that is not supported",
        ),
    ];
    for (what, annotations, expected) in rows {
        let why = judge(&policy, &annotations, now).expect_err(what);
        assert!(why.contains(expected), "{what}: {why}");
    }
}

#[test]
fn an_authority_of_ones_own_vouches_now() {
    let (root, signer) = (authority("root"), key());
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "between");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    let between: Authority = CertifiedIssuer::signed_by(params, key(), &root).unwrap();
    let leaf = Leaf { host: Some("build.example.org"), ..Leaf::new() };
    let (pem, _) = leaf.issue(&between, &signer);
    let signature = STANDARD.encode(signer.sign(&payload()).unwrap());
    let policy = |pki: Value| {
        let mut pki = pki;
        pki["caRootsData"] = STANDARD.encode(root.pem()).into();
        json!({ "type": "sigstoreSigned", "pki": pki, "signedIdentity": { "type": "matchRepository" } })
    };
    let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    let with_chain =
        [(SIGNATURE, signature.clone()), (CERTIFICATE, pem.clone()), (CHAIN, between.pem() + &root.pem())];
    let alone = [(SIGNATURE, signature), (CERTIFICATE, pem)];
    let email = policy(json!({ "subjectEmail": EMAIL }));
    let host = policy(json!({ "subjectHostname": "build.example.org" }));
    let known =
        policy(json!({ "subjectEmail": EMAIL, "caIntermediatesData": STANDARD.encode(between.pem()) }));
    for policy in [&email, &host] {
        judge(policy, &with_chain, at(SIGNED_AT)).unwrap();
        assert!(judge(policy, &alone, at(SIGNED_AT)).unwrap_err().contains("none of the authorities"));
    }
    judge(&known, &alone, at(SIGNED_AT)).unwrap();
    let rows = [
        (
            "another host",
            judge(&policy(json!({ "subjectHostname": "x.org" })), &with_chain, at(SIGNED_AT)),
            "another host",
        ),
        (
            "another e-mail",
            judge(&policy(json!({ "subjectEmail": "x@y" })), &with_chain, at(SIGNED_AT)),
            "not for x@y",
        ),
        ("too late", judge(&email, &with_chain, at(SIGNED_AT + 86_400 * 365)), "not valid any more"),
    ];
    for (what, verdict, expected) in rows {
        let why = verdict.expect_err(what);
        assert!(why.contains(expected), "{what}: {why}");
    }
}

#[test]
fn a_key_with_a_log_needs_the_entry_too() {
    let (signer, log) = (key(), key());
    let signature = signer.sign(&payload()).unwrap();
    let pem = signer.public_key_pem();
    let policy = |keys: Vec<String>| {
        let keys: Vec<String> = keys.iter().map(|pem| STANDARD.encode(pem)).collect();
        json!({
            "type": "sigstoreSigned",
            "keyDatas": keys,
            "rekorPublicKeyDatas": [STANDARD.encode(key().public_key_pem()), STANDARD.encode(log.public_key_pem())],
            "signedIdentity": { "type": "matchRepository" },
        })
    };
    let now = SystemTime::now();
    let annotations = |entry: Option<String>| {
        let mut all = vec![(SIGNATURE, STANDARD.encode(&signature))];
        all.extend(entry.map(|entry| (LOG, entry)));
        all
    };
    let entry = promised(&log, &entry_body(&pem, &signature, &payload()), SIGNED_AT);
    let ours = policy(vec![key().public_key_pem(), pem]);
    judge(&ours, &annotations(Some(entry.clone())), now).unwrap();
    assert!(judge(&ours, &annotations(None), now).unwrap_err().contains("no log entry"));
    let cut = annotations(Some(entry[..entry.len() - 1].to_owned()));
    assert!(judge(&ours, &cut, now).unwrap_err().contains("malformed"));
    let theirs = policy(vec![key().public_key_pem()]);
    assert!(
        judge(&theirs, &annotations(Some(entry)), now).unwrap_err().contains("none of the policy's keys")
    );
}
