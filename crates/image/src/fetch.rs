//! One layer of a pull: here already, being fetched by another pull, unpacked from a kept blob, or fetched and unpacked as one stream.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use model::digest::Digest;
use tokio::sync::mpsc;

use crate::artifact;
use crate::blobs::Keeping;
use crate::bulk;
use crate::error::PullCause;
use crate::layers::{Layers, Partial, Ready};
use crate::manifest::LayerSource;
use crate::pieces::{self, Piece};
use crate::progress::LayerState;
use crate::pull::{Pull, Shared};
use crate::stacking::Stacking;
use crate::unpack::{self, Expected, Options, Target, UnpackError, Unpacked};

impl Pull {
    /// One layer, from wherever it is to be had. However many pulls want it, one fetches it.
    pub(crate) async fn layer(&self, index: usize, source: &LayerSource) -> Result<Ready, PullCause> {
        let diff_id = &source.diff_id;
        loop {
            if let Some(ready) = self.shared.layers.find(diff_id.as_str()) {
                self.progress.layer(index, |layer| layer.state = LayerState::Present);
                return Ok(ready);
            }
            match self.shared.fetching.join(diff_id.as_str().to_owned()) {
                // However the other's attempt ended: look again, and if there is nothing, fetch it with these credentials.
                Err(mut other) => drop(other.changed().await),
                Ok(_leading) => {
                    // It may have come between the look and the lead.
                    if self.shared.layers.find(diff_id.as_str()).is_none() {
                        match self.fetch(index, source).await {
                            Err(error) if is_unsuited(&error) => {
                                tracing::info!(layer = %diff_id, %error, "the layer is fetched again, as a directory");
                                self.progress.layer(index, |layer| layer.downloaded = 0);
                            }
                            done => return done.map(Ready::Unpacked),
                        }
                    }
                }
            }
        }
    }

    async fn fetch(&self, index: usize, source: &LayerSource) -> Result<Arc<Partial>, PullCause> {
        let LayerSource { blob, diff_id, file } = source;
        let _slot = self.shared.slots.acquire().await;
        let size = u64::try_from(blob.size).unwrap_or(0);
        let expected =
            Expected { blob: blob.digest.clone(), size, diff_id: diff_id.clone(), file: file.clone() };
        let (mut directory, unpacked) = match self.kept(&expected).await {
            Some(done) => done,
            None => self.fetched(index, &expected).await?,
        };
        let path = directory.take();
        self.progress.layer(index, |layer| layer.state = LayerState::Unpacked);
        Ok(self.shared.layers.unpacked(
            diff_id.as_str().to_owned(),
            Some(blob.digest.clone()),
            path,
            unpacked,
        ))
    }

    /// From a blob that was kept. One that is of no use is let go, and the registry is asked.
    async fn kept(&self, expected: &Expected) -> Option<(Directory, Unpacked)> {
        let (shared, expected) = (Arc::clone(&self.shared), expected.clone());
        let work = move || {
            let unpack = || Some(unpack_blob(&shared, shared.blobs.get(&expected.blob).ok()??.0, &expected));
            let unpacked = match unpack()? {
                Err(error) if is_unsuited(&error) => unpack()?,
                done => done,
            };
            match unpacked {
                Ok(done) => Some(done),
                Err(error) => {
                    tracing::warn!(blob = %expected.blob, %error, "a kept blob cannot be used and is fetched again");
                    let _ = shared.blobs.remove(&expected.blob);
                    None
                }
            }
        };
        bulk::begin(work).ok()?.await.ok().flatten()
    }

    async fn fetched(&self, index: usize, expected: &Expected) -> Result<(Directory, Unpacked), PullCause> {
        self.progress.layer(index, |layer| layer.state = LayerState::Downloading);
        let (sender, receiver) = pieces::channel();
        let (shared, of) = (Arc::clone(&self.shared), expected.clone());
        let unpacking = bulk::begin(move || unpack_as_configured(&shared, receiver, &of))?;
        let downloaded = self.download(index, &expected.blob, expected.size, &sender).await;
        drop(sender);
        let unpacked = unpacking.await.map_err(|_| PullCause::Interrupted)?;
        downloaded?;
        unpacked
    }

