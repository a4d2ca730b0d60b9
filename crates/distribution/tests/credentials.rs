//! Registries that ask for credentials in every way, and in ways meant to have them sent elsewhere.

use std::sync::Arc;
use std::time::Duration;

use distribution::{
    Client, Credentials, Endpoint, Fetched, Pem, Proxies, RegistryError, Scheme, Session, Timeouts,
};
use registry::make::{Compression, ImageBuilder, Layer};
use registry::tar::Entry;
use registry::tls::{Authority, Validity};
use registry::{Auth, Fault, Listening, Registry, Rule};

const PASSWORD: &str = "hunter2";
/// `alice:hunter2` as `Basic` has it.
const BASIC: &str = "Basic YWxpY2U6aHVudGVyMg==";

fn with_image() -> Arc<Registry> {
    let registry = Registry::new();
    let layer = Layer::new(&[Entry::file("a", 0o644, "x")], Compression::Gzip);
    registry.add("private/app", "1", &ImageBuilder::new().layer(layer).build());
    registry
}

fn session(at: &Listening, given: &Credentials, authority: Option<&Authority>) -> Session {
    let timeouts = Timeouts {
        tries: 2,
        backoff: Duration::from_millis(1),
        headers: Duration::from_millis(1500),
        ..Timeouts::default()
    };
    let scheme = if authority.is_some() { Scheme::Https } else { Scheme::Http };
    let mut endpoint = Endpoint::of_registry(&at.host(), &at.host(), "private/app", scheme);
    endpoint.tls.authorities = authority
        .map(|authority| Pem { path: "ca.crt".into(), bytes: authority.certificate().into_bytes().into() })
        .into_iter()
        .collect();
    Session::new(Arc::new(Client::new(Proxies::default(), timeouts)), vec![endpoint], Some(given))
}

async fn ask(session: &Session) -> Result<Fetched, RegistryError> {
    session.manifest("1", None, "application/vnd.oci.image.manifest.v1+json", 1 << 20).await
}

/// A bearer registry whose tokens are given out at `realm`.
fn at_realm(realm: Option<String>) -> Auth {
    let login = Some(("alice".to_owned(), PASSWORD.to_owned()));
    Auth::Bearer { realm, login, identity_token: Some("refresh-me".into()), expires_in: None }
}

