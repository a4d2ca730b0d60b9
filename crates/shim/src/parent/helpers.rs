//! The helpers of a server, each with what it was started for.

use super::children::exit_of;
use super::handed::Handed;
use super::helper::{Heard, Helper, Report, Speaker};
use super::poller::{Poller, READ, Token};
use crate::messages::warning;
use crate::protocol::ErrorCode;
use rustix::process::WaitStatus;
use std::io;

/// Helpers at one time that have not reported.
const MOST: usize = 128;

/// All helpers that are there.
#[derive(Debug)]
pub(crate) struct Helpers<P>(Vec<Helper<P>>);

/// What a helper that has ended leaves.
pub(crate) struct Ended<P> {
    pub(crate) purpose: P,
    /// What it had to say and nobody had heard yet, or what is to be thought of its silence.
    pub(crate) reports: Vec<Report>,
    /// It ended without a word.
    pub(crate) died: bool,
}

impl<P> Default for Helpers<P> {
    fn default() -> Helpers<P> {
        Helpers(Vec::new())
    }
}

impl<P: Clone> Helpers<P> {
    /// Starts one, which `goes_on` if it says something before its end. What is `bounded` is refused where there are too many.
    pub(crate) fn start(
        &mut self,
        (serial, purpose): (u32, P),
        handed: Handed,
        (bounded, goes_on): (bool, bool),
        poller: &Poller,
        work: impl FnOnce(Handed, Speaker<'_>) -> Report,
    ) -> io::Result<()> {
        // Those that only wait are as many as there are processes, and bounded by those.
        if bounded && self.0.iter().filter(|helper| !helper.reported).count() >= MOST {
            return Err(io::Error::other(format!("{MOST} operations are under way already")));
        }
        let helper = Helper::start(serial, purpose, handed, goes_on, work)?;
        if let Err(cause) = poller.add(&helper.report, Token::Helper(serial), READ) {
            helper.kill();
            warning!("a helper cannot be listened to: {cause}");
        }
        self.0.push(helper);
        Ok(())
    }

    /// What a helper has to say, if it has something to say.
    pub(crate) fn hear(&mut self, serial: u32, poller: &Poller) -> Option<(P, Report)> {
        let helper = self.0.iter_mut().find(|helper| helper.serial == serial)?;
        let heard = helper.read();
        let over = match heard {
            Heard::NotYet => false,
            // Its end will be noticed by the reaping.
            Heard::Nothing => true,
            Heard::Report(_) => !helper.goes_on,
        };
        if over {
            poller.remove(&helper.report);
        }
        match heard {
            Heard::Report(report) => Some((helper.purpose.clone(), report)),
            Heard::NotYet | Heard::Nothing => None,
        }
    }

    /// A helper was reaped.
    pub(crate) fn end(&mut self, serial: u32, status: WaitStatus, poller: &Poller) -> Option<Ended<P>> {
        let index = self.0.iter().position(|helper| helper.serial == serial)?;
        let mut helper = self.0.swap_remove(index);
        poller.remove(&helper.report);
        let mut reports = Vec::new();
        while let Heard::Report(report) = helper.read() {
            reports.push(report);
        }
        let died = !helper.reported || helper.goes_on;
        if died {
            reports.push(silence(status));
        }
        Some(Ended { purpose: helper.purpose, reports, died })
    }

    /// The serial of the helper with that pid.
    pub(crate) fn of(&self, pid: i32) -> Option<u32> {
        self.0.iter().find(|helper| helper.child.pid == pid).map(|helper| helper.serial)
    }

    pub(crate) fn serials(&self) -> Vec<u32> {
        self.0.iter().map(|helper| helper.serial).collect()
    }

    /// Whether one is there for such a purpose.
    pub(crate) fn has(&self, which: impl Fn(&P) -> bool) -> bool {
        self.0.iter().any(|helper| which(&helper.purpose))
    }

    /// Whether one is there for such a purpose that has not reported.
    pub(crate) fn is_busy(&self, which: impl Fn(&P) -> bool) -> bool {
        self.0.iter().any(|helper| which(&helper.purpose) && !helper.reported)
    }

    /// Ends what is under way for such a purpose.
    pub(crate) fn kill(&self, which: impl Fn(&P) -> bool) {
        self.0.iter().filter(|helper| which(&helper.purpose)).for_each(Helper::kill);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is to be thought of a helper that ended without a report.
fn silence(status: WaitStatus) -> Report {
    let exit = exit_of(0, status);
    let how = match exit.signal {
        0 => format!("it exited with code {}", exit.code),
        signal => format!("signal {signal} ended it"),
    };
    let why = format!("the helper process ended without a word: {how}");
    Report::failed(ErrorCode::Unknown, Report::DIED, why)
}
