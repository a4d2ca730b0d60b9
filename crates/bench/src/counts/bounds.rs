//! The bounds that counts are held to: a file with a section for each kind of host.

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// By kind of host, then by what is counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds(BTreeMap<String, BTreeMap<String, u64>>);

const HEAD: &str = "# What a pod may cost, by kind of host. `cargo xtask bench --counts` holds to it, and --bless writes it anew.\n";

impl Bounds {
    /// Reads them; none where there is no file.
    pub(crate) fn read(path: &Path) -> Result<Bounds> {
        match std::fs::read_to_string(path) {
            Ok(text) => Bounds::parse(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Bounds::default()),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn parse(text: &str) -> Result<Bounds> {
        let mut bounds = Bounds::default();
        let mut host = String::new();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            if let Some(name) = line.strip_prefix("[\"").and_then(|line| line.strip_suffix("\"]")) {
                host = name.to_owned();
                continue;
            }
            let entry = || {
                let (name, number) = line.rsplit_once('=')?;
                let name = name.trim().strip_prefix('"')?.strip_suffix('"')?;
                Some((name.to_owned(), number.trim().parse().ok()?))
            };
            let (name, number) = entry().with_context(|| format!("not `\"what\" = number`: {line}"))?;
            bounds.0.entry(host.clone()).or_default().insert(name, number);
        }
        Ok(bounds)
    }

    /// Those of a kind of host.
    pub(crate) fn of(&self, host: &str) -> Option<&BTreeMap<String, u64>> {
        self.0.get(host)
    }

    /// Replaces those of a kind of host.
    pub(crate) fn set(&mut self, host: &str, counts: BTreeMap<String, u64>) {
        self.0.insert(host.to_owned(), counts);
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.text()).with_context(|| path.display().to_string())
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (host, counts) in &self.0 {
            text.push_str(&format!("\n[\"{host}\"]\n"));
            counts.iter().for_each(|(name, count)| text.push_str(&format!("\"{name}\" = {count}\n")));
        }
        text
    }
}

/// What is more than its bound, by more than the play that numbers of calls have; and what has no bound.
pub(crate) fn grown(found: &BTreeMap<String, u64>, bounds: &BTreeMap<String, u64>, play: u64) -> Vec<String> {
    let is_more = |name: &str, count: u64, bound: u64| {
        count > bound + if name.contains("calls") { play + bound / 100 } else { 0 }
    };
    let lines = found.iter().filter_map(|(name, count)| match bounds.get(name) {
        Some(bound) if !is_more(name, *count, *bound) => None,
        Some(bound) => Some(format!("  {name}: {count}, not {bound}")),
        None => Some(format!("  {name}: {count}, and there is no bound")),
    });
    lines.collect()
}

/// What was counted beside its bounds.
pub(crate) fn table(
    host: &str,
    found: &BTreeMap<String, u64>,
    bounds: Option<&BTreeMap<String, u64>>,
) -> String {
    let mut text = format!("| {host} | counted | bound |\n|---|---:|---:|\n");
    for (name, count) in found {
        let bound = bounds.and_then(|bounds| bounds.get(name)).map_or("-".into(), u64::to_string);
        text.push_str(&format!("| {name} | {count} | {bound} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_and_read() {
        let mut bounds = Bounds::default();
        bounds.set("version 2", [("pod up: processes".to_owned(), 3)].into());
        assert_eq!(Bounds::parse(&bounds.text()).unwrap(), bounds);
        assert!(Bounds::parse("\"a\" = b").is_err() && Bounds::parse("a = 1").is_err());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Bounds::read(&folder.path().join("absent")).unwrap(), Bounds::default());
    }

    #[test]
    fn a_process_more_is_too_much_and_a_call_more_is_not() {
        let bounds: BTreeMap<_, _> =
            [("processes".to_owned(), 3), ("calls".to_owned(), 100), ("syncs".to_owned(), 0)].into();
        assert!(grown(&bounds, &bounds, 4).is_empty());
        let found = |name: &str, count| [(name.to_owned(), count)].into();
        assert_eq!(grown(&found("processes", 4), &bounds, 4).len(), 1);
        assert_eq!(grown(&found("syncs", 1), &bounds, 4).len(), 1);
        assert!(grown(&found("calls", 105), &bounds, 4).is_empty());
        assert_eq!(grown(&found("calls", 106), &bounds, 4).len(), 1);
        assert_eq!(grown(&found("new", 1), &bounds, 4).len(), 1);
    }
}
