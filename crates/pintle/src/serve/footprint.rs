//! Keeps the daemon small while little is asked of it.

use std::time::Duration;

/// How often. What is needed again comes back from the kernel's cache in less than a thousandth of a second altogether.
const EVERY: Duration = Duration::from_secs(10);

/// Lets go of the program's pages now and again, first when it has started.
pub(super) async fn keep_small() {
    let mut pause = Duration::from_secs(1);
    loop {
        tokio::time::sleep(pause).await;
        sys::code::unmap();
        pause = EVERY;
    }
}
