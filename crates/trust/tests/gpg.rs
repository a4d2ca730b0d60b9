//! Signatures by the real `gpg`, of every kind of key and in every state: which of them a policy accepts, and what is said of the others.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::digest::Digest;
use model::reference::ImageReference;
use serde_json::json;
use trust::{Evidence, Place, Policy, Signature, Subject, Verdict};

/// A home of gpg's own, gone with the test.
struct Gpg(tempfile::TempDir);

impl Gpg {
    fn new() -> Option<Gpg> {
        if Command::new("gpg").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED: gpg is not installed");
            return None;
        }
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp").unwrap();
        Some(Gpg(home))
    }

    fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>, input: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut child = Command::new("gpg")
            .env("GNUPGHOME", self.0.path())
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }

    /// Makes a key and returns its fingerprint.
    fn key(&self, user: &str, algorithm: &str, usage: &str, expires: &str, more: &[&str]) -> String {
        self.run(more.iter().copied().chain(["--quick-gen-key", user, algorithm, usage, expires]), b"");
        let listed = self.run(["--with-colons", "--list-keys", user], b"");
        let listed = String::from_utf8(listed).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    fn export(&self, user: &str) -> Vec<u8> {
        self.run(["--export", user], b"")
    }

    fn sign(&self, user: &str, more: &[&str], content: &[u8]) -> Vec<u8> {
        self.run(more.iter().copied().chain(["--local-user", user, "--sign"]), content)
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        // The agent that gpg starts for this home.
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]).status();
    }
}

fn digest() -> Digest {
    Digest::parse(&format!("sha256:{}", "5a".repeat(32))).unwrap()
}

fn payload(name: &str, digest: &Digest) -> Vec<u8> {
    let critical = json!({
        "type": "atomic container signature",
        "image": { "docker-manifest-digest": digest.as_str() },
        "identity": { "docker-reference": name },
    });
    json!({ "critical": critical, "optional": { "creator": "test" } }).to_string().into_bytes()
}

/// Whether a policy with this keyring accepts `message` as the signature of `r.io/app:1`, or what it says.
fn verdict(keyring: &[u8], message: &[u8]) -> Result<(), String> {
    verdict_at(keyring, message, SystemTime::now())
}

fn verdict_at(keyring: &[u8], message: &[u8], now: SystemTime) -> Result<(), String> {
    let policy = json!({
        "default": [{ "type": "signedBy", "keyType": "GPGKeys", "keyData": STANDARD.encode(keyring) }],
    });
    let policy = Policy::parse(Path::new("policy.json"), policy.to_string().as_bytes()).unwrap();
    let place = Place::Registry(ImageReference::parse("r.io/app:1").unwrap());
    let digests = [digest()];
    let subject = Subject { place: &place, digests: &digests, unnamed_counts: false, now };
    let signature = Signature::from_lookaside(message.to_vec());
    let evidence = [Evidence { from: "signature-1".to_owned(), signature }];
    match policy.requirements(&place).judge(&subject, &evidence) {
        Verdict::Accepted { .. } => Ok(()),
        Verdict::Rejected { why, .. } => Err(why.to_string()),
    }
}

fn good() -> Vec<u8> {
    payload("r.io/app:1", &digest())
}

/// What this file's own gpg made once of `good()`, for machines without one.
#[test]
fn signatures_that_gpg_made_count_without_it() {
    let fixture = |name: &str| std::fs::read(Path::new("tests/fixtures").join(name)).unwrap();
    let kinds = ["rsa2048", "ed25519", "nistp256", "subkey"];
    for kind in kinds {
        let message = fixture(&format!("{kind}.signature"));
        for other in kinds {
            let verdict = verdict(&fixture(&format!("{other}.key")), &message);
            match kind == other {
                true => verdict.unwrap_or_else(|why| panic!("{kind}: {why}")),
                false => assert!(verdict.unwrap_err().contains("not among those of the policy")),
            }
        }
        for cut in 0..message.len() {
            assert!(
                verdict(&fixture(&format!("{kind}.key")), &message[..cut]).is_err(),
                "{kind} cut at {cut}"
            );
        }
    }
}

