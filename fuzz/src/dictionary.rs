//! Words that inputs are made of, so that a fuzzer need not guess them letter by letter.

pub(crate) const REFERENCE: &[&str] =
    &["docker.io", "localhost", "library/", ":5000/", "@sha256:", "@sha512:", "latest", "[::1]", "://"];

pub(crate) const IMAGE: &[&str] = &[
    "\"schemaVersion\":2",
    "\"mediaType\":",
    "\"manifests\":[",
    "\"layers\":[",
    "\"config\":{",
    "\"digest\":\"sha256:",
    "\"digest\":\"sha512:",
    "\"size\":",
    "\"platform\":{",
    "\"architecture\":\"amd64\"",
    "\"os\":\"linux\"",
    "\"variant\":\"v8\"",
    "\"os.features\":[",
    "\"annotations\":{",
    "\"artifactType\":",
    "\"subject\":{",
    "\"urls\":[",
    "\"data\":\"",
    "\"fsLayers\":",
    "\"rootfs\":{",
    "\"diff_ids\":[",
    "\"history\":[",
    "\"User\":",
    "\"Env\":[",
    "\"Volumes\":{",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.empty.v1+json",
    "null",
    "-1",
    "9223372036854775807",
];

pub(crate) const ARCHIVE: &[&str] = &[
    "ustar\0",
    "ustar  \0",
    "../",
    "/",
    ".wh.",
    ".wh..wh..opq",
    ".wh..wh.plnk",
    "path=",
    "linkpath=",
    "size=",
    "uid=",
    "gid=",
    "mtime=",
    "SCHILY.xattr.user.a=",
    "SCHILY.xattr.security.capability=",
    "SCHILY.xattr.trusted.overlay.opaque=",
    "GNU.sparse.major=1",
    "GNU.sparse.minor=0",
    "GNU.sparse.map=0,1,2,3",
    "GNU.sparse.name=",
    "GNU.sparse.realsize=",
    "GNU.sparse.offset=",
    "GNU.sparse.numbytes=",
    "18446744073709551615",
    "9223372036854775807",
    "-1",
];

pub(crate) const USERS: &[&str] =
    &["\u{c}", "root:x:0:0:root:/root:/bin/sh\n", "-1", "0x0", "4294967296", "\r"];

pub(crate) const HTTP: &[&str] =
    &["Bearer ", "Basic ", "realm=\"", "service=\"", "scope=\"", "https://", "error="];

pub(crate) const SPDY: &[&str] = &[
    "\\x80\\x03\\x00\\x01",
    "\\x80\\x03\\x00\\x03",
    "\\x80\\x03\\x00\\x06",
    "streamtype",
    "error",
    "data",
    "x\\x01",
];

pub(crate) const CNI: &[&str] = &[
    "\"cniVersion\":\"1.0.0\"",
    "\"ips\":[{\"address\":\"",
    "\"gateway\":",
    "\"interfaces\":[",
    "\"sandbox\":",
    "\"routes\":[{\"dst\":\"",
    "\"dns\":{",
    "\"ip4\":{\"ip\":\"",
    "\"plugins\":[",
    "\"type\":\"",
    "\"name\":\"",
];

pub(crate) const CDI: &[&str] = &[
    "\"cdiVersion\":\"0.6.0\"",
    "\"kind\":\"vendor.com/device\"",
    "\"devices\":[",
    "\"containerEdits\":{",
    "\"deviceNodes\":[",
    "\"mounts\":[",
    "\"hooks\":[",
    "cdiVersion: 0.6.0\n",
    "kind: vendor.com/device\n",
    "&a",
    "*a",
    "<<: ",
];

pub(crate) const HOOKS: &[&str] = &[
    "\"version\":\"1.0.0\"",
    "\"hook\":{\"path\":\"/bin/true\"",
    "\"when\":{",
    "\"always\":true",
    "\"stages\":[\"prestart\"]",
    "\"annotations\":{",
    "\"commands\":[\"",
    "(a*)*",
    "{1000}",
];

pub(crate) const HOSTS: &[&str] = &[
    "server = \"https://",
    "[host.\"https://",
    "capabilities = [\"pull\", \"resolve\"]",
    "ca = [",
    "client = [[",
    "skip_verify = true",
    "override_path = true",
    "[host.\"http://a\".header]",
    "dial_timeout = \"",
    "\"unix://",
];

pub(crate) const REGISTRIES: &[&str] = &[
    "unqualified-search-registries = [",
    "short-name-mode = \"",
    "[[registry]]\n",
    "[[registry.mirror]]\n",
    "prefix = \"*.",
    "location = \"",
    "blocked = true",
    "insecure = true",
    "mirror-by-digest-only = true",
    "pull-from-mirror = \"",
    "[aliases]\n",
    "credential-helpers = [",
];

pub(crate) const LOGINS: &[&str] = &[
    "\"auths\":{",
    "\"auth\":\"",
    "\"identitytoken\":\"",
    "\"credHelpers\":{",
    "\"credsStore\":\"",
    "dXNlcjpwYXNz",
];

/// As libFuzzer reads it; a word may have escapes of its own.
pub(crate) fn text(words: &[&str]) -> String {
    let mut out = String::new();
    for (number, word) in words.iter().enumerate() {
        let escaped: String = word
            .chars()
            .flat_map(|c| match c {
                '"' => "\\\"".chars().collect::<Vec<_>>(),
                c if c.is_control() => format!("\\x{:02x}", u32::from(c)).chars().collect(),
                c => vec![c],
            })
            .collect();
        out.push_str(&format!("w{number}=\"{escaped}\"\n"));
    }
    out
}

pub(crate) const POLICY: &[&str] = &[
    "\"default\":[",
    "\"transports\":{",
    "\"docker\":{",
    "\"type\":\"reject\"",
    "\"type\":\"insecureAcceptAnything\"",
    "\"type\":\"signedBy\"",
    "\"type\":\"sigstoreSigned\"",
    "\"keyType\":\"GPGKeys\"",
    "\"keyPath\":",
    "\"keyDatas\":[",
    "\"signedIdentity\":{",
    "\"pki\":{",
    "*.",
    "/../",
];

pub(crate) const SIGNATURE: &[&str] = &[
    "-----BEGIN PUBLIC KEY-----",
    "-----BEGIN PGP PUBLIC KEY BLOCK-----",
    "-----BEGIN CERTIFICATE-----",
    "\"critical\":{",
    "\"optional\":",
    "\"docker-manifest-digest\":",
    "\"dsseEnvelope\":{",
    "\"_type\":\"https://in-toto.io/Statement/v1\"",
    "\\x99\\x01",
    "\\x04\\xff",
];

pub(crate) const HOSTS_TOML: &[&str] = &[
    "server = \"",
    "[host.\"https://",
    "capabilities = [\"pull\"]",
    "override_path = true",
    "client = [[\"a\", \"b\"]]",
    "dial_timeout = \"1ms\"",
    "header = {",
    "skip_verify",
];

pub(crate) const REGISTRIES_CONF: &[&str] = &[
    "[[registry]]",
    "[[registry.mirror]]",
    "prefix = \"*.example.com\"",
    "location = \"",
    "mirror-by-digest-only = true",
    "pull-from-mirror = \"digest-only\"",
    "unqualified-search-registries",
    "[aliases]",
    "[registries.search]",
    "blocked = true",
];

pub(crate) const AUTH_FILE: &[&str] = &[
    "\"auths\":{",
    "\"auth\":\"YTpi\"",
    "\"identitytoken\":",
    "\"credHelpers\":{",
    "\"credsStore\":\"",
    "docker.io",
];
