//! Whether a container may be made of an image that is here already: the policy may have been another one when it was pulled.

use std::sync::Arc;
use std::time::SystemTime;

use distribution::Attempt;
use model::reference::ImageReference;
use store::Durability;
use store::rusqlite::{self, Transaction};
use tokio::sync::watch;
use trust::{Place, Policy, Subject};

use crate::Images;
use crate::admission::{came_in, distrust, requirement, settle};
use crate::catalog::{self, Image, Origin, StoredManifest};
use crate::error::{PullCause, PullError};
use crate::progress::Progress;
use crate::pull::{Pull, Shared, blocking};

/// What is known of an image without asking anybody.
enum Standing {
    Admitted,
    Refused(PullCause),
    /// Its signatures have to be looked at, which are in the registry: under one of these names.
    ToBeAsked(Vec<ImageReference>),
}

impl Images {
    /// Whether the policy as it is now admits an image that is here. `asked` is what it was asked for by; an id stands for all its names. What
    /// met the same requirements, with the same keys, is not looked at again; else its signatures are looked for as in a pull, and nothing
    /// else is fetched. Without a policy and pins it costs nothing.
    ///
    /// # Errors
    /// [`PullError`], as a pull would fail.
    pub async fn readmit(&self, image: &Arc<Image>, asked: &str) -> Result<(), PullError> {
        let trust = &self.shared.config.trust;
        if trust.policy.is_none() && trust.pins.scopes.is_empty() {
            return Ok(());
        }
        let failed = |cause, attempts| {
            let reference = if asked.is_empty() { image.name() } else { asked }.to_owned();
            PullError { reference, cause: Box::new(cause), attempts }
        };
        let (shared, of, name) = (Arc::clone(&self.shared), Arc::clone(image), asked.to_owned());
        let standing = blocking(move || standing(&shared, &of, &name)).await;
        let names = match standing.map_err(|cause| failed(cause, Vec::new()))? {
            Standing::Admitted => return Ok(()),
            Standing::Refused(cause) => return Err(failed(cause, Vec::new())),
            Standing::ToBeAsked(names) => names,
        };
        let mut last = (PullCause::Interrupted, Vec::new());
        for name in names {
            match self.ask_again(image, &name).await {
                Ok(()) => return Ok(()),
                Err(why) => last = why,
            }
        }
        Err(failed(last.0, last.1))
    }

    /// Looks for signatures of an image under one name.
    async fn ask_again(
        &self,
        image: &Arc<Image>,
        name: &ImageReference,
    ) -> Result<(), (PullCause, Vec<Attempt>)> {
        let alone = |cause| (cause, Vec::new());
        let (shared, of, asked) = (Arc::clone(&self.shared), Arc::clone(image), name.to_string());
        let (manifests, plan) = blocking(move || {
            let plan = shared.config.registries.plan(&asked)?;
            Ok((manifests(&shared, &of)?, plan))
        })
        .await
        .map_err(alone)?;
        let mut last = alone(PullCause::Interrupted);
        for candidate in plan.candidates {
            let pull = Pull {
                shared: Arc::clone(&self.shared),
                client: Arc::clone(&self.client),
                session: Arc::new(candidate.session(Arc::clone(&self.client), None)),
                reference: candidate.reference,
                platform: self.shared.config.platform.clone(),
                progress: Progress::new(name.to_string()),
                given_up: watch::Sender::new(false),
            };
            match pull.admit_signed(&manifests).await {
                Ok(met) => return self.record(image, met).await.map_err(alone),
                Err(cause) => last = (cause, pull.session.attempts()),
            }
        }
        Err(last)
    }

    async fn record(&self, image: &Arc<Image>, met: Option<String>) -> Result<(), PullCause> {
        let (shared, id) = (Arc::clone(&self.shared), image.id.clone());
        let origin = Origin { admissions: met.into_iter().collect(), ..Origin::default() };
        blocking(move || {
            let write = |tx: &Transaction<'_>| catalog::insert_origin(tx, &id, &origin);
            Ok(shared.catalog.store().write(Durability::Process, write)?)
        })
        .await
    }
}

/// What is known of the way to an image: its manifests, or at least their digests.
fn manifests(shared: &Shared, image: &Image) -> Result<Vec<StoredManifest>, PullCause> {
    let known = catalog::manifests(shared.catalog.store(), &image.id)?;
    if !known.is_empty() {
        return Ok(known);
    }
    let digests =
        image.repo_digests.iter().filter_map(|name| ImageReference::parse(name).ok()?.digest().cloned());
    let unread = |digest| StoredManifest { digest, media_type: String::new(), body: Vec::new() };
    Ok(digests.map(unread).collect())
}

/// The names that count: the one that was asked for, or all.
fn names_of(image: &Image, asked: &str) -> Vec<ImageReference> {
    let parse = |name: &str| ImageReference::parse(name).ok();
    let own = parse(asked).filter(|asked| image.names().any(|name| name == catalog::stored_name(asked)));
    own.map_or_else(|| image.names().filter_map(parse).collect(), |own| vec![own])
}

fn standing(shared: &Shared, image: &Image, asked: &str) -> Result<Standing, PullCause> {
    let trust = &shared.config.trust;
    let names = names_of(image, asked);
    // An image that was pulled by tag has its digest for a name too. That is enough only where it was not asked for by the tag.
    let pins: Result<Vec<()>, _> = names.iter().map(|name| trust.pins.check(name)).collect();
    let is_pinned = names.iter().any(|name| name.digest().is_some());
    if let (Err(why), false) = (pins, is_pinned) {
        return Ok(Standing::Refused(distrust(why)));
    }
    let Some(policy) = trust.policy().map_err(distrust)? else { return Ok(Standing::Admitted) };
    let met = admissions(shared, image)?;
    let mut refused = None;
    let mut open = Vec::new();
    for name in &names {
        let place = Place::Registry(name.clone());
        let Err(cause) = alone(shared, &policy, &place) else { return Ok(Standing::Admitted) };
        if policy.requirements(&place).wanted().is_nothing() {
            refused = Some(cause);
        } else if requirement(&policy, &place).is_some_and(|now| met.contains(&now)) {
            return Ok(Standing::Admitted);
        } else {
            open.push(name.clone());
        }
    }
    for place in [Place::OciArchive(None), Place::DockerArchive] {
        if met.contains(&came_in(&place)) || names.is_empty() {
            match alone(shared, &policy, &place) {
                Ok(()) => return Ok(Standing::Admitted),
                Err(cause) => drop(refused.get_or_insert(cause)),
            }
        }
    }
    Ok(match refused {
        Some(cause) if open.is_empty() => Standing::Refused(cause),
        _ => Standing::ToBeAsked(open),
    })
}

/// The verdict with no signature at hand.
fn alone(shared: &Shared, policy: &Policy, place: &Place) -> Result<(), PullCause> {
    let unnamed_counts = shared.config.trust.accept_unnamed;
    let subject = Subject { place, digests: &[], unnamed_counts, now: SystemTime::now() };
    settle(policy.requirements(place).judge(&subject, &[])).map_err(distrust)
}

fn admissions(shared: &Shared, image: &Image) -> Result<Vec<String>, PullCause> {
    Ok(shared.catalog.store().read(|connection| {
        let mut statement =
            connection.prepare_cached("SELECT requirement FROM image_admissions WHERE image = ?1")?;
        statement.query_map([image.id.as_str()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
    })?)
}
