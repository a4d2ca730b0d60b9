//! What the configuration must accept, refuse and say.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn message(text: &str) -> String {
    match Config::parse(Path::new("c.toml"), text) {
        Ok(config) => panic!("accepted: {config:?}"),
        Err(error) => error.to_string(),
    }
}

/// Writes `text` to the committed file when told to, else compares: `PINTLE_BLESS=1 cargo test -p pintle`.
fn in_step(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("PINTLE_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not what the settings say; run PINTLE_BLESS=1 cargo test -p pintle config",
        path.display()
    );
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "\n\n", "# nothing\n", "version = 1\n", "[daemon]\n[log]\n"] {
        assert_eq!(Config::parse(Path::new("c.toml"), text).unwrap(), Config::default(), "{text:?}");
    }
}

#[test]
fn settings_are_read() {
    let text = "[daemon]\nroot = '/r'\n[log]\nlevel = 'trace'\n[network]\nbin_dirs = ['/a', '/b']\n\
                plugin_deadline_secs = 5\n[image]\ninsecure_registries = ['127.0.0.1:5000']\n";
    let config = Config::parse(Path::new("c.toml"), text).unwrap();
    assert_eq!(config.daemon.root, Path::new("/r"));
    assert_eq!(config.log.level, LogLevel::Trace);
    assert_eq!(config.network.bin_dirs, [Path::new("/a"), Path::new("/b")]);
    assert_eq!(config.network.plugin_deadline_secs, Duration::from_secs(5));
    assert_eq!(config.image.insecure_registries, ["127.0.0.1:5000"]);
}

#[test]
fn a_mistake_is_named_with_its_place_and_the_right_name() {
    let cases = [
        ("\n[daemon]\nrot = '/r'\n", "c.toml:3:1: there is no setting `daemon.rot`; did you mean `root`?"),
        ("[deamon]\nroot = '/r'\n", "c.toml:1:2: there is no section `[deamon]`; did you mean `[daemon]`?"),
        (
            "[log]\nsocket = '/s'\n",
            "c.toml:2:1: there is no setting `log.socket`; did you mean `socket` in the section `[daemon]`?",
        ),
        (
            "socket = '/s'\n",
            "c.toml:1:1: there is no setting `socket`; did you mean `socket` in the section `[daemon]`?",
        ),
        (
            "[log]\ncolour = true\n",
            "c.toml:2:1: there is no setting `log.colour`; there are `level`, `format`",
        ),
        ("[daemon]\n  root = 5\n", "c.toml:2:10: `daemon.root` takes an absolute path, not the number 5"),
        ("[daemon]\nroot = 'r'\n", "c.toml:2:8: `daemon.root` takes an absolute path, not the string \"r\""),
        ("[log]\nlevel = 'inof'\n", "did you mean \"info\"?"),
        ("daemon = 3\n", "c.toml:1:1: `daemon` takes a table, begun by a line `[daemon]`, not the number 3"),
        ("[[daemon]]\n", "`daemon` takes a table, begun by a line `[daemon]`, not a list"),
        ("[image]\nmax_parallel_layers = 0\n", "takes a whole number from 1 to 64, not the number 0"),
        ("version = 2\n", "c.toml:1:11: the file says version 2, but this Pintle reads versions up to 1"),
        ("version = '1'\n", "`version` takes the number 1"),
        ("[daemon]\nroot = '/a'\n[daemon]\n", "c.toml:3:"),
        ("[daemon]\nroot = '/a'\nroot = '/b'\n", "c.toml:3:"),
        ("[daemon\n", "c.toml:1:"),
        (
            "runtimes = 3\n",
            "`runtimes` takes tables, each begun by a line `[runtimes.NAME]`, not the number 3",
        ),
        ("[runtimes]\nrunc = '/r'\n", "c.toml:2:1: `runtimes` takes tables"),
        ("[runtimes.Run_C]\n", "c.toml:1:11: a handler cannot be called \"Run_C\""),
        ("[runtimes.a]\nkidn = 'oci'\n", "no setting `runtimes.a.kidn`; did you mean `kind`?"),
        ("[runtimes.a]\nkind = 'ocl'\n", "did you mean \"oci\"?"),
        ("[runtimes.a]\nkind = 'oci'\n", "[runtimes.a]: `kind = \"oci\"` needs `path`"),
        ("[runtimes.a]\npath = 'runc'\n", "[runtimes.a]: `path` is a program"),
        ("[runtime]\ndefault_handler = 'a'\n", "there is no section `[runtimes.a]`"),
        ("[runtime.a]\nkind = 'oci'\n", "did you mean a section `[runtimes.a]`?"),
        ("[daemon]\nroot = \"/a\n", "c.toml:2:"),
    ];
    for (text, expected) in cases {
        let message = message(text);
        assert!(message.contains(expected), "{text:?} gave\n  {message}\nand not\n  {expected}");
    }
}

