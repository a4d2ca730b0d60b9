//! Long work on the bytes of images: unpacking, packing, comparing. It gives way to the threads that answer somebody.

use std::path::Path;

use tokio::sync::oneshot;

use crate::error::PullCause;

/// Runs it on a thread of its own, which ends with it.
///
/// # Errors
/// The work's own; [`PullCause::Interrupted`] if it panicked, and an error of the system's if there is no thread to be had.
pub(crate) async fn bulk<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<PullCause> + Send + 'static,
{
    begin(work)?.await.unwrap_or(Err(PullCause::Interrupted.into()))
}

/// Begins it. What it returns is sent, and nothing is sent if it panicked; if nobody waits any more, it goes on all the same.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn begin<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>, PullCause> {
    let (sender, receiver) = oneshot::channel();
    let thread = move || {
        // Where it cannot be had, others are answered a little later.
        let _ = sys::turns::give_way();
        let _ = sender.send(work());
    };
    std::thread::Builder::new()
        .name("image".into())
        .spawn(thread)
        .map_err(|source| PullCause::io(Path::new("a thread for an image's bytes"), source))?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_it_returns_comes_back_and_a_panic_is_an_interruption() {
        assert_eq!(bulk(|| Ok::<_, PullCause>(7)).await.unwrap(), 7);
        let failed = bulk(|| Err::<(), _>(PullCause::GivenUp)).await;
        assert!(matches!(failed, Err(PullCause::GivenUp)), "{failed:?}");
        let panicked = bulk(|| -> Result<(), PullCause> { panic!("on purpose") }).await;
        assert!(matches!(panicked, Err(PullCause::Interrupted)), "{panicked:?}");
    }
}
