//! `pintle demo`: everything Pintle does, shown in a few seconds on a daemon of its own, after which the machine is as it was.

mod cleanup;
mod daemon;
mod image;
mod leftovers;
mod scratch;
mod stages;
mod story;
mod subnet;

use crate::cli::failure::Failure;
use crate::cli::output::write_out;
use cleanup::{Switches, clean};
use leftovers::{Before, ports_of};
use rustix::process::{geteuid, getpid, set_child_subreaper};
use scratch::Scratch;
use stages::{Record, Stage};
use std::collections::BTreeSet;
use std::time::Instant;
use story::Story;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also pull this image and run it beside the demonstration's own, which needs no Internet
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Go on with the next stage when one fails
    #[arg(long)]
    keep_going: bool,
}

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Returns the exit code: 0 when every stage went well and nothing is left.
pub(crate) async fn run(args: Args) -> Result<u8, Failure> {
    if !geteuid().is_root() {
        return Err(Failure::Usage(
            "the demonstration makes namespaces, mounts, a bridge and control groups, which needs root.\n  Run: sudo pintle demo   (it takes all of them away again)".into(),
        ));
    }
    let mut signals = Signals::new()?;
    // What the daemon leaves behind becomes our child, which is how it is found.
    let cannot = |error: rustix::io::Errno| {
        Failure::Usage(format!("becoming the reaper of the daemon's processes: {error}"))
    };
    set_child_subreaper(Some(getpid())).map_err(cannot)?;
    let (before, switches) = (Before::look(), Switches::note());
    let mut story = Story::new(Scratch::make()?, args.image);
    let mut record = Record::default();
    let mut veths = BTreeSet::new();
    let interrupted = tokio::select! {
        () = tell(&mut story, &mut record, &mut veths, args.keep_going) => false,
        () = signals.any() => true,
    };
    if interrupted {
        eprintln!("\npintle: interrupted; cleaning up");
    }
    veths.extend(ports_of(&story.scratch.bridge));
    let began = Instant::now();
    let problems = clean(&mut story, &switches).await;
    record.add("stop the daemon and clean up", began.elapsed(), problems.is_empty());
    let (left, saw_nftables) = before.left(&story.scratch, &veths);
    let _ = write_out(&format!("\n{}\n{}", record.table(), conclusion(&problems, &left, saw_nftables)));
    match (interrupted, record.all_well() && left.is_empty()) {
        (true, _) => Ok(INTERRUPTED),
        (false, true) => Ok(0),
        (false, false) => Ok(1),
    }
}

async fn tell(story: &mut Story, record: &mut Record, veths: &mut BTreeSet<String>, keep_going: bool) {
    for stage in Stage::ALL {
        let began = record.begin(stage);
        let told = story.tell(stage).await;
        record.end(stage, began, told.is_ok());
        veths.extend(ports_of(&story.scratch.bridge));
        if let Err(failure) = told {
            failure.report();
            if !keep_going {
                return;
            }
        }
    }
}

fn conclusion(problems: &[String], left: &[String], saw_nftables: bool) -> String {
    let mut text = String::new();
    for problem in problems {
        text.push_str(&format!("Cleaning up: {problem}\n"));
    }
    if !left.is_empty() {
        text.push_str("LEFT BEHIND:\n");
        left.iter().for_each(|thing| text.push_str(&format!("  {thing}\n")));
        return text;
    }
    let tables = if saw_nftables { ", nftables table" } else { "" };
    text.push_str(&format!("Looked: no process, mount, interface{tables}, control group or file is left.\n"));
    if !saw_nftables {
        text.push_str("(nftables could not be looked at: there is no nft program here.)\n");
    }
    text
}

/// The signals that end the demonstration early. They stay caught to the end, so that a second Ctrl-C cannot break off the cleaning.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> Result<Signals, Failure> {
        let cannot = |error| Failure::Usage(format!("catching signals: {error}"));
        let catch = |kind| signal(kind).map_err(cannot);
        Ok(Signals([
            catch(SignalKind::interrupt())?,
            catch(SignalKind::terminate())?,
            catch(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_not_called_nothing() {
        let text = conclusion(&[], &["mount /x".into()], true);
        assert!(text.contains("LEFT BEHIND:\n  mount /x") && !text.contains("Looked"), "{text}");
        assert!(conclusion(&[], &[], false).contains("could not be looked at"));
    }
}
