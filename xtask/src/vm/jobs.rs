//! What the machine runs, one after the other, and what its end means.

use std::path::PathBuf;

use super::options::Options;
use super::suite;
use crate::command;
use crate::test::outcome::Outcome;
use crate::test::program::Built;

/// A program with its words, to be run to its end.
pub(super) struct Job {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
    pub(super) words: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Speaks as the standard test harness does.
    Tests,
    /// Counts as one test, which passes with status 0.
    Plain,
    /// Ends with the report of critest.
    Suite,
    /// Says itself what passed and failed; status 0 is success.
    Validation,
}

/// Every test program, and the demonstration where its program was built.
pub(super) fn jobs(built: &Built, options: &Options) -> Vec<Job> {
    let tests = built.programs.iter().map(|program| Job {
        name: program.name.clone(),
        folder: program.folder.clone(),
        program: program.executable.clone(),
        words: std::iter::once("--show-output".to_owned()).chain(options.filters.iter().cloned()).collect(),
        kind: Kind::Tests,
    });
    let wanted = |name: &String| name == "demo";
    let everything = options.filters.is_empty() && options.files.is_empty();
    let demo = built.executables().find(|file| file.file_name().is_some_and(|name| name == "pintle"));
    let demo = demo.filter(|_| everything || options.filters.iter().any(wanted));
    let demo = demo.map(|file| Job {
        name: "pintle demo".into(),
        folder: command::root().to_owned(),
        program: file.to_owned(),
        words: vec!["demo".into()],
        kind: Kind::Plain,
    });
    tests.chain(demo).collect()
}

impl Job {
    /// The script that runs critest.
    pub(super) fn suite(folder: PathBuf, program: PathBuf) -> Job {
        Job { name: "critest".into(), folder, program, words: Vec::new(), kind: Kind::Suite }
    }

    /// A program whose output is its report.
    pub(super) fn validation(folder: PathBuf, program: PathBuf, words: Vec<String>) -> Job {
        Job { name: "oci".into(), folder, program, words, kind: Kind::Validation }
    }

    /// Whether what it says is to be seen also where nothing fails.
    pub(super) fn speaks(&self) -> bool {
        self.kind == Kind::Validation
    }

    /// What `status` and `output` mean.
    pub(super) fn outcome(&self, status: i32, output: &str) -> Outcome {
        let mut outcome = match self.kind {
            Kind::Tests => Outcome::read(output),
            Kind::Suite => suite::outcome(output),
            Kind::Plain | Kind::Validation => {
                Outcome { passed: usize::from(status == 0), complete: true, ..Outcome::default() }
            }
        };
        match (status, outcome.complete, outcome.failed.is_empty()) {
            (0, true, true) => {}
            // The harness's own status for failed tests.
            (101, true, false) => {}
            (1, true, false) if self.kind == Kind::Suite => {}
            (137, ..) => {
                outcome.failed.push("it did not end in time and was killed, or somebody killed it".into());
            }
            (status, ..) => {
                outcome
                    .failed
                    .push(format!("it ended with status {status}, which its output does not explain"));
            }
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(kind: Kind) -> Job {
        Job { name: String::new(), folder: PathBuf::new(), program: PathBuf::new(), words: Vec::new(), kind }
    }

    #[test]
    fn status_and_output_must_agree() {
        let passed = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed\n";
        assert!(job(Kind::Tests).outcome(0, passed).failed.is_empty());
        for (status, output) in
            [(0, "running 1 test\n"), (101, passed), (137, passed), (139, "running 1 test\n")]
        {
            assert_eq!(job(Kind::Tests).outcome(status, output).failed.len(), 1, "{status}");
        }
        assert_eq!(job(Kind::Plain).outcome(0, "").passed, 1);
        assert_eq!(job(Kind::Plain).outcome(1, "").failed.len(), 1);
    }
}
