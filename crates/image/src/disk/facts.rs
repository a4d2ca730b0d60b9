//! What there is on disk and in the database, as far as it matters for what stays and what goes.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use store::rusqlite::{self, Connection};

use super::mounted;
use super::plan::{BlobFact, Facts, ImageFact, LayerFact, Stray, StrayKind, WritableFact};
use crate::error::PullCause;
use crate::layers::PARTIAL;
use crate::pull::Shared;
use crate::rootfs::RootFilesystems;
use crate::stacking::Stacking;
use crate::tree::{self, Usage};
use crate::unfinished;

/// Looks at everything. The caller has layers at rest. `containers` says which containers there are; it is asked after the rows of what
/// they write were read, so that none is missed that is just being made.
pub(super) fn gather(
    shared: &Shared,
    rootfs: &RootFilesystems,
    containers: &dyn Fn() -> Option<HashSet<String>>,
    older_than: Duration,
) -> Result<Facts, PullCause> {
    let now = nanoseconds(SystemTime::now());
    shared.layers.mark_unneeded(now)?;
    // Folders before rows: what has a row was made after it.
    let writable_folders = rootfs.on_disk();
    let rows = shared.catalog.store().read(|connection| Rows::read(connection, now))?;
    let known = containers();
    let user_xattr = shared.config.user_xattr;
    let is_known = |container: &str| known.as_ref().is_none_or(|known| known.contains(container));
    let is_mounted = |folder: &Path| {
        let beside = folder.parent().unwrap_or(folder);
        let upper = folder.join("upper");
        let stacks = shared.layers.stacking() == Stacking::Overlay;
        mounted::is_bound(&upper) || (stacks && mounted::is_upper(&upper, beside, user_xattr))
    };
    let mut facts = Facts { older_than, claimed: shared.layers.claimed(), ..Facts::default() };
    images(shared, &rows, &mut facts);
    layers(shared, &rows, &mut facts);
    for (container, writable) in &rows.writable {
        let folder = rootfs.folder_of(container);
        let known = is_known(container);
        facts.writable.push(WritableFact {
            container: container.clone(),
            images: writable.images.clone(),
            layers: writable.layers.clone(),
            directories: crate::standing::read(&folder).unwrap_or_default(),
            known,
            mounted: !known && folder.exists() && is_mounted(&folder),
            place: folder,
            usage: Usage::default(),
        });
    }
    let root = &shared.config.root;
    let mut stray = |path: &Path, kind| {
        let shown = path.strip_prefix(root).unwrap_or(path).display().to_string();
        facts.strays.push(Stray { path: shown, place: path.to_owned(), usage: Usage::default(), kind });
    };
    for folder in writable_folders {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let is_one = folder.parent() == Some(rootfs.folder()) && rows.writable.contains_key(&*name);
        if !is_one && !name.starts_with(".probe-") {
            let directories = crate::standing::read(&folder);
            stray(&folder, StrayKind::Writable { mounted: is_mounted(&folder), directories });
        }
    }
    for path in shared.layers.trash().contents().into_iter().chain(rootfs.trash().contents()) {
        stray(&path, StrayKind::Trash);
    }
    for path in set_aside(shared.catalog.store().path()) {
        stray(&path, StrayKind::Database);
    }
    let placed: HashSet<PathBuf> = shared.layers.all().iter().map(|layer| layer.path.clone()).collect();
    for path in entries(shared.layers.folder()).into_iter().filter(|path| !placed.contains(path)) {
        let directory = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_note = unfinished::subject(&path).is_some();
        let kind = match directory.contains(PARTIAL) || is_note {
            true => StrayKind::Unfinished,
            false => StrayKind::Layer { directory },
        };
        stray(&path, kind);
    }
    for kept in shared.blobs.list().map_err(|error| PullCause::io(root, error))? {
        let layer = rows.blobs.get(kept.digest.as_str()).cloned();
        let digest = kept.digest.to_string();
        facts.blobs.push(BlobFact { digest, bytes: kept.bytes, layer, age: kept.age });
    }
    Ok(facts)
}

