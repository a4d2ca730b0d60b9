//! The targets: each takes any bytes, and has to come to an end without a panic and with what it promises kept.

use std::fs;
use std::io;
use std::path::Path;

use model::digest::Digest;
use model::reference::ImageReference;
use model::request::UserChoice;
use prost::Message;
use registry::tar::with_checksums;

use crate::scratch::Scratch;
use crate::{dictionary, seeds};

/// Something that reads hostile bytes.
pub(crate) struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words that its inputs are made of.
    pub words: &'static [&'static str],
}

/// All of them. `xtask/src/fuzz.rs` asks for the list by having the seeds written.
pub(crate) const TARGETS: &[Target] = &[
    Target { name: "reference", run: reference, seeds: seeds::references, words: dictionary::REFERENCE },
    Target { name: "manifest", run: manifest, seeds: seeds::manifests, words: dictionary::IMAGE },
    Target { name: "config", run: config, seeds: seeds::configs, words: dictionary::IMAGE },
    Target { name: "archive", run: archive, seeds: seeds::archives, words: dictionary::ARCHIVE },
    Target { name: "layer", run: layer, seeds: seeds::archives, words: dictionary::ARCHIVE },
    Target { name: "packed", run: image::fuzz::packed, seeds: seeds::packed, words: &[] },
    Target { name: "users", run: users, seeds: seeds::users, words: dictionary::USERS },
    Target { name: "bolt", run: image::fuzz::bolt, seeds: seeds::bolt, words: &[] },
    Target {
        name: "hosts",
        run: distribution::fuzz::hosts_toml,
        seeds: seeds::hosts,
        words: dictionary::HOSTS,
    },
    Target {
        name: "registries",
        run: distribution::fuzz::registries_conf,
        seeds: seeds::registries,
        words: dictionary::REGISTRIES,
    },
    Target {
        name: "logins",
        run: distribution::fuzz::auth_file,
        seeds: seeds::logins,
        words: dictionary::LOGINS,
    },
    Target { name: "challenge", run: challenge, seeds: seeds::challenges, words: dictionary::HTTP },
    Target {
        name: "hosts-toml",
        run: distribution::fuzz::hosts_toml,
        seeds: seeds::hosts_toml,
        words: dictionary::HOSTS_TOML,
    },
    Target {
        name: "registries-conf",
        run: distribution::fuzz::registries_conf,
        seeds: seeds::registries_conf,
        words: dictionary::REGISTRIES_CONF,
    },
    Target {
        name: "auth-file",
        run: distribution::fuzz::auth_file,
        seeds: seeds::auth_files,
        words: dictionary::AUTH_FILE,
    },
    Target { name: "spdy", run: stream::fuzz::spdy, seeds: seeds::none, words: dictionary::SPDY },
    Target { name: "websocket", run: stream::fuzz::websocket, seeds: seeds::none, words: &[] },
    Target { name: "ttrpc", run: ttrpc_frames, seeds: seeds::ttrpc, words: &[] },
    Target { name: "dbus", run: dbus_message, seeds: seeds::dbus, words: &[] },
    Target { name: "cni", run: cni, seeds: seeds::cni, words: dictionary::CNI },
    Target { name: "cdi", run: cdi_file, seeds: seeds::cdi, words: dictionary::CDI },
    Target { name: "hooks", run: hooks_file, seeds: seeds::hooks, words: dictionary::HOOKS },
    Target { name: "policy", run: trust::fuzz::policy, seeds: seeds::policies, words: dictionary::POLICY },
    Target {
        name: "signature",
        run: trust::fuzz::signature,
        seeds: seeds::signatures,
        words: dictionary::SIGNATURE,
    },
    Target { name: "nri", run: nri_wishes, seeds: seeds::nri, words: &[] },
];

/// Writes `FOLDER/TARGET/seed-N`, and `FOLDER/TARGET.dict` where there are words.
pub(crate) fn write_seeds(folder: &Path) -> io::Result<()> {
    for target in TARGETS {
        let own = folder.join(target.name);
        fs::create_dir_all(&own)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(own.join(format!("seed-{number}")), seed)?;
        }
        // libFuzzer takes an empty dictionary for an error.
        if !target.words.is_empty() {
            fs::write(folder.join(format!("{}.dict", target.name)), dictionary::text(target.words))?;
        }
    }
    Ok(())
}

/// Calls `with` where the bytes are text.
fn text(bytes: &[u8], with: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        with(text);
    }
}