#[test]
fn each_kind_of_key_signs() {
    let Some(gpg) = Gpg::new() else { return };
    for algorithm in ["rsa3072", "ed25519", "nistp256", "nistp384"] {
        gpg.key(algorithm, algorithm, "sign", "never", &[]);
        let keyring = gpg.export(algorithm);
        for more in
            [&[][..], &["--compress-algo", "none"], &["--compress-algo", "zlib"], &["--compress-algo", "zip"]]
        {
            let message = gpg.sign(algorithm, more, &good());
            verdict(&keyring, &message).unwrap_or_else(|why| panic!("{algorithm} {more:?}: {why}"));
            // Whatever byte of what is signed is changed, it does not count. (Compressed, it is not there as such.)
            let start = message.windows(good().len()).position(|window| window == good());
            assert_eq!(start.is_some(), more.last() == Some(&"none"));
            for at in start.into_iter().flat_map(|start| start..start + good().len()) {
                let mut changed = message.clone();
                changed[at] ^= 1;
                assert!(verdict(&keyring, &changed).is_err(), "{algorithm} changed at {at}");
            }
            for cut in (0..message.len()).step_by(11) {
                assert!(verdict(&keyring, &message[..cut]).is_err(), "{algorithm} cut at {cut}");
            }
        }
        let armored = gpg.run(["--armor", "--export", algorithm], b"");
        verdict(&armored, &gpg.sign(algorithm, &[], &good())).unwrap();
    }
    // A keyring of all of them, and SHA-512.
    let all = gpg.run(["--export"], b"");
    verdict(&all, &gpg.sign("rsa3072", &["--digest-algo", "SHA512"], &good())).unwrap();
    verdict(&all, &gpg.sign("ed25519", &["--digest-algo", "SHA512"], &good())).unwrap();
}

#[test]
fn a_subkey_signs_for_its_owner() {
    let Some(gpg) = Gpg::new() else { return };
    let owner = gpg.key("owner", "rsa2048", "cert", "never", &[]);
    let without = gpg.export("owner");
    gpg.run(["--quick-add-key", &owner, "ed25519", "sign", "never"], b"");
    gpg.run(["--quick-add-key", &owner, "cv25519", "encr", "never"], b"");
    let keyring = gpg.export("owner");
    let message = gpg.sign("owner", &[], &good());
    verdict(&keyring, &message).unwrap();
    assert!(verdict(&without, &message).unwrap_err().contains("not among those of the policy"));
    // Revoked by its owner.
    let mut edit = Command::new("gpg");
    edit.env("GNUPGHOME", gpg.0.path())
        .args(["--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", "", "--command-fd", "0"])
        .args(["--edit-key", &owner])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut edit = edit.spawn().unwrap();
    use std::io::Write as _;
    edit.stdin.take().unwrap().write_all(b"key 1\nrevkey\ny\n0\n\ny\nsave\n").unwrap();
    assert!(edit.wait().unwrap().success());
    let why = verdict(&gpg.export("owner"), &message).unwrap_err();
    assert!(why.contains("was revoked"), "{why}");
}

