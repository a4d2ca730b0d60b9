//! What a pod may do next. Pure: no clock, no disk, no kernel.
//!
//! ```text
//!           run                 stop                  remove
//! (nothing) ────► Ready ───────────────► Stopped ───────────────► (nothing)
//!                   └── shim lost, machine started anew ──┘
//! ```

use serde::{Deserialize, Serialize};

use crate::request::PodRequest;

/// Where a pod is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pod {
    /// Its namespaces, network and shim stand.
    Ready,
    /// It was stopped, or lost what it needs; only removing is left. Why, where it was not asked for.
    Stopped { why: Option<String> },
}

/// The answer to "may this be done now?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<Refusal> {
    Go,
    AlreadyDone,
    Refuse(Refusal),
}

/// Why a pod with the same name is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunRefusal {
    /// The request differs from the one that made the pod.
    Different,
    /// It was the same request, but the pod has been stopped since.
    Stopped,
}

/// May `asked` run, when a pod with its name exists? The same request again is a retry and gets the pod that there is.
pub fn run_again(existing: &Pod, made_by: &PodRequest, asked: &PodRequest) -> Verdict<RunRefusal> {
    match existing {
        _ if made_by != asked => Verdict::Refuse(RunRefusal::Different),
        Pod::Ready => Verdict::AlreadyDone,
        Pod::Stopped { .. } => Verdict::Refuse(RunRefusal::Stopped),
    }
}

/// Stopping is idempotent, but what a stop still owes (an address, a namespace) makes it worth doing again.
pub fn stop(pod: &Pod, owes: bool) -> Verdict<std::convert::Infallible> {
    match pod {
        Pod::Ready => Verdict::Go,
        Pod::Stopped { .. } if owes => Verdict::Go,
        Pod::Stopped { .. } => Verdict::AlreadyDone,
    }
}

/// A container can be created only where there is a living pod.
pub fn create_container(pod: &Pod) -> Verdict<Option<String>> {
    match pod {
        Pod::Ready => Verdict::Go,
        Pod::Stopped { why } => Verdict::Refuse(why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_gets_the_pod_and_another_request_does_not() {
        let asked = PodRequest::default();
        let other = PodRequest { hostname: "other".into(), ..asked.clone() };
        let stopped = Pod::Stopped { why: None };
        assert_eq!(run_again(&Pod::Ready, &asked, &asked), Verdict::AlreadyDone);
        assert_eq!(run_again(&Pod::Ready, &asked, &other), Verdict::Refuse(RunRefusal::Different));
        assert_eq!(run_again(&stopped, &asked, &asked), Verdict::Refuse(RunRefusal::Stopped));
        assert_eq!(stop(&stopped, false), Verdict::AlreadyDone);
        assert_eq!(stop(&stopped, true), Verdict::Go);
    }
}
