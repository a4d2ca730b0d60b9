//! The images and the names that lead to them: rows in the database, and a snapshot in memory that every query is answered from.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use distribution::ShortNames;
use model::digest::{Digest, ImageId};
use model::platform::Platform;
use model::reference::ImageReference;
use store::rusqlite::{self, Transaction, params};
use store::{Durability, Store};

use crate::error::PullCause;
use crate::layers::Layers;
use crate::manifest::{self, RunConfig};
use crate::pinned::Pinned;
use crate::record::Records;

/// An image that is here.
#[derive(Debug, Clone)]
pub struct Image {
    pub id: ImageId,
    /// Whole names with tags, sorted.
    pub repo_tags: Vec<String>,
    /// Whole names with digests of manifests or indexes, sorted.
    pub repo_digests: Vec<String>,
    /// Bytes on disk of its layers, shared ones included, and of its configuration.
    pub size: u64,
    /// What it says about running it.
    pub config: RunConfig,
    /// Who its processes run as.
    pub user: ImageUser,
    /// What its programs run on; none: it does not say.
    pub platform: Option<Platform>,
    /// Garbage collection leaves it alone: one of its names is like a pattern, or somebody said so.
    pub pinned: bool,
    pub(crate) pinned_by_hand: bool,
    pub pulled_at: SystemTime,
    /// As its configuration says, in RFC 3339.
    pub created: Option<String>,
    /// Ids of the layers that its root file systems stand on, the lowest first.
    pub layers: Vec<String>,
    /// Where they are.
    pub(crate) directories: Vec<PathBuf>,
}

/// The user of an image's configuration, as CRI tells it: a number or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUser {
    /// The configuration says nothing: root.
    Unset,
    Uid(u32),
    /// To be looked up in the image's own `/etc/passwd`.
    Name(String),
}

impl ImageUser {
    /// From `user[:group]`. A number that is no uid stays a name, which will not be found: never root by accident.
    fn of(user: &str) -> ImageUser {
        let user = user.split(':').next().unwrap_or("");
        if user.is_empty() {
            return ImageUser::Unset;
        }
        let plain = user.bytes().all(|b| b.is_ascii_digit());
        match user.parse::<u32>() {
            Ok(uid) if plain && uid <= i32::MAX as u32 => ImageUser::Uid(uid),
            _ => ImageUser::Name(user.to_owned()),
        }
    }
}

/// Why a name does not lead to one image.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{prefix:?} is the beginning of {count} image ids; give more digits")]
pub struct Ambiguous {
    pub prefix: String,
    pub count: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub by_id: HashMap<ImageId, Arc<Image>>,
    by_name: HashMap<String, ImageId>,
}

#[derive(Debug)]
pub(crate) struct Catalog {
    store: Arc<Store>,
    records: Records,
    snapshot: ArcSwap<Snapshot>,
    pinned: ArcSwap<Pinned>,
    /// One writes at a time: the database first, then the snapshot, in the same order.
    writing: Mutex<()>,
}

/// A new image, as a pull found it.
pub(crate) struct NewImage<'a> {
    pub id: &'a ImageId,
    pub config: &'a [u8],
    pub layers: &'a [String],
}

/// A manifest or an index, byte for byte as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    pub digest: Digest,
    pub media_type: String,
    pub body: Vec<u8>,
}

/// What leads to an image: its names, and the indexes and the manifest on the way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origin {
    pub names: Vec<String>,
    pub manifests: Vec<StoredManifest>,
    /// As what it was admitted.
    pub admissions: Vec<String>,
}

impl Catalog {
    /// Reads all images. One whose layers are not all on disk is left out: the next pull completes it.
    pub(crate) fn open(
        store: Arc<Store>,
        records: Records,
        pinned: Pinned,
        layers: &Layers,
    ) -> Result<Catalog, PullCause> {
        let snapshot = ArcSwap::from_pointee(Snapshot::default());
        let pinned = ArcSwap::from_pointee(pinned);
        let catalog = Catalog { store, records, snapshot, pinned, writing: Mutex::new(()) };
        catalog.snapshot.store(Arc::new(catalog.read_all(layers)?));
        Ok(catalog)
    }