#[test]
fn keys_and_signatures_that_are_over_do_not_count() {
    let Some(gpg) = Gpg::new() else { return };
    let fingerprint = gpg.key("key", "ed25519", "sign", "2y", &["--faked-system-time", "20240101T000000!"]);
    let keyring = gpg.export("key");
    let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200 + days * 86_400);
    let then = ["--faked-system-time", "20240201T000000!"];
    let message = gpg.sign("key", &then, &good());
    verdict_at(&keyring, &message, at(60)).unwrap();
    assert!(verdict_at(&keyring, &message, at(731)).unwrap_err().contains("has expired"));
    assert!(verdict_at(&keyring, &message, at(20)).unwrap_err().contains("in the future"));
    let short = gpg.sign("key", &[&then[..], &["--default-sig-expire", "10d"]].concat(), &good());
    verdict_at(&keyring, &short, at(35)).unwrap();
    assert!(verdict_at(&keyring, &short, at(60)).unwrap_err().contains("it expired"));
    // Prolonged: what was signed last counts.
    let longer = [&then[..], &["--quick-set-expire", &fingerprint, "10y"]].concat();
    gpg.run(longer, b"");
    verdict_at(&gpg.export("key"), &message, at(731)).unwrap();
    // Revoked, with the certificate that gpg made beside the key.
    let revocation = gpg.0.path().join(format!("openpgp-revocs.d/{fingerprint}.rev"));
    let revocation = std::fs::read_to_string(revocation).unwrap().replace(":-----BEGIN", "-----BEGIN");
    gpg.run(["--import"], revocation.as_bytes());
    assert!(verdict_at(&gpg.export("key"), &message, at(60)).unwrap_err().contains("was revoked"));
}

#[test]
fn what_is_not_one_good_signature_of_this_image_is_refused() {
    let Some(gpg) = Gpg::new() else { return };
    gpg.key("key", "ed25519", "sign", "never", &[]);
    gpg.key("other", "ed25519", "sign", "never", &[]);
    gpg.key("small", "dsa2048", "sign", "never", &[]);
    let keyring = gpg.export("key");
    let other = Digest::parse(&format!("sha256:{}", "00".repeat(32))).unwrap();
    let sign = |more: &[&str]| gpg.sign("key", more, &good());
    let detached = gpg.run(["--local-user", "key", "--detach-sign"], &good());
    let store = gpg.run(["--store"], &good());
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("another key", gpg.sign("other", &[], &good()), "not among those of the policy"),
        ("another image", gpg.sign("key", &[], &payload("r.io/app:1", &other)), "it is of another image"),
        ("another name", gpg.sign("key", &[], &payload("r.io/evil:1", &digest())), "it is for r.io/evil:1"),
        ("another tag", gpg.sign("key", &[], &payload("r.io/app:2", &digest())), "it is for r.io/app:2"),
        ("no payload", gpg.sign("key", &[], b"hello"), "malformed"),
        ("two members", gpg.sign("key", &[], &[good(), good()].concat()), "malformed"),
        ("two signatures", sign(&["--local-user", "other"]), "not one signature around one text"),
        ("two messages", [sign(&[]), sign(&[])].concat(), "something follows it"),
        ("not signed", store, "it has no signature"),
        ("detached", detached, "detached"),
        ("bzip2", sign(&["--compress-algo", "bzip2"]), "compression (number 3)"),
        ("armored", sign(&["--armor"]), "neither an OpenPGP message"),
        ("empty", Vec::new(), "neither an OpenPGP message"),
    ];
    for (what, message, expected) in rows {
        let why = verdict(&keyring, &message).expect_err(what);
        assert!(why.contains(expected), "{what}: {why}");
    }
    let why = verdict(&gpg.export("small"), &gpg.sign("small", &[], &good())).unwrap_err();
    assert!(why.contains("no valid signature of its owner") || why.contains("DSA"), "{why}");
    let bomb = gpg.sign("key", &["--compress-level", "9"], &vec![b' '; 8 << 20]);
    assert!(verdict(&keyring, &bomb).unwrap_err().contains("too large"));
    let secret = gpg.run(["--export-secret-keys", "key"], b"");
    assert!(verdict(&secret, &sign(&[])).unwrap_err().contains("secret key"));
    assert!(verdict(b"", &sign(&[])).unwrap_err().contains("no OpenPGP public key"));
    let kept: PathBuf = gpg.0.path().join("pubring.kbx");
    assert!(
        verdict(&std::fs::read(kept).unwrap(), &sign(&[])).unwrap_err().contains("not an OpenPGP keyring")
    );
}