#[test]
fn every_mistake_is_told_at_once() {
    let error = Config::parse(Path::new("c.toml"), "[daemon]\nrot = 1\nstate = 2\n[nonsense]\n").unwrap_err();
    assert_eq!(error.problems.len(), 3, "{error}");
}

#[test]
fn drop_ins_come_after_the_file_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("config.toml");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("config.d")).unwrap();
    write("config.toml", "[daemon]\nroot = '/main'\nstate = '/main'\nsocket = '/main'\n");
    write("config.d/20-b.toml", "[daemon]\nroot = '/b'\n");
    write("config.d/10-a.toml", "[daemon]\nroot = '/a'\nstate = '/a'\n");
    write("config.d/.hidden.toml", "nonsense");
    write("config.d/notes.txt", "nonsense");
    let daemon = Config::load(&main, Main::Named).unwrap().daemon;
    assert_eq!([daemon.root, daemon.state, daemon.socket], ["/b", "/a", "/main"].map(PathBuf::from));

    write("config.d/30-c.toml", "[deamon]\n");
    let error = Config::load(&main, Main::Named).unwrap_err().to_string();
    assert!(error.contains("config.d/30-c.toml:1:2"), "{error}");
}

#[test]
fn a_missing_file_matters_only_where_it_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("config.toml");
    assert_eq!(Config::load(&main, Main::Usual).unwrap(), Config::default());
    let error = Config::load(&main, Main::Named).unwrap_err();
    assert!(matches!(error.problems[..], [Problem::Unreadable { .. }]), "{error:?}");
}

#[test]
fn what_is_not_a_text_file_is_refused_and_a_byte_order_mark_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("config.toml");
    let load = |bytes: &[u8]| {
        fs::write(&main, bytes).unwrap();
        Config::load(&main, Main::Named).map_err(|error| error.to_string())
    };
    assert_eq!(load(b"\xef\xbb\xbf[daemon]\nroot = '/r'\n").unwrap().daemon.root, Path::new("/r"));
    assert!(load(b"\xff\xfe[\0").unwrap_err().contains("UTF-16"));
    assert!(load(b"[daemon]\nroot = '\xff'\n").unwrap_err().contains("line 2"));
    assert!(load(&vec![b'\n'; (1 << 20) + 1]).unwrap_err().contains("longer than"));

    fs::remove_file(&main).unwrap();
    fs::create_dir(&main).unwrap();
    let error = Config::load(&main, Main::Named).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    fs::remove_dir(&main).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &main, rustix::fs::Mode::RUSR).unwrap();
    let error = Config::load(&main, Main::Named).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

#[test]
fn a_change_is_sorted_by_when_it_applies() {
    let old = Config::default();
    let mut new = old.clone();
    assert_eq!(new.changes_needing_restart(&old), Vec::<String>::new());
    new.daemon.root = "/elsewhere".into();
    new.log.level = LogLevel::Debug;
    assert_eq!(new.changes_needing_restart(&old), ["daemon.root"]);
    assert_eq!(new.changes_by_reload(&old), ["log.level"]);
    new.runtimes.insert("kata".into(), RuntimeHandler::default());
    assert_eq!(new.changes_needing_restart(&old), ["daemon.root", "runtimes.kata"]);
}

