//! Pushes: to the test registry with everything that may go wrong, and to Debian's docker-registry.

mod common;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Place, image_of, skip_unless_root};
use image::{Credentials, PullRequest, PushError, PushEvent, PushRequest, Pushed};
use registry::tar::Entry;
use registry::{Auth, Fault, Registry, Rule};
use tokio::sync::mpsc;

async fn push(place: &Place, image: &str, to: &str) -> Result<(Pushed, Vec<PushEvent>), PushError> {
    push_as(place, image, to, None).await
}

async fn push_as(
    place: &Place,
    image: &str,
    to: &str,
    credentials: Option<Credentials>,
) -> Result<(Pushed, Vec<PushEvent>), PushError> {
    let (tell, mut told) = mpsc::channel(1000);
    let request =
        PushRequest { image: image.into(), destination: Some(to.into()), credentials, platform: None };
    let pushed = place.images.push(request, tell).await?;
    let mut events = Vec::new();
    while let Ok(event) = told.try_recv() {
        events.push(event);
    }
    Ok((pushed, events))
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

fn two_layers() -> registry::make::Image {
    image_of(&[
        &[Entry::directory("d/", 0o755), Entry::file("d/noise", 0o640, noise(9_000_000)).owner(5, 6)],
        &[Entry::file("d/small", 0o600, b"small".to_vec())],
    ])
}

/// A registry that can mount the blobs gets the manifest that the image came with; another one gets its own, of the same image.
#[tokio::test(flavor = "multi_thread")]
async fn the_digest_stays_where_the_blobs_are() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    let image = two_layers();
    place.registry.add("team/app", "1", &image);
    let id = place.pull("team/app:1").await.unwrap();
    let (pushed, events) = push(&place, id.as_str(), &place.name("copy/app:2")).await.unwrap();
    assert!(pushed.unchanged);
    assert_eq!(pushed.digest.as_str(), image.digest);
    assert!(events.iter().all(|event| matches!(event, PushEvent::Present { .. })), "{events:?}");
    assert_eq!(place.registry.manifest("copy/app", "2").unwrap().0, image.digest);

    let elsewhere = Registry::new();
    let listening = elsewhere.listen().await.unwrap();
    elsewhere.set_auth(Auth::Bearer {
        realm: None,
        login: Some(("me".into(), "secret".into())),
        identity_token: None,
        expires_in: None,
    });
    let to = format!("{}/new/app:3", listening.host());
    let refused = push(&place, id.as_str(), &to).await.unwrap_err().to_string();
    assert!(refused.contains("credentials") && !refused.contains("secret"), "{refused}");
    // Each piece of each upload is cut once, and a layer is more than one piece.
    elsewhere.set_rules(vec![Rule::first(1, "/blobs/uploads/upload-", Fault::HangUp)]);
    let login = Some(Credentials::login("me", "secret"));
    let (pushed, events) = push_as(&place, id.as_str(), &to, login.clone()).await.unwrap();
    assert!(!pushed.unchanged);
    assert!(events.iter().filter(|event| matches!(event, PushEvent::Done { .. })).count() == 2, "{events:?}");
    assert!(events.iter().filter(|event| matches!(event, PushEvent::Sent { .. })).count() > 3, "{events:?}");
    // Without a tag on this node, so that the pull is one.
    place.images.remove(id.as_str()).await.unwrap();
    let back = place
        .images
        .pull(PullRequest { reference: to.clone(), credentials: login, platform: None })
        .await
        .unwrap();
    assert_eq!(back, id, "the configuration, and with it the image's id, is the same");
    assert!(place.images.find(&to).unwrap().unwrap().repo_digests[0].ends_with(pushed.digest.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_pushed_is_named() {
    if skip_unless_root() {
        return;
    }
    let place = Place::new().await;
    place.registry.add("a", "1", &image_of(&[&[Entry::file("f", 0o644, b"x".to_vec())]]));
    let id = place.pull("a:1").await.unwrap();
    let digest = format!("{}@sha256:{}", place.name("a"), "0".repeat(64));
    assert!(matches!(push(&place, id.as_str(), &digest).await, Err(PushError::NoTag { .. })));
    assert!(matches!(push(&place, id.as_str(), "UPPER").await, Err(PushError::BadName(_))));
    assert!(matches!(push(&place, "absent", &place.name("b:1")).await, Err(PushError::Image(_))));
    place.registry.set_rules(vec![Rule::always(
        "/v2/b/blobs/uploads/",
        Fault::redirect("http://127.0.0.1:1/elsewhere"),
    )]);
    let error = push(&place, id.as_str(), &place.name("b:1")).await.unwrap_err();
    assert!(matches!(error, PushError::Registry { .. }), "{error}");
    let headers = vec![("Location".to_owned(), "http://evil.example/take".to_owned())];
    place.registry.set_rules(vec![Rule::always(
        "/v2/c/blobs/uploads/",
        Fault::Answer { status: 202, headers, body: vec![] },
    )]);
    let error = push(&place, id.as_str(), &place.name("c:1")).await.unwrap_err().to_string();
    assert!(error.contains("evil.example") && error.contains("to the registry itself"), "{error}");
}

/// Debian's registry, stopped by its process.
struct Real {
    child: Child,
    host: String,
    _folder: tempfile::TempDir,
}

impl Real {
    fn start() -> Option<Real> {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n",
            folder.path().display()
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("SKIPPED: docker-registry is not installed");
            return None;
        };
        let real = Real { child, host: format!("127.0.0.1:{port}"), _folder: folder };
        let until = Instant::now() + Duration::from_secs(8);
        while std::net::TcpStream::connect(&real.host).is_err() {
            assert!(Instant::now() < until, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(real)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_registry_takes_a_push_and_gives_it_back() {
    if skip_unless_root() {
        return;
    }
    let Some(real) = Real::start() else { return };
    let place = Place::new().await;
    let image = two_layers();
    place.registry.add("app", "1", &image);
    let id = place.pull("app:1").await.unwrap();
    let to = format!("{}/team/app:1", real.host);
    let (first, _) = push(&place, id.as_str(), &to).await.unwrap();
    let (again, _) = push(&place, id.as_str(), &to).await.unwrap();
    assert_eq!(first.digest, again.digest, "packing is repeatable");
    let other = Place::new().await;
    let back = other.images.pull(PullRequest { reference: to, ..Default::default() }).await.unwrap();
    assert_eq!(back, id);
    // What came from there goes to another repository of it unchanged, without a byte sent.
    let (mounted, events) = push(&other, back.as_str(), &format!("{}/other/app:1", real.host)).await.unwrap();
    assert!(mounted.unchanged && mounted.digest == first.digest);
    assert!(events.iter().all(|event| matches!(event, PushEvent::Present { .. })), "{events:?}");
}
