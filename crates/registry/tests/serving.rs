//! The registry itself: what it stores it gives out, to whom it should, and as badly as it is told to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use registry::make::{self, INDEX, MANIFEST, artifact, sha256};
use registry::tar::Entry;
use registry::{Auth, Fault, Listening, Registry, Rule};
use serde_json::{Value, json};

/// What came back; a body that broke off as far as it came.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    whole: bool,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

async fn ask(
    at: &Listening,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Got> {
    let mut request = Request::builder().method(method).uri(format!("http://{}{target}", at.host()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body))).unwrap();
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.ok()?;
    let (parts, mut body) = answer.into_parts();
    let (mut bytes, mut whole) = (Vec::new(), true);
    while let Ok(Some(frame)) = tokio::time::timeout(Duration::from_millis(300), body.frame()).await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(_) => whole = false,
        }
    }
    Some(Got { status: parts.status.as_u16(), headers: parts.headers, body: bytes, whole })
}

async fn get(at: &Listening, target: &str) -> Got {
    ask(at, "GET", target, &[], b"").await.unwrap()
}

fn image() -> make::Image {
    let layer = make::Layer::new(&[Entry::file("a", 0o644, vec![7; 200_000])], make::Compression::Plain);
    make::ImageBuilder::new().layer(layer).build()
}

async fn with_image() -> (Arc<Registry>, Listening, make::Image) {
    let registry = Registry::new();
    let image = image();
    registry.add("some/app", "1", &image);
    let listening = registry.listen().await.unwrap();
    (registry, listening, image)
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    let registry = Registry::new();
    let at = registry.listen().await.unwrap();
    let (one, two, three) = (b"first ".to_vec(), b"second".to_vec(), b"third".to_vec());
    let joined = [one.clone(), two.clone()].concat();
    // In pieces.
    let begun = ask(&at, "POST", "/v2/app/blobs/uploads/", &[], b"").await.unwrap();
    assert_eq!(begun.status, 202);
    let location = begun.header("location").to_owned();
    let piece = ask(&at, "PATCH", &location, &[("content-range", "0-5")], &one).await.unwrap();
    assert_eq!((piece.status, piece.header("range")), (202, "0-5"));
    let wrong = ask(&at, "PATCH", &location, &[("content-range", "2-5")], &one).await.unwrap();
    assert_eq!((wrong.status, wrong.header("range")), (416, "0-5"));
    assert_eq!(get(&at, &location).await.header("range"), "0-5");
    let target = format!("{location}?digest={}", sha256(&joined));
    assert_eq!(ask(&at, "PUT", &target, &[], &two).await.unwrap().status, 201);
    assert_eq!(get(&at, &format!("/v2/app/blobs/{}", sha256(&joined))).await.body, joined);
    assert_eq!(get(&at, &location).await.status, 404, "the upload is over");
    // At once, with the right digest and with another.
    let target = |digest: &str| format!("/v2/app/blobs/uploads/?digest={}", digest.replace(':', "%3A"));
    assert_eq!(ask(&at, "POST", &target(&sha256(&three)), &[], &three).await.unwrap().status, 201);
    let lie = ask(&at, "POST", &target(&sha256(&one)), &[], &three).await.unwrap();
    assert_eq!((lie.status, &lie.json()["errors"][0]["code"]), (400, &json!("DIGEST_INVALID")));
    // Another repository has it once it is mounted there.
    let there = format!("/v2/other/blobs/{}", sha256(&three));
    assert_eq!(ask(&at, "HEAD", &there, &[], b"").await.unwrap().status, 404);
    let mount = |digest: &str, from: &str| {
        format!("/v2/other/blobs/uploads/?mount={}&from={from}", sha256(digest.as_bytes()))
    };
    assert_eq!(ask(&at, "POST", &mount("third", "app"), &[], b"").await.unwrap().status, 201);
    assert_eq!(ask(&at, "POST", &mount("third", "nowhere"), &[], b"").await.unwrap().status, 202);
    assert_eq!(get(&at, &there).await.body, three);
    // A manifest needs its blobs to be there.
    let manifest = |config: &[u8]| {
        let config = make::descriptor("application/x", &sha256(config), config.len());
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [] }).to_string()
    };
    let kind = [("content-type", MANIFEST)];
    let put = async |body: String| {
        ask(&at, "PUT", "/v2/app/manifests/v1", &kind, body.as_bytes()).await.unwrap().status
    };
    assert_eq!(put(manifest(b"absent")).await, 400);
    assert_eq!(put(manifest(&three)).await, 201);
    let got = get(&at, "/v2/app/manifests/v1").await;
    assert_eq!((got.header("content-type"), &got.body), (MANIFEST, &manifest(&three).into_bytes()));
    assert_eq!(get(&at, "/v2/app/tags/list").await.json()["tags"], json!(["v1"]));
}

