//! Where registries sent requests for one blob on to, so that each further range of it need not be asked of the registry first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Uri;

/// The detours of one blob: one for each endpoint that has it.
#[derive(Debug, Default)]
pub(crate) struct Detours(Mutex<Vec<(Uri, Uri)>>);

impl Detours {
    /// Where a request for `origin` was sent on to last.
    pub(crate) fn of(&self, origin: &Uri) -> Option<Uri> {
        self.lock().iter().find(|(from, _)| from == origin).map(|(_, to)| to.clone())
    }

    pub(crate) fn note(&self, origin: &Uri, to: &Uri) {
        self.forget(origin);
        self.lock().push((origin.clone(), to.clone()));
    }

    pub(crate) fn forget(&self, origin: &Uri) {
        self.lock().retain(|(from, _)| from != origin);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Uri, Uri)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
