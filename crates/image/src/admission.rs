//! Whether an image that was asked for is admitted: pins before the registry is asked, the policy and the verifiers once it is known what
//! the reference leads to, and before anything else of the image is fetched.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use model::digest::{Algorithm, Digest};
use trust::{Distrust, Pins, Place, Policy, Question, Subject, Verdict, Verifiers};

use crate::catalog::StoredManifest;
use crate::error::PullCause;
use crate::pull::{Pull, blocking};
use crate::signatures::Search;

/// Whom to trust. Everything is off in the default.
#[derive(Debug, Clone, Default)]
pub struct TrustConfig {
    /// A file in the format of containers-policy.json(5).
    pub policy: Option<PathBuf>,
    /// The folder of containers-registries.d(5), for the policy's signatures.
    pub registries_dir: PathBuf,
    /// Whether a signature that names no repository may meet a policy.
    pub accept_unnamed: bool,
    pub pins: Pins,
    pub verifiers: Option<Verifiers>,
}

impl TrustConfig {
    /// The policy, if there is one. It is read for every image, so that a change counts at once.
    pub(crate) fn policy(&self) -> Result<Option<Policy>, Distrust> {
        Ok(self.policy.as_deref().map(Policy::read).transpose()?)
    }

    /// Whether what was loaded from a file is admitted. Nothing that could vouch for it comes with it, so that the policy must not ask for
    /// signatures.
    pub(crate) fn admit_file(&self, place: &Place) -> Result<(), Distrust> {
        let Some(policy) = self.policy()? else { return Ok(()) };
        let subject =
            Subject { place, digests: &[], unnamed_counts: self.accept_unnamed, now: SystemTime::now() };
        settle(policy.requirements(place).judge(&subject, &[]))
    }
}

impl Pull {
    /// Whether the reference may be pulled as it was given.
    pub(crate) fn check_pin(&self) -> Result<(), PullCause> {
        self.shared.config.trust.pins.check(&self.reference).map_err(distrust)
    }

    /// Whether the image is admitted to which these manifests lead, from what the reference itself leads to. As what it was admitted is to be
    /// recorded, if there is a policy.
    pub(crate) async fn admit(&self, manifests: &[StoredManifest]) -> Result<Option<String>, PullCause> {
        let met = self.admit_signed(manifests).await?;
        let verifiers = self.shared.config.trust.verifiers.clone();
        if let (Some(verifiers), Some(first)) = (verifiers, manifests.first()) {
            let (name, digest) = (self.reference.to_string(), first.digest.clone());
            let (media_type, size) = (first.media_type.clone(), first.body.len() as u64);
            let ask = move || {
                let question = Question { name: &name, digest: &digest, media_type: &media_type, size };
                verifiers.ask(&question).map_err(|why| distrust(why.into()))
            };
            blocking(ask).await?;
        }
        Ok(met)
    }

    /// The same, by the policy alone.
    pub(crate) async fn admit_signed(
        &self,
        manifests: &[StoredManifest],
    ) -> Result<Option<String>, PullCause> {
        let Some(policy) = self.shared.config.trust.policy().map_err(distrust)? else { return Ok(None) };
        // Before it is judged: a key that is replaced meanwhile was not what was met.
        let met = requirement(&policy, &Place::Registry(self.reference.clone()));
        self.consult(policy, manifests).await?;
        Ok(met)
    }

    /// Looks for signatures only as long as they can change the verdict: first of what the reference leads to, then of what that leads to.
    async fn consult(&self, policy: Policy, manifests: &[StoredManifest]) -> Result<(), PullCause> {
        let config = &self.shared.config.trust;
        let place = Place::Registry(self.reference.clone());
        let wanted = policy.requirements(&place).wanted();
        let (policy, place) = (Arc::new(policy), Arc::new(place));
        let digests: Arc<[Digest]> = manifests.iter().flat_map(digests_of).collect();
        let judge = |evidence: Vec<trust::Evidence>| {
            let (policy, place, digests) = (Arc::clone(&policy), Arc::clone(&place), Arc::clone(&digests));
            let unnamed_counts = config.accept_unnamed;
            // It reads keys from the disk.
            blocking(move || {
                let subject =
                    Subject { place: &place, digests: &digests, unnamed_counts, now: SystemTime::now() };
                let verdict = settle(policy.requirements(&place).judge(&subject, &evidence));
                Ok((verdict, evidence))
            })
        };
        // Keys that cannot be used, or a list without signatures, need no search.
        let (mut verdict, _) = judge(Vec::new()).await?;
        if verdict.is_ok() || wanted.is_nothing() {
            return verdict.map_err(distrust);
        }
        let mut search = Search::new(self, wanted).map_err(distrust)?;
        for digest in digests.iter() {
            search.look(digest).await;
            (verdict, search.found) = judge(std::mem::take(&mut search.found)).await?;
            if verdict.is_ok() {
                return Ok(());
            }
        }
        // Where nobody answered, the image may well be signed: it is worth trying again.
        match search.trouble {
            Some(error) => Err(error.into()),
            None => verdict.map_err(distrust),
        }
    }
}

/// What a policy requires of what comes from a place, as it is recorded of images that met it.
pub(crate) fn requirement(policy: &Policy, place: &Place) -> Option<String> {
    let mut hasher = distribution::Hasher::new();
    hasher.update(format!("{place:?}\0").as_bytes());
    hasher.update(&policy.requirements(place).text()?);
    Some(hasher.finish().to_string())
}

/// What is recorded of images that came in a file: there is nothing to meet but that such are admitted.
pub(crate) fn came_in(place: &Place) -> String {
    format!("from {}", place.transport())
}

/// The digests under which a manifest may be signed: the one it was asked by, and the usual one.
fn digests_of(manifest: &StoredManifest) -> Vec<Digest> {
    let mut digests = vec![manifest.digest.clone()];
    if manifest.digest.algorithm() != Algorithm::Sha256 {
        let mut hasher = distribution::Hasher::new();
        hasher.update(&manifest.body);
        digests.push(hasher.finish());
    }
    digests
}

pub(crate) fn settle(verdict: Verdict) -> Result<(), Distrust> {
    match verdict {
        Verdict::Accepted { rule } => {
            tracing::debug!(%rule, "the policy admits the image");
            Ok(())
        }
        Verdict::Rejected { rule, why } => Err(Distrust::Rule { rule, why }),
    }
}

pub(crate) fn distrust(why: Distrust) -> PullCause {
    PullCause::Untrusted(Arc::new(why))
}

/// Says at the start what would otherwise be found out with the first pull.
pub(crate) fn check_at_start(config: &TrustConfig) {
    if let Err(error) = config.policy() {
        tracing::error!(%error, "no image can be pulled");
    }
    let is_folder = |path: &Path| path.is_dir();
    if let Some(verifiers) = config.verifiers.as_ref().filter(|verifiers| !is_folder(&verifiers.folder)) {
        tracing::error!(folder = %verifiers.folder.display(), "no image can be pulled: the folder of verifiers is absent");
    }
}
