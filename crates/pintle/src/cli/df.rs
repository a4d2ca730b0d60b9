//! `pintle df`: what there is on disk, and what of it could be freed.

use std::fmt::Write;

use cri::node_v1::{DiskFilesystem, DiskKind, DiskThing, SurveyDiskRequest, SurveyDiskResponse};
use serde_json::{Value, json};

use super::client::Client;
use super::failure::{Explain, Failure};
use super::human::decimal_bytes;
use super::output::{OutputArgs, Table, printable, show};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show each thing
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The kinds in the order in which they are shown, and how they are called.
const KINDS: [(DiskKind, &str); 8] = [
    (DiskKind::DiskImage, "images"),
    (DiskKind::DiskLayer, "layers"),
    (DiskKind::DiskBlob, "kept blobs"),
    (DiskKind::DiskContainer, "containers"),
    (DiskKind::DiskUnfinished, "unfinished"),
    (DiskKind::DiskOrphan, "orphans"),
    (DiskKind::DiskTrash, "trash"),
    (DiskKind::DiskDatabase, "databases set aside"),
];

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let answer = client.own_images().survey_disk(SurveyDiskRequest { older_than_secs: 0 }).await;
    let survey = answer.explain(|| "asking what is on disk".into())?;
    let value = json!({
        "summary": KINDS.map(|(kind, name)| Sum::of(kind, &survey).value(name)),
        "filesystems": survey.filesystems.iter().map(filesystem).collect::<Vec<_>>(),
        "things": survey.things.iter().map(thing).collect::<Vec<_>>(),
    });
    show(args.output.output, &value, || text(&survey, args.verbose))
}

/// What there is of one kind.
struct Sum {
    count: usize,
    in_use: usize,
    bytes: u64,
    reclaimable: u64,
}

impl Sum {
    fn of(kind: DiskKind, survey: &SurveyDiskResponse) -> Sum {
        let all = || survey.things.iter().filter(|thing| thing.kind() == kind);
        let is_used = |thing: &&DiskThing| thing.in_use || (kind == DiskKind::DiskLayer && !thing.goes);
        let goes = all().filter(|thing| thing.goes).map(|thing| thing.bytes).sum();
        let bytes = match kind {
            // What several images have in common is there once.
            DiskKind::DiskImage => {
                let layers = survey.things.iter().filter(|thing| thing.kind() == DiskKind::DiskLayer);
                let of_images = layers.filter(|layer| layer.reasons.iter().any(|r| r.starts_with("image ")));
                of_images.map(|layer| layer.bytes).sum()
            }
            _ => all().map(|thing| thing.bytes).sum(),
        };
        Sum {
            count: all().count(),
            in_use: all().filter(is_used).count(),
            bytes,
            reclaimable: if kind == DiskKind::DiskImage { survey.unused_images_bytes } else { goes },
        }
    }

    fn value(&self, name: &str) -> Value {
        json!({
            "type": name, "count": self.count, "inUse": self.in_use,
            "sizeBytes": self.bytes, "reclaimableBytes": self.reclaimable,
        })
    }
}

fn filesystem(filesystem: &DiskFilesystem) -> Value {
    json!({
        "of": filesystem.of, "path": filesystem.path,
        "sizeBytes": filesystem.bytes, "availableBytes": filesystem.available_bytes,
        "inodes": filesystem.inodes, "availableInodes": filesystem.available_inodes,
    })
}

/// One thing, as programs are told of it.
pub(super) fn thing(thing: &DiskThing) -> Value {
    json!({
        "type": name_of(thing), "name": thing.name, "sizeBytes": thing.bytes, "inodes": thing.inodes,
        "aloneBytes": thing.alone_bytes, "damage": thing.damage,
        "goes": thing.goes, "inUse": thing.in_use, "reasons": thing.reasons,
    })
}

/// The kind of one thing in a word.
pub(super) fn name_of(thing: &DiskThing) -> &'static str {
    match thing.kind() {
        DiskKind::DiskImage => "image",
        DiskKind::DiskLayer => "layer",
        DiskKind::DiskBlob => "blob",
        DiskKind::DiskContainer => "container",
        DiskKind::DiskUnfinished => "unfinished",
        DiskKind::DiskOrphan => "orphan",
        DiskKind::DiskTrash => "trash",
        DiskKind::DiskDatabase => "database",
        DiskKind::DiskUnspecified => "thing",
    }
}

fn text(survey: &SurveyDiskResponse, verbose: bool) -> String {
    let mut table = Table::new(&["TYPE", "COUNT", "IN USE", "SIZE", "RECLAIMABLE"]);
    for (kind, name) in KINDS {
        let sum = Sum::of(kind, survey);
        let always = matches!(kind, DiskKind::DiskImage | DiskKind::DiskLayer | DiskKind::DiskContainer);
        if sum.count == 0 && !always {
            continue;
        }
        table.row([
            name.to_owned(),
            sum.count.to_string(),
            if always { sum.in_use.to_string() } else { "-".into() },
            decimal_bytes(sum.bytes),
            decimal_bytes(sum.reclaimable),
        ]);
    }
    let mut out = table.to_string();
    out.push('\n');
    let same = survey.filesystems.iter().all(|one| one.path == survey.filesystems[0].path);
    for filesystem in survey.filesystems.iter().take(if same { 1 } else { usize::MAX }) {
        let of = if same { "all" } else { &filesystem.of };
        let (free, whole) = (decimal_bytes(filesystem.available_bytes), decimal_bytes(filesystem.bytes));
        let _ = writeln!(out, "{of}: {} with {free} free of {whole}", printable(&filesystem.path));
    }
    let damaged = survey.things.iter().filter(|thing| !thing.damage.is_empty()).count();
    if damaged > 0 {
        let _ = writeln!(out, "{damaged} layers are damaged: `pintle images verify --all` names them");
    }
    if verbose {
        out.push('\n');
        out.push_str(&details(survey));
    }
    out
}

fn details(survey: &SurveyDiskResponse) -> String {
    let mut table = Table::new(&["TYPE", "NAME", "SIZE", "ALONE", "HELD BY"]);
    for thing in &survey.things {
        let alone = match thing.kind() {
            DiskKind::DiskImage => decimal_bytes(thing.alone_bytes),
            _ => "-".into(),
        };
        let held = if thing.goes {
            format!("nothing: {}", thing.reasons.join("; "))
        } else {
            thing.reasons.join("; ")
        };
        table.row([name_of(thing).into(), thing.name.clone(), decimal_bytes(thing.bytes), alone, held]);
    }
    table.to_string()
}
