//! What of the things on disk stays and what goes, and why: decided from facts alone.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::tree::Usage;

/// Everything that matters for the decision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub images: Vec<ImageFact>,
    pub layers: Vec<LayerFact>,
    pub writable: Vec<WritableFact>,
    pub blobs: Vec<BlobFact>,
    /// What lies on disk and has no row.
    pub strays: Vec<Stray>,
    /// Layers that running pulls count on.
    pub claimed: BTreeSet<String>,
    /// How long layers and blobs that nobody needs are kept: the next pull may want them.
    pub older_than: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct ImageFact {
    pub name: String,
    pub id: String,
    /// The pattern that one of its names is like, or what else says so.
    pub pinned: Option<String>,
    pub bytes: u64,
    pub layers: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct LayerFact {
    pub id: String,
    pub usage: Usage,
    /// For how long it has been known that nobody needs it.
    pub unneeded: Duration,
    pub damage: Option<String>,
}

/// The writable part of a container's root file system, with a row.
#[derive(Debug, Clone)]
pub(crate) struct WritableFact {
    pub container: String,
    /// The ids of its images, those of its volumes too.
    pub images: Vec<String>,
    pub layers: Vec<String>,
    /// The layers' directories as they were noted beside it.
    pub directories: Vec<String>,
    /// Whether there is a container of this name.
    pub known: bool,
    pub mounted: bool,
    pub place: PathBuf,
    pub usage: Usage,
}

#[derive(Debug, Clone)]
pub(crate) struct BlobFact {
    pub digest: String,
    pub bytes: u64,
    /// The layer that came from it.
    pub layer: Option<String>,
    pub age: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Stray {
    /// Below the root.
    pub path: String,
    pub place: PathBuf,
    pub usage: Usage,
    pub kind: StrayKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StrayKind {
    Layer {
        directory: String,
    },
    Writable {
        mounted: bool,
        /// The layers' directories as they were noted beside it; none: nothing was noted.
        directories: Option<Vec<String>>,
    },
    /// A pull is making it.
    Unfinished,
    Trash,
    /// A database that was damaged and is kept for a person to look at.
    Database,
}

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Image,
    Layer,
    Blob,
    Container,
    Unfinished,
    Trash,
    /// It has no row, and is a layer or what a container wrote.
    Orphan,
    Database,
}

/// One thing on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub kind: Kind,
    /// An image's name, a layer's diff id, a container's id; else the path below the root.
    pub name: String,
    pub usage: Usage,
    /// Of an image: what would be freed if it were removed now.
    pub alone: u64,
    /// Of a layer: what a check found wrong with it.
    pub damage: Option<String>,
    pub verdict: Verdict,
}

/// Whether it stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All that hold it.
    Stays(Vec<Hold>),
    Goes(Cause),
}

/// What holds a thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hold {
    Image(String),
    Container(String),
    Layer(String),
    Pull,
    Pinned(String),
    Young {
        age_secs: u64,
        of_secs: u64,
    },
    /// A container stands on it that no record knows.
    Mounted,
    /// A container whose layers nobody noted may stand on it.
    MayBeUsed(String),
    /// Garbage collection takes no images: the kubelet or a person does.
    OnlyOnRequest,
    ForAPerson,
}

/// Why a thing goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    Unneeded {
        age_secs: u64,
    },
    /// Another has taken its place, and nobody stands on it any more.
    Replaced,
    NoContainer,
    NoRecord,
    ThrownAway,
}

