//! The way from an index to the one manifest that suits a platform best, also through indexes in indexes: depth first, the best first,
//! and never without end.

use model::platform::Platform;

use crate::error::PullCause;
use crate::manifest::{Descriptor, is_image_type};

/// How many manifests and indexes are read for one reference.
const MOST_READ: usize = 32;
/// How many platforms an error lists.
const MOST_LISTED: usize = 50;

/// A search that goes on.
#[derive(Debug)]
pub(crate) struct Search {
    wanted: Platform,
    deepest: usize,
    /// What is still to be looked at, the best last.
    todo: Vec<Next>,
    offered: Vec<Platform>,
    read: usize,
}

/// What is to be looked at next.
#[derive(Debug)]
pub(crate) struct Next {
    /// In how many indexes it is.
    pub depth: usize,
    pub entry: Descriptor,
}

impl Search {
    pub(crate) fn new(wanted: &Platform, deepest: usize) -> Search {
        Search { wanted: wanted.clone(), deepest, todo: Vec::new(), offered: Vec::new(), read: 0 }
    }

    /// The entries of an index; `depth` is theirs. Attestations are no images, and artifacts count only where there are no images.
    ///
    /// # Errors
    /// Of an index that lies in too many others.
    pub(crate) fn add(
        &mut self,
        what: &str,
        depth: usize,
        entries: Vec<Descriptor>,
    ) -> Result<(), PullCause> {
        if depth > self.deepest {
            return Err(PullCause::malformed(what, "it has indexes in indexes deeper than is ever needed"));
        }
        let known = |entry: &Descriptor| entry.media_type.is_empty() || is_image_type(&entry.media_type);
        let mut entries: Vec<Descriptor> =
            entries.into_iter().filter(|entry| known(entry) && !entry.is_attestation()).collect();
        if entries.iter().any(|entry| entry.artifact_type.is_empty()) {
            entries.retain(|entry| entry.artifact_type.is_empty());
        }
        let mut suitable = Vec::new();
        for entry in entries {
            let Some(raw) = &entry.platform else {
                // It may be for everybody, and is looked at when nothing says that it is for us.
                suitable.push((u32::MAX, entry));
                continue;
            };
            let platform = raw.platform();
            if let Some(rank) = self.wanted.rank(&platform) {
                suitable.push((rank, entry));
            }
            if !self.offered.contains(&platform) && self.offered.len() < MOST_LISTED {
                self.offered.push(platform);
            }
        }
        // Stable: of equals the first.
        suitable.sort_by_key(|(rank, _)| *rank);
        self.todo.extend(suitable.into_iter().rev().map(|(_, entry)| Next { depth, entry }));
        Ok(())
    }

    /// What to read next.
    ///
    /// # Errors
    /// [`PullCause::NoMatchingPlatform`] with everything that was offered; or that far too much was read already.
    pub(crate) fn next(&mut self, what: &str) -> Result<Next, PullCause> {
        self.read += 1;
        if self.read > MOST_READ {
            let why = format!("no image for {} among the first {MOST_READ} of its indexes", self.wanted);
            return Err(PullCause::malformed(what, why));
        }
        self.todo.pop().ok_or_else(|| PullCause::NoMatchingPlatform {
            wanted: self.wanted.clone(),
            offered: std::mem::take(&mut self.offered),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::manifest::{Document, OCI_INDEX, OCI_MANIFEST, parse};
    use serde_json::{Value, json};

    fn entry(number: u64, extra: Value) -> Value {
        let mut entry =
            json!({ "mediaType": OCI_MANIFEST, "digest": format!("sha256:{number:064x}"), "size": 1 });
        entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        entry
    }

    fn on(os: &str, architecture: &str, variant: &str) -> Value {
        json!({ "platform": { "os": os, "architecture": architecture, "variant": variant } })
    }

    fn entries(list: &[Value]) -> Vec<Descriptor> {
        let index = json!({ "schemaVersion": 2, "manifests": list }).to_string();
        match parse("test", OCI_INDEX, index.as_bytes(), &Limits::default()) {
            Ok(Document::Index(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    /// The numbers of what is looked at, in order.
    fn order(wanted: &str, list: &[Value]) -> (Vec<u64>, String) {
        let mut search = Search::new(&Platform::parse(wanted).unwrap(), 3);
        search.add("test", 1, entries(list)).unwrap();
        let mut order = Vec::new();
        loop {
            match search.next("test") {
                Ok(next) => order.push(u64::from_str_radix(next.entry.digest.hex(), 16).unwrap()),
                Err(error) => return (order, error.to_string()),
            }
        }
    }

    #[test]
    fn the_best_variant_comes_first_and_offers_are_listed() {
        let list = [
            entry(1, on("linux", "arm", "v5")),
            entry(2, on("linux", "arm", "v7")),
            entry(3, on("linux", "arm64", "v8")),
            entry(4, on("windows", "amd64", "")),
            entry(5, json!({})),
        ];
        assert_eq!(order("linux/arm/v7", &list).0, [2, 1, 5]);
        assert_eq!(order("linux/arm/v6", &list).0, [1, 5]);
        assert_eq!(order("linux/arm64/v8", &list).0, [3, 5]);
        let (_, error) = order("linux/riscv64", &list[..4]);
        for offered in ["linux/arm/v5", "linux/arm/v7", "linux/arm64", "windows/amd64"] {
            assert!(error.contains(offered), "{error}");
        }
    }

    #[test]
    fn attestations_and_boms_are_never_taken_for_images() {
        let attestation = json!({
            "platform": { "os": "unknown", "architecture": "unknown" },
            "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
        });
        let sneaky = json!({
            "platform": { "os": "linux", "architecture": "amd64" },
            "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
        });
        let bom = json!({
            "platform": { "os": "linux", "architecture": "amd64" },
            "artifactType": "application/spdx+json",
        });
        let list = [
            entry(1, attestation.clone()),
            entry(2, sneaky),
            entry(3, bom),
            entry(4, on("linux", "amd64", "")),
        ];
        assert_eq!(order("linux/amd64", &list).0, [4]);
        let (found, error) = order("linux/arm64", &list);
        assert!(found.is_empty() && error.contains("linux/amd64") && !error.contains("unknown"), "{error}");
        assert_eq!(order("linux/amd64", &list[..3]).0, [3], "an index of artifacts alone");
        assert!(order("linux/amd64", &[entry(1, attestation)]).0.is_empty());
    }

    #[test]
    fn needed_features_are_respected_and_told() {
        let needs =
            json!({ "platform": { "os": "linux", "architecture": "amd64", "os.features": ["erofs"] } });
        let list = [entry(1, needs), entry(2, on("linux", "amd64", ""))];
        assert_eq!(order("linux/amd64", &list).0, [2]);
        assert!(order("linux/amd64", &list[..1]).1.contains("+erofs"));
        let windows =
            json!({ "platform": { "os": "windows", "architecture": "amd64", "os.version": "10.0.1" } });
        assert!(order("linux/amd64", &[entry(1, windows)]).1.contains("windows/amd64 10.0.1"));
    }

    #[test]
    fn no_search_is_without_end() {
        let mut search = Search::new(&Platform::parse("linux/amd64").unwrap(), 3);
        assert!(search.add("test", 4, Vec::new()).is_err());
        let many: Vec<Value> = (0..100).map(|number| entry(number, json!({}))).collect();
        let (read, error) = order("linux/amd64", &many);
        assert!(read.len() <= MOST_READ && error.contains("among the first"), "{error}");
    }
}
