//! What a test program said, and the sum of all of them.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A test that did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) test: String,
    pub(crate) reason: String,
}

/// What one test program said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: usize,
    pub(crate) failed: Vec<String>,
    pub(crate) skipped: Vec<Skip>,
    /// Whether its closing line was seen; without it the program died half-way.
    pub(crate) complete: bool,
}

impl Outcome {
    /// Reads what the standard test harness prints with `--show-output`.
    ///
    /// A test says that it was skipped by a line `SKIPPED: reason`, or by the `ignored` attribute with its reason.
    pub(crate) fn read(output: &str) -> Outcome {
        let mut outcome = Outcome::default();
        let mut section: Option<&str> = None;
        let mut in_list = false;
        for line in output.lines() {
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
            {
                section = Some(name);
            } else if let Some(reason) = line.trim_start().strip_prefix("SKIPPED:") {
                let test = section.unwrap_or("a test").to_owned();
                let skip = Skip { test, reason: reason.trim().to_owned() };
                // A test that looks twice for what it lacks is skipped once.
                if !outcome.skipped.iter().any(|other| section.is_some() && other.test == skip.test) {
                    outcome.skipped.push(skip);
                }
            } else if let Some((name, reason)) = ignored(line) {
                outcome.skipped.push(Skip { test: name.to_owned(), reason: reason.to_owned() });
            } else if line == "failures:" || line == "successes:" {
                // Once before the sections, and once before the names, which are indented.
                in_list = line == "failures:";
                section = None;
            } else if let Some(totals) = line.strip_prefix("test result: ") {
                outcome.passed = count(totals, "passed");
                outcome.complete = true;
            } else if in_list && section.is_none() && line.starts_with("    ") {
                outcome.failed.push(line.trim().to_owned());
            }
        }
        outcome.failed.dedup();
        let by_harness = output.lines().filter(|line| ignored(line).is_some()).count();
        let by_themselves = outcome.skipped.len() - by_harness;
        outcome.passed = outcome.passed.saturating_sub(by_themselves);
        outcome
    }
}

fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    let reason = rest.strip_prefix(", ").unwrap_or("it is marked `ignore` without a reason");
    Some((name, reason))
}

fn count(totals: &str, what: &str) -> usize {
    let before = totals.split(what).next().unwrap_or_default();
    before.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The sum of all stages and programs.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failures: Vec<String>,
    pub(crate) skipped: Vec<Skip>,
}

impl Totals {
    /// Runs a stage that is no test program; it counts as one test.
    pub(crate) fn stage(&mut self, name: &str, stage: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        match stage() {
            Ok(()) => {
                self.passed += 1;
                println!("ok       {name} ({:.1} s)", start.elapsed().as_secs_f64());
            }
            Err(error) => self.fail(name, format!("{error:#}")),
        }
    }

    /// Notes a failure.
    pub(crate) fn fail(&mut self, name: &str, why: String) {
        println!("FAILED   {name}: {why}");
        self.failures.push(format!("{name}: {why}"));
    }

    /// Adds what a test program said.
    pub(crate) fn add(&mut self, program: &str, outcome: Outcome, took: Duration) {
        self.passed += outcome.passed;
        self.failures.extend(outcome.failed.iter().map(|test| format!("{program}: {test}")));
        let skipped = outcome.skipped.into_iter();
        let before = self.skipped.len();
        self.skipped.extend(skipped.map(|skip| Skip { test: format!("{program}: {}", skip.test), ..skip }));
        let verdict = if outcome.failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "{verdict:8} {program}: {} passed, {} failed, {} skipped ({:.1} s)",
            outcome.passed,
            outcome.failed.len(),
            self.skipped.len() - before,
            took.as_secs_f64()
        );
    }

    /// Prints what was skipped and what failed, and how many of each.
    pub(crate) fn summary(&self) {
        println!();
        for skip in &self.skipped {
            println!("skipped  {}: {}", skip.test, skip.reason);
        }
        for failure in &self.failures {
            println!("FAILED   {failure}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failures.len(), self.skipped.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 5 tests
test a::one ... ok
test a::two ... ok
test b ... FAILED
test c ... ignored, takes an hour
test d ... ok

successes:

---- a::one stdout ----
SKIPPED: not root
SKIPPED: not root

---- d stdout ----
hello

successes:
    a::one
    a::two
    d

failures:

---- b stdout ----

thread 'b' panicked at src/lib.rs:1:1:
    indented talk

failures:
    b

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn the_harness_is_understood() {
        let outcome = Outcome::read(OUTPUT);
        let skip = |test: &str, reason: &str| Skip { test: test.into(), reason: reason.into() };
        assert_eq!(outcome.passed, 2);
        assert_eq!(outcome.failed, ["b"]);
        assert_eq!(outcome.skipped, [skip("c", "takes an hour"), skip("a::one", "not root")]);
        assert!(outcome.complete);
    }

    #[test]
    fn a_program_that_died_is_not_complete() {
        assert!(!Outcome::read("running 3 tests\ntest a ... ok\n").complete);
    }
}
