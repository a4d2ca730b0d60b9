//! What a fuzzer begins with: a few good inputs of each target, made on the spot.

use prost::Message;
use registry::make::{Compression, Image, ImageBuilder, Layer, artifact, index};
use registry::tar::{Entry, archive};
use serde_json::{Value, json};

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn jsons(values: &[Value]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.to_string().into_bytes()).collect()
}

pub(crate) fn none() -> Vec<Vec<u8>> {
    vec![vec![0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1], vec![0x81, 0x82, 1, 2, 3, 4, 1, 3]]
}

pub(crate) fn references() -> Vec<Vec<u8>> {
    let digest = format!("quay.io/a/b@sha256:{}", "0a".repeat(32));
    texts(&["busybox", "host:5000/a/b:tag", "localhost/a__b.c-d", "[::1]:5000/x", &digest])
}

fn small() -> Image {
    let layer = Layer::new(&[Entry::file("a", 0o644, b"a".to_vec())], Compression::Gzip);
    ImageBuilder::new()
        .layer(layer)
        .run(json!({ "User": "1:2", "Env": ["A=b"], "Volumes": { "/v": {} } }))
        .build()
}

pub(crate) fn manifests() -> Vec<Vec<u8>> {
    let both = index(&[("linux/amd64", small()), ("linux/arm64/v8", small())]);
    let signature = artifact("application/x", Some(&small()), &[("text/plain", b"x", json!({ "a": "b" }))]);
    [(1u8, &small()), (0, &both), (1, &signature)]
        .into_iter()
        .filter_map(|(kind, image)| {
            let (_, manifest) = image.manifests.iter().find(|(digest, _)| *digest == image.digest)?;
            Some([&[kind][..], &manifest.body].concat())
        })
        .collect()
}

pub(crate) fn configs() -> Vec<Vec<u8>> {
    let image = small();
    let config = image.blobs.iter().find(|(digest, _)| *digest == image.id);
    config
        .map(|(_, blob)| match blob {
            registry::Blob::Memory(bytes) => bytes.to_vec(),
            registry::Blob::File(_) => Vec::new(),
        })
        .into_iter()
        .collect()
}

pub(crate) fn archives() -> Vec<Vec<u8>> {
    let sparse = |entry: Entry| entry.pax("GNU.sparse.map", "0,4,100,4").pax("GNU.sparse.size", "1000");
    let mut in_data = b"1\n0\n4\n".to_vec();
    in_data.resize(512, 0);
    in_data.extend_from_slice(b"data");
    let version_one = Entry::file("s", 0o644, in_data)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "named")
        .pax("GNU.sparse.realsize", "4096");
    [
        vec![
            Entry::directory("d/", 0o1755),
            Entry::file("d/f", 0o4644, b"hello".to_vec()).owner(3, 4).xattr("user.a", "b"),
            Entry::symlink("l", "d"),
            Entry::hard_link("l/h", "d/f"),
            Entry::file("d/.wh.gone", 0, ""),
        ],
        vec![
            Entry::symlink("d", "../../outside"),
            Entry::file("d/canary", 0o777, "x"),
            Entry::hard_link("h", "d/canary"),
        ],
        vec![
            Entry::device("null", 1, 3),
            Entry::fifo("p"),
            Entry::directory("d", 0o700),
            Entry::file("d/.wh..wh..opq", 0, ""),
        ],
        vec![sparse(Entry::file("s", 0o644, b"abcdefgh".to_vec())), version_one],
        vec![Entry::file("long", 0o644, "x").pax("path", "n".repeat(150)).pax("mtime", "-1.5")],
    ]
    .iter()
    .map(|entries| archive(entries))
    .collect()
}

pub(crate) fn packed() -> Vec<Vec<u8>> {
    let bytes = archive(&[Entry::file("a", 0o644, b"some text".repeat(20))]);
    let pack = |compression| Layer::from_archive(&bytes, compression).packed.to_vec();
    let skippable = [b"\x50\x2a\x4d\x18\x04\0\0\0skip".to_vec(), pack(Compression::Zstd)].concat();
    let twice = [pack(Compression::Gzip), pack(Compression::Gzip)].concat();
    vec![pack(Compression::Gzip), pack(Compression::Zstd), pack(Compression::Plain), skippable, twice]
}

pub(crate) fn users() -> Vec<Vec<u8>> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
    let group = "root:x:0:\nuser:x:1000:\nmore:x:2000:user\n";
    ["user", "1000:2000", "user:more", "0", "7", ""]
        .iter()
        .map(|user| format!("{user}\u{c}{passwd}\u{c}{group}\u{c}").into_bytes())
        .collect()
}

pub(crate) fn challenges() -> Vec<Vec<u8>> {
    texts(&[
        "Bearer realm=\"https://auth.example/token\",service=\"registry\",scope=\"repository:a/b:pull\"",
        "Basic realm=\"a \\\"quoted\\\" one\", Bearer realm=\"http://x/\" , scope = \"y\"",
        "Negotiate, Basic",
    ])
}

