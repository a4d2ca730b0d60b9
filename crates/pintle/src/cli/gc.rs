//! `pintle gc`: lets go of what nobody needs, and says why each thing goes or stays.

use std::time::Duration;

use cri::node_v1::{CollectGarbageRequest, DiskKind, DiskThing, SurveyDiskRequest};
use serde_json::json;

use super::client::Client;
use super::df;
use super::failure::{Explain, Failure};
use super::human::{decimal_bytes, parse_duration};
use super::output::{OutputArgs, printable, show};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only show what would go
    #[arg(long)]
    dry_run: bool,
    /// Say of everything why it goes or stays
    #[arg(long)]
    explain: bool,
    /// Leave alone what has been needed within this time: 30s, 10m, 2h, 3d
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "0")]
    older_than: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<(), Failure> {
    let older_than_secs = args.older_than.as_secs();
    let mut images = client.own_images();
    // Sizes are those of before: what is gone has none.
    let survey = images.survey_disk(SurveyDiskRequest { older_than_secs }).await;
    let mut things = survey.explain(|| "asking what is on disk".into())?.things;
    if !args.dry_run {
        let collected = images.collect_garbage(CollectGarbageRequest { older_than_secs }).await;
        let collected = collected.explain(|| "removing what nobody needs".into())?.things;
        things = sized(collected, &things);
    }
    let freed: u64 = things.iter().filter(|thing| thing.goes).map(|thing| thing.bytes).sum();
    let value = json!({
        "dryRun": args.dry_run,
        "freedBytes": freed,
        "things": things.iter().filter(|thing| thing.goes || args.explain).map(df::thing).collect::<Vec<_>>(),
    });
    show(args.output.output, &value, || text(&args, &things, freed))
}

/// What was collected, with the sizes that were measured before.
fn sized(mut collected: Vec<DiskThing>, before: &[DiskThing]) -> Vec<DiskThing> {
    for thing in collected.iter_mut().filter(|thing| thing.bytes == 0) {
        let known = before.iter().find(|one| (one.kind, &one.name) == (thing.kind, &thing.name));
        thing.bytes = known.map_or(0, |known| known.bytes);
    }
    collected
}

fn text(args: &Args, things: &[DiskThing], freed: u64) -> String {
    let mut out = String::new();
    for thing in things.iter().filter(|thing| thing.goes || args.explain) {
        let word = match (thing.goes, args.dry_run) {
            (false, _) => "stays",
            (true, true) => "would go",
            (true, false) => "gone",
        };
        let size = decimal_bytes(thing.bytes);
        let name = printable(&thing.name);
        out.push_str(&format!("{word}: {} {name} ({size})\n", df::name_of(thing)));
        if args.explain {
            let by = if thing.goes || thing.kind() == DiskKind::DiskImage { "" } else { "held by " };
            out.extend(thing.reasons.iter().map(|reason| format!("    {by}{}\n", printable(reason))));
            if !thing.damage.is_empty() {
                out.push_str(&format!("    damaged: {}\n", printable(&thing.damage)));
            }
        }
    }
    let verb = if args.dry_run { "would be freed" } else { "freed" };
    out.push_str(&format!("{} {verb}\n", decimal_bytes(freed)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_has_the_size_that_it_had() {
        let thing = |name: &str, bytes| DiskThing { name: name.into(), bytes, ..Default::default() };
        let sized = sized(vec![thing("a", 0), thing("b", 7), thing("c", 0)], &[thing("a", 5), thing("b", 9)]);
        assert_eq!(sized.iter().map(|thing| thing.bytes).collect::<Vec<_>>(), [5, 7, 0]);
    }
}
