//! Manifests, indexes and configurations that lie, contradict themselves, or are something else.

use serde_json::{Value, json};

use super::{Case, Expected, case, file, of};
use crate::make::{
    Compression, INDEX, Image, ImageBuilder, Layer, MANIFEST, artifact, descriptor, index, sha256,
};

fn refused(name: &str, image: Image, code: &'static str, says: &str) -> Case {
    // The manifest that the tag leads to is what is wrong, unless it is said otherwise.
    let says = vec![image.digest.clone(), says.to_owned()];
    case(name, image, Expected::Refused { code, says })
}

/// What is wrong is something else: `says` names it.
fn blamed(name: &str, image: Image, code: &'static str, says: &[&str]) -> Case {
    case(name, image, Expected::Refused { code, says: says.iter().map(|&text| text.to_owned()).collect() })
}

fn small() -> Image {
    of(&[file("a")])
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = kinds();
    all.extend(digests_and_sizes());
    all.extend(configurations());
    all.extend(indexes());
    all.extend(artifacts());
    all
}

/// What a manifest says it is.
fn kinds() -> Vec<Case> {
    let edited = |change: fn(&mut Value)| small().edited(change);
    let served = |kind: &str, body: &str| small().with_manifest(kind, body.as_bytes());
    let text = edited(|_| ())
        .manifests
        .last()
        .map(|(_, m)| String::from_utf8_lossy(&m.body).into_owned())
        .unwrap_or_default();
    let twice = text.replacen("\"layers\":", "\"layers\":[],\"layers\":", 1);
    let nested = format!("{{\"schemaVersion\":2,\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let d = descriptor("", &sha256(b""), 0);
    let many: Vec<Value> = vec![d.clone(); 10_000];
    vec![
        refused(
            "a manifest that is an index as well",
            edited(|m| m["manifests"] = json!([])),
            "DataLoss",
            "both",
        ),
        refused(
            "a manifest that says it is an index",
            edited(|m| m["mediaType"] = INDEX.into()),
            "DataLoss",
            "contents",
        ),
        refused(
            "an index that says it is a manifest",
            served(
                MANIFEST,
                &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "manifests": [] }).to_string(),
            ),
            "DataLoss",
            "contents",
        ),
        refused(
            "a manifest of an unknown type",
            edited(|m| m["mediaType"] = "application/x".into()),
            "FailedPrecondition",
            "application/x",
        ),
        refused(
            "a manifest with a type without end",
            edited(|m| m["mediaType"] = "x".repeat(1 << 20).into()),
            "FailedPrecondition",
            "media type",
        ),
        refused(
            "schema 1",
            served(
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                &json!({ "schemaVersion": 1, "name": "a", "fsLayers": [] }).to_string(),
            ),
            "FailedPrecondition",
            "schema 1",
        ),
        refused("schema 3", edited(|m| m["schemaVersion"] = 3.into()), "DataLoss", "schemaVersion"),
        refused(
            "a page for people",
            served("text/html", "<html>log in</html>"),
            "FailedPrecondition",
            "text/html",
        ),
        refused(
            "a page under a manifest's type",
            served(MANIFEST, "<html>log in</html>"),
            "DataLoss",
            "JSON",
        ),
        refused("an array", served(MANIFEST, "[2,\"\",{}]"), "DataLoss", "JSON object"),
        refused("nothing", served(MANIFEST, ""), "DataLoss", "JSON"),
        refused("an empty object", served(MANIFEST, "{}"), "DataLoss", "schemaVersion"),
        refused("a key twice", served(MANIFEST, &twice), "DataLoss", "duplicate"),
        refused(
            "a manifest and then another",
            served(MANIFEST, &format!("{text}{text}")),
            "DataLoss",
            "trailing",
        ),
        refused("a manifest cut in the middle", served(MANIFEST, &text[..text.len() / 2]), "DataLoss", "EOF"),
        refused("arrays in arrays without end", served(MANIFEST, &nested), "DataLoss", ""),
        refused(
            "ten thousand layers",
            small().edited(move |m| m["layers"] = many.into()),
            "FailedPrecondition",
            "500 layers",
        ),
        refused("layers that are no list", edited(|m| m["layers"] = "x".into()), "DataLoss", "sequence"),
        case(
            "five megabytes",
            served(MANIFEST, &" ".repeat(5 << 20)),
            Expected::Refused { code: "FailedPrecondition", says: vec!["larger than".into()] },
        ),
    ]
}