/// Whether anything that `registry` was sent could be used by it against whom it belongs to.
fn was_told_a_secret(registry: &Registry) -> bool {
    let secret = |text: &str| text.contains(BASIC) || text.contains(PASSWORD) || text.contains("refresh-me");
    registry.log().iter().any(|asked| asked.authorization.is_some() || secret(&asked.target))
        || registry.forms().iter().any(|form| secret(form))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_goes_to_no_realm_but_a_good_one() {
    let (ours, private) = (with_image(), Authority::new("private"));
    let identity = private.issue(&["localhost", "127.0.0.1"], Validity::Now);
    let secure = ours.listen_tls(&identity, None).await.unwrap();
    let elsewhere = Registry::new();
    elsewhere.set_auth(at_realm(None));
    let plain = elsewhere.listen().await.unwrap();
    let foreign = elsewhere
        .listen_tls(&Authority::new("foreign").issue(&["localhost", "127.0.0.1"], Validity::Now), None)
        .await
        .unwrap();
    let realms = [
        ("in the clear", format!("http://{}/token", plain.host())),
        ("in the clear, on a host of the same name", format!("http://{}/token", secure.host())),
        ("signed by somebody unknown", format!("https://{}/token", foreign.host())),
        ("with a name of its own", format!("https://{}@{}/token", "user:secret", foreign.host())),
        ("link-local", "https://169.254.169.254/token".to_owned()),
        ("link-local, as a number", "https://2852039166/token".to_owned()),
        ("of another protocol", "ftp://localhost/token".to_owned()),
        ("without a host", "/token".to_owned()),
        ("that is none", "://".to_owned()),
    ];
    let login = Credentials::login("alice", PASSWORD);
    let identity = Credentials { identity_token: "refresh-me".into(), ..Credentials::default() };
    for (what, realm) in realms {
        ours.set_auth(at_realm(Some(realm)));
        for given in [&login, &identity] {
            let Err(error) = ask(&session(&secure, given, Some(&private))).await else {
                panic!("{what}: it went")
            };
            let text = format!("{error} {error:?}");
            assert!(!text.contains(PASSWORD) && !text.contains("refresh-me"), "{what}: {text}");
            assert!(!was_told_a_secret(&elsewhere), "{what}: {:?} {:?}", elsewhere.log(), elsewhere.forms());
            assert!(!was_told_a_secret(&ours), "{what}: the registry itself does not need it");
        }
    }
    // And where it is said, it goes.
    ours.set_auth(at_realm(None));
    ask(&session(&secure, &login, Some(&private))).await.unwrap();
    ask(&session(&secure, &identity, Some(&private))).await.unwrap();
    assert!(was_told_a_secret(&ours));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_takes_no_credential_along() {
    let (ours, elsewhere) = (with_image(), with_image());
    let login = Credentials::login("alice", PASSWORD);
    let token = Credentials { registry_token: "agreed".into(), ..Credentials::default() };
    let at = ours.listen().await.unwrap();
    let there = elsewhere.listen().await.unwrap();
    let basic = Auth::Basic { username: "alice".into(), password: PASSWORD.into() };
    for (auth, given) in [(basic, &login), (Auth::Token("agreed".into()), &token), (at_realm(None), &login)] {
        ours.set_auth(auth.clone());
        // Only once it is proven: the challenge itself is not redirected.
        let to = there.host();
        ours.set_hook(move |asked| {
            let proven = asked.authorization.is_some() && asked.target.starts_with("/v2/");
            proven.then(|| Fault::redirect(&format!("http://{to}{}?sig=s3cret", asked.target)))
        });
        ask(&session(&at, given, None)).await.unwrap();
        assert!(
            !elsewhere.log().is_empty() && !was_told_a_secret(&elsewhere),
            "{auth:?}: {:?}",
            elsewhere.log()
        );
        // What it answers to a request without credentials is not a reason to send them.
        elsewhere.set_auth(at_realm(None));
        assert!(ask(&session(&at, given, None)).await.is_err());
        assert!(!was_told_a_secret(&elsewhere), "{auth:?}: {:?}", elsewhere.log());
        elsewhere.set_auth(Auth::None);
        elsewhere.clear_log();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_does_not_leave_tls() {
    let (ours, elsewhere, private) = (with_image(), with_image(), Authority::new("private"));
    let identity = private.issue(&["127.0.0.1"], Validity::Now);
    let (at, there) = (ours.listen_tls(&identity, None).await.unwrap(), elsewhere.listen().await.unwrap());
    let to = format!("http://{}/v2/private/app/manifests/1?sig=s3cret", there.host());
    ours.set_rules(vec![Rule::always("/manifests/", Fault::redirect(&to))]);
    let Err(error) = ask(&session(&at, &Credentials::default(), Some(&private))).await else {
        panic!("it went")
    };
    assert!(error.to_string().contains("leaves TLS") && !error.to_string().contains("s3cret"), "{error}");
    assert!(elsewhere.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_none_are_told() {
    let ours = with_image();
    let at = ours.listen().await.unwrap();
    let answer = |body: &str| Fault::Answer { status: 200, headers: Vec::new(), body: body.into() };
    let cases = [
        ("nothing", answer(""), "JSON"),
        ("a page", Fault::page("<html>"), "JSON"),
        ("an empty object", answer("{}"), "empty"),
        ("an empty token", answer("{\"token\":\"\"}"), "empty"),
        ("a token with a line in it", answer("{\"token\":\"a\\r\\nX-Evil: 1\"}"), "empty"),
        ("a life below nothing", answer("{\"token\":\"a\",\"expires_in\":-1}"), "JSON"),
        ("bytes without end", Fault::Endless, "token service"),
        ("a refusal", Fault::status(403), "permit"),
        ("a failure", Fault::status(500), "500"),
        ("a redirect", Fault::redirect("http://169.254.169.254/token"), "307"),
    ];
    let login = Credentials::login("alice", PASSWORD);
    for (what, fault, says) in cases {
        ours.set_auth(at_realm(None));
        ours.set_rules(vec![Rule::always("/token", fault)]);
        let Err(error) = ask(&session(&at, &login, None)).await else { panic!("{what}: it went") };
        assert!(error.to_string().contains(says), "{what}: {error}");
    }
    ours.set_rules(Vec::new());
    // One that says nothing of its end is used as long as tokens live at least, and one that lives for ever is not.
    for expires_in in [None, Some(u64::MAX >> 12)] {
        let login_pair = Some(("alice".to_owned(), PASSWORD.to_owned()));
        ours.set_auth(Auth::Bearer { realm: None, login: login_pair, identity_token: None, expires_in });
        let session = session(&at, &login, None);
        ours.clear_log();
        for _ in 0..3 {
            ask(&session).await.unwrap();
        }
        assert_eq!(ours.count("/token"), 1, "{expires_in:?}");
    }
}