#[test]
fn the_example_changes_nothing_and_says_the_defaults_when_uncommented() {
    assert_eq!(Config::parse(Path::new("e"), &example()).unwrap(), Config::default());
    let is_setting = |line: &str| {
        line.starts_with('[')
            || line
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let example = example();
    let lines = example.lines().filter_map(|line| line.strip_prefix("# ")).filter(|line| is_setting(line));
    let uncommented: String = lines.map(|line| format!("{line}\n")).collect();
    let (uncommented, handler) = uncommented.split_once("[runtimes.NAME]\n").unwrap();
    let handler = Config::parse(Path::new("e"), &format!("[runtimes.x]\n{handler}")).unwrap();
    assert_eq!(handler.runtimes["x"], RuntimeHandler::default());
    for key in RuntimeHandler::keys() {
        assert!(example.contains(&format!("\n# {} = ", key.name)), "{} is not in the example", key.name);
    }
    assert_eq!(Config::parse(Path::new("e"), uncommented).unwrap(), Config::default());
    for key in keys() {
        assert!(uncommented.contains(&format!("\n{} = ", key.name)), "{} is not in the example", key.name);
    }
}

#[test]
fn the_committed_example_and_the_reference_page_are_in_step() {
    in_step("packaging/config.toml", &example());
    let page = include_str!("../../../../docs/configuration.md");
    let (head, _) =
        page.split_once("<!-- settings -->").expect("docs/configuration.md has the line <!-- settings -->");
    in_step(
        "docs/configuration.md",
        &format!("{head}<!-- settings -->\n\n{}", reference().trim_end().to_owned() + "\n"),
    );
}

#[test]
fn what_is_in_force_reads_back_the_same() {
    let mut config = Config::default();
    config.daemon.root = "/with \"quotes\" and \\ and ü".into();
    config.image.insecure_registries = vec!["[::1]:5000".into(), "reg".into()];
    config.runtime.cgroup_driver = CgroupDriver::Systemd;
    let handler = RuntimeHandler {
        kind: HandlerKind::Oci,
        path: Some("runsc".into()),
        arguments: vec!["--platform=systrap".into(), "a \"b\"".into()],
        ..RuntimeHandler::default()
    };
    config.runtimes.insert("gvisor".into(), handler);
    config.runtime.default_handler = Some("gvisor".into());
    assert_eq!(Config::parse(Path::new("c"), &config.to_toml()).unwrap(), config);
}

proptest! {
    /// Whatever stands in the file, there is an answer and not a panic, and an answer of a readable length.
    #[test]
    fn any_text_gets_an_answer(text in "\\PC{0,200}") {
        let _ = Config::parse(Path::new("c.toml"), &text);
    }

    /// The same for files that are nearly right: the file in force with a few of its bytes replaced, cut or doubled.
    #[test]
    fn a_mangled_file_gets_an_answer(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..8),
    ) {
        let mut bytes = Config::default().to_toml().into_bytes();
        for (at, byte, what) in edits {
            let at = at.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = Config::parse(Path::new("c.toml"), &text) {
            for problem in &error.problems {
                prop_assert!(problem.to_string().starts_with("c.toml:"), "{}", problem);
            }
        }
    }

    /// Deeply nested values must not exhaust the stack.
    #[test]
    fn nesting_gets_an_answer(depth in 1..20_000usize, open in prop::sample::select(vec!["[", "{a=", "[{a="])) {
        let text = format!("daemon = {}", open.repeat(depth));
        prop_assert!(Config::parse(Path::new("c.toml"), &text).is_err());
    }
}

#[test]
fn scopes_are_registries_folders_and_wildcards() {
    let read = |scope: &str| {
        let text = format!("[image]\nrequire_digest = [{scope:?}]\n");
        Config::parse(Path::new("c.toml"), &text).map(|config| config.image.require_digest)
    };
    for good in ["*", "docker.io", "docker.io/library", "r.io:5000/a/b", "*.example.com", "[::1]:5000"] {
        assert_eq!(read(good).unwrap(), [good]);
    }
    for (bad, meant) in [
        ("library/busybox", "docker.io/library/busybox"),
        ("R.io/a", "r.io/a"),
        ("*.example.com:80", ""),
        ("*.", ""),
        ("r.*", ""),
        ("r.io/a:1", ""),
        ("", ""),
    ] {
        let error = read(bad).unwrap_err().to_string();
        assert!(error.contains("image.require_digest") && error.contains(meant), "{bad}: {error}");
    }
}