/// Digests that are none, and sizes that cannot be.
fn digests_and_sizes() -> Vec<Case> {
    let mut all = Vec::new();
    for (what, digest) in [
        ("of another algorithm", format!("md5:{}", "0".repeat(32))),
        ("of a made-up algorithm", format!("sha256+b64:{}", "0".repeat(64))),
        ("that is too short", "sha256:0123".to_owned()),
        ("in capitals", format!("sha256:{}", "A".repeat(64))),
        ("that climbs", format!("sha256:../../{}", "0".repeat(58))),
        ("without an algorithm", "0".repeat(64)),
        ("of nothing", String::new()),
    ] {
        let other = digest.clone();
        let config = small().edited(|m| m["config"]["digest"] = digest.into());
        let layer = small().edited(|m| m["layers"][0]["digest"] = other.into());
        all.push(refused(&format!("a configuration's digest {what}"), config, "DataLoss", ""));
        all.push(refused(&format!("a layer's digest {what}"), layer, "DataLoss", ""));
    }
    for size in [json!(-1), json!(1.5), json!("1"), json!(1e30), json!(null), json!(u64::MAX)] {
        let image = small().edited(|m| m["layers"][0]["size"] = size.clone());
        // A negative one is blamed on the layer itself.
        let says = if size == -1 { small().layers[0].digest.clone() } else { image.digest.clone() };
        all.push(blamed(&format!("a layer of {size} bytes"), image, "DataLoss", &[&says]));
    }
    let other = sha256(b"something else");
    let mut lying = small().edited(|m| m["config"]["digest"] = other.clone().into());
    let config = small().blobs.swap_remove(0).1;
    lying.blobs.push((other.clone(), config));
    all.push(blamed(
        "a configuration that has another digest",
        lying,
        "DataLoss",
        &[&other, "not what was asked for"],
    ));
    let id = small().id;
    all.push(blamed(
        "a configuration of another size",
        small().edited(|m| m["config"]["size"] = 7.into()),
        "DataLoss",
        &[&id, "7"],
    ));
    let absent = small().edited(|m| m["layers"][0]["digest"] = sha256(b"absent").into());
    all.push(blamed("a layer that is not there", absent, "NotFound", &[&sha256(b"absent")]));
    let foreign = small().edited(|m| {
        m["layers"][0]["digest"] = sha256(b"foreign").into();
        m["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
        m["layers"][0]["urls"] = json!(["http://169.254.169.254/layer", "file:///etc/shadow"]);
    });
    all.push(blamed("a layer of foreign URLs", foreign, "NotFound", &[&sha256(b"foreign")]));
    for kind in ["application/vnd.oci.image.layer.v1.tar+encrypted", "application/x", "text/html"] {
        let image = small().edited(|m| m["layers"][0]["mediaType"] = kind.into());
        let digest = image.layers[0].digest.clone();
        all.push(blamed(&format!("a layer of type {kind}"), image, "FailedPrecondition", &[&digest, kind]));
    }
    all
}

fn configurations() -> Vec<Case> {
    let image = |config: &str| small().with_config(config.as_bytes());
    let layer = small().layers[0].diff_id.clone();
    let with = |diff_ids: Value| json!({ "rootfs": { "type": "layers", "diff_ids": diff_ids } }).to_string();
    let refused = |name: &str, config: &str, says: &str| {
        let image = image(config);
        let id = image.id.clone();
        blamed(name, image, "DataLoss", &[&id, says])
    };
    let other =
        ImageBuilder::new().layer(Layer::new(&[file("a")], Compression::Gzip)).architecture("s390x").build();
    let unknown = small().edited(|m| m["config"]["mediaType"] = "application/x".into());
    let id = unknown.id.clone();
    vec![
        refused("a configuration that is an array", "[]", "JSON object"),
        refused("a configuration that is nothing", "", "JSON"),
        refused("a configuration in HTML", "<html>", "JSON"),
        refused("a configuration without layers", "{}", "0 layers"),
        refused("fewer digests than layers", &with(json!([])), "0 layers"),
        refused("more digests than layers", &with(json!([layer, layer])), "2 layers"),
        refused("a layer's digest that is none", &with(json!(["sha256:../../../etc"])), ""),
        refused(
            "a user that is a number",
            &json!({ "config": { "User": 0 }, "rootfs": { "diff_ids": [layer] } }).to_string(),
            "",
        ),
        refused("a configuration without end", &"[".repeat(60_000), "JSON"),
        super::low({
            let image = image(&format!("{{\"x\":\"{}\"}}", "x".repeat(100_000)));
            let id = image.id.clone();
            blamed(
                "a configuration larger than one may be",
                image,
                "FailedPrecondition",
                &[&id, "larger than"],
            )
        }),
        blamed("another processor", other, "FailedPrecondition", &["linux/s390x"]),
        blamed("a configuration of an unknown type", unknown, "FailedPrecondition", &[&id, "application/x"]),
    ]
}

fn indexes() -> Vec<Case> {
    let nested = |depth: usize| (0..depth).fold(small(), |image, _| index(&[(here(), image)]));
    let entry = |change: &dyn Fn(&mut Value)| {
        index(&[(here(), small())]).edited(|index| change(&mut index["manifests"][0]))
    };
    // It would have to have its own digest in it: so it is served under the digest that it claims.
    let claimed = sha256(b"itself");
    let body =
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(INDEX, &claimed, 1)] })
            .to_string();
    let mut cycle = small().with_manifest(INDEX, body.as_bytes());
    cycle.manifests.push((claimed.clone(), crate::make::Manifest::new(INDEX, body.as_bytes())));
    let many: Vec<Value> = vec![descriptor(MANIFEST, &small().digest, 1); 10_001];
    let platforms: Vec<Value> = (0..2000)
        .map(|n| {
            let mut entry = descriptor(MANIFEST, &small().digest, 1);
            entry["platform"] = json!({ "os": format!("os{n}"), "architecture": "x".repeat(200) });
            entry
        })
        .collect();
    vec![
        case("an index in an index", nested(2), Expected::Harmless),
        blamed("indexes in indexes without end", nested(8), "DataLoss", &["deeper"]),
        blamed("an index that has itself", cycle, "DataLoss", &[&claimed]),
        blamed(
            "an index without an image for this host",
            index(&[("windows/amd64", small()), ("linux/s390x", small())]),
            "FailedPrecondition",
            &["windows/amd64"],
        ),
        blamed(
            "an index of nothing",
            small()
                .with_manifest(INDEX, json!({ "schemaVersion": 2, "manifests": [] }).to_string().as_bytes()),
            "FailedPrecondition",
            &["no images"],
        ),
        refused(
            "an index of ten thousand and one",
            index(&[(here(), small())]).edited(|i| i["manifests"] = many.into()),
            "FailedPrecondition",
            "10000 images",
        ),
        blamed(
            "platforms without end",
            index(&[(here(), small())]).edited(|i| i["manifests"] = platforms.into()),
            "FailedPrecondition",
            &["os0"],
        ),
        blamed(
            "an index whose image is another",
            entry(&|e| e["digest"] = sha256(b"other").into()),
            "NotFound",
            &[&sha256(b"other")],
        ),
        blamed(
            "an index whose image has another size",
            entry(&|e| e["size"] = 7.into()),
            "DataLoss",
            &[&small().digest, "7"],
        ),
        refused(
            "an index whose image has no digest",
            entry(&|e| e["digest"] = "latest".into()),
            "DataLoss",
            "",
        ),
    ]
}

/// The name of this host's platform, as an index has it.
fn here() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

/// Files whose names come from annotations.
fn artifacts() -> Vec<Case> {
    let titled = |title: &str| {
        artifact(
            "application/x",
            None,
            &[("text/plain", b"x", json!({ "org.opencontainers.image.title": title }))],
        )
    };
    let long = "n".repeat(256);
    ["../outside/canary", "/outside/canary", "a/../../b", "..", ".", "a\0b", "", &long]
        .iter()
        .map(|title| {
            let shown: String = title.chars().take(20).collect();
            case(&format!("a file called {shown:?}"), titled(title), Expected::Harmless)
        })
        .collect()
}