fn images(shared: &Shared, rows: &Rows, facts: &mut Facts) {
    let snapshot = shared.catalog.snapshot();
    for (id, row) in &rows.images {
        let image = model::digest::ImageId::parse(id).ok().and_then(|id| snapshot.by_id.get(&id));
        facts.images.push(ImageFact {
            name: image.map_or(id.as_str(), |image| image.name()).to_owned(),
            id: id.clone(),
            pinned: image.and_then(|image| shared.catalog.pinned_by(image)),
            bytes: row.bytes,
            layers: row.layers.clone(),
        });
    }
    facts.images.sort_by(|a, b| a.name.cmp(&b.name));
}

fn layers(shared: &Shared, rows: &Rows, facts: &mut Facts) {
    for layer in shared.layers.all() {
        facts.layers.push(LayerFact {
            id: layer.id.clone(),
            usage: layer.usage,
            unneeded: rows.unneeded.get(&layer.id).copied().unwrap_or_default(),
            damage: layer.damage.clone(),
        });
    }
    facts.layers.sort_by(|a, b| a.id.cmp(&b.id));
}

#[derive(Default)]
struct Rows {
    images: HashMap<String, ImageRow>,
    /// By container; the rows of its volumes are a part of it.
    writable: HashMap<String, WritableRow>,
    unneeded: HashMap<String, Duration>,
    /// The layer that each blob became.
    blobs: HashMap<String, String>,
}

struct ImageRow {
    bytes: u64,
    layers: Vec<String>,
}

#[derive(Default)]
struct WritableRow {
    images: Vec<String>,
    layers: Vec<String>,
}

impl Rows {
    fn read(connection: &Connection, now: i64) -> rusqlite::Result<Rows> {
        let mut rows = Rows::default();
        each(connection, "SELECT id, length(config) FROM images", |row| {
            let bytes = u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0);
            rows.images.insert(row.get(0)?, ImageRow { bytes, layers: Vec::new() });
            Ok(())
        })?;
        each(connection, "SELECT image, layer FROM image_layers", |row| {
            if let Some(image) = rows.images.get_mut(&row.get::<_, String>(0)?) {
                image.layers.push(row.get(1)?);
            }
            Ok(())
        })?;
        // The rows of volumes are called after their container.
        let container = |name: String| name.split('@').next().unwrap_or(&name).to_owned();
        each(connection, "SELECT container, image FROM root_filesystems", |row| {
            rows.writable.entry(container(row.get(0)?)).or_default().images.push(row.get(1)?);
            Ok(())
        })?;
        each(connection, "SELECT container, layer FROM root_filesystem_layers", |row| {
            rows.writable.entry(container(row.get(0)?)).or_default().layers.push(row.get(1)?);
            Ok(())
        })?;
        let since = "SELECT id, unneeded_since FROM layers WHERE unneeded_since IS NOT NULL";
        each(connection, since, |row| {
            // A clock that went back makes a layer young again.
            let nanoseconds = u64::try_from(now.saturating_sub(row.get(1)?)).unwrap_or(0);
            rows.unneeded.insert(row.get(0)?, Duration::from_nanos(nanoseconds));
            Ok(())
        })?;
        each(connection, "SELECT digest, layer FROM layer_blobs", |row| {
            rows.blobs.insert(row.get(0)?, row.get(1)?);
            Ok(())
        })?;
        Ok(rows)
    }
}

fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

/// Nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Databases that were damaged, beside the one that took their place.
fn set_aside(database: &Path) -> Vec<PathBuf> {
    let name = database.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let damaged = format!("{name}.damaged-");
    let is_one =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&damaged));
    entries(database.parent().unwrap_or(Path::new("/"))).into_iter().filter(is_one).collect()
}

/// Finds out what everything takes of which that is not recorded: it walks through what containers wrote, and through all that has no
/// row.
pub(super) fn measure(facts: &mut Facts) {
    let writable = facts.writable.iter_mut().map(|writable| (&writable.place, &mut writable.usage));
    let strays = facts.strays.iter_mut().map(|stray| (&stray.place, &mut stray.usage));
    for (place, usage) in writable.chain(strays) {
        // What goes meanwhile takes nothing.
        *usage = usage_of(place).unwrap_or_default();
    }
}

fn usage_of(path: &Path) -> std::io::Result<Usage> {
    let about = std::fs::symlink_metadata(path)?;
    if about.is_dir() {
        return tree::usage(File::open(path)?.into());
    }
    Ok(Usage { bytes: std::os::unix::fs::MetadataExt::blocks(&about) * 512, inodes: 1 })
}
