//! Plans made of files in a folder of the test's own.

use super::*;

struct Machine {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let sources = Sources {
            insecure: vec!["plain.example".into(), "ported.example:5000".into()],
            certs_dirs: vec![path("one"), path("two")],
            registries_conf: Some(path("registries.conf")),
            auth_files: vec![path("auth.json"), path("config.json")],
        };
        Machine { folder, sources }
    }

    fn write(&self, name: &str, text: &str) -> &Machine {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn plan(&self, text: &str) -> Plan {
        self.sources.plan(text).unwrap()
    }

    fn error(&self, text: &str) -> String {
        let error = self.sources.plan(text).unwrap_err().to_string();
        error.replace(&format!("{}/", self.folder.path().display()), "")
    }

    /// The URLs of a reference, each with the files and lines that said so.
    fn urls(&self, text: &str) -> Vec<String> {
        let plan = self.plan(text);
        let candidates = plan.candidates.iter();
        candidates
            .flat_map(|c| {
                c.endpoints.iter().map(|e| (e, e.url(&format!("manifests/{}", c.reference.manifest()))))
            })
            .map(|(endpoint, url)| {
                let said: Vec<_> = endpoint.said.iter().map(ToString::to_string).collect();
                let said = said.join(" ").replace(&format!("{}/", self.folder.path().display()), "");
                format!("{url} {said}").trim_end().to_owned()
            })
            .collect()
    }

    fn endpoints(&self, text: &str) -> Vec<Endpoint> {
        self.plan(text).candidates.remove(0).endpoints
    }
}

#[test]
fn nothing_said_is_the_registry_itself() {
    let machine = Machine::new();
    assert_eq!(machine.urls("busybox"), ["https://registry-1.docker.io/v2/library/busybox/manifests/latest"]);
    let scheme = |host: &str| machine.endpoints(&format!("{host}/a"))[0].scheme;
    for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
        assert_eq!(scheme(host), Scheme::Http, "{host}");
    }
    for host in ["plain.example", "plain.example:80", "ported.example:5000"] {
        assert_eq!(scheme(host), Scheme::Http, "{host}");
    }
    for host in ["quay.io", "ported.example", "localhost.evil.org", "10.0.0.1:5000", "[fe80::1]:5000"] {
        assert_eq!(scheme(host), Scheme::Https, "{host}");
    }
}

#[test]
fn hosts_toml_is_found_as_containerd_finds_it() {
    let machine = Machine::new();
    machine
        .write("one/docker.io/hosts.toml", "server = \"https://registry-1.docker.io\"\n\n[host.\"https://z.example\"]\ncapabilities = [\"pull\"]\n[host.\"http://a.example:5000/cache\"]\n")
        .write("two/docker.io/hosts.toml", "[host.\"https://second.example\"]")
        .write("two/quay.io/hosts.toml", "server = \"https://only.example\"")
        .write("two/r.example_5000_/hosts.toml", "[host.\"https://under.example\"]")
        .write("two/r.example:5000/hosts.toml", "[host.\"https://colon.example\"]")
        .write("two/_default/hosts.toml", "[host.\"https://default.example\"]");
    assert_eq!(
        machine.urls("busybox:1"),
        [
            "https://z.example/v2/library/busybox/manifests/1?ns=docker.io one/docker.io/hosts.toml:3",
            "http://a.example:5000/cache/v2/library/busybox/manifests/1?ns=docker.io one/docker.io/hosts.toml:5",
            "https://registry-1.docker.io/v2/library/busybox/manifests/1 one/docker.io/hosts.toml:1",
        ]
    );
    assert_eq!(
        machine.urls("quay.io/a"),
        ["https://only.example/v2/a/manifests/latest?ns=quay.io two/quay.io/hosts.toml:1"]
    );
    assert!(machine.urls("r.example:5000/a")[0].starts_with("https://under.example/"));
    assert_eq!(
        machine.urls("other.example/a"),
        [
            "https://default.example/v2/a/manifests/latest?ns=other.example two/_default/hosts.toml:1",
            "https://other.example/v2/a/manifests/latest two/_default/hosts.toml",
        ]
    );
    let hub = machine.endpoints("busybox");
    assert_eq!((hub[0].capabilities.resolve, hub[0].capabilities.pull), (false, true));
    // Credentials of Docker Hub go to Docker Hub, and those of a registry to what its administrator says it is.
    assert_eq!((&hub[0].registry, &hub[2].registry), (&None, &Some("docker.io".into())));
    assert_eq!(machine.endpoints("quay.io/a")[0].registry, Some("quay.io".into()));
}