/// What would be freed if the images that no container uses and no pattern pins were removed.
pub(crate) fn of_unused_images(facts: &Facts) -> u64 {
    let going = |facts: &Facts| -> u64 {
        let layers = plan(facts).into_iter().filter(|item| item.kind == Kind::Layer);
        layers.filter(|item| matches!(item.verdict, Verdict::Goes(_))).map(|item| item.usage.bytes).sum()
    };
    let mut facts = facts.clone();
    facts.older_than = Duration::ZERO;
    let before = going(&facts);
    let used: BTreeSet<String> = facts.writable.iter().flat_map(|writable| writable.images.clone()).collect();
    let is_unused = |image: &ImageFact| image.pinned.is_none() && !used.contains(&image.id);
    let records: u64 = facts.images.iter().filter(|image| is_unused(image)).map(|image| image.bytes).sum();
    facts.images.retain(|image| !is_unused(image));
    going(&facts).saturating_sub(before) + records
}

/// Decides about everything, images first, then what they are made of.
pub(crate) fn plan(facts: &Facts) -> Vec<Item> {
    let mut items = Vec::new();
    let standing: Vec<&WritableFact> = facts.writable.iter().filter(|w| w.known || w.mounted).collect();
    let mut holds: HashMap<&str, Vec<Hold>> = HashMap::new();
    for image in &facts.images {
        for layer in unique(&image.layers) {
            holds.entry(layer).or_default().push(Hold::Image(image.name.clone()));
        }
    }
    for container in &standing {
        for layer in unique(&container.layers) {
            holds.entry(layer).or_default().push(Hold::Container(container.container.clone()));
        }
    }
    let sizes: HashMap<&str, u64> =
        facts.layers.iter().map(|layer| (layer.id.as_str(), layer.usage.bytes)).collect();
    items.extend(facts.images.iter().map(|image| {
        let only = |layer: &&str| holds.get(layer).is_some_and(|holds| holds.len() == 1);
        let alone = unique(&image.layers).into_iter().filter(only);
        let alone = alone.filter_map(|layer| sizes.get(layer)).sum::<u64>();
        let bytes = unique(&image.layers).into_iter().filter_map(|layer| sizes.get(layer)).sum::<u64>();
        Item {
            kind: Kind::Image,
            name: image.name.clone(),
            usage: Usage { bytes: bytes + image.bytes, inodes: 0 },
            alone: alone + image.bytes,
            damage: None,
            verdict: Verdict::Stays(image_holds(image, &standing)),
        }
    }));
    items.extend(facts.layers.iter().map(|layer| {
        let held = holds.get(layer.id.as_str()).cloned().unwrap_or_default();
        let verdict = layer_verdict(layer, held, facts);
        Item { damage: layer.damage.clone(), ..item(Kind::Layer, &layer.id, layer.usage, verdict) }
    }));
    items.extend(facts.blobs.iter().map(|blob| {
        let usage = Usage { bytes: blob.bytes, inodes: 1 };
        item(Kind::Blob, &blob.digest, usage, blob_verdict(blob, facts))
    }));
    items.extend(facts.writable.iter().map(|writable| {
        let verdict = match (writable.known, writable.mounted) {
            (true, _) => Verdict::Stays(vec![Hold::Container(writable.container.clone())]),
            (false, true) => Verdict::Stays(vec![Hold::Mounted]),
            (false, false) => Verdict::Goes(Cause::NoContainer),
        };
        item(Kind::Container, &writable.container, writable.usage, verdict)
    }));
    items.extend(facts.strays.iter().map(|stray| {
        let (kind, verdict) = stray_verdict(stray, facts, &standing);
        item(kind, &stray.path, stray.usage, verdict)
    }));
    items
}

fn item(kind: Kind, name: &str, usage: Usage, verdict: Verdict) -> Item {
    Item { kind, name: name.to_owned(), usage, alone: 0, damage: None, verdict }
}

fn unique(layers: &[String]) -> BTreeSet<&str> {
    layers.iter().map(String::as_str).collect()
}

fn image_holds(image: &ImageFact, standing: &[&WritableFact]) -> Vec<Hold> {
    let users = standing.iter().filter(|container| container.images.contains(&image.id));
    let mut holds: Vec<Hold> = users.map(|container| Hold::Container(container.container.clone())).collect();
    holds.extend(image.pinned.clone().map(Hold::Pinned));
    if holds.is_empty() {
        holds.push(Hold::OnlyOnRequest);
    }
    holds
}

