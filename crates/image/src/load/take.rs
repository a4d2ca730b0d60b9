//! From an image as a source has it to an image of this node: its layers unpacked side by side, and one commit.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use model::digest::ImageId;
use model::reference::ImageReference;
use tokio::runtime::Handle;

use super::{Contents, LoadError, Loaded};
use crate::Named;
use crate::catalog::{Origin, StoredManifest};
use crate::error::PullCause;
use crate::fetch::unpack_as_configured;
use crate::layers::Ready;
use crate::manifest::LayerSource;
use crate::pull::Shared;
use crate::unpack::Expected;

/// An image as a source has it, checked as far as that goes without its layers.
pub(super) struct Incoming {
    pub id: ImageId,
    pub config: Vec<u8>,
    pub sources: Vec<LayerSource>,
    pub origin: Origin,
}

/// One image under several names is one.
pub(super) fn merge(images: &mut Vec<Incoming>) {
    let mut merged: Vec<Incoming> = Vec::new();
    for image in images.drain(..) {
        let Some(known) = merged.iter_mut().find(|known| known.id == image.id) else {
            merged.push(image);
            continue;
        };
        for name in image.origin.names {
            if !known.origin.names.contains(&name) {
                known.origin.names.push(name);
            }
        }
        let fresh = |one: &StoredManifest| !known.origin.manifests.iter().any(|k| k.digest == one.digest);
        let fresh: Vec<_> = image.origin.manifests.into_iter().filter(fresh).collect();
        known.origin.manifests.extend(fresh);
    }
    *images = merged;
}

/// Makes it an image of this node.
pub(super) fn take(
    shared: &Shared,
    runtime: &Handle,
    incoming: &Incoming,
    contents: &dyn Contents,
) -> Result<Loaded, LoadError> {
    let Incoming { id, config, sources, origin } = incoming;
    let names = names(shared, id, origin);
    if !shared.name_existing(id, origin)? {
        let _lease = shared.layers.lease(sources.iter().map(|source| source.diff_id.to_string()));
        let layers = layers(shared, runtime, sources, contents)?;
        shared.publish(id, config, &layers, origin)?;
    }
    Ok(Loaded { id: id.clone(), names })
}

/// The names it gets, with what they lead to before.
fn names(shared: &Shared, id: &ImageId, origin: &Origin) -> Vec<Named> {
    let snapshot = shared.catalog.snapshot();
    let one = |name: &String| {
        let before = ImageReference::parse(name).ok().and_then(|name| snapshot.by_reference(&name));
        let moved_from = before.map(|before| before.id.clone()).filter(|before| before != id);
        Named { image: id.clone(), name: name.clone(), moved_from }
    };
    origin.names.iter().map(one).collect()
}

fn layers(
    shared: &Shared,
    runtime: &Handle,
    sources: &[LayerSource],
    contents: &dyn Contents,
) -> Result<Vec<Ready>, LoadError> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<Ready, LoadError>)>> = Mutex::default();
    let record = |index, result| done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
    std::thread::scope(|scope| {
        for _ in 0..shared.config.parallel_layers.clamp(1, sources.len().max(1)) {
            scope.spawn(|| {
                let _runtime = runtime.enter();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(source) = sources.get(index) else { return };
                    let read = || layer(shared, runtime, source, || contents.layer(source));
                    let result = match read() {
                        Err(error) if error.is_unsuited() => read(),
                        done => done,
                    };
                    let failed = result.is_err();
                    record(index, result);
                    if failed {
                        // The others end with what they are at.
                        next.store(sources.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    let layers = done.into_iter().map(|(_, result)| result).collect::<Result<Vec<_>, _>>()?;
    if layers.len() < sources.len() {
        return Err(PullCause::Interrupted.into());
    }
    Ok(layers)
}

/// One layer: here already, being fetched by somebody else, or unpacked from the source.
pub(super) fn layer<'a>(
    shared: &Shared,
    runtime: &Handle,
    source: &LayerSource,
    open: impl FnOnce() -> Result<Box<dyn Read + Send + 'a>, LoadError>,
) -> Result<Ready, LoadError> {
    let LayerSource { blob, diff_id, file } = source;
    let _leading = loop {
        if let Some(ready) = shared.layers.find(diff_id.as_str()) {
            return Ok(ready);
        }
        match shared.fetching.join(diff_id.as_str().to_owned()) {
            Err(mut other) => drop(runtime.block_on(other.changed())),
            Ok(leading) => break leading,
        }
    };
    // It may have come between the look and the lead.
    if let Some(ready) = shared.layers.find(diff_id.as_str()) {
        return Ok(ready);
    }
    let _slot = runtime.block_on(shared.slots.acquire());
    let expected = Expected {
        blob: blob.digest.clone(),
        size: u64::try_from(blob.size).unwrap_or(0),
        diff_id: diff_id.clone(),
        file: file.clone(),
    };
    let (mut directory, unpacked) = unpack_as_configured(shared, open()?, &expected)?;
    let path = directory.take();
    let (id, blob) = (diff_id.as_str().to_owned(), Some(blob.digest.clone()));
    Ok(Ready::Unpacked(shared.layers.unpacked(id, blob, path, unpacked)))
}
