//! A command that does the same to several objects: one that fails is reported and does not stop the others.

use super::failure::Failure;

/// Counts what went well and what did not.
#[derive(Default)]
pub(crate) struct Several {
    total: usize,
    failures: Vec<Failure>,
}

impl Several {
    /// Takes the result for one object.
    pub(crate) fn record(&mut self, result: Result<(), Failure>) {
        self.total += 1;
        self.failures.extend(result.err());
    }

    /// The result of the whole command. With more than one object each failure is reported here already.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        match (self.failures.len(), self.total) {
            (0, _) => Ok(()),
            (1, 1) => Err(self.failures.remove(0)),
            (failed, total) => {
                self.failures.iter().for_each(Failure::report);
                Err(Failure::Some { failed, total })
            }
        }
    }
}
