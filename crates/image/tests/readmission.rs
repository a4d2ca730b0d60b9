//! Containers of images that are here already, under a policy that is another one than when they were pulled.

mod common;

use std::sync::Arc;

use common::signing::*;
use common::skip_unless_root;
use image::{Image, PullError};
use serde_json::json;

impl Guarded {
    fn here(&self) -> Arc<Image> {
        self.place.images.list().pop().unwrap()
    }

    async fn readmit(&self, asked: &str) -> Result<(), PullError> {
        self.place.images.readmit(&self.here(), asked).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pulled_under_another_policy_is_looked_at_again() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::new().await;
    let (place, key) = (&guarded.place, key());
    let image = small("a");
    place.registry.add("app", "1", &image);
    let name = place.name("app:1");
    let everything = json!([{ "type": "insecureAcceptAnything" }]);
    guarded.allow(&everything);
    place.pull("app:1").await.unwrap();
    guarded.readmit(&name).await.unwrap();
    guarded.allow(&json!([{ "type": "reject" }]));
    for asked in [name.as_str(), "", guarded.here().id.as_str()] {
        let text = untrusted(&guarded.readmit(asked).await.unwrap_err());
        assert!(text.contains("reject for the default of docker is not met"), "{text}");
    }
    // Signatures are looked for in the registry, and nothing else of the image is fetched.
    guarded.require(&key);
    place.registry.clear_log();
    let text = untrusted(&guarded.readmit(&name).await.unwrap_err());
    assert!(text.contains("no signature was found"), "{text}");
    let signature = signature(&key, &payload(&place.name("app"), &image.digest), Some(&image));
    place.registry.add("app", &sig_tag(&image), &signature);
    guarded.readmit(&name).await.unwrap();
    assert_eq!(place.registry.count(&image.layers[0].digest), 0);
    // Once is enough, also for the next daemon, and by whatever name with the same requirement.
    place.registry.clear_log();
    guarded.readmit(&name).await.unwrap();
    guarded.readmit(guarded.here().id.as_str()).await.unwrap();
    assert!(place.registry.log().is_empty(), "{:?}", place.registry.log());
    // Another key is another requirement, and so is a registry that does not answer no verdict.
    guarded.require(&common::signing::key());
    let text = untrusted(&guarded.readmit(&name).await.unwrap_err());
    assert!(text.contains("none of the policy's keys made it"), "{text}");
    place.registry.set_rules(vec![registry::Rule::always("/v2/", registry::Fault::status(503))]);
    let error = guarded.readmit(&name).await.unwrap_err();
    assert!(matches!(*error.cause, image::PullCause::Registry(_)), "{error}");
    // A pull records it too.
    place.registry.set_rules(vec![]);
    guarded.require(&key);
    place.pull("app:1").await.unwrap();
    place.registry.clear_log();
    guarded.readmit(&name).await.unwrap();
    assert!(place.registry.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_was_given_here_admits_nothing() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::new().await;
    let place = &guarded.place;
    let trusted = place.name("trusted");
    let policy = json!({
        "default": [{ "type": "insecureAcceptAnything" }],
        "transports": { "docker": { trusted.clone(): signed_by(&key(), json!({ "type": "matchRepository" })) } },
    });
    std::fs::write(&guarded.policy, policy.to_string()).unwrap();
    place.registry.add("anything", "1", &small("a"));
    let id = place.pull("anything:1").await.unwrap();
    let name = format!("{trusted}:1");
    place.images.tag(id.as_str(), &name).await.unwrap();
    guarded.readmit(&place.name("anything:1")).await.unwrap();
    untrusted(&guarded.readmit(&name).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_an_archive_stays_admitted_without_a_registry() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::new().await;
    let (place, key) = (&guarded.place, key());
    let policy = |archives: &str| {
        let signed = signed_by(&key, json!({ "type": "matchRepository" }));
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": { "docker": { "": signed }, "oci-archive": { "": [{ "type": archives }] } },
        });
        std::fs::write(&guarded.policy, policy.to_string()).unwrap();
    };
    policy("insecureAcceptAnything");
    let image = small("a");
    let request = image::LoadRequest { name: Some("r.invalid/app:1".into()), ..Default::default() };
    let archive = archive(&image, true, false);
    place.images.load(request, std::io::Cursor::new(archive)).await.unwrap();
    guarded.readmit("r.invalid/app:1").await.unwrap();
    policy("reject");
    guarded.readmit("r.invalid/app:1").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_refused_where_digests_are_wanted_now() {
    if skip_unless_root() {
        return;
    }
    let guarded = Guarded::with(|config, _| config.trust.policy = None).await;
    let place = &guarded.place;
    let image = small("a");
    place.registry.add("app", "1", &image);
    place.pull("app:1").await.unwrap();
    guarded.readmit(&place.name("app:1")).await.unwrap();
    let strict = |config: &mut image::ImageConfig| {
        config.trust.policy = None;
        config.trust.pins.scopes = vec!["*".into()];
    };
    let strict = Guarded::with(|config, _| strict(config)).await;
    let place = &strict.place;
    place.registry.add("app", "1", &image);
    let digest = format!("app@{}", image.digest);
    place.pull(&digest).await.unwrap();
    strict.readmit(&place.name(&digest)).await.unwrap();
    strict.readmit("").await.unwrap();
    place.images.tag(image.id.as_str(), &place.name("app:1")).await.unwrap();
    untrusted(&strict.readmit(&place.name("app:1")).await.unwrap_err());
}