#[test]
fn registries_conf_names_hosts_and_their_folders_say_how_they_are_reached() {
    let machine = Machine::new();
    machine
        .write("registries.conf", "[[registry]]\nprefix = \"docker.io\"\nlocation = \"hub.example\"\n[[registry.mirror]]\nlocation = \"m.example:5000/hub\"\n[[registry]]\nlocation = \"evil.example\"\nblocked = true\n[[registry]]\nlocation = \"lax.example\"\ninsecure = true\n")
        .write("registries.conf.d/10-more.conf", "[[registry]]\nlocation = \"localhost:5000\"\n")
        .write("registries.conf.d/ignored.txt", "= broken")
        .write("one/m.example:5000/hosts.toml", "[host.\"https://near.example\"]\n")
        .write("two/hub.example/ca.crt", "pem");
    assert_eq!(
        machine.urls("busybox:1"),
        [
            "https://near.example/v2/hub/library/busybox/manifests/1?ns=m.example%3A5000 one/m.example:5000/hosts.toml:1 registries.conf:4",
            "https://m.example:5000/v2/hub/library/busybox/manifests/1 one/m.example:5000/hosts.toml registries.conf:4",
            "https://hub.example/v2/library/busybox/manifests/1 registries.conf:1",
        ]
    );
    let hub = machine.endpoints("busybox");
    assert_eq!(hub.iter().map(|e| e.registry.is_some()).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(hub.iter().map(|e| e.capabilities.push).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(hub[2].tls.authorities.len(), 1);
    assert_eq!(machine.error("evil.example/a:1"), "evil.example/a:1 is blocked by registries.conf:6");
    let lax = &machine.endpoints("lax.example/a")[0];
    assert_eq!((lax.scheme, lax.tls.skip_verify), (Scheme::HttpsElseHttp, true));
    let local = &machine.endpoints("localhost:5000/a")[0];
    assert_eq!((local.scheme, local.tls.skip_verify), (Scheme::HttpsElseHttp, false));
}

#[test]
fn certificates_are_for_the_host_whose_folder_they_are_in() {
    let machine = Machine::new();
    machine
        .write("two/r.example:5000/ca.crt", "pem")
        .write("two/r.example:5000/me.cert", "pem")
        .write("two/r.example:5000/me.key", "key")
        .write("one/docker.io/hosts.toml", "[host.\"https://m.example\"]\nca = \"m.crt\"\nclient = \"both.pem\"\nskip_verify = false\ndial_timeout = \"2s\"\nheader = { x-key = \"s3cret\" }")
        .write("one/docker.io/m.crt", "pem")
        .write("one/docker.io/both.pem", "pem");
    let own = &machine.endpoints("r.example:5000/a")[0];
    assert_eq!((own.tls.authorities.len(), own.tls.identities.len()), (1, 1));
    assert!(own.tls.identities[0].key_path().ends_with("me.key"));
    let hub = machine.endpoints("busybox");
    assert_eq!((hub[0].tls.authorities.len(), hub[0].tls.identities.len()), (1, 1));
    assert_eq!((hub[0].connect.unwrap().as_secs(), hub[0].headers.len()), (2, 1));
    assert!(!format!("{hub:?}").contains("s3cret"));
    // What lies beside a hosts.toml is not for the registry itself.
    assert_eq!(hub[1].tls, Tls::default());
    std::fs::remove_file(machine.folder.path().join("one/docker.io/m.crt")).unwrap();
    assert!(machine.error("busybox").starts_with("one/docker.io/m.crt: "), "{}", machine.error("busybox"));
    machine.plan("quay.io/a");
}

#[test]
fn a_broken_file_fails_what_needs_it() {
    let machine = Machine::new();
    machine.write("one/quay.io/hosts.toml", "[host]\n\nserver = 3\n[host");
    assert!(
        machine.error("quay.io/a").starts_with("one/quay.io/hosts.toml:4: "),
        "{}",
        machine.error("quay.io/a")
    );
    machine.plan("busybox");
    machine.write("registries.conf.d/1.conf", "\n[[registry]]");
    assert!(machine.error("busybox").starts_with("registries.conf.d/1.conf:2: "));
    machine.write("registries.conf.d/1.conf", "");
    machine.plan("busybox");
    // Credentials are looked for only if somebody asks for them.
    machine.write("auth.json", "{\n\"auths\": [");
    let sources = &machine.endpoints("busybox")[0].credentials;
    assert!(
        matches!(&sources[0], CredentialSource::Unreadable { why } if why.contains("auth.json:2")),
        "{sources:?}"
    );
    std::fs::remove_file(machine.folder.path().join("auth.json")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, machine.folder.path().join("auth.json"), 0o600.into()).unwrap();
    assert!(matches!(&machine.endpoints("busybox")[0].credentials[0], CredentialSource::Unreadable { .. }));
}

#[test]
fn short_names_become_candidates() {
    let machine = Machine::new();
    machine.write("registries.conf", "unqualified-search-registries = [\"a.example\", \"docker.io\"]\n[aliases]\n\"tool\" = \"quay.io/x/tool\"\n");
    assert_eq!(
        machine.urls("app:1"),
        ["https://a.example/v2/app/manifests/1", "https://registry-1.docker.io/v2/library/app/manifests/1",]
    );
    let plan = machine.plan("tool");
    let tool = &plan.candidates[0];
    assert_eq!(tool.reference.to_string(), "quay.io/x/tool:latest");
    // The kubelet chose them for docker.io/library/tool.
    assert!(!tool.is_meant(&Credentials::login("u", "p")));
    assert!(tool.is_meant(&Credentials::to("quay.io")));
    assert!(machine.plan("quay.io/x/tool").candidates[0].is_meant(&Credentials::login("u", "p")));
}

#[test]
fn credentials_come_from_the_first_file_that_has_some() {
    let machine = Machine::new();
    machine
        .write("auth.json", r#"{"auths": {"quay.io/team": {"auth": "dGVhbTp4"}}}"#)
        .write("config.json", r#"{"auths": {"quay.io": {"auth": "YWxsOng="}}, "credsStore": "pass"}"#);
    let kinds = |text: &str| {
        let endpoint = machine.endpoints(text).remove(0);
        let kind = |source: &CredentialSource| match source {
            CredentialSource::File { key, .. } => key.clone(),
            CredentialSource::Helper { name, .. } => format!("helper {name}"),
            CredentialSource::Unreadable { why } => why.clone(),
        };
        endpoint.credentials.iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds("quay.io/team/app"), ["quay.io/team", "quay.io", "helper pass"]);
    assert_eq!(kinds("quay.io/other/app"), ["quay.io", "helper pass"]);
    machine.write("registries.conf", "credential-helpers = [\"secretservice\", \"containers-auth.json\"]");
    assert_eq!(kinds("quay.io/team/app")[..2], ["helper secretservice", "quay.io/team"]);
}