    /// Hands a blob on piece by piece. If nobody takes them any more, it ends without an error: who took them knows why.
    async fn download(
        &self,
        index: usize,
        digest: &Digest,
        size: u64,
        to: &mpsc::Sender<Piece>,
    ) -> Result<(), PullCause> {
        let mut download = self.session.download(format!("layer {digest}"), digest, size);
        while let Some(bytes) = download.next().await? {
            self.progress.layer(index, |layer| layer.downloaded += bytes.len() as u64);
            if to.send(Piece::Bytes(bytes)).await.is_err() {
                return Ok(());
            }
        }
        let _ = to.send(Piece::End).await;
        Ok(())
    }
}

/// Whether a layer was to be packed and cannot be. The next try makes a directory of it.
pub(crate) fn is_unsuited(cause: &PullCause) -> bool {
    matches!(cause, PullCause::Layer { why: UnpackError::Unsuited(_), .. })
}

/// A directory or file that goes unless somebody takes it.
pub(crate) struct Directory {
    pub layers: Arc<Layers>,
    pub path: Option<PathBuf>,
}

impl Directory {
    pub(crate) fn take(&mut self) -> PathBuf {
        self.path.take().unwrap_or_default()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.layers.discard(&path);
        }
    }
}

/// Unpacks a blob, and keeps it if blobs are kept.
pub(crate) fn unpack_as_configured(
    shared: &Shared,
    blob: impl Read + Send,
    expected: &Expected,
) -> Result<(Directory, Unpacked), PullCause> {
    if !shared.config.keep_blobs {
        return unpack_blob(shared, blob, expected);
    }
    let mut keeping = Keeping::new(blob, shared.blobs.create(&expected.blob));
    let unpacked = unpack_blob(shared, &mut keeping, expected)?;
    if let Err(error) = keeping.finish().and_then(|blob| blob.publish()) {
        tracing::warn!(blob = %expected.blob, %error, "the packed blob could not be kept; its layer is here all the same");
    }
    Ok(unpacked)
}

fn unpack_blob(
    shared: &Shared,
    blob: impl Read + Send,
    expected: &Expected,
) -> Result<(Directory, Unpacked), PullCause> {
    let (layers, name) = (&shared.layers, expected.diff_id.hex());
    let packs = expected.file.is_none() && layers.packs(expected.diff_id.as_str());
    let (path, file) = if packs { layers.new_file(name)? } else { layers.new_partial(name)? };
    // Owned here, where nothing is written any more when it goes, even if the pull was given up meanwhile.
    let guard = Directory { layers: Arc::clone(&shared.layers), path: Some(path) };
    let options = Options {
        limits: shared.config.limits.clone(),
        user_xattr: shared.config.user_xattr,
        for_copies: layers.stacking() == Stacking::Copies,
    };
    let unpacked = match &expected.file {
        Some(name) => artifact::write(blob, file.as_fd(), name, expected),
        None if packs => unpack::unpack(blob, Target::Erofs(file), expected, &options),
        None => unpack::unpack(blob, Target::Directory(file.as_fd()), expected, &options),
    };
    match unpacked {
        Ok(unpacked) => Ok((guard, unpacked)),
        Err(UnpackError::NoSpace { .. }) => {
            Err(PullCause::NoSpace { path: shared.layers.folder().to_owned() })
        }
        Err(why) => {
            if matches!(why, UnpackError::Unsuited(_)) {
                layers.set_unsuited(expected.diff_id.as_str());
            }
            Err(PullCause::Layer { digest: expected.blob.clone(), why })
        }
    }
}