#[tokio::test]
async fn referrers_by_api_and_by_tag() {
    let (registry, at, image) = with_image().await;
    let signature = artifact("application/sig", Some(&image), &[("text/plain", b"yes", Value::Null)]);
    let sbom = artifact("application/sbom", Some(&image), &[("text/plain", b"parts", Value::Null)]);
    registry.add_referrer("some/app", &image.digest, &signature);
    registry.add_referrer("some/app", &image.digest, &sbom);
    let target = format!("/v2/some/app/referrers/{}", image.digest);
    let all = get(&at, &target).await;
    assert_eq!(all.header("content-type"), INDEX);
    assert_eq!(all.json()["manifests"].as_array().unwrap().len(), 2);
    let some = get(&at, &format!("{target}?artifactType=application%2Fsig")).await;
    assert_eq!(some.header("oci-filters-applied"), "artifactType");
    assert_eq!(some.json()["manifests"][0]["digest"], signature.digest);
    assert_eq!(some.json()["manifests"][0]["artifactType"], "application/sig");
    // Nothing refers to it: that is no error.
    let none = get(&at, &format!("/v2/some/app/referrers/{}", signature.digest)).await;
    assert_eq!((none.status, none.json()["manifests"].as_array().unwrap().len()), (200, 0));
    registry.set_referrers_api(false);
    assert_eq!(get(&at, &target).await.status, 404);
    registry.add_referrer("some/app", &image.digest, &sbom);
    let tag = image.digest.replace(':', "-");
    let index = get(&at, &format!("/v2/some/app/manifests/{tag}")).await.json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tokens_are_for_what_they_were_bought_for() {
    let (registry, at, image) = with_image().await;
    registry.set_auth(Auth::Bearer { realm: None, login: None, identity_token: None, expires_in: Some(1) });
    let target = "/v2/some/app/manifests/1";
    let challenge = get(&at, target).await;
    let expected = format!(
        "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:some/app:pull\",error=\"invalid_token\"",
        at.host()
    );
    assert_eq!((challenge.status, challenge.header("www-authenticate")), (401, &*expected));
    let buy = async |scope: &str| {
        let answer = get(&at, &format!("/token?service=test&scope={scope}")).await.json();
        let token = answer.get("token").or(answer.get("access_token")).unwrap().as_str().unwrap().to_owned();
        format!("Bearer {token}")
    };
    let with = async |method: &str, target: &str, token: &str| {
        ask(&at, method, target, &[("authorization", token)], b"").await.unwrap().status
    };
    let token = buy("repository%3Asome/app:pull").await;
    assert_eq!(with("GET", target, &token).await, 200);
    assert_eq!(with("GET", "/v2/some/app2/manifests/1", &token).await, 401);
    assert_eq!(with("POST", "/v2/some/app/blobs/uploads/", &token).await, 401);
    let pusher = buy("repository:some/app:pull,push").await;
    assert_eq!(with("POST", "/v2/some/app/blobs/uploads/", &pusher).await, 202);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(with("GET", target, &token).await, 401, "it has run out");
    registry.set_auth(Auth::Token("agreed".into()));
    assert_eq!(with("GET", target, "Bearer agreed").await, 200);
    assert_eq!(with("GET", target, "Bearer other").await, 401);
    registry.set_auth(Auth::Basic { username: "u".into(), password: "p".into() });
    assert_eq!(with("GET", &format!("/v2/some/app/blobs/{}", image.id), "Basic dTpw").await, 200);
}

#[tokio::test]
async fn faults_are_as_told() {
    let (registry, at, image) = with_image().await;
    let blob = format!("/v2/some/app/blobs/{}", image.layers[0].digest);
    let whole = image.layers[0].packed.to_vec();
    let ask = async |fault: Fault| {
        registry.clear_log();
        registry.set_rules(vec![Rule::first(1, "/blobs/", fault)]);
        let got = ask(&at, "GET", &blob, &[("range", "bytes=1000-")], b"").await;
        assert_eq!(get(&at, &blob).await.body, whole, "only the first answer is spoilt");
        got
    };
    assert!(ask(Fault::HangUp).await.is_none());
    let got = ask(Fault::busy(429, "Wed, 21 Oct 2026 07:28:00 GMT")).await.unwrap();
    assert_eq!((got.status, got.header("retry-after")), (429, "Wed, 21 Oct 2026 07:28:00 GMT"));
    let got = ask(Fault::header("Content-Range", "bytes 0-1/2")).await.unwrap();
    assert_eq!(
        (got.status, got.header("content-range"), &got.body[..]),
        (206, "bytes 0-1/2", &whole[1000..])
    );
    let got = ask(Fault::header("Content-Length", "10")).await.unwrap();
    assert_eq!(got.body, whole[1000..1010]);
    let got = ask(Fault::header("Content-Length", "10000000")).await.unwrap();
    assert!(!got.whole && got.body == whole[1000..]);
    let got = ask(Fault::Body(vec![1; whole.len()].into())).await.unwrap();
    assert_eq!((got.status, got.body), (206, vec![1; whole.len() - 1000]));
    let got = ask(Fault::Corrupt).await.unwrap();
    assert!(got.body.len() == whole.len() - 1000 && got.body != whole[1000..]);
    let got = ask(Fault::Truncate(5000)).await.unwrap();
    assert!(!got.whole && got.body == whole[1000..6000]);
    let got = ask(Fault::Stall(5000)).await.unwrap();
    assert!(got.whole && got.body == whole[1000..6000]);
    let got = ask(Fault::IgnoreRange).await.unwrap();
    assert_eq!((got.status, got.body), (200, whole.clone()));
    let got = ask(Fault::page("<html>")).await.unwrap();
    assert_eq!((got.status, got.header("content-type"), &got.body[..]), (200, "text/html", &b"<html>"[..]));
    registry.set_rules(vec![]);
    registry.set_rate(Some(1 << 20));
    let begun = Instant::now();
    tokio::join!(get(&at, &blob), get(&at, &blob));
    assert!(begun.elapsed() > Duration::from_millis(350), "{:?}", begun.elapsed());
    assert_eq!(StatusCode::OK, get(&at, "/v2/").await.status);
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use registry::tls::{Authority, Identity, Validity};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The status line that a client gets which trusts `authority` alone.
    async fn visit(
        at: &Listening,
        authority: &Authority,
        name: &str,
        client: Option<&Identity>,
    ) -> std::io::Result<String> {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate(&authority.certificate())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate(&identity.certificate)], key).unwrap()
            }
        };
        let stream = tokio::net::TcpStream::connect(at.address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn certificates_of_every_kind() {
        let registry = Registry::new();
        let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
        let good = ours.issue(&["localhost", "127.0.0.1"], Validity::Now);
        let at = registry.listen_tls(&good, None).await.unwrap();
        assert_eq!(visit(&at, &ours, "localhost", None).await.unwrap(), "HTTP/1.1 200 OK");
        assert!(!registry.log()[0].certified);
        let refused = async |at: &Listening, authority: &Authority, name: &str| {
            visit(at, authority, name, None).await.unwrap_err().to_string()
        };
        assert!(refused(&at, &foreign, "localhost").await.contains("UnknownIssuer"));
        assert!(refused(&at, &ours, "elsewhere").await.contains("not valid for name"));
        for (validity, needle) in [(Validity::Over, "expired"), (Validity::Later, "not valid yet")] {
            let at = registry.listen_tls(&ours.issue(&["localhost"], validity), None).await.unwrap();
            let why = refused(&at, &ours, "localhost").await;
            assert!(why.contains(needle), "{why}");
        }
        let at = registry.listen_tls(&good, Some(&ours)).await.unwrap();
        registry.clear_log();
        let client = ours.issue(&["client"], Validity::Now);
        assert_eq!(visit(&at, &ours, "localhost", Some(&client)).await.unwrap(), "HTTP/1.1 200 OK");
        assert!(registry.log()[0].certified);
        for bad in [None, Some(foreign.issue(&["client"], Validity::Now))] {
            // With TLS 1.3 the client learns of it only when it reads.
            let answer = visit(&at, &ours, "localhost", bad.as_ref()).await.unwrap_or_default();
            assert_eq!(answer, "");
        }
        assert_eq!(registry.log().len(), 1);
    }
}
