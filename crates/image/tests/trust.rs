//! Pulls under a policy: which signatures, wherever they are, admit an image, and what is said of those that do not.

mod common;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::signing::*;
use common::{Place, skip_unless_root};
use image::{PullCause, RegistryError};
use rcgen::SigningKey as _;
use registry::make;
use registry::{Fault, Rule};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_admits_what_it_signed_wherever_the_signature_is() {
    if skip_unless_root() {
        return;
    }
    let key = key();
    let ways: [(&str, bool); 3] = [("tag", true), ("referrer", true), ("referrer", false)];
    for (way, has_api) in ways {
        let guarded = Guarded::new().await;
        guarded.require(&key);
        let Guarded { place, .. } = &guarded;
        place.registry.set_referrers_api(has_api);
        let image = small("a");
        place.registry.add("app", "1", &image);
        let text = guarded.refused("app:1").await;
        assert!(text.contains("no signature was found") && text.contains("policy.json:"), "{text}");
        let signature = signature(&key, &payload(&place.name("app"), &image.digest), Some(&image));
        match way {
            "tag" => place.registry.add("app", &sig_tag(&image), &signature),
            _ => place.registry.add_referrer("app", &image.digest, &signature),
        }
        place.pull("app:1").await.unwrap_or_else(|error| panic!("{way} {has_api}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_did_not_sign_for_this_image_is_refused_before_anything_of_it_is_fetched() {
    if skip_unless_root() {
        return;
    }
    let (key, other) = (key(), key());
    let guarded = Guarded::new().await;
    guarded.require(&key);
    let Guarded { place, .. } = &guarded;
    let (image, another) = (small("a"), small("b"));
    let good = payload(&place.name("app"), &image.digest);
    let tampered = {
        let signature = STANDARD.encode(key.sign(&payload(&place.name("app"), &another.digest)).unwrap());
        let annotations = json!({ "dev.cosignproject.cosign/signature": signature });
        make::artifact(COSIGN_ARTIFACT, None, &[(COSIGN, &good, annotations)])
    };
    let bare = make::artifact(COSIGN_ARTIFACT, None, &[(COSIGN, &good, Value::Null)]);
    let rows = [
        ("wrong key", signature(&other, &good, None), "none of the policy's keys made it"),
        ("tampered", tampered, "none of the policy's keys made it"),
        ("no signature in it", bare, "it lacks \"signature\""),
        (
            "other image",
            signature(&key, &payload(&place.name("app"), &another.digest), None),
            "it is of another image",
        ),
        (
            "other name",
            signature(&key, &payload(&place.name("evil"), &image.digest), None),
            "which matchRepository does not accept",
        ),
        ("not what is signed", signature(&key, b"{}", None), "malformed"),
        ("no payload", make::artifact(COSIGN_ARTIFACT, None, &[]), "no signature was found"),
    ];
    for (what, signature, why) in rows {
        place.registry.add("app", "1", &image);
        place.registry.add("app", &sig_tag(&image), &signature);
        let text = guarded.refused("app:1").await;
        assert!(text.contains(why), "{what}: {text}");
    }
    for digest in [&image.layers[0].digest, &image.id] {
        assert_eq!(place.registry.count(digest), 0, "{digest}");
    }

    // A tag that is moved after it was signed.
    place.registry.add("app", &sig_tag(&image), &signature(&key, &good, None));
    place.pull("app:1").await.unwrap();
    place.registry.add("app", "1", &another);
    assert!(guarded.refused("app:1").await.contains("no signature was found"));
    place.pull(&format!("app@{}", image.digest)).await.unwrap();
    // cosign names no tag, so that exact names are not met by it.
    guarded.allow(&signed_by(&key, json!({ "type": "matchExact" })));
    place.registry.add("app", "1", &image);
    assert!(guarded.refused("app:1").await.contains("which matchExact does not accept"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_count_where_the_digest_is_enough() {
    if skip_unless_root() {
        return;
    }
    let key = key();
    for accept_unnamed in [false, true] {
        let guarded = Guarded::with(|config, _| config.trust.accept_unnamed = accept_unnamed).await;
        guarded.require(&key);
        let Guarded { place, .. } = &guarded;
        let image = small("a");
        place.registry.add("app", "1", &image);
        let provenance = bundle(&key, &image, "https://slsa.dev/provenance/v1");
        place.registry.add_referrer("app", &image.digest, &provenance);
        let text = guarded.refused("app:1").await;
        assert!(text.contains("statement of another kind"), "{text}");
        place.registry.add_referrer(
            "app",
            &image.digest,
            &bundle(&key, &image, "https://sigstore.dev/cosign/sign/v1"),
        );
        if accept_unnamed {
            place.pull("app:1").await.unwrap();
        } else {
            let text = guarded.refused("app:1").await;
            assert!(
                text.contains("names no repository") && text.contains("accept_unnamed_signatures"),
                "{text}"
            );
        }
        // It is for this image only.
        let other = small("b");
        place.registry.add("app", "2", &other);
        place.registry.add_referrer(
            "app",
            &other.digest,
            &bundle(&key, &image, "https://sigstore.dev/cosign/sign/v1"),
        );
        assert!(place.pull("app:2").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_an_index_signs_its_images() {
    if skip_unless_root() {
        return;
    }
    let key = key();
    let guarded = Guarded::new().await;
    guarded.require(&key);
    let Guarded { place, .. } = &guarded;
    let ours = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        other => panic!("{other}"),
    };
    let inner = small("a");
    let index = make::index(&[(ours, inner.clone())]);
    place.registry.add("app", "1", &index);
    for signed in [&index, &inner] {
        let text = guarded.refused("app:1").await;
        assert!(text.contains("no signature was found"), "{text}");
        let artifact = signature(&key, &payload(&place.name("app"), &signed.digest), None);
        place.registry.add("app", &sig_tag(signed), &artifact);
        place.pull("app:1").await.unwrap();
        // Gone again.
        place.registry.add("app", &sig_tag(signed), &make::artifact(COSIGN_ARTIFACT, None, &[]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_applies_to_every_pull_also_of_what_is_here() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::new().await;
    let Guarded { place, policy, .. } = &guarded;
    place.registry.add("app", "1", &small("a"));
    // Without the file that is configured, nothing is admitted.
    assert!(guarded.refused("app:1").await.contains("cannot be read"));
    guarded.allow(&json!([{ "type": "insecureAcceptAnything" }]));
    place.pull("app:1").await.unwrap();
    guarded.allow(&json!([{ "type": "reject" }]));
    let text = guarded.refused("app:1").await;
    assert!(text.contains(": reject for the default of docker is not met"), "{text}");
    std::fs::write(policy, "{\n \"default\": [{\"type\": \"insecureAcceptAnythin\"}]\n}").unwrap();
    let text = guarded.refused("app:1").await;
    assert!(text.contains("policy.json:2: ") && text.contains("nothing is admitted"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_beside_the_registry_is_read() {
    if skip_unless_root() {
        return;
    }
    let key = key();
    for over_http in [false, true] {
        let guarded = Guarded::new().await;
        guarded.require(&key);
        let Guarded { place, files, .. } = &guarded;
        let image = small("a");
        place.registry.add("ns/app", "1", &image);
        let stored = |payload: &[u8]| {
            let annotations =
                json!({ "dev.cosignproject.cosign/signature": STANDARD.encode(key.sign(payload).unwrap()) });
            let blob = json!({ "mimeType": COSIGN, "payload": STANDARD.encode(payload), "annotations": annotations });
            format!("\0sigstore-json\n{blob}")
        };
        let (first, second) = (
            stored(&payload("else.where/x", &image.digest)),
            stored(&payload(&place.name("ns/app"), &image.digest)),
        );
        let folder = format!("ns/app@{}", image.digest.replace(':', "="));
        let url = match over_http {
            true => format!("http://{}/lookaside", place.listening.host()),
            false => format!("file://{}", files.path().join("store").display()),
        };
        let registries = files.path().join("registries.d");
        std::fs::create_dir(&registries).unwrap();
        let yaml = format!("docker:\n  {}:\n    lookaside: {url}\n", place.listening.host());
        std::fs::write(registries.join("ours.yaml"), yaml).unwrap();
        assert!(guarded.refused("ns/app:1").await.contains("no signature was found"));
        let stores = files.path().join("store").join(&folder);
        std::fs::create_dir_all(&stores).unwrap();
        for (number, blob) in [(1, first), (2, second)] {
            if over_http {
                let target = format!("/lookaside/{folder}/signature-{number}");
                let rule = Rule::always(&target, Fault::page(&blob));
                let mut rules = vec![rule];
                if number == 2 {
                    let first = std::fs::read_to_string(stores.join("signature-1")).unwrap();
                    rules
                        .push(Rule::always(&format!("/lookaside/{folder}/signature-1"), Fault::page(&first)));
                }
                place.registry.set_rules(rules);
            }
            std::fs::write(stores.join(format!("signature-{number}")), blob).unwrap();
            match number {
                1 => {
                    let text = guarded.refused("ns/app:1").await;
                    assert!(text.contains("signature-1: it is for else.where/x"), "{text}");
                }
                _ => drop(place.pull("ns/app:1").await.unwrap()),
            }
        }
        // What lies there is bounded.
        std::fs::write(stores.join("signature-1"), vec![0x90; (1 << 20) + 1]).unwrap();
        std::fs::remove_file(stores.join("signature-2")).unwrap();
        if !over_http {
            assert!(guarded.refused("ns/app:1").await.contains("larger than"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_fails_at_signatures_is_no_verdict() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::new().await;
    guarded.require(&key());
    let Guarded { place, .. } = &guarded;
    let image = small("a");
    place.registry.add("app", "1", &image);
    place.registry.set_rules(vec![Rule::always(".sig", Fault::status(503))]);
    let error = place.pull("app:1").await.unwrap_err();
    assert!(
        matches!(*error.cause, PullCause::Registry(RegistryError::Status { status: 503, .. })),
        "{error}"
    );
    // What a registry has not, it says in many ways.
    for status in [400, 401, 403, 404, 405] {
        place.registry.set_rules(vec![Rule::always(".sig", Fault::status(status))]);
        let error = place.pull("app:1").await.unwrap_err();
        assert!(
            matches!(*error.cause, PullCause::Untrusted(_))
                || matches!(*error.cause, PullCause::Registry(RegistryError::Unauthorized { .. })),
            "{status}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_signatures_is_bounded() {
    if skip_unless_root() {
        return;
    }
    let (key, other) = (key(), key());
    let guarded = Guarded::new().await;
    guarded.require(&key);
    let Guarded { place, .. } = &guarded;
    let image = small("a");
    place.registry.add("app", "1", &image);
    let payloads: Vec<Vec<u8>> =
        (0..300).map(|n| payload(&place.name(&format!("app{n}")), &image.digest)).collect();
    let blobs: Vec<(&str, &[u8], Value)> = payloads
        .iter()
        .map(|payload| {
            let signature = STANDARD.encode(other.sign(payload).unwrap());
            (COSIGN, payload.as_slice(), json!({ "dev.cosignproject.cosign/signature": signature }))
        })
        .collect();
    place.registry.add("app", &sig_tag(&image), &make::artifact(COSIGN_ARTIFACT, None, &blobs));
    let text = guarded.refused("app:1").await;
    assert!(text.contains("and 56 more") && text.len() < 8000, "{}: {text}", text.len());
    assert!(place.registry.count("/blobs/") <= 64);
    // One that is too large, and one whose bytes are others.
    let large = vec![b' '; (1 << 20) + 1];
    place.registry.add(
        "app",
        &sig_tag(&image),
        &make::artifact(COSIGN_ARTIFACT, None, &[(COSIGN, &large, Value::Null)]),
    );
    let error = place.pull("app:1").await.unwrap_err();
    assert!(error.to_string().contains("larger than"), "{error}");
    let good = payload(&place.name("app"), &image.digest);
    let signed = signature(&key, &good, None);
    place.registry.add("app", &sig_tag(&image), &signed);
    place.registry.set_rules(vec![Rule::always(&make::sha256(&good), Fault::page("{}"))]);
    let error = place.pull("app:1").await.unwrap_err();
    assert!(error.to_string().contains("has digest"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn verifiers_and_pins_decide_too() {
    if skip_unless_root() {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    let program = files.path().join("verifiers/list");
    std::fs::create_dir(files.path().join("verifiers")).unwrap();
    let write = |script: &str| {
        // A new file each time: one that runs cannot be written.
        let new = files.path().join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&new, &program).unwrap();
    };
    let place = Arc::new(
        Place::with(|config| {
            config.trust.verifiers = Some(trust::Verifiers {
                folder: files.path().join("verifiers"),
                timeout: Duration::from_secs(5),
            });
            config.trust.pins.scopes = vec!["127.0.0.1".to_owned(), "*".to_owned()];
        })
        .await,
    );
    let image = small("a");
    place.registry.add("app", "1", &image);
    write(&format!("[ \"$4\" = {} ] || {{ echo \"$4 is not on the list\"; exit 1; }}", image.digest));
    let text = untrusted(&place.pull("app:1").await.unwrap_err());
    assert!(text.contains("image.require_digest \"*\" wants images by digest"), "{text}");
    assert_eq!(place.registry.count("/v2/"), 0, "the registry need not be asked");
    place.pull(&format!("app@{}", image.digest)).await.unwrap();
    let other = small("b");
    place.registry.add("app", "2", &other);
    let text = untrusted(&place.pull(&format!("app@{}", other.digest)).await.unwrap_err());
    assert!(
        text.contains("verifiers/list rejected the image") && text.contains("is not on the list"),
        "{text}"
    );
    write("sleep 60");
    let text = untrusted(&place.pull(&format!("app@{}", other.digest)).await.unwrap_err());
    assert!(text.contains("took more than 5 s"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_are_admitted_by_their_transport() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::new().await;
    let images = &guarded.place.images;
    let accept = json!([{ "type": "insecureAcceptAnything" }]);
    let image = small("a");
    let forms = [("oci-archive", true, false), ("oci-archive", true, true), ("docker-archive", false, true)];
    for (transport, has_layout, has_docker) in forms {
        let load = || {
            let request = image::LoadRequest { name: Some("a:1".to_owned()), ..Default::default() };
            images.load(request, std::io::Cursor::new(archive(&image, has_layout, has_docker)))
        };
        let signed = signed_by(&key(), json!({ "type": "exactRepository", "dockerRepository": "r.io/a" }));
        for (requirements, why) in
            [(json!([{ "type": "reject" }]), "reject for the default of"), (signed, "no signature was found")]
        {
            let policy = json!({ "default": accept, "transports": { transport: { "": requirements } } });
            std::fs::write(&guarded.policy, policy.to_string()).unwrap();
            let error = load().await.unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(transport), "{error}");
            assert!(images.list().is_empty());
        }
        let policy =
            json!({ "default": [{ "type": "reject" }], "transports": { transport: { "": accept } } });
        std::fs::write(&guarded.policy, policy.to_string()).unwrap();
        load().await.unwrap();
        images.remove(&image.id).await.unwrap();
    }
}