    /// Writes the second copy of each image's record anew, in the background: the daemon that was killed may not have come to it. With thousands
    /// of images it takes a while, for which nobody has to wait.
    pub(crate) fn copy_records(self: &Arc<Catalog>, layers: &Arc<Layers>) {
        let (catalog, layers) = (Arc::downgrade(self), Arc::clone(layers));
        let ids: Vec<ImageId> = self.snapshot().by_id.keys().cloned().collect();
        let work = move || {
            for id in ids {
                let Some(catalog) = catalog.upgrade() else { return };
                // As it is now, and one after the other with those that change it.
                let _one = catalog.writing.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(image) = catalog.snapshot().by_id.get(&id) {
                    catalog.records.copy(image, &catalog.store, &layers);
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("records".into()).spawn(work) {
            tracing::warn!(%error, "the copies of images' records are not looked after");
        }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Runs a transaction that changes images, and then brings the snapshot up to date.
    pub(crate) fn change<T>(
        &self,
        layers: &Layers,
        work: impl FnOnce() -> Result<T, PullCause>,
    ) -> Result<T, PullCause> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let value = work()?;
        self.reload(layers)?;
        Ok(value)
    }

    /// Removes an image with all its names, and says whether it was there.
    pub(crate) fn remove(&self, id: &ImageId, layers: &Layers) -> Result<bool, PullCause> {
        self.change(layers, || {
            Ok(self.store.let_go(Durability::Process, |tx| {
                tx.execute("DELETE FROM images WHERE id = ?1", [id.as_str()])
            })? > 0)
        })
    }

    /// Sets whether garbage collection leaves an image alone.
    pub(crate) fn pin(&self, id: &ImageId, pinned: bool, layers: &Layers) -> Result<(), PullCause> {
        self.change(layers, || {
            self.store.write(Durability::Disk, |tx| {
                tx.execute("UPDATE images SET pinned = ?2 WHERE id = ?1", params![id.as_str(), pinned])
            })?;
            Ok(())
        })
    }

    /// Sets by which names images are pinned.
    pub(crate) fn pin_like(&self, pinned: Pinned, layers: &Layers) -> Result<(), PullCause> {
        self.change(layers, || {
            self.pinned.store(Arc::new(pinned));
            Ok(())
        })
    }

    /// What pins an image: the pattern that one of its names is like, or a hand.
    pub(crate) fn pinned_by(&self, image: &Image) -> Option<String> {
        let pattern = self.pinned.load().matches(image.names()).map(str::to_owned);
        pattern.or_else(|| image.pinned_by_hand.then(|| "hand".to_owned()))
    }

    /// What has not changed since is the same image as before, in memory too.
    fn reload(&self, layers: &Layers) -> Result<(), PullCause> {
        let (old, new) = (self.snapshot(), self.read_all(layers)?);
        self.records.follow(&old, &new, &self.store, layers);
        self.snapshot.store(Arc::new(new));
        Ok(())
    }

    fn read_all(&self, layers: &Layers) -> Result<Snapshot, PullCause> {
        let mut rows = self.store.read(read_rows)?;
        let old = self.snapshot();
        let mut names: HashMap<String, Vec<String>> = HashMap::with_capacity(rows.images.len());
        for (name, image) in rows.references {
            names.entry(image).or_default().push(name);
        }
        let pinned = self.pinned.load();
        let mut snapshot = Snapshot::default();
        for (id, row) in &mut rows.images {
            let Ok(image_id) = ImageId::parse(id) else {
                tracing::warn!(image = id, "an image's row has no digest for an id; it is left out");
                continue;
            };
            let names = names.remove(id).unwrap_or_default();
            let before = old.by_id.get(&image_id);
            let Some(image) = self.build(&image_id, row, &names, before, &pinned, layers) else { continue };
            snapshot.by_name.extend(names.into_iter().map(|name| (name, image_id.clone())));
            snapshot.by_id.insert(image_id, image);
        }
        Ok(snapshot)
    }

    fn build(
        &self,
        id: &ImageId,
        row: &mut Row,
        names: &[String],
        old: Option<&Arc<Image>>,
        pinned: &Pinned,
        layers: &Layers,
    ) -> Option<Arc<Image>> {
        let mut size = row.config_bytes;
        let mut directories = Vec::with_capacity(row.layers.len());
        for layer in &row.layers {
            let Some(layer) = layers.published(layer) else {
                tracing::warn!(image = %id, layer, "an image lacks a layer; it is left out until it is pulled again");
                return None;
            };
            size += layer.usage.bytes;
            directories.push(layer.path.clone());
        }
        // The rows come sorted.
        let (repo_digests, repo_tags): (Vec<&String>, Vec<&String>) =
            names.iter().partition(|name| name.contains('@'));
        let pinned = row.pinned || pinned.matches(names.iter().map(String::as_str)).is_some();
        if let Some(old) = old
            && (old.pinned, old.pinned_by_hand, old.size) == (pinned, row.pinned, size)
            && (&old.layers, &old.directories) == (&row.layers, &directories)
            && old.repo_tags.iter().eq(repo_tags.iter().copied())
            && old.repo_digests.iter().eq(repo_digests.iter().copied())
        {
            return Some(Arc::clone(old));
        }
        let mut image = match old {
            Some(old) => Image::clone(old),
            None => self.read(id, row)?,
        };
        image.repo_tags = repo_tags.into_iter().cloned().collect();
        image.repo_digests = repo_digests.into_iter().cloned().collect();
        (image.size, image.directories, image.layers) = (size, directories, std::mem::take(&mut row.layers));
        (image.pinned, image.pinned_by_hand) = (pinned, row.pinned);
        Some(Arc::new(image))
    }

    /// What a configuration says, which never changes under one id.
    fn read(&self, id: &ImageId, row: &Row) -> Option<Image> {
        let config: Vec<u8> = self
            .store
            .read(|connection| {
                let mut statement = connection.prepare_cached("SELECT config FROM images WHERE id = ?1")?;
                statement.query_row([id.as_str()], |row| row.get(0))
            })
            .inspect_err(
                |error| tracing::warn!(image = %id, %error, "an image's configuration cannot be read"),
            )
            .ok()?;
        let config = manifest::parse_config(id.as_str(), &config)
            .inspect_err(
                |error| tracing::warn!(image = %id, %error, "an image's configuration cannot be read"),
            )
            .ok()?;
        let says_platform = !config.os.is_empty() && !config.architecture.is_empty();
        Some(Image {
            id: id.clone(),
            platform: says_platform.then(|| config.platform()),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: 0,
            user: ImageUser::of(&config.config.user),
            config: config.config,
            pinned: false,
            pinned_by_hand: false,
            pulled_at: UNIX_EPOCH + Duration::from_nanos(u64::try_from(row.pulled_at).unwrap_or(0)),
            created: config.created,
            layers: Vec::new(),
            directories: Vec::new(),
        })
    }
}

impl Image {
    /// All its names: those with tags, then those with digests.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.repo_tags.iter().chain(&self.repo_digests).map(String::as_str)
    }

    /// The name by which people know it, or its id.
    pub fn name(&self) -> &str {
        self.names().next().unwrap_or(self.id.as_str())
    }
}

impl Snapshot {
    /// By whole id, by digits of one, by reference, or by the beginning of an id. A name without a registry stands for what a pull of it
    /// would fetch, and for nothing else.
    pub(crate) fn find(&self, text: &str, short: &ShortNames) -> Result<Option<Arc<Image>>, Ambiguous> {
        if let Ok(id) = ImageId::parse(text) {
            return Ok(self.by_id.get(&id).cloned());
        }
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == 64 && is_hex(text) {
            let id = Digest::parse(&format!("sha256:{text}")).map(ImageId::of_config);
            return Ok(id.ok().and_then(|id| self.by_id.get(&id).cloned()));
        }
        let named = match short.resolve(text) {
            Ok(resolved) if !resolved.is_empty() => {
                resolved.iter().find_map(|(reference, _)| self.by_reference(reference))
            }
            Ok(_) => ImageReference::parse(text).ok().and_then(|reference| self.by_reference(&reference)),
            Err(_) => None,
        };
        if named.is_some() {
            return Ok(named);
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.len() < 3 || !is_hex(digits) {
            return Ok(None);
        }
        let mut found = self.by_id.values().filter(|image| image.id.digest().hex().starts_with(digits));
        let first = found.next().cloned();
        match found.count() {
            0 => Ok(first),
            more => Err(Ambiguous { prefix: text.to_owned(), count: more + 1 }),
        }
    }

    /// By name; with a digest, by that.
    pub(crate) fn by_reference(&self, reference: &ImageReference) -> Option<Arc<Image>> {
        let id = self.by_name.get(&stored_name(reference))?;
        self.by_id.get(id).cloned()
    }
}

/// A reference as it is kept: with both a tag and a digest, the digest alone counts, since the tag was never asked for.
pub(crate) fn stored_name(reference: &ImageReference) -> String {
    match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    }
}

/// Writes an image and what leads to it.
pub(crate) fn insert(tx: &Transaction<'_>, image: &NewImage<'_>, origin: &Origin) -> rusqlite::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
    tx.prepare_cached(
        "INSERT INTO images (id, config, pulled_at) VALUES (?1, ?2, ?3) ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![image.id.as_str(), image.config, now])?;
    tx.prepare_cached("DELETE FROM image_layers WHERE image = ?1")?.execute([image.id.as_str()])?;
    let mut statement =
        tx.prepare_cached("INSERT INTO image_layers (image, position, layer) VALUES (?1, ?2, ?3)")?;
    for (position, layer) in image.layers.iter().enumerate() {
        statement.execute(params![image.id.as_str(), position as i64, layer])?;
    }
    drop(statement);
    insert_origin(tx, image.id, origin)
}

/// Makes names lead to an image that is there. A name that led elsewhere leads here from now on.
pub(crate) fn insert_origin(tx: &Transaction<'_>, id: &ImageId, origin: &Origin) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO image_references (name, image) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET image = ?2",
    )?;
    origin.names.iter().try_for_each(|name| statement.execute(params![name, id.as_str()]).map(drop))?;
    let mut statement = tx.prepare_cached(
        "INSERT INTO image_manifests (image, digest, media_type, body) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (image, digest) DO NOTHING",
    )?;
    origin.manifests.iter().try_for_each(|manifest| {
        let values = params![id.as_str(), manifest.digest.as_str(), manifest.media_type, manifest.body];
        statement.execute(values).map(drop)
    })?;
    let mut statement = tx.prepare_cached(
        "INSERT INTO image_admissions (image, requirement) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )?;
    origin.admissions.iter().try_for_each(|met| statement.execute(params![id.as_str(), met]).map(drop))
}

/// What is recorded of the manifests of an image; nothing of one that an older release pulled.
pub(crate) fn manifests(store: &Store, id: &ImageId) -> Result<Vec<StoredManifest>, store::StoreError> {
    store.read(|connection| {
        let mut statement = connection.prepare_cached(
            "SELECT digest, media_type, body FROM image_manifests WHERE image = ?1 ORDER BY digest",
        )?;
        let rows = statement.query_map([id.as_str()], |row| {
            let digest = Digest::parse(&row.get::<_, String>(0)?).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
            })?;
            Ok(StoredManifest { digest, media_type: row.get(1)?, body: row.get(2)? })
        })?;
        rows.collect()
    })
}

