//! Operations that outlive the request that began them, and that equal requests share.

use std::future::Future;

use tokio::sync::watch;
use tracing::Instrument;

/// A running or finished operation. Dropping it drops only the waiting; the operation goes on.
#[derive(Debug, Clone)]
pub(crate) struct Operation<T>(watch::Receiver<Option<T>>);

impl<T: Clone + Send + Sync + 'static> Operation<T> {
    /// Begins `work` on a task of its own.
    pub(crate) fn begin(work: impl Future<Output = T> + Send + 'static) -> Operation<T> {
        let (finished, operation) = watch::channel(None);
        // What is said and measured meanwhile belongs to the request that began it.
        let work = async move {
            finished.send_replace(Some(work.await));
        };
        tokio::spawn(work.in_current_span());
        Operation(operation)
    }

    /// One that needs no work.
    pub(crate) fn finished(result: T) -> Operation<T> {
        Operation(watch::Sender::new(Some(result)).subscribe())
    }

    /// Its result, now or later; `None` where it ended without one, which only a panic does.
    pub(crate) async fn result(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|result| result.clone())
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.borrow().is_some() || self.0.has_changed().is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn a_client_that_leaves_does_not_end_the_work() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        let operation = Operation::begin(async move {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            counted.fetch_add(1, Ordering::SeqCst) + 41
        });
        let left =
            tokio::time::timeout(std::time::Duration::from_millis(1), operation.clone().result()).await;
        assert!(left.is_err());
        assert_eq!(operation.clone().result().await, Some(41));
        assert_eq!(operation.result().await, Some(41));
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_is_not_waited_for_for_ever() {
        let operation = Operation::<()>::begin(async { panic!("on purpose") });
        assert_eq!(operation.clone().result().await, None);
        assert!(operation.is_finished());
    }
}
