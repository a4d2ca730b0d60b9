//! What `registries.conf` says, and what it gets wrong.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<RegistriesConf, RouteError> {
    let conf = parse(Path::new("r.conf"), text.as_bytes())?;
    conf.check().map(|()| conf)
}

fn reference(text: &str) -> ImageReference {
    ImageReference::parse(text).unwrap()
}

/// The names that a reference stands for; `!` marks an insecure one.
fn sources(conf: &RegistriesConf, text: &str) -> Vec<String> {
    let reference = reference(text);
    let Some(registry) = conf.find(&reference) else { return vec!["nothing is said".into()] };
    let sources = registry.sources(&reference).unwrap();
    sources.iter().map(|s| format!("{}{}", if s.insecure { "!" } else { "" }, s.reference)).collect()
}

const DIGEST: &str = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn mirrors_come_first_and_prefixes_are_replaced() {
    let conf = read(
        r#"
[[registry]]
prefix = "example.com/foo"
location = "internal.example:5000/bar/"
[[registry.mirror]]
location = "one.example/mirror"
insecure = true
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
[[registry]]
location = "example.com"
insecure = true
[[registry]]
prefix = "*.wild.example"
[[registry]]
prefix = "*.deep.wild.example"
location = "deep.example"
"#,
    )
    .unwrap();
    assert_eq!(
        sources(&conf, "example.com/foo/app:1"),
        ["!one.example/mirror/app:1", "tags.example/app:1", "internal.example:5000/bar/app:1"]
    );
    let by_digest = sources(&conf, &format!("example.com/foo/app{DIGEST}"));
    assert_eq!(by_digest[1], format!("digests.example/app{DIGEST}"));
    assert_eq!(by_digest.len(), 3);
    assert_eq!(sources(&conf, "example.com/food/app:1"), ["!example.com/food/app:1"]);
    assert_eq!(sources(&conf, "a.wild.example/app:1"), ["a.wild.example/app:1"]);
    assert_eq!(sources(&conf, "a.b.deep.wild.example/app:1"), ["deep.example/app:1"]);
    for other in ["wild.example/app", "x.example/a.wild.example/app", "example.com.evil.org/foo", "busybox"] {
        assert_eq!(sources(&conf, other), ["nothing is said"], "{other}");
    }
}

#[test]
fn mirrors_by_digest_only_and_blocked_registries() {
    let conf = read(
        "[[registry]]\nlocation = 'a.example'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.example'\n[[registry]]\nlocation='b.example/evil'\nblocked=true",
    )
    .unwrap();
    assert_eq!(sources(&conf, "a.example/x:1"), ["a.example/x:1"]);
    assert_eq!(sources(&conf, &format!("a.example/x{DIGEST}")).len(), 2);
    let evil = reference("b.example/evil/x:1");
    let error = conf.find(&evil).unwrap().sources(&evil).unwrap_err();
    assert_eq!(error.to_string(), "b.example/evil/x:1 is blocked by r.conf:6");
    assert!(conf.find(&reference("b.example/good")).is_none());
}

#[test]
fn short_names_have_aliases_and_registries_to_look_in() {
    let conf = read(
        "unqualified-search-registries = ['one.example', 'docker.io']\n[aliases]\nfedora = 'registry.fedoraproject.org/fedora'\n'user/app' = 'quay.io/user/app'\n",
    )
    .unwrap();
    let names = |conf: &RegistriesConf, text: &str| match conf.short_names.resolve(text) {
        Ok(found) => found.iter().map(|(r, place)| format!("{r} {}", place.line)).collect(),
        Err(error) => vec![error.to_string()],
    };
    assert_eq!(names(&conf, "fedora"), ["registry.fedoraproject.org/fedora:latest 3"]);
    assert_eq!(names(&conf, "fedora:40"), ["registry.fedoraproject.org/fedora:40 3"]);
    assert_eq!(names(&conf, &format!("user/app{DIGEST}")), [format!("quay.io/user/app{DIGEST} 4")]);
    assert_eq!(
        names(&conf, "busybox"),
        ["one.example/busybox:latest 1", "docker.io/library/busybox:latest 1"]
    );
    for whole in ["quay.io/fedora", "localhost/fedora", "host:5000/fedora"] {
        assert!(names(&conf, whole).is_empty(), "{whole}");
    }
    let mut over = conf.clone();
    over.merge(read("short-name-mode = 'enforcing'\n[aliases]\nfedora = ''").unwrap());
    assert!(names(&over, "fedora")[0].contains("short-name-mode"), "{:?}", names(&over, "fedora"));
    over.merge(read("unqualified-search-registries = ['only.example']").unwrap());
    assert_eq!(names(&over, "fedora"), ["only.example/fedora:latest 1"]);
    assert!(names(&RegistriesConf::default(), "fedora").is_empty());
}