/// What is read and written out is read again as the same.
fn reference(bytes: &[u8]) {
    text(bytes, |text| {
        if let Ok(reference) = ImageReference::parse(text) {
            let written = reference.to_string();
            assert_eq!(ImageReference::parse(&written).as_ref(), Ok(&reference), "{written}");
            // These become parts of URLs and of file names.
            for part in [reference.domain(), reference.path(), reference.manifest(), reference.host()] {
                assert!(part.bytes().all(|byte| byte.is_ascii_graphic()), "{part:?}");
                assert!(
                    !part.split('/').any(|name| name == ".." || name == "." || name.is_empty()),
                    "{part:?}"
                );
            }
        }
        if let Ok(digest) = Digest::parse(text) {
            assert_eq!(digest.to_string(), text);
        }
    });
}

/// The first byte chooses the media type of the answer.
fn manifest(bytes: &[u8]) {
    const KINDS: [&str; 6] = [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "text/html",
        "",
    ];
    if let Some((first, body)) = bytes.split_first() {
        image::fuzz::manifest(KINDS[usize::from(*first) % KINDS.len()], body);
    }
}

fn config(bytes: &[u8]) {
    image::fuzz::config(bytes);
}

/// With the right checksums, so that a fuzzer gets past them.
fn archive(bytes: &[u8]) {
    image::fuzz::archive(&with_checksums(bytes));
}

/// Unpacks below a folder of its own, and looks whether anything beside that was touched.
fn layer(bytes: &[u8]) {
    let scratch = Scratch::new();
    image::fuzz::layer(&with_checksums(bytes), scratch.root());
    scratch.check();
}

/// Four parts between form feeds: the image's user, its passwd and group, and what the request says.
fn users(bytes: &[u8]) {
    text(bytes, |text| {
        let mut parts = text.split('\u{c}');
        let mut part = || parts.next().unwrap_or_default();
        let (user, passwd, group, asked) = (part(), part(), part(), part());
        let choice = UserChoice { username: asked.to_owned(), ..UserChoice::default() };
        if let Ok(found) = spec::user::resolve(&choice, user, passwd, group) {
            assert!(found.uid <= spec::user::MAX_ID && found.gid <= spec::user::MAX_ID, "{found:?}");
            assert!(!found.home.chars().any(char::is_control), "{found:?}");
        }
    });
}

fn challenge(bytes: &[u8]) {
    text(bytes, distribution::fuzz::challenge);
}

/// The first byte says how many bytes come at once.
/// A message, and whatever its body says it is.
fn dbus_message(bytes: &[u8]) {
    let Some(head) = bytes.first_chunk() else { return };
    let Ok(length) = dbus::length(head) else { return };
    assert!(length <= dbus::LARGEST);
    let Some(Ok(message)) = bytes.get(..length).map(dbus::Message::read) else { return };
    let mut body = message.body.clone();
    let _ = body.text();
    let mut body = message.body.clone();
    let _ = body.signature().and_then(|_| body.text());
    let mut body = message.body;
    let _ = body.u32().and_then(|_| body.text());
    if let Ok(mut array) = body.array(8) {
        while !array.is_done() && array.text().is_ok() {}
    }
}

fn ttrpc_frames(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let mut decoder = ttrpc::Decoder::new();
    for piece in bytes.chunks(usize::from(*step) + 1) {
        decoder.feed(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            let _ = ttrpc::Request::decode(frame.payload);
            let _ = ttrpc::Response::decode(frame.payload);
        }
    }
}

/// A plugin's answer, and a configuration list.
fn cni(bytes: &[u8]) {
    use network::cni::config::NetworkList;
    use network::cni::result::AddResult;
    use network::cni::version::Version;
    if let Ok(list) = NetworkList::parse(bytes) {
        assert!(!list.name.contains('/'), "{:?}", list.name);
    }
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    for version in Version::ALL {
        if let Ok(result) = AddResult::parse(&value, version) {
            let _ = result.to_json(version);
        }
    }
}

fn cdi_file(bytes: &[u8]) {
    text(bytes, cdi::fuzz::file);
}

fn hooks_file(bytes: &[u8]) {
    text(bytes, hooks::fuzz::file);
}

/// What a plugin may want of a container.
fn nri_wishes(bytes: &[u8]) {
    if let Ok(adjust) = nri::api::ContainerAdjustment::decode(bytes) {
        let _ = nri::adjust_spec(&mut oci_spec::runtime::Spec::default(), &adjust);
    }
    let _ = nri::api::UpdateContainerResponse::decode(bytes);
}
