//! Proxies: small real ones in this process, which lead to registries on loopback under names that only they know.

use std::sync::Mutex;

use registry::tls::{Authority, Validity};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What a proxy was asked, a line each.
type Seen = Arc<Mutex<Vec<String>>>;

/// An HTTP proxy that leads everything to one address.
async fn http_proxy(to: String) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (to, log) = (to.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                log.lock().unwrap().push(head.clone());
                if !head.contains("roxy-authorization: Basic YWw6cHc=")
                    && !head.contains("roxy-Authorization: Basic YWw6cHc=")
                {
                    let _ = stream.write_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n").await;
                    return;
                }
                let mut server = TcpStream::connect(&to).await.unwrap();
                if head.starts_with("CONNECT ") {
                    stream.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").await.unwrap();
                } else {
                    server.write_all(head.as_bytes()).await.unwrap();
                }
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (at, seen)
}

/// A SOCKS5 proxy without passwords.
async fn socks_proxy(to: String) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (to, log) = (to.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                let mut head = [0; 3];
                stream.read_exact(&mut head).await.unwrap();
                stream.write_all(&[5, 0]).await.unwrap();
                let mut request = [0; 5];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(request[3], 3, "names are looked up by the proxy");
                let mut name = vec![0; usize::from(request[4]) + 2];
                stream.read_exact(&mut name).await.unwrap();
                name.truncate(name.len() - 2);
                log.lock().unwrap().push(String::from_utf8(name).unwrap());
                let mut server = TcpStream::connect(&to).await.unwrap();
                stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (at, seen)
}

fn machine(variables: &[(&'static str, String)]) -> Machine {
    let proxies =
        Proxies::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| v.clone()));
    Machine { proxies, ..Machine::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_goes_through_a_tunnel_and_the_rest_by_request() {
    let (authority, secure) = (Authority::new("a"), Registry::new());
    secure.add("app", "1", &image());
    let identity = authority.issue(&["registry.example"], Validity::Now);
    let secure_at = secure.listen_tls(&identity, None).await.unwrap();
    let (plain, plain_at, _) = serving("app").await;
    let (tunnel, tunnelled) = http_proxy(secure_at.host()).await;
    let (by_request, requested) = http_proxy(plain_at.host()).await;
    let mut machine = machine(&[
        ("HTTPS_PROXY", format!("http://al:pw@{tunnel}")),
        ("HTTP_PROXY", format!("http://al:pw@{by_request}")),
        ("NO_PROXY", "direct.example".into()),
    ]);
    machine.sources.insecure = vec!["plain.example".into()];
    machine.write("certs.d/registry.example/ca.crt", &authority.certificate());
    machine.manifest("registry.example/app:1").await.unwrap();
    assert!(tunnelled.lock().unwrap()[0].starts_with("CONNECT registry.example:443 HTTP/1.1\r\n"));
    machine.manifest("plain.example/app:1").await.unwrap();
    let head = requested.lock().unwrap()[0].clone();
    assert!(head.starts_with("GET http://plain.example/v2/app/manifests/1 HTTP/1.1\r\n"), "{head}");
    assert_eq!((secure.log().len(), plain.log().len()), (1, 1));
    // Loopback and exceptions are reached without.
    let before = requested.lock().unwrap().len();
    machine.manifest(&format!("{}/app:1", plain_at.host())).await.unwrap();
    machine.sources.insecure.push("direct.example".into());
    assert!(machine.manifest("direct.example/app:1").await.is_err());
    assert_eq!(requested.lock().unwrap().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn socks_proxies_look_names_up() {
    let (_, plain_at, _) = serving("app").await;
    let (proxy, seen) = socks_proxy(plain_at.host()).await;
    let mut machine = machine(&[("HTTP_PROXY", format!("socks5://{proxy}"))]);
    machine.sources.insecure = vec!["plain.example".into()];
    machine.manifest("plain.example/app:1").await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["plain.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let (proxy, _) = http_proxy("127.0.0.1:1".into()).await;
    for (variable, value, reference) in [
        ("HTTPS_PROXY", format!("http://al:s3cret@{proxy}"), "registry.example/app:1"),
        ("HTTPS_PROXY", "http://al:s3cret@127.0.0.1:1".into(), "registry.example/app:1"),
        ("HTTPS_PROXY", "gopher://al:s3cret@127.0.0.1:1".into(), "registry.example/app:1"),
    ] {
        let machine = machine(&[(variable, value)]);
        let Err(error) = machine.manifest(reference).await else { panic!("the proxy refuses") };
        let text = error.to_string();
        assert!(text.contains(variable) && !text.contains("s3cret"), "{text}");
    }
}
