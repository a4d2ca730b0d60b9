//! Several endpoints for one name: their order, and what one that fails costs.

use std::time::Instant;

use registry::{Auth, Fault};
use tokio::net::TcpListener;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_in_order_and_told_for_whom_they_answer() {
    let machine = Machine::new();
    let empty = Registry::new();
    let empty_at = empty.listen().await.unwrap();
    let (pulls_only, pulls_only_at, image) = serving("team/app").await;
    let (server, server_at, _) = serving("team/app").await;
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
            server_at.host(),
            empty_at.host(),
            pulls_only_at.host()
        ),
    );
    let session = machine.session("example.com/team/app:1", None);
    let fetched = manifest(&session, "1").await.unwrap();
    assert_eq!(fetched.digest.as_str(), image.digest);
    let target = "/v2/team/app/manifests/1?ns=example.com";
    assert_eq!(empty.log()[0].target, target);
    assert_eq!(pulls_only.log().len(), 0, "whoever may not resolve is not asked what a tag means");
    assert_eq!(server.log()[0].target, target);
    // By digest, the nearest copy serves; who did not have the manifest is not asked first again.
    let layer = &image.layers[0];
    let bytes = download(&session, &layer.digest, layer.packed.len() as u64).await.unwrap();
    assert_eq!(registry::make::sha256(&bytes), layer.digest);
    assert_eq!((empty.count("/blobs/"), pulls_only.count("/blobs/"), server.count("/blobs/")), (0, 1, 0));
    let attempts = session.attempts();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].url.ends_with("/v2/team/app/manifests/1"), "{attempts:?}");
    assert_eq!(attempts[0].outcome, "404 MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_does_not_answer_costs_little_and_once() {
    let machine = Machine::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_at = silent.local_addr().unwrap();
    let calls = tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(silent.accept().await.unwrap());
            if open.len() > 1 {
                return open.len();
            }
        }
    });
    let (_, server_at, image) = serving("app").await;
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!("server = \"http://{}\"\n[host.\"http://{silent_at}\"]\n", server_at.host()),
    );
    let session = machine.session("example.com/app:1", None);
    let began = Instant::now();
    manifest(&session, "1").await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(350) && took < Duration::from_secs(2), "{took:?}");
    let began = Instant::now();
    let layer = &image.layers[0];
    download(&session, &layer.digest, layer.packed.len() as u64).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(350), "it is not asked again");
    assert!(!calls.is_finished());
    calls.abort();
    assert!(session.attempts()[0].outcome.contains("no answer within"), "{:?}", session.attempts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_breaks_at_a_mirror_goes_on_elsewhere() {
    let machine = Machine::new();
    let (mirror, mirror_at, image) = serving("app").await;
    let (server, server_at, _) = serving("app").await;
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server_at.host(), mirror_at.host()),
    );
    let layer = &image.layers[0];
    for fault in [Fault::Truncate(100_000), Fault::Stall(100_000)] {
        mirror.set_hook({
            let fault = fault.clone();
            move |asked| asked.target.contains("/blobs/").then(|| fault.clone())
        });
        let session = machine.session("example.com/app:1", None);
        let bytes = download(&session, &layer.digest, layer.packed.len() as u64).await.unwrap();
        assert_eq!(registry::make::sha256(&bytes), layer.digest, "{fault:?}");
        let last = server.log().pop().unwrap();
        let from: u64 =
            last.range.unwrap().trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
        assert!(from >= 100_000, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lies_is_passed_over() {
    let machine = Machine::new();
    let (mirror, mirror_at, image) = serving("app").await;
    let (_, server_at, _) = serving("app").await;
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server_at.host(), mirror_at.host()),
    );
    let digest = Digest::parse(&image.digest).unwrap();
    for fault in [
        Fault::Corrupt,
        Fault::Body("{}".into()),
        Fault::Endless,
        Fault::HangUp,
        Fault::status(403),
        Fault::busy(429, "600"),
        Fault::busy(503, "600"),
        Fault::redirect("http://169.254.169.254/latest/meta-data"),
        Fault::redirect("file:///etc/passwd"),
        Fault::Answer { status: 200, headers: vec![("X-Giant".into(), "x".repeat(1 << 20))], body: vec![] },
        Fault::Answer {
            status: 200,
            headers: (0..400).map(|n| (format!("x-{n}"), "flood".into())).collect(),
            body: vec![],
        },
    ] {
        mirror.set_hook({
            let fault = fault.clone();
            move |_| Some(fault.clone())
        });
        let session = machine.session("example.com/app:1", None);
        let fetched = session.manifest(&image.digest, Some(&digest), ACCEPT, 1 << 20).await;
        assert_eq!(fetched.map(|f| f.digest).unwrap(), digest, "{fault:?}");
        let attempts = session.attempts();
        assert!(
            !attempts.is_empty() && attempts[0].url.contains(&mirror_at.host()),
            "{fault:?}: {attempts:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_all_fail_the_registry_itself_has_the_word() {
    let machine = Machine::new();
    let (mirror, server) = (Registry::new(), Registry::new());
    let (mirror_at, server_at) = (mirror.listen().await.unwrap(), server.listen().await.unwrap());
    mirror.set_hook(|_| Some(Fault::status(503)));
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server_at.host(), mirror_at.host()),
    );
    let session = machine.session("example.com/app:1", None);
    let Err(error) = manifest(&session, "1").await else { panic!("nobody has it") };
    assert!(matches!(&error, RegistryError::NotFound { host, .. } if *host == server_at.host()), "{error}");
    let attempts = session.attempts();
    assert_eq!((attempts[0].outcome.as_str(), attempts[0].times), ("503", 2));
    assert_eq!(attempts[1].outcome, "404 MANIFEST_UNKNOWN");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_endpoint_has_its_own_credentials() {
    let machine = Machine::new();
    let (mirror, mirror_at, _) = serving("team/app").await;
    let (server, server_at, _) = serving("team/app").await;
    mirror.set_auth(Auth::Basic { username: "mirror".into(), password: "m".into() });
    server.set_auth(Auth::Bearer {
        realm: None,
        login: Some(("alice".into(), "hunter2".into())),
        identity_token: None,
        expires_in: None,
    });
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!("server = \"http://{}\"\n[host.\"http://{}\"]\n", server_at.host(), mirror_at.host()),
    );
    // Those of the request are for the registry, and the mirror hears nothing of them.
    let alice = Credentials::login("alice", "hunter2");
    manifest(&machine.session("example.com/team/app:1", Some(&alice)), "1").await.unwrap();
    assert!(mirror.log().iter().all(|asked| asked.authorization.is_none()));
    // The mirror's own are in a file: wrong ones for a longer name do not hide that.
    let login = |user: &str, password: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
    };
    machine.write(
        "auth.json",
        &format!(
            "{{\"auths\": {{\"{host}/team\": {{\"auth\": \"{}\"}}, \"{host}\": {{\"auth\": \"{}\"}}}}}}",
            login("mirror", "m"),
            login("mirror", "wrong"),
            host = mirror_at.host()
        ),
    );
    let before = server.log().len();
    manifest(&machine.session("example.com/team/app:1", None), "1").await.unwrap();
    assert_eq!(server.log().len(), before, "the mirror served it");
    // A token that was agreed on elsewhere.
    mirror.set_auth(Auth::Token("agreed".into()));
    let token = |token: &str| {
        format!("{{\"auths\": {{\"{}\": {{\"registrytoken\": \"{token}\"}}}}}}", mirror_at.host())
    };
    machine.write("auth.json", &token("agreed"));
    manifest(&machine.session("example.com/team/app:1", None), "1").await.unwrap();
    assert_eq!(server.log().len(), before, "the mirror served it");
    mirror.set_auth(Auth::Basic { username: "mirror".into(), password: "m".into() });
    // A file that is broken fails only whoever needs it.
    machine.write("auth.json", "{ no");
    mirror.set_auth(Auth::None);
    manifest(&machine.session("example.com/team/app:1", None), "1").await.unwrap();
    mirror.set_auth(Auth::Basic { username: "mirror".into(), password: "m".into() });
    let session = machine.session("example.com/team/app:1", None);
    let Err(error) = manifest(&session, "1").await else { panic!("nobody lets it in") };
    assert!(error.to_string().contains("auth.json:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_file_go_to_its_host_only() {
    let machine = Machine::new();
    let (mirror, mirror_at, image) = serving("app").await;
    let (storage, storage_at, _) = serving("app").await;
    machine.write(
        "certs.d/example.com/hosts.toml",
        &format!("server = \"http://{}\"\n[header]\nauthorization = \"Basic c2VjcmV0\"\n", mirror_at.host()),
    );
    let to = format!("http://{}", storage_at.host());
    mirror.set_hook(move |asked| {
        asked.target.contains("/blobs/").then(|| Fault::redirect(&format!("{to}{}", asked.target)))
    });
    let session = machine.session("example.com/app:1", None);
    let layer = &image.layers[0];
    download(&session, &layer.digest, layer.packed.len() as u64).await.unwrap();
    assert_eq!(mirror.log()[0].authorization.as_deref(), Some("Basic c2VjcmV0"));
    assert_eq!(storage.log()[0].authorization, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_noticed_and_a_short_name_leads_where_the_file_says() {
    let machine = Machine::new();
    let (one, one_at, _) = serving("app").await;
    let (two, two_at, _) = serving("app").await;
    for (at, registry) in [(&one_at, &one), (&two_at, &two)] {
        machine.write("registries.conf", &format!("[aliases]\ntool = \"{}/app\"\n", at.host()));
        machine.manifest("tool:1").await.unwrap();
        assert_eq!(registry.count("/manifests/1"), 1);
    }
}
