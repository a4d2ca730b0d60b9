//! Images and answers that lie and attack, as data: what each does, and what has to come of it.
//!
//! Whoever pulls runs them all, in whatever form layers are kept. Beside what a case expects, this always holds: nothing outside is
//! touched, a refused image leaves nothing behind, and its message names the digest of what is wrong.

mod answers;
mod archives;
mod images;
mod names;
mod packing;

use crate::Rule;
use crate::make::{Compression, Image, ImageBuilder, Layer};
use crate::tar::Entry;

/// Something hostile or odd.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub image: Image,
    /// How the registry answers.
    pub rules: Vec<Rule>,
    pub expected: Expected,
    /// It is only too much under [`Limits`] so low that a test can reach them.
    pub needs_low_limits: bool,
}

/// What has to come of it.
#[derive(Debug, Clone)]
pub enum Expected {
    /// It may be refused or not.
    Harmless,
    /// The topmost layer has these, and nothing else beside them.
    Unpacked(Vec<Seen>),
    /// It is refused with this code of gRPC, as `DataLoss`, and the message has all of these.
    Refused { code: &'static str, says: Vec<String> },
}

/// A path of a layer, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    pub path: Vec<u8>,
    pub what: What,
}

/// A file, as far as a case is about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A regular file: its length, and what it begins with.
    File(u64, Vec<u8>),
    Directory,
    Link(Vec<u8>),
    /// A device, a FIFO, or what hides something of the layers below.
    Other,
}

/// What counts as too much for the cases that need it low.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub entries: u64,
    pub layer_bytes: u64,
    pub ratio: u64,
    pub ratio_floor_bytes: u64,
    pub config_bytes: u64,
}

/// The limits that the cases are made for.
pub const LOW: Limits = Limits {
    entries: 2000,
    layer_bytes: 8 << 20,
    ratio: 100,
    ratio_floor_bytes: 1 << 20,
    config_bytes: 64 << 10,
};

/// Every case. `outside` is the absolute path of a folder that has a file `canary`, and that no image is to reach.
pub fn cases(outside: &str) -> Vec<Case> {
    let mut all = names::cases(outside);
    all.extend(archives::cases());
    all.extend(packing::cases());
    all.extend(images::cases());
    all.extend(answers::cases());
    all
}

/// An image of one layer with these entries.
fn of(entries: &[Entry]) -> Image {
    of_layer(Layer::new(entries, Compression::Gzip))
}

fn of_layer(layer: Layer) -> Image {
    ImageBuilder::new().layer(layer).build()
}

fn case(name: &str, image: Image, expected: Expected) -> Case {
    Case { name: name.to_owned(), image, rules: Vec::new(), expected, needs_low_limits: false }
}

/// A layer that is refused, with its digest in the message.
fn bad_layer(name: &str, image: Image, says: &str) -> Case {
    let says =
        vec![image.layers.last().map(|layer| layer.digest.clone()).unwrap_or_default(), says.to_owned()];
    case(name, image, Expected::Refused { code: "DataLoss", says })
}

fn bad(name: &str, entries: &[Entry], says: &str) -> Case {
    bad_layer(name, of(entries), says)
}

fn good(name: &str, entries: &[Entry], seen: &[(&str, What)]) -> Case {
    case(name, of(entries), Expected::Unpacked(seen_of(seen)))
}

fn seen_of(seen: &[(&str, What)]) -> Vec<Seen> {
    seen.iter().map(|(path, what)| Seen { path: path.as_bytes().to_vec(), what: what.clone() }).collect()
}

fn low(case: Case) -> Case {
    Case { needs_low_limits: true, ..case }
}

/// A file of one byte.
fn file(name: &str) -> Entry {
    Entry::file(name, 0o644, b"x".to_vec())
}

fn a_file() -> What {
    What::File(1, b"x".to_vec())
}