struct Rows {
    images: HashMap<String, Row>,
    references: Vec<(String, String)>,
}

struct Row {
    config_bytes: u64,
    pinned: bool,
    pulled_at: i64,
    layers: Vec<String>,
}

fn read_rows(connection: &rusqlite::Connection) -> rusqlite::Result<Rows> {
    let mut images: HashMap<String, Row> = connection
        .prepare_cached("SELECT id, length(config), pinned, pulled_at FROM images")?
        .query_map([], |row| {
            let config_bytes = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            let image = Row { config_bytes, pinned: row.get(2)?, pulled_at: row.get(3)?, layers: Vec::new() };
            Ok((row.get(0)?, image))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut statement =
        connection.prepare_cached("SELECT image, layer FROM image_layers ORDER BY image, position")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(image) = images.get_mut(row.get_ref(0)?.as_str()?) {
            image.layers.push(row.get(1)?);
        }
    }
    let references = connection
        .prepare_cached("SELECT name, image FROM image_references ORDER BY name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Rows { images, references })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_never_root_by_accident() {
        assert_eq!(ImageUser::of(""), ImageUser::Unset);
        assert_eq!(ImageUser::of("0"), ImageUser::Uid(0));
        assert_eq!(ImageUser::of("1002:7"), ImageUser::Uid(1002));
        assert_eq!(ImageUser::of("www-data:www-data"), ImageUser::Name("www-data".into()));
        for odd in ["-1", "+0", "2147483648", "4294967296", "100000000000000000000", "0x0", " 0"] {
            assert_eq!(ImageUser::of(odd), ImageUser::Name(odd.into()));
        }
    }
}
