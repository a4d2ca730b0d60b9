//! The floors: a crate uses only crates below it, and some crates use no async runtime, however indirectly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// Each crate with its floor. A new crate is entered here.
const FLOORS: &[(&str, u8)] = &[
    ("model", 0),
    ("seccomp", 0),
    ("spec", 0),
    ("ttrpc", 0),
    ("task", 0),
    ("erofs", 0),
    ("dbus", 0),
    ("sys", 1),
    ("lsm", 1),
    ("cgroup", 1),
    ("store", 1),
    ("trust", 1),
    ("distribution", 1),
    ("runtime", 2),
    ("shim", 2),
    ("image", 2),
    ("network", 2),
    ("stream", 2),
    ("nri", 2),
    ("cdi", 2),
    ("hooks", 2),
    ("registry", 2),
    ("node", 3),
    ("cri", 4),
    ("pintle", 5),
    ("bench", 5),
];

/// The only uses of a crate of the same floor: a spec is made of the domain's words and a seccomp profile, the messages of tasks carry others
/// as ttrpc's do, control groups load device programs and security modules open descriptors through the kernel edge, and the shim calls the
/// runtime.
const SAME_FLOOR: &[(&str, &str)] = &[
    ("spec", "model"),
    ("spec", "seccomp"),
    ("task", "ttrpc"),
    ("cgroup", "sys"),
    ("lsm", "sys"),
    ("trust", "sys"),
    ("shim", "runtime"),
];

/// Crates that end up in the small processes that stay with every pod, and what none of them may bring along.
const SMALL: &[&str] =
    &["model", "seccomp", "spec", "ttrpc", "task", "dbus", "sys", "cgroup", "runtime", "shim"];
const TOO_LARGE: &[&str] = &["tokio", "tracing", "clap", "hyper", "tonic"];

/// Checks the crates of the workspace at `root` by what cargo says of them.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let mut cargo = command::cargo(&["metadata", "--format-version", "1", "--locked"]);
    let text = command::capture(cargo.current_dir(root)).context("the workspace's metadata")?;
    Ok(judge(&Workspace::parse(&serde_json::from_str(&text)?)))
}

/// What is used by what, without development dependencies.
#[derive(Default)]
struct Workspace {
    /// The workspace's own crates under `crates/`.
    members: BTreeSet<String>,
    /// Package names by the names of their users, the whole graph.
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Workspace {
    fn parse(metadata: &Value) -> Workspace {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut names = BTreeMap::new();
        let mut workspace = Workspace::default();
        for package in list(&metadata["packages"]) {
            let name = text(&package["name"]);
            let ours = package["source"].is_null() && text(&package["manifest_path"]).contains("/crates/");
            names.insert(text(&package["id"]), name.clone());
            if ours {
                workspace.members.insert(name);
            }
        }
        for node in list(&metadata["resolve"]["nodes"]) {
            let Some(user) = names.get(&text(&node["id"])) else { continue };
            let uses = workspace.uses.entry(user.clone()).or_default();
            for dependency in list(&node["deps"]) {
                let real = list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
                if let (true, Some(name)) = (real, names.get(&text(&dependency["pkg"]))) {
                    uses.insert(name.clone());
                }
            }
        }
        workspace
    }

    /// The way from `from` to the crate `to`, if there is one.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut ways = vec![vec![from.to_owned()]];
        let mut seen = BTreeSet::from([from.to_owned()]);
        while let Some(way) = ways.pop() {
            let last = way.last()?;
            for next in self.uses.get(last).into_iter().flatten() {
                let longer: Vec<String> = way.iter().chain([next]).cloned().collect();
                if next == to {
                    return Some(longer);
                }
                if seen.insert(next.clone()) {
                    ways.push(longer);
                }
            }
        }
        None
    }
}

fn judge(workspace: &Workspace) -> Vec<String> {
    let floor = |name: &str| FLOORS.iter().find(|(known, _)| *known == name).map(|(_, floor)| *floor);
    let mut findings = Vec::new();
    for member in &workspace.members {
        let Some(own) = floor(member) else {
            findings.push(format!("crates/{member}: has no floor; enter it in xtask/src/tidy/floors.rs"));
            continue;
        };
        let used =
            workspace.uses.get(member).into_iter().flatten().filter(|name| workspace.members.contains(*name));
        for name in used {
            let beside = SAME_FLOOR.contains(&(member.as_str(), name.as_str()));
            if floor(name).is_some_and(|other| other >= own) && !beside {
                findings.push(format!(
                    "crates/{member}/Cargo.toml: uses `{name}`, which is not on a floor below it"
                ));
            }
        }
    }
    for small in SMALL.iter().filter(|small| workspace.members.contains(**small)) {
        for large in TOO_LARGE {
            if let Some(way) = workspace.way(small, large) {
                let way = way.join(" -> ");
                findings.push(format!(
                    "crates/{small}/Cargo.toml: brings `{large}` into the small processes: {way}"
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(uses: &[(&str, &[&str])]) -> Workspace {
        let mut workspace = Workspace::default();
        for (user, used) in uses {
            if FLOORS.iter().any(|(name, _)| name == user) || *user == "stranger" {
                workspace.members.insert((*user).to_owned());
            }
            workspace.uses.insert((*user).to_owned(), used.iter().map(|name| (*name).to_owned()).collect());
        }
        workspace
    }

    #[test]
    fn downwards_is_fine_and_upwards_is_not() {
        assert!(
            judge(&workspace(&[
                ("node", &["image", "model"]),
                ("image", &["sys"]),
                ("sys", &[]),
                ("model", &[])
            ]))
            .is_empty()
        );
        assert_eq!(judge(&workspace(&[("sys", &["image"]), ("image", &[])])).len(), 1);
        assert_eq!(judge(&workspace(&[("network", &["image"]), ("image", &[])])).len(), 1);
        assert!(judge(&workspace(&[("shim", &["runtime"]), ("runtime", &[])])).is_empty());
        assert_eq!(judge(&workspace(&[("runtime", &["shim"]), ("shim", &[])])).len(), 1);
    }

    #[test]
    fn a_crate_without_a_floor_is_told() {
        assert_eq!(judge(&workspace(&[("stranger", &[])])).len(), 1);
    }

    #[test]
    fn the_small_processes_stay_small_however_indirectly() {
        let found = judge(&workspace(&[("shim", &["middle"]), ("middle", &["tokio"]), ("tokio", &[])]));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("shim -> middle -> tokio"), "{found:?}");
    }
}