fn layer_verdict(layer: &LayerFact, mut held: Vec<Hold>, facts: &Facts) -> Verdict {
    if facts.claimed.contains(&layer.id) {
        held.push(Hold::Pull);
    }
    if !held.is_empty() {
        return Verdict::Stays(held);
    }
    if crate::damage::is_aside(&layer.id) {
        return Verdict::Goes(Cause::Replaced);
    }
    by_age(layer.unneeded, facts.older_than)
}

fn blob_verdict(blob: &BlobFact, facts: &Facts) -> Verdict {
    match &blob.layer {
        Some(layer) => Verdict::Stays(vec![Hold::Layer(layer.clone())]),
        // A pull keeps a blob before it has its layer.
        None if !facts.claimed.is_empty() => Verdict::Stays(vec![Hold::Pull]),
        None => by_age(blob.age, facts.older_than),
    }
}

fn by_age(age: Duration, older_than: Duration) -> Verdict {
    let age_secs = age.as_secs();
    if age < older_than {
        return Verdict::Stays(vec![Hold::Young { age_secs, of_secs: older_than.as_secs() }]);
    }
    Verdict::Goes(Cause::Unneeded { age_secs })
}

fn stray_verdict(stray: &Stray, facts: &Facts, standing: &[&WritableFact]) -> (Kind, Verdict) {
    match &stray.kind {
        StrayKind::Unfinished => (Kind::Unfinished, Verdict::Stays(vec![Hold::Pull])),
        StrayKind::Trash => (Kind::Trash, Verdict::Goes(Cause::ThrownAway)),
        StrayKind::Database => (Kind::Database, Verdict::Stays(vec![Hold::ForAPerson])),
        StrayKind::Writable { mounted: true, .. } => (Kind::Orphan, Verdict::Stays(vec![Hold::Mounted])),
        StrayKind::Writable { mounted: false, .. } => (Kind::Orphan, Verdict::Goes(Cause::NoRecord)),
        StrayKind::Layer { directory } => {
            let mut holds: BTreeSet<Hold> = BTreeSet::new();
            for container in standing.iter().filter(|c| c.directories.contains(directory)) {
                holds.insert(Hold::Container(container.container.clone()));
            }
            for other in &facts.strays {
                match &other.kind {
                    StrayKind::Writable { mounted: true, directories: None } => {
                        holds.insert(Hold::MayBeUsed(other.path.clone()));
                    }
                    StrayKind::Writable { mounted: true, directories: Some(noted) }
                        if noted.contains(directory) =>
                    {
                        holds.insert(Hold::Container(other.path.clone()));
                    }
                    _ => {}
                }
            }
            let verdict = if holds.is_empty() {
                Verdict::Goes(Cause::NoRecord)
            } else {
                Verdict::Stays(holds.into_iter().collect())
            };
            (Kind::Orphan, verdict)
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Image(name) => write!(out, "image {name}"),
            Hold::Container(name) => write!(out, "container {name}"),
            Hold::Layer(id) => write!(out, "it is what layer {id} came from"),
            Hold::Pull => out.write_str("a pull that is running"),
            Hold::Pinned(pattern) => write!(out, "pinned by {pattern}"),
            Hold::Young { age_secs, of_secs } => {
                write!(out, "nothing needs it, but only since {age_secs} s, and {of_secs} s are given")
            }
            Hold::Mounted => out.write_str("a container that no record knows stands on it"),
            Hold::MayBeUsed(path) => write!(
                out,
                "the container of {path} may stand on it: no record knows it, and its layers were not noted"
            ),
            Hold::OnlyOnRequest => {
                out.write_str("no container uses it; it goes when the kubelet or `pintle rmi` says so")
            }
            Hold::ForAPerson => {
                out.write_str("a database that was damaged; look at it and remove it by hand")
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Unneeded { age_secs } => {
                write!(out, "no image, no container and no pull has needed it for {age_secs} s")
            }
            Cause::Replaced => {
                out.write_str("it was damaged, another has taken its place, and no container stands on it")
            }
            Cause::NoContainer => out.write_str("its container is not there any more"),
            Cause::NoRecord => out.write_str("no record knows it, and no container stands on it"),
            Cause::ThrownAway => out.write_str("it was thrown away"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;

    const LAYERS: [&str; 5] = ["l0", "l1", "l2", "l3", "damaged:d4"];

    fn layers() -> impl Strategy<Value = Vec<String>> {
        subsequence(LAYERS.to_vec(), 0..=5).prop_map(|layers| layers.into_iter().map(str::to_owned).collect())
    }

    fn directories() -> impl Strategy<Value = Vec<String>> {
        subsequence(vec!["d0", "d1", "d2"], 0..=3)
            .prop_map(|names| names.into_iter().map(str::to_owned).collect())
    }

    fn stray() -> impl Strategy<Value = StrayKind> {
        prop_oneof![
            (0..3).prop_map(|n| StrayKind::Layer { directory: format!("d{n}") }),
            (any::<bool>(), proptest::option::of(directories()))
                .prop_map(|(mounted, directories)| StrayKind::Writable { mounted, directories }),
            Just(StrayKind::Unfinished),
            Just(StrayKind::Trash),
            Just(StrayKind::Database),
        ]
    }

    prop_compose! {
        fn facts()(
            images in proptest::collection::vec((layers(), any::<bool>()), 0..4),
            here in layers(),
            ages in proptest::collection::vec(0..100u64, 5),
            writable in proptest::collection::vec((layers(), directories(), any::<bool>(), any::<bool>()), 0..4),
            blobs in proptest::collection::vec((proptest::option::of(0..4usize), 0..100u64), 0..3),
            strays in proptest::collection::vec(stray(), 0..6),
            claimed in layers(),
            older_than in 0..100u64,
        ) -> Facts {
            let usage = Usage { bytes: 10, inodes: 1 };
            Facts {
                images: images.into_iter().enumerate().map(|(n, (layers, pinned))| ImageFact {
                    name: format!("image{n}"),
                    id: format!("sha256:{n}"),
                    pinned: pinned.then(|| "*".to_owned()),
                    bytes: 1,
                    layers,
                }).collect(),
                layers: here.into_iter().zip(ages).map(|(id, age)| LayerFact {
                    id, usage, unneeded: Duration::from_secs(age), damage: None,
                }).collect(),
                writable: writable.into_iter().enumerate().map(|(n, (layers, directories, known, mounted))| WritableFact {
                    container: format!("c{n}"), images: vec![format!("sha256:{n}")], layers, directories, known, mounted, usage, place: PathBuf::new(),
                }).collect(),
                blobs: blobs.into_iter().enumerate().map(|(n, (layer, age))| BlobFact {
                    digest: format!("b{n}"), bytes: 5, layer: layer.map(|n| LAYERS[n].to_owned()), age: Duration::from_secs(age),
                }).collect(),
                strays: strays.into_iter().enumerate().map(|(n, kind)| Stray { path: format!("stray{n}"), place: PathBuf::new(), usage, kind }).collect(),
                claimed: claimed.into_iter().collect(),
                older_than: Duration::from_secs(older_than),
            }
        }
    }

    /// What is left once everything that goes has gone.
    fn carried_out(facts: &Facts, items: &[Item]) -> Facts {
        let goes = |kind: &[Kind], name: &str| {
            items
                .iter()
                .any(|i| kind.contains(&i.kind) && i.name == name && matches!(i.verdict, Verdict::Goes(_)))
        };
        let mut left = facts.clone();
        left.writable.retain(|w| !goes(&[Kind::Container], &w.container));
        left.layers.retain(|l| !goes(&[Kind::Layer], &l.id));
        left.blobs.retain(|b| !goes(&[Kind::Blob], &b.digest));
        left.strays.retain(|s| !goes(&[Kind::Orphan, Kind::Trash], &s.path));
        left
    }

    /// Whether somebody may be standing on a layer without a row: a container that runs, known or not, that noted it, or whose notes are lost.
    fn may_stand_on(facts: &Facts, directory: &String) -> bool {
        facts.writable.iter().any(|w| (w.known || w.mounted) && w.directories.contains(directory))
            || facts.strays.iter().any(|stray| match &stray.kind {
                StrayKind::Writable { mounted: true, directories } => {
                    directories.as_ref().is_none_or(|noted| noted.contains(directory))
                }
                _ => false,
            })
    }

    proptest! {
        #[test]
        fn nothing_goes_that_somebody_needs_and_all_else_does(facts in facts()) {
            let items = plan(&facts);
            let verdict = |kind, name: &str| {
                let mut found = items.iter().filter(|item| item.kind == kind && item.name == name);
                let verdict = found.next().map(|item| item.verdict.clone());
                assert!(found.next().is_none(), "{name} twice");
                verdict.unwrap_or_else(|| panic!("{name} is not decided about"))
            };
            let is_gone = |kind, name: &str| matches!(verdict(kind, name), Verdict::Goes(_));
            for image in &facts.images {
                prop_assert!(!is_gone(Kind::Image, &image.name));
            }
            for layer in &facts.layers {
                let needed = facts.images.iter().any(|image| image.layers.contains(&layer.id))
                    || facts.writable.iter().any(|w| (w.known || w.mounted) && w.layers.contains(&layer.id))
                    || facts.claimed.contains(&layer.id)
                    || (layer.unneeded < facts.older_than && !layer.id.starts_with("damaged:"));
                prop_assert_eq!(is_gone(Kind::Layer, &layer.id), !needed, "{}", layer.id);
            }
            for writable in &facts.writable {
                prop_assert_eq!(is_gone(Kind::Container, &writable.container), !writable.known && !writable.mounted);
            }
            for stray in &facts.strays {
                let (kind, goes) = match &stray.kind {
                    StrayKind::Layer { directory } => (Kind::Orphan, !may_stand_on(&facts, directory)),
                    StrayKind::Writable { mounted, .. } => (Kind::Orphan, !mounted),
                    StrayKind::Unfinished => (Kind::Unfinished, false),
                    StrayKind::Trash => (Kind::Trash, true),
                    StrayKind::Database => (Kind::Database, false),
                };
                prop_assert_eq!(is_gone(kind, &stray.path), goes, "{:?}", stray);
            }
            let all = facts.images.len() + facts.layers.len() + facts.writable.len() + facts.blobs.len() + facts.strays.len();
            prop_assert_eq!(items.len(), all);
            prop_assert!(items.iter().all(|item| !matches!(&item.verdict, Verdict::Stays(holds) if holds.is_empty())), "it stays for no reason");
        }

        #[test]
        fn once_is_enough(facts in facts()) {
            let left = carried_out(&facts, &plan(&facts));
            let again = plan(&left);
            prop_assert!(again.iter().all(|item| matches!(item.verdict, Verdict::Stays(_))), "{again:?}");
        }

        #[test]
        fn an_image_frees_what_no_other_has(facts in facts()) {
            for (number, item) in plan(&facts).iter().filter(|item| item.kind == Kind::Image).enumerate() {
                let mut without = facts.clone();
                let image = &facts.images[number];
                prop_assert_eq!(&image.name, &item.name);
                without.images.remove(number);
                without.older_than = Duration::ZERO;
                without.claimed.clear();
                let freed: u64 = plan(&without)
                    .iter()
                    .filter(|i| i.kind == Kind::Layer && matches!(i.verdict, Verdict::Goes(_)))
                    .filter(|i| image.layers.contains(&i.name))
                    .map(|i| i.usage.bytes)
                    .sum();
                prop_assert_eq!(item.alone, freed + image.bytes);
            }
        }
    }
}
