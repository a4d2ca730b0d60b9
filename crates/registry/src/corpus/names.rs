//! Names and links that lead out of a layer, or that file systems disagree about.

use super::{Case, Expected, What, a_file, bad, case, file, good, of};
use crate::tar::Entry;

pub(super) fn cases(outside: &str) -> Vec<Case> {
    let mut all: Vec<Case> = escapes(outside)
        .into_iter()
        .map(|(name, entries)| case(name, of(&entries), Expected::Harmless))
        .collect();
    all.extend(odd_names());
    all
}

/// Each tries to make, change or remove something in `outside`.
fn escapes(outside: &str) -> Vec<(&'static str, Vec<Entry>)> {
    let up = "../".repeat(12);
    let canary = format!("{outside}/canary");
    let owned = |name: &str| Entry::file(name, 0o4777, b"owned".to_vec()).owner(12345, 12345);
    let link = |to: &str| Entry::symlink("link", to);
    let whiteout = |name: &str| Entry::file(name, 0, b"".to_vec());
    vec![
        ("dots that climb", vec![owned(&format!("{up}{canary}"))]),
        ("an absolute name", vec![owned(&canary)]),
        ("dots in the middle", vec![owned("a/../../../../outside/canary")]),
        ("a link, then a file through it", vec![link(outside), owned("link/canary")]),
        (
            "a climbing link, a file through it, a directory in its place",
            vec![link(&format!("{up}{outside}")), owned("link/canary"), Entry::directory("link", 0o777)],
        ),
        (
            "a link, a directory of its name, a file",
            vec![link(outside), Entry::directory("link/", 0o777), owned("link/canary")],
        ),
        ("a link to the file, then the file", vec![link(&canary), owned("link")]),
        (
            "links that add up",
            vec![
                Entry::symlink("a", ".."),
                Entry::symlink("b", "a/.."),
                Entry::symlink("c", "b/.."),
                owned("c/../outside/canary"),
            ],
        ),
        ("through the process's root", vec![link("/proc/self/root"), owned(&format!("link/{canary}"))]),
        ("through the process's directory", vec![link("/proc/self/cwd"), owned("link/canary")]),
        ("through a descriptor", vec![link("/proc/self/fd/3"), owned("link/../../outside/canary")]),
        ("a hard link to an absolute name", vec![Entry::hard_link("hard", &canary)]),
        ("a hard link that climbs", vec![Entry::hard_link("hard", &format!("{up}{canary}")), owned("hard")]),
        (
            "a hard link through a link",
            vec![link(outside), Entry::hard_link("hard", "link/canary"), owned("hard")],
        ),
        ("a hard link to a link", vec![link(&canary), Entry::hard_link("hard", "link"), owned("hard")]),
        ("a device through a link", vec![link(outside), Entry::device("link/canary", 1, 5)]),
        (
            "attributes of what a link leads to",
            vec![link(&canary), Entry { mode: 0o777, ..link(&canary).owner(1, 1) }],
        ),
        ("a whiteout through a link", vec![link(outside), whiteout("link/.wh.canary")]),
        ("a whiteout of ..", vec![whiteout(".wh...")]),
        ("a whiteout of .", vec![whiteout(".wh..")]),
        ("a whiteout of nothing", vec![whiteout(".wh.")]),
        ("a whiteout of .. further down", vec![whiteout("a/.wh...")]),
        ("a whiteout of everything through a link", vec![link(outside), whiteout("link/.wh..wh..opq")]),
        ("a whiteout whose name climbs", vec![whiteout(&format!("{up}{outside}/.wh.canary"))]),
        ("a file in a whiteout", vec![whiteout(".wh.a"), file(".wh.a/b")]),
        ("a file called ..", vec![owned("..")]),
        ("a file called /", vec![owned("/")]),
        ("the root as a link", vec![Entry::symlink(".", outside), owned("canary")]),
        (
            "a directory that becomes a link",
            vec![
                Entry::directory("d", 0o755),
                Entry::symlink("d", outside),
                owned("d/canary"),
                Entry::fifo("d/fifo"),
            ],
        ),
        ("a link to itself", vec![Entry::symlink("loop", "loop"), file("loop/x")]),
        ("two links to each other", vec![Entry::symlink("x", "y"), Entry::symlink("y", "x"), file("x/z")]),
        ("a link that grows", vec![link("link/link/link"), file("link/x")]),
        ("the overlay's own whiteout", vec![Entry::device("canary", 0, 0)]),
    ]
}

fn odd_names() -> Vec<Case> {
    let longest = "n".repeat(255);
    let deep = "d/".repeat(1000) + "f";
    let odd = "new\nline \x1b[31m \\ \"quotes\" \u{202e} C:";
    let mut raw = file("");
    raw.name = b"not \xff\xfe text".to_vec();
    vec![
        good("a name of 255 bytes", &[file(&longest)], &[(&longest, a_file())]),
        bad("a name of 256 bytes", &[file(&format!("a/{}", "n".repeat(256)))], "255"),
        bad("a path over 4096 bytes", &[file(&"d/".repeat(2049))], "4096"),
        bad("a path of 1025 directories", &[file(&("d/".repeat(1025) + "f"))], "1024"),
        case("a path of 1000 directories", of(&[file(&deep)]), Expected::Harmless),
        good(
            "names that differ in case",
            &[file("Name"), file("name")],
            &[("Name", a_file()), ("name", a_file())],
        ),
        good("a name for a terminal", &[file(odd)], &[(odd, a_file())]),
        case(
            "a name that is no text",
            of(&[raw.clone()]),
            Expected::Unpacked(vec![super::Seen { path: raw.name, what: a_file() }]),
        ),
        good(
            "the same name again",
            &[
                file("a"),
                Entry::directory("a", 0o700),
                file("a/inner"),
                Entry::symlink("a", "b"),
                Entry::file("a", 0o600, b"last".to_vec()),
            ],
            &[("a", What::File(4, b"last".to_vec()))],
        ),
        good(
            "a directory again, after what is in it",
            &[Entry::directory("d", 0o700), file("d/x"), Entry::directory("d/", 0o755)],
            &[("d", What::Directory), ("d/x", a_file())],
        ),
        bad("a file in a file", &[file("a"), file("a/b")], "no directory"),
        bad("a file in a device", &[Entry::device("a", 1, 3), file("a/b")], "no directory"),
        bad("a link to nothing at all", &[Entry::symlink("l", "")], "no path"),
        bad("a link of 4096 bytes", &[Entry::symlink("l", &"x".repeat(4096))], "no path"),
        bad("a hard link to the root", &[Entry::hard_link("h", "/")], "root"),
        bad(
            "a hard link to a directory",
            &[Entry::directory("d", 0o755), Entry::hard_link("h", "d")],
            "directory",
        ),
        case(
            "a hard link to what nobody has",
            of(&[Entry::hard_link("h", "absent")]),
            Expected::Refused { code: "DataLoss", says: vec!["absent".into(), "hard link".into()] },
        ),
        case(
            "a hard link to itself",
            of(&[Entry::hard_link("h", "h")]),
            Expected::Refused { code: "DataLoss", says: vec!["hard link".into()] },
        ),
        good(
            "a hard link to itself, which is there",
            &[file("h"), Entry::hard_link("h", "h")],
            &[("h", a_file())],
        ),
    ]
}
