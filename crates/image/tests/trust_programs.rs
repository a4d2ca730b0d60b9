//! The same policies and signatures as the real programs: what gpg and cosign signed is admitted, and every verdict is skopeo's.

mod common;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Place, image_of, skip_unless_root};
use image::PullCause;
use registry::make::Image;
use registry::tar::Entry;
use serde_json::{Value, json};

/// A node under a policy, and a folder for keys, stores and programs' homes.
struct Lab {
    place: Place,
    files: tempfile::TempDir,
}

impl Lab {
    async fn new(accept_unnamed: bool) -> Lab {
        let files = tempfile::Builder::new().prefix("lab").tempdir_in("/tmp").unwrap();
        let path = |name: &str| files.path().join(name);
        for folder in ["home", "gnupg", "registries.d", "store"] {
            std::fs::create_dir(path(folder)).unwrap();
            std::fs::set_permissions(path(folder), std::os::unix::fs::PermissionsExt::from_mode(0o700))
                .unwrap();
        }
        let place = Place::with(|config| {
            config.trust.policy = Some(path("policy.json"));
            config.trust.registries_dir = path("registries.d");
            config.trust.accept_unnamed = accept_unnamed;
        })
        .await;
        let store = format!("file://{}", path("store").display());
        let yaml = format!("default-docker:\n  lookaside: {store}\n  use-sigstore-attachments: true\n");
        std::fs::write(path("registries.d/all.yaml"), yaml).unwrap();
        Lab { place, files }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Runs a program with a home of its own and nothing of the environment but where programs are.
    async fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Output {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("GNUPGHOME", self.path("gnupg"))
            .env("COSIGN_PASSWORD", "")
            .env("COSIGN_EXPERIMENTAL", "1")
            .current_dir(self.files.path());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn must<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Vec<u8> {
        let output = self.run(program, args).await;
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn policy(&self, default: &Value, docker: &Value) {
        let policy = json!({ "default": default, "transports": { "docker": docker } });
        std::fs::write(self.path("policy.json"), policy.to_string()).unwrap();
    }

    /// Whether skopeo copies it, and if not, why.
    async fn skopeo(&self, reference: &str) -> Result<(), String> {
        let args = [
            "--policy".to_owned(),
            self.path("policy.json").display().to_string(),
            "--registries.d".to_owned(),
            self.path("registries.d").display().to_string(),
            "copy".to_owned(),
            "--src-tls-verify=false".to_owned(),
            format!("docker://{}", self.place.name(reference)),
            format!("dir:{}", self.path("copied").display()),
        ];
        let output = self.run("skopeo", args).await;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Whether it is pulled here, and if not, why.
    async fn ours(&self, reference: &str) -> Result<(), String> {
        let pulled = self.place.pull(reference).await;
        pulled.map(drop).map_err(|error| {
            assert!(matches!(*error.cause, PullCause::Untrusted(_)), "{error}");
            error.to_string()
        })
    }

    async fn gpg_key(&self, user: &str) -> String {
        let gpg = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""];
        self.must("gpg", gpg.into_iter().chain(["--quick-gen-key", user, "ed25519", "sign", "never"])).await;
        let exported = self.must("gpg", ["--export", user]).await;
        std::fs::write(self.path(&format!("{user}.gpg")), exported).unwrap();
        let listed =
            String::from_utf8(self.must("gpg", ["--with-colons", "--list-keys", user]).await).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// Signs what is in the registry by simple signing.
    async fn sign(&self, key: &str, reference: &str, identity: &str) {
        let name = format!("docker://{}", self.place.name(reference));
        let args = [
            "--insecure-policy",
            "--registries.d",
            self.path("registries.d").to_str().unwrap(),
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--sign-by",
            key,
            "--sign-identity",
            &self.place.name(identity),
            &name,
            &name,
        ]
        .map(str::to_owned);
        self.must("skopeo", args).await;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.path("gnupg")).args(["--kill", "all"]).status();
    }
}

fn lacks(programs: &[&str]) -> bool {
    let is_there = |program: &&&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Path::new(program).is_file()
            || std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    match programs.iter().find(|program| !is_there(program)) {
        Some(absent) => println!("SKIPPED: {absent} is not installed"),
        None => return skip_unless_root(),
    }
    true
}

fn small(name: &str) -> Image {
    image_of(&[&[Entry::file(name, 0o644, name.as_bytes())]])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_about_scopes_and_gpg_is_skopeos() {
    if lacks(&["skopeo", "gpg"]) {
        return;
    }
    let lab = Lab::new(false).await;
    let (key, other) = (lab.gpg_key("key").await, lab.gpg_key("other").await);
    let images = ["a", "b", "c", "d", "e"].map(small);
    for (name, image) in ["ns/app", "ns/other", "ns/both", "ns/none", "ns/moved"].into_iter().zip(&images) {
        lab.place.registry.add(name, "1", image);
        lab.place.registry.add(name, "2", image);
    }
    lab.sign(&key, "ns/app:1", "ns/app:1").await;
    lab.sign(&other, "ns/other:1", "ns/other:1").await;
    lab.sign(&key, "ns/both:1", "up/stream:1").await;
    lab.sign(&other, "ns/both:1", "ns/both:1").await;
    lab.sign(&key, "ns/moved:1", "ns/moved:1").await;
    // The tag is moved to an image that somebody signed under another name.
    lab.place.registry.add("ns/moved", "1", &images[0]);
    let host = lab.place.listening.host();
    let file = |user: &str| lab.path(&format!("{user}.gpg")).display().to_string();
    let by = |user: &str, identity: Value| {
        let mut rule = json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": file(user) });
        if !identity.is_null() {
            rule["signedIdentity"] = identity;
        }
        rule
    };
    let accept = || json!([{ "type": "insecureAcceptAnything" }]);
    let reject = || json!([{ "type": "reject" }]);
    let kind = |kind: &str| json!({ "type": kind });
    let data = STANDARD.encode(std::fs::read(lab.path("key.gpg")).unwrap());
    let up = |tag: &str| json!({ "type": "exactReference", "dockerReference": lab.place.name(&format!("up/stream:{tag}")) });
    let up_repository = json!({ "type": "exactRepository", "dockerRepository": lab.place.name("up/stream") });
    let remap = json!({ "type": "remapIdentity", "prefix": format!("{host}/ns/both"), "signedPrefix": format!("{host}/up/stream") });
    let rows: Vec<(Value, Value)> = vec![
        (reject(), json!({})),
        (accept(), json!({})),
        (reject(), json!({ "": accept() })),
        (accept(), json!({ "": reject() })),
        (reject(), json!({ &host: accept() })),
        // A port makes another registry, but a wildcard leaves it out.
        (reject(), json!({ "127.0.0.1": accept() })),
        (reject(), json!({ "*.0.0.1": accept() })),
        (accept(), json!({ "*.1": reject(), format!("{host}/ns"): accept() })),
        (reject(), json!({ format!("{host}/n"): accept() })),
        (reject(), json!({ format!("{host}/ns/app"): accept(), format!("{host}/ns/app:2"): reject() })),
        (reject(), json!({ format!("{host}/ns/app@{}", images[0].digest): accept() })),
        (reject(), json!({ "": [by("key", Value::Null)] })),
        (reject(), json!({ "": [by("other", Value::Null)] })),
        (reject(), json!({ "": [by("key", kind("matchExact"))] })),
        (reject(), json!({ "": [by("key", kind("matchRepository"))] })),
        (reject(), json!({ "": [by("key", kind("matchRepoDigestOrExact"))] })),
        (reject(), json!({ "": [by("key", up("1"))] })),
        (reject(), json!({ "": [by("key", up("2"))] })),
        (reject(), json!({ "": [by("key", up_repository.clone())] })),
        (reject(), json!({ "": [by("key", remap)] })),
        // Both must have signed.
        (reject(), json!({ "": [by("key", up_repository), by("other", Value::Null)] })),
        (reject(), json!({ "": [by("key", Value::Null), by("other", Value::Null)] })),
        (reject(), json!({ "": [by("key", Value::Null), kind("insecureAcceptAnything")] })),
        (reject(), json!({ "": [by("key", Value::Null), kind("reject")] })),
        (reject(), json!({ "": [{ "type": "signedBy", "keyType": "GPGKeys", "keyData": data }] })),
        (reject(), json!({ "": [{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": "/absent" }] })),
        (reject(), json!({ "": [{ "type": "signedBy", "keyType": "GPGKeys" }] })),
        (reject(), json!({ "": [{ "type": "signedBy", "keyPath": "/absent" }] })),
        (reject(), json!({ "": [] })),
        (reject(), json!({ "": [kind("accept")] })),
    ];
    let by_digest = format!("ns/app@{}", images[0].digest);
    let mut references = vec!["ns/app:1", "ns/app:2", "ns/other:1", "ns/both:1", "ns/none:1", "ns/moved:1"];
    references.push(&by_digest);
    let (mut accepted, mut refused) = (0, 0);
    for (number, (default, docker)) in rows.iter().enumerate() {
        lab.policy(default, docker);
        // Signatures are what makes a difference between images; scopes are seen with two.
        let signed = docker.to_string().contains("signedBy") && !docker.to_string().contains("absent");
        for reference in if signed { &references[..] } else { &references[..2] } {
            // That nobody signed something need not be seen with every rule: each is a run of skopeo.
            if *reference == "ns/none:1" && number % 4 != 0 {
                continue;
            }
            let (theirs, ours) = tokio::join!(lab.skopeo(reference), lab.ours(reference));
            assert_eq!(
                theirs.is_ok(),
                ours.is_ok(),
                "row {number} {docker} {reference}\n{theirs:?}\n{ours:?}"
            );
            if ours.is_ok() { accepted += 1 } else { refused += 1 }
        }
    }
    assert!(accepted > 20 && refused > 40, "{accepted} {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cosign_signed_is_admitted_and_nothing_else() {
    let cosign = std::env::var("PINTLE_COSIGN").unwrap_or_else(|_| "cosign".to_owned());
    if lacks(&[&cosign]) {
        return;
    }
    let ways: [(&[&str], bool); 3] =
        [(&[], false), (&["--registry-referrers-mode=oci-1-1"], false), (&["--new-bundle-format"], true)];
    for (more, is_unnamed) in ways {
        let lab = Lab::new(is_unnamed).await;
        for name in ["key", "other"] {
            lab.must(&cosign, ["generate-key-pair", "--output-key-prefix", name]).await;
        }
        let (image, another) = (small("a"), small("b"));
        lab.place.registry.add("ns/app", "1", &image);
        lab.place.registry.add("ns/copy", "1", &image);
        lab.place.registry.add("ns/app", "2", &another);
        let require = |key: &str, identity: &str| {
            let rule = json!({
                "type": "sigstoreSigned",
                "keyPath": lab.path(&format!("{key}.pub")).display().to_string(),
                "signedIdentity": { "type": identity },
            });
            lab.policy(&json!([{ "type": "reject" }]), &json!({ "": [rule] }));
        };
        require("key", "matchRepository");
        assert!(lab.ours("ns/app:1").await.unwrap_err().contains("no signature was found"));
        let name = lab.place.name(&format!("ns/app@{}", image.digest));
        let args = ["sign", "--key", "key.key", "--tlog-upload=false", "--allow-http-registry", "--yes"];
        lab.must(&cosign, args.iter().copied().chain(more.iter().copied()).chain([name.as_str()])).await;
        lab.ours("ns/app:1").await.unwrap_or_else(|why| panic!("{more:?}: {why}"));
        lab.ours(&format!("ns/app@{}", image.digest)).await.unwrap();
        // Not signed, signed elsewhere, signed by another key, and a tag that was moved.
        assert!(lab.ours("ns/app:2").await.unwrap_err().contains("no signature was found"));
        assert!(lab.ours("ns/copy:1").await.unwrap_err().contains("no signature was found"));
        require("other", "matchRepository");
        assert!(lab.ours("ns/app:1").await.unwrap_err().contains("none of the policy's keys"));
        require("key", "matchExact");
        let exact = lab.ours("ns/app:1").await;
        assert_eq!(exact.is_ok(), is_unnamed, "{exact:?}");
        require("key", "matchRepository");
        lab.place.registry.add("ns/app", "1", &another);
        assert!(lab.ours("ns/app:1").await.unwrap_err().contains("no signature was found"));
        // skopeo knows the oldest of the three ways.
        if more.is_empty() && !lacks(&["skopeo"]) {
            lab.place.registry.add("ns/app", "1", &image);
            for (key, identity) in
                [("key", "matchRepository"), ("key", "matchExact"), ("other", "matchRepository")]
            {
                require(key, identity);
                for reference in ["ns/app:1", "ns/app:2", "ns/copy:1"] {
                    let (theirs, ours) = (lab.skopeo(reference).await, lab.ours(reference).await);
                    if theirs.as_ref().is_err_and(|why| why.contains("sigstore disabled")) {
                        println!("SKIPPED: of this way only: this skopeo was built without sigstore");
                        continue;
                    }
                    assert_eq!(
                        theirs.is_ok(),
                        ours.is_ok(),
                        "{key} {identity} {reference}\n{theirs:?}\n{ours:?}"
                    );
                }
            }
        }
    }
}