#[test]
fn a_drop_in_replaces_what_has_the_same_prefix() {
    let mut conf =
        read("[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\nlocation = 'old.example'").unwrap();
    conf.merge(read("[[registry]]\nprefix = 'a.example'\nlocation = 'new.example'").unwrap());
    assert_eq!(sources(&conf, "a.example/x:1"), ["new.example/x:1"]);
    conf.merge(read("[[registry]]\nprefix = 'b.example'\nlocation = 'new.example'\nblocked = true").unwrap());
    assert!(conf.check().unwrap_err().to_string().contains("twice with different blocked"));
}

#[test]
fn version_1_says_the_same() {
    let conf = read(
        "[registries.search]\nregistries = ['one.example']\n[registries.insecure]\nregistries = ['i.example:5000']\n[registries.block]\nregistries = ['b.example']\n",
    )
    .unwrap();
    assert_eq!(sources(&conf, "i.example:5000/a:1"), ["!i.example:5000/a:1"]);
    assert!(conf.find(&reference("b.example/x")).unwrap().blocked);
    assert_eq!(conf.short_names.resolve("a").unwrap()[0].0.to_string(), "one.example/a:latest");
    let mixed =
        "unqualified-search-registries = ['a.example']\n[registries.block]\nregistries = ['b.example']";
    assert!(read(mixed).unwrap_err().to_string().contains("r.conf:2"));
}

#[test]
fn mistakes_are_named_by_line() {
    for (text, line, why) in [
        ("[[registry]]", 1, "neither a prefix nor a location"),
        ("[[registry]]\nprefix = 'a.example'", 1, "no location"),
        ("[[registry]]\nlocation = 'https://a.example'", 2, "without a scheme"),
        ("[[registry]]\nlocation = 'a.example'\npull-from-mirror = 'all'", 3, "belongs to a mirror"),
        ("[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\ninsecure = true", 3, "no location"),
        (
            "[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\nlocation='b.example'\npull-from-mirror = 'x'",
            5,
            "none of all",
        ),
        ("[[registry]]\nlocation = 'a.example'\nblocked = 'no'", 3, "true or false"),
        ("unqualified-search-registries = ['a.example/b']", 1, "not host[:port]"),
        ("unqualified-search-registries = ['nodots']", 1, "not host[:port]"),
        ("short-name-mode = 'strict'", 1, "none of enforcing"),
        ("[aliases]\n'a:1' = 'b.example/c'", 2, "no short name"),
        ("[aliases]\na = 'c'", 2, "no whole name"),
        ("[aliases]\na = 'b.example/c:1'", 2, "no whole name"),
        ("\n[[registry]\n", 2, ""),
    ] {
        let error = read(text).unwrap_err();
        let RouteError::Wrong { place, why: said } = &error else { panic!("{error}") };
        assert_eq!(place.line, line, "{text:?}: {error}");
        assert!(said.contains(why), "{error}");
    }
    let short = read("[[registry]]\nprefix = 'a.example'\nlocation = 'nodots/x'").unwrap();
    let a = reference("a.example/x");
    assert!(short.find(&a).unwrap().sources(&a).unwrap_err().to_string().contains("begin with a registry"));
    assert_eq!(read("[[registry]]\nlocation='a.example'\nfuture = 1").unwrap().unknown[0].0.line, 3);
}

proptest! {
    #[test]
    fn no_text_panics(
        text in "(\\[\\[registry\\]\\]\n|\\[\\[registry.mirror\\]\\]\n|[a-z-]{1,12} = '[a-z.*/:@]{0,16}'\n|\\PC{0,20}){0,10}",
        name in "[a-z./:@*]{1,20}",
    ) {
        if let (Ok(conf), Ok(reference)) = (read(&text), ImageReference::parse(&name)) {
            if let Some(registry) = conf.find(&reference) {
                let _ = registry.sources(&reference);
            }
            let _ = conf.short_names.resolve(&name);
        }
    }
}