pub(crate) fn hosts_toml() -> Vec<Vec<u8>> {
    texts(&[
        "server = \"https://up.example\"\n[host.\"http://m.example:5000/v2/x\"]\ncapabilities = [\"pull\", \"resolve\"]\nca = [\"a.pem\"]\nclient = [[\"a\", \"b\"]]\noverride_path = true\nskip_verify = true\ndial_timeout = \"1m30s\"\nheader = { x = [\"y\"] }\n",
    ])
}

pub(crate) fn registries_conf() -> Vec<Vec<u8>> {
    texts(&[
        "unqualified-search-registries = [\"quay.io\"]\nshort-name-mode = \"permissive\"\n[[registry]]\nprefix = \"*.example.com\"\nlocation = \"a.example:5000/b\"\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"tag-only\"\n[aliases]\nbusybox = \"quay.io/b\"\n",
        "[registries.search]\nregistries = [\"quay.io\"]\n[registries.block]\nregistries = [\"b.example\"]\n",
    ])
}

pub(crate) fn auth_files() -> Vec<Vec<u8>> {
    jsons(&[
        json!({ "auths": { "https://index.docker.io/v1/": { "auth": "YTpi" }, "quay.io/a": { "identitytoken": "t" } },
        "credHelpers": { "docker.io": "pass" }, "credsStore": "desktop" }),
    ])
}

pub(crate) fn dbus() -> Vec<Vec<u8>> {
    let mut body = dbus::Writer::new();
    body.u32(7);
    ["/org/freedesktop/systemd1/job/7", "a.scope", "done"].iter().for_each(|text| body.text(text));
    let body = body.finish();
    let call = dbus::Call {
        destination: Some("org.freedesktop.systemd1"),
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member: "JobRemoved",
        signature: "uoss",
        body: &body,
    };
    let mut signal = call.write(3);
    // A signal in place of a call.
    signal[1] = 4;
    vec![call.write(3), signal]
}

pub(crate) fn ttrpc() -> Vec<Vec<u8>> {
    let request = ttrpc::Request {
        service: "a.b.C".into(),
        method: "D".into(),
        payload: vec![1, 2, 3],
        timeout_nano: 5,
        metadata: Vec::new(),
    };
    let mut out = vec![7];
    for stream in [1, 3] {
        let _ = ttrpc::encode(&mut out, stream, ttrpc::FrameKind::Request, &request);
    }
    vec![out]
}

pub(crate) fn cni() -> Vec<Vec<u8>> {
    jsons(&[
        json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0", "sandbox": "/x" }],
            "ips": [{ "address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 0 }],
            "routes": [{ "dst": "0.0.0.0/0" }], "dns": { "nameservers": ["1.1.1.1"] } }),
        json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.1.0.5/16", "routes": [{ "dst": "::/0", "gw": "::1" }] } }),
        json!({ "cniVersion": "1.1.0", "name": "net", "plugins": [{ "type": "bridge", "capabilities": { "portMappings": true } }] }),
    ])
}

pub(crate) fn cdi() -> Vec<Vec<u8>> {
    let edits = json!({ "env": ["A=b"], "deviceNodes": [{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 }],
        "mounts": [{ "hostPath": "/a", "containerPath": "/b", "options": ["ro"] }],
        "hooks": [{ "hookName": "prestart", "path": "/bin/true" }] });
    let json = json!({ "cdiVersion": "0.6.0", "kind": "vendor.com/device",
        "devices": [{ "name": "one", "containerEdits": edits }], "containerEdits": { "env": ["C=d"] } });
    let yaml = "cdiVersion: 0.6.0\nkind: vendor.com/device\ndevices:\n- name: one\n  containerEdits:\n    env: [A=b]\n";
    vec![json.to_string().into_bytes(), yaml.as_bytes().to_vec()]
}

pub(crate) fn hooks() -> Vec<Vec<u8>> {
    jsons(&[json!({ "version": "1.0.0", "hook": { "path": "/bin/true", "args": ["a"], "timeout": 5 },
        "when": { "annotations": { "^a.*": "b+" }, "commands": ["sh$"], "hasBindMounts": true }, "stages": ["prestart"] })])
}

pub(crate) fn nri() -> Vec<Vec<u8>> {
    use ::nri::api::{ContainerAdjustment, KeyValue, Mount};
    let adjust = ContainerAdjustment {
        annotations: [("-a".to_owned(), String::new()), ("b".to_owned(), "c".to_owned())].into(),
        mounts: vec![Mount { destination: "/x".into(), source: "/y".into(), ..Mount::default() }],
        env: vec![KeyValue { key: "A".into(), value: "b".into() }],
        ..ContainerAdjustment::default()
    };
    vec![adjust.encode_to_vec()]
}

