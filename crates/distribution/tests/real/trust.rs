//! TLS: private authorities, client certificates, and registries that are meant to be insecure.

use std::sync::atomic::{AtomicU32, Ordering};

use registry::tls::{Authority, Identity, Validity};

use super::*;

struct Secure {
    machine: Machine,
    authority: Authority,
    listening: Listening,
    registry: Arc<Registry>,
}

async fn secure(names: &[&str], clients: Option<&Authority>) -> Secure {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let (registry, authority) = (Registry::new(), Authority::new(&name));
    registry.add("app", "1", &image());
    let identity = authority.issue(names, Validity::Now);
    let listening = registry.listen_tls(&identity, clients).await.unwrap();
    let mut machine = Machine::new();
    // Loopback would be spoken to without.
    machine.timeouts.tries = 1;
    Secure { machine, authority, listening, registry }
}

impl Secure {
    fn hosts_toml(&self, more: &str) {
        let at = self.listening.host();
        self.machine.write("certs.d/example.com/hosts.toml", &format!("server = \"https://{at}\"\n{more}"));
    }

    async fn error(&self) -> String {
        match self.machine.manifest("example.com/app:1").await {
            Ok(_) => panic!("it is not to be trusted"),
            Err(error) => error.to_string(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let place = secure(&["127.0.0.1"], None).await;
    let authority = place.authority.certificate();
    place.hosts_toml("");
    let error = place.error().await;
    assert!(error.contains("does not trust who signed"), "{error}");
    place.machine.write("certs.d/example.com/private.pem", &authority);
    place.hosts_toml("ca = \"private.pem\"\n");
    place.machine.manifest("example.com/app:1").await.unwrap();
    // As Docker and Podman have it: a folder for the host itself.
    let host = place.listening.host();
    assert!(place.machine.manifest(&format!("{host}/app:1")).await.is_err());
    place.machine.write(&format!("certs.d/{host}/ca.crt"), &authority);
    place.machine.manifest(&format!("{host}/app:1")).await.unwrap();
    // And only for the host that it is for.
    let other = secure(&["127.0.0.1"], None).await;
    other.hosts_toml("ca = \"private.pem\"\n");
    other.machine.write("certs.d/example.com/private.pem", &authority);
    assert!(other.error().await.contains("does not trust"));
    // What is no certificate is named.
    place.machine.write("certs.d/example.com/private.pem", "-----BEGIN NOTHING-----");
    assert!(place.error().await.contains("certs.d/example.com/private.pem"), "{}", place.error().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_dates_count_unless_told_otherwise() {
    let place = secure(&["elsewhere.example"], None).await;
    place.machine.write("certs.d/example.com/ca.pem", &place.authority.certificate());
    place.hosts_toml("ca = \"ca.pem\"\n");
    assert!(place.error().await.contains("127.0.0.1"), "{}", place.error().await);
    place.hosts_toml("skip_verify = true\n");
    place.machine.manifest("example.com/app:1").await.unwrap();
    let over = place.authority.issue(&["127.0.0.1"], Validity::Over);
    let late = place.registry.listen_tls(&over, None).await.unwrap();
    let at = late.host();
    let text = format!("server = \"https://{at}\"\nca = \"ca.pem\"\n");
    place.machine.write("certs.d/example.com/hosts.toml", &text);
    assert!(place.error().await.contains("has expired"), "{}", place.error().await);
}

/// A certificate that is its own authority, as `openssl req -x509` makes it.
fn self_signed(name: &str) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_is_trusted_where_it_was_put() {
    let (certificate, key) = self_signed("127.0.0.1");
    let port = openssl_server(&certificate, &key);
    let Some((mut server, port)) = port else {
        println!("SKIPPED: needs openssl");
        return;
    };
    let machine = Machine::new();
    let host = format!("127.0.0.1:{port}");
    machine.write(&format!("certs.d/{host}/ca.crt"), &certificate);
    let session = machine.session(&format!("{host}/app:1"), None);
    let answered = manifest(&session, "1").await;
    let (other, _) = self_signed("127.0.0.1");
    machine.write(&format!("certs.d/{host}/ca.crt"), &other);
    let other = manifest(&machine.session(&format!("{host}/app:1"), None), "1").await;
    server.kill().unwrap();
    server.wait().unwrap();
    // It serves pages and no manifests: what counts is that it was spoken to.
    let Err(error) = answered else { return };
    assert!(!error.to_string().contains("certificate"), "{error}");
    assert!(other.is_err_and(|error| error.to_string().contains("ertificate")));
}

/// `openssl s_server` with a certificate that webpki does not take for a server's.
fn openssl_server(certificate: &str, key: &str) -> Option<(std::process::Child, u16)> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.pem"), certificate).unwrap();
    std::fs::write(folder.path().join("k.pem"), key).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = std::process::Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-cert", "c.pem", "-key", "k.pem", "-accept"])
        .arg(format!("127.0.0.1:{port}"))
        .current_dir(folder.path())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .ok()?;
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some((child, port));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_to_its_host_and_to_no_other() {
    let clients = Authority::new("clients");
    let place = secure(&["127.0.0.1"], Some(&clients)).await;
    place.machine.write("certs.d/example.com/ca.pem", &place.authority.certificate());
    place.hosts_toml("ca = \"ca.pem\"\n");
    // Refused after the handshake, as TLS 1.3 does: where the connection is reset first, the reason is lost on the way.
    let mut error = place.error().await;
    for _ in 0..20 {
        if error.contains("certificate") {
            break;
        }
        error = place.error().await;
    }
    assert!(error.contains("certificate"), "{error}");
    let Identity { certificate, key, .. } = clients.issue(&["me"], Validity::Now);
    place.machine.write("certs.d/example.com/me.cert", &certificate);
    place.machine.write("certs.d/example.com/me.key", &key);
    place.machine.write("certs.d/example.com/both.pem", &format!("{certificate}{key}"));
    for client in ["client = \"both.pem\"", "client = [[\"me.cert\", \"me.key\"]]"] {
        place.hosts_toml(&format!("ca = \"ca.pem\"\n{client}\n"));
        place.machine.manifest("example.com/app:1").await.unwrap();
    }
    assert!(place.registry.log().iter().all(|asked| asked.certified));
    // A host that it redirects to gets none, though it is trusted as the registry is.
    let storage = Registry::new();
    storage.add("app", "1", &image());
    let stored =
        storage.listen_tls(&place.authority.issue(&["127.0.0.1"], Validity::Now), None).await.unwrap();
    let to = format!("https://{}", stored.host());
    place.registry.set_hook(move |asked| Some(registry::Fault::redirect(&format!("{to}{}", asked.target))));
    place.machine.manifest("example.com/app:1").await.unwrap();
    assert!(storage.log().iter().all(|asked| !asked.certified) && !storage.log().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insecure_registry_may_speak_tls_or_not() {
    let place = secure(&["elsewhere.example"], None).await;
    let (plain, plain_at, _) = serving("app").await;
    for host in [place.listening.host(), plain_at.host()] {
        let text = format!("[[registry]]\nprefix = \"example.com\"\nlocation = \"{host}\"\n");
        place.machine.write("registries.conf", &format!("{text}insecure = true\n"));
        place.machine.manifest("example.com/app:1").await.unwrap();
    }
    assert_eq!((place.registry.count("/manifests/1"), plain.count("/manifests/1")), (1, 1));
    // Without that word, the certificate counts.
    let text = format!("[[registry]]\nprefix = \"example.com\"\nlocation = \"{}\"\n", place.listening.host());
    place.machine.write("registries.conf", &text);
    assert!(place.machine.manifest("example.com/app:1").await.is_err());
}
