//! One request to pull: who serves what it names, and each reference that it may stand for, one after the other.

use std::sync::Arc;

use distribution::{Client, Credentials, Plan};
use model::digest::ImageId;
use model::platform::Platform;
use tokio::sync::watch;

use crate::error::{PullCause, PullError};
use crate::progress::Progress;
use crate::pull::{Pull, Shared, blocking};

/// One request.
pub(crate) struct Course {
    pub shared: Arc<Shared>,
    pub client: Arc<Client>,
    /// As a person wrote it.
    pub asked: String,
    pub credentials: Option<Credentials>,
    /// For which the image is to be.
    pub platform: Platform,
    pub progress: Progress,
    pub given_up: watch::Sender<bool>,
}

impl Course {
    /// Runs to its end.
    pub(crate) async fn run(&self) -> Result<ImageId, PullError> {
        let mut attempts = Vec::new();
        let mut failed = PullCause::Interrupted;
        match self.plan().await {
            Err(cause) => failed = cause,
            Ok(plan) => {
                self.shared.short_names.store(Arc::new(plan.short_names));
                for candidate in plan.candidates {
                    let client = Arc::clone(&self.client);
                    let pull = Pull {
                        shared: Arc::clone(&self.shared),
                        client: Arc::clone(&client),
                        session: Arc::new(candidate.session(client, self.credentials.as_ref())),
                        reference: candidate.reference,
                        platform: self.platform.clone(),
                        progress: self.progress.clone(),
                        given_up: self.given_up.clone(),
                    };
                    match pull.run().await {
                        Ok(id) => return Ok(id),
                        Err(cause) => failed = cause,
                    }
                    attempts.extend(pull.session.attempts());
                    // Only what a registry said is a reason to ask the next.
                    if !matches!(failed, PullCause::Registry(_)) {
                        break;
                    }
                }
            }
        }
        Err(PullError { reference: self.asked.clone(), cause: Box::new(failed), attempts })
    }

    /// Nobody waits any more: it ends at the next place where it may.
    pub(crate) fn give_up(&self) {
        self.given_up.send_replace(true);
    }

    async fn plan(&self) -> Result<Plan, PullCause> {
        let (sources, asked) = (self.shared.config.registries.clone(), self.asked.clone());
        blocking(move || sources.plan(&asked).map_err(PullCause::from)).await
    }
}