pub(crate) fn policies() -> Vec<Vec<u8>> {
    let identity = json!({ "type": "remapIdentity", "prefix": "a.io/b", "signedPrefix": "c.io" });
    let gpg = json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"], "signedIdentity": identity });
    let fulcio = json!({ "caData": "AA==", "oidcIssuer": "https://i", "subjectEmail": "a@b" });
    let sigstore = json!({ "type": "sigstoreSigned", "fulcio": fulcio, "rekorPublicKeyPath": "/r" });
    let scopes =
        json!({ "": [gpg], "*.example.com": [sigstore], "r.io/a": [{ "type": "insecureAcceptAnything" }] });
    let mut seeds =
        jsons(&[json!({ "default": [{ "type": "reject" }], "transports": { "docker": scopes } })]);
    seeds.push(b"default-docker:\n  lookaside: https://s.io/l\ndocker:\n  r.io/a:\n    use-sigstore-attachments: true\n".to_vec());
    seeds
}

pub(crate) fn signatures() -> Vec<Vec<u8>> {
    const FIXTURES: &[&[u8]] = &[
        include_bytes!("../../crates/trust/tests/fixtures/ed25519.key"),
        include_bytes!("../../crates/trust/tests/fixtures/rsa2048.signature"),
        include_bytes!("../../crates/trust/tests/fixtures/nistp256.signature"),
        include_bytes!("../../crates/trust/tests/fixtures/subkey.key"),
    ];
    let digest = format!("sha256:{}", "5a".repeat(32));
    let critical = json!({ "type": "cosign container image signature", "image": { "docker-manifest-digest": digest },
        "identity": { "docker-reference": "r.io/app" } });
    let entry = json!({ "SignedEntryTimestamp": "AAAA", "Payload": { "body": "e30=", "integratedTime": 1, "logIndex": 2, "logID": "c0" } });
    let bundle = json!({ "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "publicKey": { "hint": "x" }, "tlogEntries": [] },
        "dsseEnvelope": { "payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": [{ "sig": "AAAA" }] } });
    let mut seeds = jsons(&[json!({ "critical": critical, "optional": null }), entry, bundle]);
    seeds.extend(FIXTURES.iter().map(|bytes| bytes.to_vec()));
    // A key, and a message by it.
    seeds.push([FIXTURES[0], include_bytes!("../../crates/trust/tests/fixtures/ed25519.signature")].concat());
    seeds
}

/// A leaf with a value, a bucket beside it, and a branch that leads to the leaf.
pub(crate) fn bolt() -> Vec<Vec<u8>> {
    let page = |kind: u16, elements: &[[u32; 4]], data: &[u8]| {
        let mut page = vec![0u8; 1024];
        page[8..10].copy_from_slice(&kind.to_le_bytes());
        page[10..12].copy_from_slice(&(elements.len() as u16).to_le_bytes());
        let words: Vec<u8> = elements.iter().flatten().flat_map(|word| word.to_le_bytes()).collect();
        page[16..16 + words.len()].copy_from_slice(&words);
        page[16 + words.len()..16 + words.len() + data.len()].copy_from_slice(data);
        page
    };
    // A bucket's value: the page of its root, and a sequence.
    let bucket = [b"key".as_slice(), &[3, 0, 0, 0, 0, 0, 0, 0], &[0; 8]].concat();
    let branch = page(1, &[[16, 3, 4, 0]], b"key");
    let leaf = page(2, &[[0, 32, 3, 5], [1, 16 + 8, 3, 16]], &[b"keyvalue".to_vec(), bucket].concat());
    let empty = vec![0; 2048];
    vec![[empty.clone(), leaf.clone(), leaf.clone()].concat(), [empty, branch, leaf.clone(), leaf].concat()]
}

pub(crate) fn hosts() -> Vec<Vec<u8>> {
    texts(&[
        "server = \"https://registry.example\"\n\n[host.\"https://mirror.example/v2/x\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = [\"/a.crt\"]\n  client = [[\"/c.cert\", \"/c.key\"]]\n  override_path = true\n  skip_verify = true\n[host.\"https://mirror.example/v2/x\".header]\n  x-a = [\"b\"]\n",
    ])
}

pub(crate) fn registries() -> Vec<Vec<u8>> {
    texts(&[
        "unqualified-search-registries = [\"docker.io\"]\nshort-name-mode = \"enforcing\"\n[[registry]]\nprefix = \"*.example.com\"\nblocked = true\n[[registry]]\nprefix = \"quay.io/a\"\nlocation = \"mirror.example:5000/b\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"m.example\"\npull-from-mirror = \"digest-only\"\n[aliases]\n\"busybox\" = \"docker.io/library/busybox\"\n",
    ])
}

pub(crate) fn logins() -> Vec<Vec<u8>> {
    jsons(&[
        json!({ "auths": { "quay.io": { "auth": "dXNlcjpwYXNz" }, "https://index.docker.io/v1/": { "identitytoken": "t" } },
        "credHelpers": { "a.example": "pass" }, "credsStore": "desktop" }),
    ])
}
