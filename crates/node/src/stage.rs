//! The steps of an operation, as they are measured, traced, and named by the watchdog.

use std::future::Future;

use model::id::PodId;
use tracing::{Instrument, info_span};

/// Does `work` as the step `stage` of what is done with `pod`.
pub(crate) fn stage<T>(
    stage: &'static str,
    pod: &PodId,
    work: impl Future<Output = T>,
) -> impl Future<Output = T> {
    work.instrument(info_span!(target: "pintle::stage", "stage", stage, pod = pod.as_str()))
}

/// As [`stage`], for a step of work that does not let others run meanwhile.
pub(crate) fn at_once<T>(stage: &'static str, pod: &PodId, work: impl FnOnce() -> T) -> T {
    info_span!(target: "pintle::stage", "stage", stage, pod = pod.as_str()).in_scope(work)
}
