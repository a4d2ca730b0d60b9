//! What is answered before a connection is handed over, and TLS.

mod support;

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use stream::{Config, Server, StartError, Tls};
use support::{Host, request, server, sh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const SPDY: &str = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
const V4: &str = "X-Stream-Protocol-Version: v4.channel.k8s.io\r\n";
const WEBSOCKET: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn status(url: &str, method: &str, headers: &str) -> (u16, String) {
    let (_, answer) = request(url, method, headers).await;
    (answer["http/1.1 ".len()..][..3].parse().unwrap(), answer)
}

#[tokio::test]
async fn a_url_is_good_once_and_for_what_it_was_given_for() {
    let (server, _) = server(Config::default());
    let good = [SPDY, V4].concat();
    let url = server.exec_url(sh("o", "true")).unwrap();
    assert!(url.starts_with(&format!("http://{}/exec/", server.address())));
    assert_eq!(status(&url, "POST", &good).await.0, 101);
    assert_eq!(status(&url, "POST", &good).await.0, 404);
    let url = server.exec_url(sh("o", "true")).unwrap();
    assert_eq!(status(&url.replace("/exec/", "/attach/"), "GET", &good).await.0, 404);
    let base = format!("http://{}", server.address());
    for path in [
        "/",
        "/exec",
        "/exec/",
        "/exec/AAAAAAAAAAAAAAAAAAAAAA",
        "//",
        "/healthz",
        "/exec/%00",
        "/exec/../x/y",
    ] {
        assert_eq!(status(&format!("{base}{path}"), "GET", &good).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn what_cannot_be_agreed_on_is_said() {
    let (server, _) = server(Config::default());
    let v = "X-Stream-Protocol-Version:";
    for (method, headers, expected) in [
        ("GET", V4.to_owned(), 400),
        ("POST", SPDY.to_owned(), 400),
        ("POST", format!("{SPDY}{v} \r\n"), 400),
        ("POST", format!("{SPDY}{v} , ,\r\n"), 400),
        ("POST", format!("{SPDY}{v} v9.channel.k8s.io\r\n"), 403),
        ("POST", format!("Upgrade: SPDY/3.1\r\n{V4}"), 400),
        ("POST", format!("Connection: Upgrade\r\nUpgrade: SPDY/3\r\n{V4}"), 400),
        (
            "POST",
            format!("connection: keep-alive, upgrade\r\nUpgrade: spdy/3.1\r\n{v} v9,v4.channel.k8s.io\r\n"),
            101,
        ),
        ("PUT", format!("{SPDY}{V4}"), 405),
        ("POST", WEBSOCKET.to_owned(), 400),
        ("GET", WEBSOCKET.replace("13", "8"), 426),
        ("GET", WEBSOCKET.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        ("GET", WEBSOCKET.replace("Sec-WebSocket-Key", "X"), 400),
        ("GET", format!("{WEBSOCKET}Sec-WebSocket-Protocol: v9\r\n"), 403),
        ("GET", WEBSOCKET.to_owned(), 101),
    ] {
        let url = server.exec_url(sh("o", "true")).unwrap();
        let (status, answer) = status(&url, method, &headers).await;
        assert_eq!(status, expected, "{method} {headers}");
        if status == 403 {
            assert!(answer.contains("x-accepted-stream-protocol-versions: v4.channel.k8s.io"), "{answer}");
        }
    }
    for (query, expected) in
        [("", 400), ("?port=0", 400), ("?port=80,x", 400), ("?port=80", 101), ("?x=1&port=65536", 400)]
    {
        let url = server.port_forward_url("pod".into(), vec![]).unwrap();
        assert_eq!(status(&format!("{url}{query}"), "GET", WEBSOCKET).await.0, expected, "{query}");
    }
}

#[tokio::test]
async fn heads_are_bounded_in_size_and_time() {
    let (server, _) = server(Config::default());
    let url = server.exec_url(sh("o", "true")).unwrap();
    let (status, _) = status(&url, "GET", &format!("X: {}\r\n", "x".repeat(100_000))).await;
    assert_eq!(status, 431);
    assert_eq!(self::status(&url, "POST", &[SPDY, V4].concat()).await.0, 101, "the token was not touched");
    let mut garbage = TcpStream::connect(server.address()).await.unwrap();
    garbage.write_all(&[0x16, 3, 1, 0, 0, 0xff, b'\n', b'\n']).await.unwrap();
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
}

#[tokio::test]
async fn urls_run_out_and_come_back() {
    let (server, _) = server(Config { max_tokens: 3, ..Config::default() });
    let urls: Vec<_> = (0..3).map(|_| server.exec_url(sh("o", "true")).unwrap()).collect();
    let error = server
        .attach_url(stream::Attach {
            container: "c".into(),
            terminal: false,
            stdin: false,
            stdout: true,
            stderr: false,
        })
        .unwrap_err();
    assert!(error.to_string().starts_with("3 streaming URLs wait"), "{error}");
    assert_eq!(status(&urls[0], "GET", "").await.0, 400);
    server.exec_url(sh("o", "true")).unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (taken, _) = server(Config::default());
    let config = Config { address: taken.address(), ..Config::default() };
    let Err(error) = Server::start(config, Arc::new(Host::default())) else { panic!("it started") };
    assert!(error.to_string().contains(&taken.address().to_string()), "{error}");
}

/// A certificate authority and what it signed for `name`.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap(), key)
    }

    fn write(&self, name: &str, folder: &Path) {
        let (certificate, key) = self.sign(name);
        std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    }

    /// A connection to the server as `name`, with a certificate of this authority if so wanted; the answer to a request.
    async fn ask(&self, server: &Server, name: &str, certified: bool) -> std::io::Result<String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = if certified {
            let (certificate, key) = self.sign("client");
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![CertificateDer::from(certificate)], key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        let stream = TcpStream::connect(server.address()).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let url = server.exec_url(sh("o", "true")).unwrap();
        assert!(url.starts_with("https://"));
        let path = url.rsplit_once("/exec/").unwrap().1;
        stream
            .write_all(format!("GET /exec/{path} HTTP/1.1\r\nHost: x\r\n{SPDY}{V4}\r\n").as_bytes())
            .await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[tokio::test]
async fn tls_with_certificates_that_change() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write("one.test", folder.path());
    let tls = Tls {
        cert_file: folder.path().join("cert.pem"),
        key_file: folder.path().join("key.pem"),
        client_ca_file: None,
    };
    let (server, _) = server(Config { tls: Some(tls), ..Config::default() });
    assert_eq!(authority.ask(&server, "one.test", false).await.unwrap(), "HTTP/1.1 101");
    assert!(authority.ask(&server, "two.test", false).await.is_err());
    std::fs::write(folder.path().join("cert.pem"), "nonsense").unwrap();
    assert_eq!(
        authority.ask(&server, "one.test", false).await.unwrap(),
        "HTTP/1.1 101",
        "the last good one stays"
    );
    authority.write("two.test", folder.path());
    assert_eq!(authority.ask(&server, "two.test", false).await.unwrap(), "HTTP/1.1 101");
}

#[tokio::test]
async fn tls_for_known_clients_only() {
    let folder = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write("one.test", folder.path());
    let client_ca_file = folder.path().join("ca.pem");
    std::fs::write(&client_ca_file, authority.0.pem()).unwrap();
    let tls = Tls {
        cert_file: folder.path().join("cert.pem"),
        key_file: folder.path().join("key.pem"),
        client_ca_file: Some(client_ca_file),
    };
    let (server, _) = server(Config { tls: Some(tls.clone()), ..Config::default() });
    assert!(authority.ask(&server, "one.test", false).await.is_err());
    assert!(other.ask(&server, "one.test", true).await.is_err());
    assert_eq!(authority.ask(&server, "one.test", true).await.unwrap(), "HTTP/1.1 101");

    let start =
        |tls| Server::start(Config { tls: Some(tls), ..Config::default() }, Arc::new(Host::default()));
    let missing = Tls { cert_file: folder.path().join("none.pem"), ..tls.clone() };
    let wrong = Tls { key_file: tls.cert_file.clone(), ..tls };
    for (tls, text) in [(missing, "none.pem: cannot be read"), (wrong, "holds no private key")] {
        match start(tls) {
            Err(StartError::Tls(error)) => assert!(error.to_string().contains(text), "{error}"),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it started"),
        }
    }
}
