//! Registries that ask for credentials, redirect, fail, stall and lie; and pulls beside each other.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Place, image_of, names, skip_unless_root};
use image::{Credentials, LayerState, PullCause, PullRequest, RegistryError, Stage};
use registry::tar::Entry;
use registry::{Auth, Fault, Registry};

fn small() -> registry::make::Image {
    image_of(&[&[Entry::file("a", 0o644, b"a".to_vec())], &[Entry::file("b", 0o644, b"b".to_vec())]])
}

/// Bytes that do not pack, so that a layer takes its time.
fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

fn bearer(login: Option<(&str, &str)>) -> Auth {
    Auth::Bearer {
        realm: None,
        login: login.map(|(user, password)| (user.into(), password.into())),
        identity_token: None,
        expires_in: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_every_kind() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = small();
    place.registry.add("private", "1", &image);
    let login = Credentials::login("alice", "hunter2");
    let wrong = Credentials::login("alice", "wrong-secret");
    let basic = Auth::Basic { username: "alice".into(), password: "hunter2".into() };
    for auth in [basic, bearer(Some(("alice", "hunter2"))), bearer(None)] {
        let anonymous_may = matches!(&auth, Auth::Bearer { login: None, .. });
        place.registry.set_auth(auth);
        if !anonymous_may {
            let error = place.pull("private:1").await.unwrap_err();
            assert!(
                matches!(*error.cause, PullCause::Registry(RegistryError::Unauthorized { given: false, .. })),
                "{error}"
            );
            let error = place.pull_as("private:1", wrong.clone()).await.unwrap_err();
            assert!(
                matches!(*error.cause, PullCause::Registry(RegistryError::Unauthorized { given: true, .. })),
                "{error}"
            );
            let text = format!("{error} {error:?}");
            assert!(!text.contains("wrong-secret") && !text.contains("alice"), "{text}");
        }
        place.pull_as("private:1", login.clone()).await.unwrap();
        place.images.remove(&image.id).await.unwrap();
    }
    // A refresh token, and a token for the registry itself.
    place.registry.set_auth(Auth::Bearer {
        realm: None,
        login: Some(("nobody".into(), "x".into())),
        identity_token: Some("refresh+me".into()),
        expires_in: Some(1),
    });
    let identity = Credentials { identity_token: "refresh%2Bme".into(), ..Credentials::default() };
    assert!(place.pull_as("private:1", identity).await.is_err());
    place.registry.set_auth(Auth::Bearer {
        realm: None,
        login: Some(("nobody".into(), "x".into())),
        identity_token: Some("refresh-me".into()),
        expires_in: Some(1),
    });
    let identity = Credentials { identity_token: "refresh-me".into(), ..Credentials::default() };
    place.pull_as("private:1", identity).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_is_renewed_once() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = small();
    place.registry.add("private", "1", &image);
    place.registry.set_auth(bearer(None));
    let registry = Arc::clone(&place.registry);
    let revoked = std::sync::atomic::AtomicBool::new(false);
    place.registry.set_hook(move |asked| {
        if asked.target.contains("/blobs/") && !revoked.swap(true, std::sync::atomic::Ordering::SeqCst) {
            registry.revoke_tokens();
        }
        None
    });
    place.pull("private:1").await.unwrap();
    assert_eq!(place.registry.count("/token"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_with_their_registry() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = small();
    place.registry.add("private", "1", &image);
    place.registry.set_auth(Auth::Basic { username: "alice".into(), password: "hunter2".into() });
    // For another registry: not sent at all.
    let elsewhere =
        Credentials { server_address: "https://quay.io".into(), ..Credentials::login("alice", "hunter2") };
    assert!(place.pull_as("private:1", elsewhere).await.is_err());
    assert!(place.registry.log().iter().all(|asked| asked.authorization.is_none()));
    // Blobs are on another host: it gets no credentials.
    let storage = Registry::new();
    storage.add("private", "1", &image);
    let listening = storage.listen().await.unwrap();
    let to = format!("http://{}", listening.host());
    place.registry.set_hook(move |asked| {
        let may = asked.authorization.is_some() && asked.target.contains("/blobs/");
        may.then(|| Fault::redirect(&format!("{to}{}?signature=s3cret", asked.target)))
    });
    place.pull_as("private:1", Credentials::login("alice", "hunter2")).await.unwrap();
    let log = storage.log();
    assert!(log.len() >= 3 && log.iter().all(|asked| asked.authorization.is_none()), "{log:?}");
    // Redirects that are refused, and what errors say of the signature.
    place.images.remove(&image.id).await.unwrap();
    place.images.collect_garbage().await.unwrap();
    for (to, needle) in [
        ("http://169.254.169.254/latest/meta-data?signature=s3cret", "link-local"),
        ("ftp://127.0.0.1/x?signature=s3cret", "not HTTP"),
        ("/v2/private/blobs/loop?signature=s3cret", "too many"),
    ] {
        place.registry.set_hook(move |asked| {
            (asked.authorization.is_some() && asked.target.contains("/blobs/")).then(|| Fault::redirect(to))
        });
        let error = place.pull_as("private:1", Credentials::login("alice", "hunter2")).await.unwrap_err();
        assert!(error.to_string().contains(needle), "{error}");
        assert!(!format!("{error:?}{error}").contains("s3cret"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_apart() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| {
        config.timeouts.tries = 2;
        config.timeouts.stall = Duration::from_millis(300);
        config.timeouts.retry_after_max = Duration::from_secs(2);
    })
    .await;
    let image = small();
    place.registry.add("a", "1", &image);
    let fails = async |fault: Fault, on: &'static str| {
        place.registry.set_hook(move |asked| asked.target.contains(on).then(|| fault.clone()));
        *place.pull("a:1").await.unwrap_err().cause
    };
    let error = place.pull("absent:1").await.unwrap_err();
    assert!(matches!(*error.cause, PullCause::Registry(RegistryError::NotFound { .. })), "{error}");
    assert!(error.to_string().contains("404 MANIFEST_UNKNOWN"), "{error}");
    assert!(matches!(
        fails(Fault::status(403), "/manifests/").await,
        PullCause::Registry(RegistryError::Forbidden { .. })
    ));
    assert!(matches!(
        fails(Fault::status(500), "/manifests/").await,
        PullCause::Registry(RegistryError::Status { status: 500, .. })
    ));
    assert!(matches!(
        fails(Fault::status(418), "/manifests/").await,
        PullCause::Registry(RegistryError::Status { status: 418, .. })
    ));
    let busy =
        Fault::Answer { status: 429, headers: vec![("Retry-After".into(), "3600".into())], body: vec![] };
    let began = Instant::now();
    assert!(matches!(
        fails(busy, "/manifests/").await,
        PullCause::Registry(RegistryError::TooManyRequests { retry_after_secs: Some(3600), .. })
    ));
    assert!(began.elapsed() < Duration::from_secs(2));
    let page = Fault::Answer {
        status: 200,
        headers: vec![("Content-Type".into(), "text/html".into())],
        body: b"<html>log in</html>".to_vec(),
    };
    assert!(matches!(fails(page, "/manifests/").await, PullCause::UnsupportedMediaType { .. }));
    let giant =
        Fault::Answer { status: 200, headers: vec![("X-Giant".into(), "x".repeat(1 << 20))], body: vec![] };
    assert!(matches!(
        fails(giant, "/manifests/").await,
        PullCause::Registry(RegistryError::Unreachable { .. })
    ));
    let long = Fault::Answer { status: 200, headers: vec![], body: vec![b' '; 5 << 20] };
    assert!(matches!(fails(long, "/manifests/").await, PullCause::Registry(RegistryError::TooLarge { .. })));
    assert!(matches!(
        fails(Fault::HangUp, "/manifests/").await,
        PullCause::Registry(RegistryError::Unreachable { .. })
    ));
    assert!(matches!(
        fails(Fault::Corrupt, "/blobs/").await,
        PullCause::Registry(RegistryError::DigestMismatch { .. })
    ));
    assert!(matches!(
        fails(Fault::Stall(10), "/blobs/").await,
        PullCause::Registry(RegistryError::Stalled { received: 10, .. })
    ));
    let trickle = Fault::Trickle { bytes: 1, pause: Duration::from_millis(20) };
    assert!(matches!(fails(trickle, "/blobs/").await, PullCause::Registry(RegistryError::Stalled { .. })));
    // By digest the body is checked, whatever the registry claims that it is.
    place.registry.set_hook(|asked| asked.target.contains("/manifests/").then_some(Fault::Corrupt));
    let error = place.pull(&format!("a@{}", image.digest)).await.unwrap_err();
    assert!(matches!(*error.cause, PullCause::Registry(RegistryError::DigestMismatch { .. })), "{error}");
    // Nobody listens.
    let request = PullRequest { reference: "127.0.0.1:1/a".into(), ..Default::default() };
    let error = place.images.pull(request).await.unwrap_err();
    assert!(matches!(*error.cause, PullCause::Registry(RegistryError::Unreachable { .. })), "{error}");
    assert!(place.images.list().is_empty());
    assert!(place.images.pulls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_connections_are_continued() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    for (tag, ignores_ranges) in [("1", false), ("2", true)] {
        let image = image_of(&[&[Entry::file(tag, 0o644, noise(3 << 20, 3))]]);
        place.registry.add("a", tag, &image);
        let layer = image.layers[0].digest.clone();
        place.registry.set_hook(move |asked| match asked.before {
            _ if !asked.target.contains(&layer) => None,
            0..=1 => Some(Fault::Truncate(1 << 20)),
            _ if ignores_ranges => Some(Fault::IgnoreRange),
            _ => None,
        });
        place.pull(&format!("a:{tag}")).await.unwrap();
        assert_eq!(place.registry.count(&image.layers[0].digest), 3);
        let last = place.registry.log().into_iter().rfind(|a| a.range.is_some()).unwrap();
        assert_eq!(last.range.unwrap(), format!("bytes={}-", 2 << 20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_layer_is_fetched_once() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let shared = [Entry::file("shared", 0o644, noise(1 << 20, 1))];
    let images: Vec<_> = (0..10)
        .map(|n| {
            let own = [Entry::file(&format!("own{n}"), 0o644, noise(1000, n + 2))];
            // The shared layer twice: legal, and no reason to fetch or stack it twice.
            image_of(&[&shared, &own, &shared])
        })
        .collect();
    for (n, image) in images.iter().enumerate() {
        place.registry.add("a", &n.to_string(), image);
    }
    let layer = images[0].layers[0].digest.clone();
    let slow = layer.clone();
    place.registry.set_hook(move |asked| {
        asked
            .target
            .contains(&slow)
            .then_some(Fault::Trickle { bytes: 64 << 10, pause: Duration::from_millis(10) })
    });
    let pull = |tag: usize| {
        let (images, reference) = (Arc::clone(&place.images), place.name(&format!("a:{tag}")));
        tokio::spawn(async move { images.pull(PullRequest { reference, ..Default::default() }).await })
    };
    // Each image three times.
    let running: Vec<_> = (0..30).map(|n| pull(n % 10)).collect();
    for (n, running) in running.into_iter().enumerate() {
        assert_eq!(running.await.unwrap().unwrap().as_str(), images[n % 10].id);
    }
    assert_eq!(place.registry.count(&layer), 1);
    for n in 0..10 {
        assert_eq!(place.registry.count(&format!("/manifests/{n}")), 1, "the same pull was joined");
    }
    // Again: only manifests are asked for.
    let before = place.registry.count("/blobs/");
    place.pull("a:0").await.unwrap();
    assert_eq!(place.registry.count("/blobs/"), before);
    let id = place.images.find(&images[0].id).unwrap().unwrap().id.clone();
    place.images.rootfs().prepare("c", &id, None).unwrap();
    let mount = place.images.rootfs().mount("c", None).unwrap();
    assert_eq!(names(&common::inside(&mount, "")), ["own0", "shared"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_stops_nothing() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = image_of(&[&[Entry::file("a", 0o644, noise(1 << 20, 9))]]);
    place.registry.add("a", "1", &image);
    place.registry.set_hook(|asked| {
        let slow = Fault::Trickle { bytes: 64 << 10, pause: Duration::from_millis(10) };
        asked.target.contains("/blobs/").then_some(slow)
    });
    let gone = tokio::time::timeout(Duration::from_millis(60), place.pull("a:1")).await;
    assert!(gone.is_err());
    let mut progress = place.images.progress(&place.name("a:1")).unwrap();
    progress.wait_for(|p| p.layers.iter().any(|layer| layer.downloaded > 0)).await.unwrap();
    let done = progress.wait_for(|p| p.stage == Stage::Done).await.unwrap().clone();
    assert_eq!(done.layers[0].downloaded, done.layers[0].total);
    assert!(place.images.find(&image.id).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_wants_any_more_ends_and_keeps_what_it_finished() {
    if skip_unless_root() {
        return;
    }
    let place = Place::with(|config| config.linger = Duration::from_millis(300)).await;
    let image = image_of(&[
        &[Entry::file("quick", 0o644, b"x".to_vec())],
        &[Entry::file("slow", 0o644, noise(1 << 20, 9))],
    ]);
    place.registry.add("a", "1", &image);
    let slow = image.layers[1].digest.clone();
    place.registry.set_hook(move |asked| asked.target.contains(&slow).then_some(Fault::Stall(300_000)));
    assert!(tokio::time::timeout(Duration::from_millis(200), place.pull("a:1")).await.is_err());
    let mut progress = place.images.progress(&place.name("a:1")).unwrap();
    // Who comes back in time joins it, and who stays keeps it going.
    let began = Instant::now();
    assert!(tokio::time::timeout(Duration::from_millis(500), place.pull("a:1")).await.is_err());
    assert_ne!(progress.borrow_and_update().stage, Stage::Failed);
    progress.wait_for(|p| p.stage == Stage::Failed).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    for attempt in 0.. {
        if place.layer_folders().len() == 1 && names(&place.root().join("trash")).is_empty() {
            break;
        }
        assert!(attempt < 200, "{:?}", place.layer_folders());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    place.registry.set_hook(|_| None);
    place.pull("a:1").await.unwrap();
    assert_eq!(place.registry.count(&image.layers[0].digest), 1, "the finished layer is not fetched again");
}

#[test]
fn a_daemon_killed_in_the_middle_leaves_nothing() {
    if skip_unless_root() {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let place = runtime.block_on(async {
        let place = Place::new().await;
        let image = image_of(&[
            &[Entry::file("quick", 0o644, b"x".to_vec())],
            &[Entry::file("slow", 0o644, noise(1 << 20, 9))],
        ]);
        place.registry.add("a", "1", &image);
        let slow = image.layers[1].digest.clone();
        place.registry.set_hook(move |asked| asked.target.contains(&slow).then_some(Fault::Stall(300_000)));
        assert!(tokio::time::timeout(Duration::from_millis(300), place.pull("a:1")).await.is_err());
        assert!(!place.layer_folders().is_empty());
        place
    });
    // As if killed: every task stops where it is.
    runtime.shutdown_timeout(Duration::from_millis(10));
    let images = place.reopen();
    assert!(images.list().is_empty());
    assert_eq!(place.layer_folders(), [""; 0]);
    assert_eq!(names(&place.root().join("trash")), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_database_is_a_rescan() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = small();
    place.registry.add("a", "1", &image);
    let id = place.pull("a:1").await.unwrap();
    place.images.pin(id.as_str(), true).await.unwrap();
    place.images.rootfs().prepare("c", &id, None).unwrap();
    let before = place.images.find(id.as_str()).unwrap().unwrap();
    for entry in std::fs::read_dir(place.folder.path()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("pintle.db-") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    std::fs::write(place.folder.path().join("pintle.db"), "no database ".repeat(1000)).unwrap();
    let images = place.reopen();
    let after = images.find(id.as_str()).unwrap().unwrap();
    assert_eq!((&after.repo_tags, &after.repo_digests), (&before.repo_tags, &before.repo_digests));
    assert!(after.pinned && after.size == before.size);
    let mount = images.rootfs().mount("c", None).unwrap();
    assert_eq!(names(&common::inside(&mount, "")), ["a", "b"]);
    // And once more, now in order again: nothing is taken for left over.
    drop(images);
    assert_eq!(place.reopen().rootfs().owners(), ["c"]);
    assert_eq!(place.layer_folders().len(), 2);
}

// The hook waits on a thread of the runtime: the pull goes on with the others, on whatever machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_failed_pull_unpacked_helps_the_next() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = small();
    place.registry.add("a", "1", &image);
    let second = image.layers[1].digest.clone();
    let images = Arc::clone(&place.images);
    let reference = place.name("a:1");
    place.registry.set_hook(move |asked| {
        if !asked.target.contains(&second) {
            return None;
        }
        let first_is_unpacked = || {
            let progress = images.progress(&reference)?;
            let state = progress.borrow().layers.first()?.state;
            Some(state == LayerState::Unpacked)
        };
        let until = Instant::now() + Duration::from_secs(10);
        while first_is_unpacked() != Some(true) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        Some(Fault::status(404))
    });
    place.pull("a:1").await.unwrap_err();
    place.registry.set_hook(|_| None);
    place.pull("a:1").await.unwrap();
    assert_eq!(place.registry.count(&image.layers[0].digest), 1);
}
