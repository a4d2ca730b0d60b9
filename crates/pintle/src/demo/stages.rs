//! What the demonstration does, in order, with how long each took.

use crate::cli::human::took;
use crate::cli::output::{Table, write_out};
use std::time::{Duration, Instant};

/// One thing that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    StartDaemon,
    ServeImage,
    Pull,
    RunPod,
    StartContainers,
    ShowLog,
    FetchInPod,
    FetchFromHost,
    ShowStats,
    Stop,
    Remove,
}

impl Stage {
    /// All, in the order they are shown.
    pub(super) const ALL: [Stage; 11] = [
        Stage::StartDaemon,
        Stage::ServeImage,
        Stage::Pull,
        Stage::RunPod,
        Stage::StartContainers,
        Stage::ShowLog,
        Stage::FetchInPod,
        Stage::FetchFromHost,
        Stage::ShowStats,
        Stage::Stop,
        Stage::Remove,
    ];

    fn title(self) -> &'static str {
        match self {
            Stage::StartDaemon => "start a throw-away daemon",
            Stage::ServeImage => "make an image and serve it from a registry on loopback",
            Stage::Pull => "pull it",
            Stage::RunPod => "run a pod: namespaces, an address, a host port",
            Stage::StartContainers => "create and start its containers",
            Stage::ShowLog => "read a container's log",
            Stage::FetchInPod => "exec in one container: fetch a page from the other",
            Stage::FetchFromHost => "fetch the page from this machine through the host port",
            Stage::ShowStats => "what the containers use, by two samples",
            Stage::Stop => "stop the containers and the pod",
            Stage::Remove => "remove the pod and the image",
        }
    }
}

/// How the stages went.
#[derive(Default)]
pub(super) struct Record {
    rows: Vec<(&'static str, Duration, bool)>,
}

impl Record {
    /// Announces a stage.
    pub(super) fn begin(&self, stage: Stage) -> Instant {
        // A closed standard output is noticed nowhere: the demonstration goes on to its end either way.
        let _ = write_out(&format!("\n* {}\n", stage.title()));
        Instant::now()
    }

    /// A stage has ended.
    pub(super) fn end(&mut self, stage: Stage, began: Instant, well: bool) {
        self.rows.push((stage.title(), began.elapsed(), well));
    }

    /// Something besides the stages has ended.
    pub(super) fn add(&mut self, title: &'static str, time: Duration, well: bool) {
        self.rows.push((title, time, well));
    }

    /// Whether everything went well.
    pub(super) fn all_well(&self) -> bool {
        self.rows.iter().all(|(_, _, well)| *well)
    }

    /// The closing table.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new(&["STAGE", "TIME", ""]);
        for (title, time, well) in &self.rows {
            let word = if *well { "" } else { "FAILED" };
            table.row([(*title).to_owned(), took(*time), word.to_owned()]);
        }
        table.to_string()
    }
}

/// A line below the stage's title.
pub(super) fn say(text: &str) {
    let _ = write_out(&format!("  {}\n", crate::cli::output::printable(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_stage_is_marked() {
        let mut record = Record::default();
        record.add("a", Duration::from_millis(3), true);
        assert!(record.all_well());
        record.add("b", Duration::from_millis(3), false);
        assert!(!record.all_well());
        assert!(record.table().lines().last().unwrap().ends_with("FAILED"));
    }
}
