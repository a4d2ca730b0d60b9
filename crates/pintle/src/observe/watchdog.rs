//! The watchdog: what is under way for more than a minute is said, with its stage and where in the kernel it waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::seen::{Kind, Seen};
use super::{Observer, kernel};

/// How often it looks.
const ROUND: Duration = Duration::from_secs(5);
/// After how many seconds it speaks of something for the first time; then whenever that took twice as long.
const PATIENCE: u64 = 60;

pub(super) async fn run(observer: Observer) {
    loop {
        tokio::time::sleep(ROUND).await;
        let under_way: Vec<Arc<Seen>> = observer.under_way().values().cloned().collect();
        let slow = slow(&under_way, PATIENCE);
        if slow.is_empty() {
            continue;
        }
        let waits = tokio::task::spawn_blocking(kernel::waiting).await.unwrap_or_default();
        for Slow { call, stage, pod } in slow {
            let seconds = call.began.elapsed().as_secs();
            let trace = format!("{:032x}", call.trace);
            warn!(call = call.name, trace, seconds, stage, pod, kernel = waits, "still under way");
        }
    }
}

struct Slow {
    call: Arc<Seen>,
    /// The innermost stages that have not ended.
    stage: String,
    pod: String,
}

/// Calls that it is time to speak of.
fn slow(under_way: &[Arc<Seen>], patience: u64) -> Vec<Slow> {
    let mut within: HashMap<u64, Vec<&Arc<Seen>>> = HashMap::new();
    for seen in under_way.iter().filter(|seen| seen.kind == Kind::Stage) {
        within.entry(seen.parent.unwrap_or_default()).or_default().push(seen);
    }
    let calls = under_way.iter().filter(|seen| seen.kind == Kind::Call && seen.is_to_be_told(patience));
    let slow = calls.map(|call| {
        let (mut stages, mut pods) = (Vec::new(), Vec::new());
        let mut left = vec![call];
        while let Some(seen) = left.pop() {
            match within.get(&seen.id) {
                Some(inner) => left.extend(inner),
                None if seen.kind == Kind::Stage => {
                    stages.push(seen.name.as_str());
                    pods.push(seen.pod.as_str());
                }
                None => {}
            }
        }
        pods.dedup();
        Slow { call: call.clone(), stage: stages.join(", "), pod: pods.join(", ") }
    });
    slow.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::info_span;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn the_innermost_stage_is_named_and_not_again_too_soon() {
        let observer = Observer::default();
        let filter = tracing_subscriber::filter::filter_fn(super::super::is_observed);
        let subscriber = tracing_subscriber::registry().with(observer.clone().with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            let call = info_span!(target: "pintle::call", "call", call = "RuntimeService/RunPodSandbox");
            let outer =
                call.in_scope(|| info_span!(target: "pintle::stage", "stage", stage = "outer", pod = "p"));
            let _inner =
                outer.in_scope(|| info_span!(target: "pintle::stage", "stage", stage = "inner", pod = "p"));
            let under_way: Vec<_> = observer.under_way().values().cloned().collect();
            assert!(slow(&under_way, 60).is_empty());
            let said = slow(&under_way, 0);
            assert_eq!((said.len(), said[0].stage.as_str(), said[0].pod.as_str()), (1, "inner", "p"));
            assert!(slow(&under_way, 0).is_empty());
        });
    }
}
