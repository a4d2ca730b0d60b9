//! The layers on this disk: which there are, who needs them, how a new one becomes visible, and how one that nobody needs goes.

mod rows;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use model::digest::Digest;
use store::rusqlite::{self, Transaction, params};
use store::{Durability, Store};

use crate::config::ImageConfig;
use crate::damage;
use crate::error::PullCause;
use crate::form::Form;
use crate::mounts::Mounts;
use crate::overlay::Lower;
use crate::stacking::Stacking;
use crate::tar::outline::Outline;
use crate::trash::{Trash, remove_in_background};
use crate::tree::Usage;
use crate::unfinished::{self, Note};
use crate::unpack::{LooseEnds, Unpacked};
use crate::verity::Verity;

pub(crate) const PARTIAL: &str = ".partial-";

/// A layer that is whole and on disk for good.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The diff id, or `graft:<chain id>`.
    pub id: String,
    pub path: PathBuf,
    pub usage: Usage,
    pub loose_ends: LooseEnds,
    /// What its bytes were when it was unpacked; none: an earlier release unpacked it.
    pub checksum: Option<String>,
    /// What a check found wrong with it.
    pub damage: Option<String>,
}

/// A layer that is unpacked and not yet published. If nobody publishes it, it goes with its last owner.
#[derive(Debug)]
pub(crate) struct Partial {
    pub id: String,
    /// The blob it came from, if from one.
    pub blob: Option<Digest>,
    pub path: PathBuf,
    pub usage: Usage,
    pub loose_ends: LooseEnds,
    /// With which its archive can be made again.
    pub outline: Option<Outline>,
    pub checksum: Option<String>,
    published: std::sync::atomic::AtomicBool,
    mounts: Arc<Mounts>,
}

#[derive(Debug)]
pub(crate) struct Layers {
    folder: PathBuf,
    trash: Trash,
    store: Arc<Store>,
    table: Mutex<Table>,
    /// One publishes at a time, so that two pulls with a layer in common do not both rename it.
    publishing: Mutex<()>,
    next: AtomicU64,
    stacking: Stacking,
    /// Whether new layers are packed into files.
    packs: bool,
    user_xattr: bool,
    mounts: Arc<Mounts>,
    verity: Verity,
}

#[derive(Debug, Default)]
struct Table {
    /// Layers that have to become directories, if they become any.
    unsuited: HashSet<String>,
    known: HashMap<String, Arc<Layer>>,
    unpacked: HashMap<String, Weak<Partial>>,
    /// Layers that a running pull counts on.
    leases: HashMap<String, usize>,
}

/// A pull's claim on layers: what it found or made is not collected while the pull runs.
#[derive(Debug)]
pub(crate) struct Lease {
    layers: Arc<Layers>,
    ids: Vec<String>,
}

/// What is at hand of a layer.
#[derive(Debug, Clone)]
pub(crate) enum Ready {
    Published(Arc<Layer>),
    Unpacked(Arc<Partial>),
}

impl Ready {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Ready::Published(layer) => &layer.path,
            Ready::Unpacked(partial) => &partial.path,
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Ready::Published(layer) => &layer.id,
            Ready::Unpacked(partial) => &partial.id,
        }
    }

    pub(crate) fn loose_ends(&self) -> &LooseEnds {
        match self {
            Ready::Published(layer) => &layer.loose_ends,
            Ready::Unpacked(partial) => &partial.loose_ends,
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.published.load(Ordering::Acquire) {
            unfinished::remove(&self.path);
            self.mounts.forget(&self.path);
            remove_in_background(self.path.clone());
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut table = self.layers.table();
        for id in &self.ids {
            if let Some(count) = table.leases.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    table.leases.remove(id);
                }
            }
        }
    }
}

impl Layers {
    /// Reads what the database knows, takes up what a killed process had finished, and throws away what it had not.
    ///
    /// A layer directory without a row goes only if `sweep`: if the database was lost, containers may still be standing on it.
    pub(crate) fn open(
        config: &ImageConfig,
        store: Arc<Store>,
        sweep: bool,
    ) -> Result<Arc<Layers>, PullCause> {
        let root = &config.root;
        let folder = root.join("layers");
        std::fs::create_dir_all(&folder).map_err(|error| PullCause::io(&folder, error))?;
        let trash = Trash::open(root).map_err(|error| PullCause::io(root, error))?;
        let mounts = Arc::new(Mounts::new(&folder));
        let written = config.written_root().join("rootfs");
        std::fs::create_dir_all(&written).map_err(|error| PullCause::io(&written, error))?;
        let stacking = Stacking::choose(config, &folder, &written)?;
        let packs = stacking.packs(config, &mounts)?;
        let layers = Arc::new(Layers {
            folder,
            trash,
            store,
            table: Mutex::default(),
            publishing: Mutex::new(()),
            next: AtomicU64::new(1),
            stacking,
            packs,
            user_xattr: config.user_xattr,
            mounts,
            verity: Verity::default(),
        });
        layers.load()?;
        layers.verity.take_over(layers.all().into_iter().map(|layer| layer.path.clone()));
        let unfinished = if sweep { layers.take_up()? } else { Vec::new() };
        layers.sweep(sweep, &unfinished)?;
        if !unfinished.is_empty() {
            let layers = Arc::clone(&layers);
            // The sync may take a while. A pull that wants them meanwhile finds them.
            std::thread::spawn(move || {
                if let Err(error) = layers.publish(&unfinished, |_| Ok(())) {
                    tracing::warn!(%error, "layers of a pull that was cut off cannot be kept");
                }
            });
        }
        Ok(layers)
    }

    fn load(&self) -> Result<(), PullCause> {
        let rows = self.store.read(|connection| rows::read(connection, &self.folder))?;
        let mut table = self.table();
        for layer in rows {
            if let Err(error) = self.usable(Form::of(&layer.path)) {
                tracing::warn!(
                    layer = layer.id,
                    error,
                    "a layer cannot be used as it is here; it will be fetched again when it is needed"
                );
            } else if Form::is_at(&layer.path) {
                table.known.insert(layer.id.clone(), Arc::new(layer));
            } else {
                tracing::warn!(layer = layer.id, path = %layer.path.display(), "a layer is missing on disk; it will be fetched again when it is needed");
            }
        }
        Ok(())
    }

    /// Whether root file systems can be made of layers of this form.
    fn usable(&self, form: Form) -> Result<(), &str> {
        match form {
            Form::Directory => Ok(()),
            Form::Tree if self.stacking == Stacking::Copies => Ok(()),
            Form::Tree => Err("it was unpacked to be copied, and overlayfs would show what is gone from it"),
            Form::Erofs => self.mounts.way().map(drop),
        }
    }

    /// The layers that a killed process had unpacked and not published. Those it had renamed already get their old names back.
    fn take_up(&self) -> Result<Vec<Arc<Partial>>, PullCause> {
        let mut found = Vec::new();
        let entries = std::fs::read_dir(&self.folder).map_err(|e| PullCause::io(&self.folder, e))?;
        for path in entries.flatten().filter_map(|entry| unfinished::subject(&entry.path())) {
            let Some(note) = unfinished::read(&path) else { continue };
            let placed = self.folder.join(file_name(&note.id, Form::of(&path)));
            let usable = self.usable(Form::of(&path)).is_ok();
            if !usable || self.published(&note.id).is_some() || self.find(&note.id).is_some() {
                continue;
            }
            if !path.exists() && std::fs::rename(&placed, &path).is_err() {
                continue;
            }
            let Note { id, blob, bytes, inodes, loose_ends, outline, checksum, .. } = note;
            let diff_id = Digest::sha256([0; 32]);
            let what = Unpacked { diff_id, bytes, inodes, loose_ends, outline, checksum };
            found.push(self.known_partial(id, blob, path, what));
        }
        Ok(found)
    }

    fn sweep(&self, unknown_too: bool, unfinished: &[Arc<Partial>]) -> Result<(), PullCause> {
        let mut known: HashSet<PathBuf> =
            self.table().known.values().map(|layer| layer.path.clone()).collect();
        known.extend(unfinished.iter().flat_map(|p| [p.path.clone(), unfinished::beside(&p.path)]));
        let entries = std::fs::read_dir(&self.folder).map_err(|e| PullCause::io(&self.folder, e))?;
        for entry in entries.flatten() {
            let is_partial = entry.file_name().to_string_lossy().contains(PARTIAL);
            if !known.contains(&entry.path()) && (is_partial || unknown_too) {
                self.discard(&entry.path());
            }
        }
        Ok(())
    }

    /// How they become root file systems.
    pub(crate) fn stacking(&self) -> Stacking {
        self.stacking
    }

    /// Whether overlayfs's attributes in them are the user's.
    pub(crate) fn user_xattr(&self) -> bool {
        self.user_xattr
    }

    /// The folder of all layers.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn lease(self: &Arc<Self>, ids: impl IntoIterator<Item = String>) -> Lease {
        let ids: Vec<String> = ids.into_iter().collect();
        let mut table = self.table();
        for id in &ids {
            *table.leases.entry(id.clone()).or_default() += 1;
        }
        Lease { layers: Arc::clone(self), ids }
    }

    /// The layer if it is here and whole, be it for another pull that has not finished.
    pub(crate) fn find(&self, id: &str) -> Option<Ready> {
        let mut table = self.table();
        if let Some(layer) = table.known.get(id)
            && layer.damage.is_none()
        {
            return Some(Ready::Published(Arc::clone(layer)));
        }
        let partial = table.unpacked.get(id)?.upgrade();
        if partial.is_none() {
            table.unpacked.remove(id);
        }
        partial.map(Ready::Unpacked)
    }

    pub(crate) fn published(&self, id: &str) -> Option<Arc<Layer>> {
        self.table().known.get(id).cloned()
    }

    /// Records what a check found of a layer, unless another has taken its place meanwhile.
    pub(crate) fn mark(&self, layer: &Layer, damage: Option<&str>) -> Result<(), PullCause> {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.published(&layer.id).is_none_or(|now| now.path != layer.path) {
            return Ok(());
        }
        self.store.let_go(Durability::Disk, |tx| damage::mark(tx, &layer.id, damage))?;
        let marked = Layer { damage: damage.map(str::to_owned), ..layer.clone() };
        self.table().known.insert(layer.id.clone(), Arc::new(marked));
        Ok(())
    }

    /// What all layers take.
    pub(crate) fn usage(&self) -> Usage {
        self.table().known.values().fold(Usage::default(), |sum, layer| Usage {
            bytes: sum.bytes + layer.usage.bytes,
            inodes: sum.inodes + layer.usage.inodes,
        })
    }

    /// An empty directory for a layer that is about to be unpacked.
    pub(crate) fn new_partial(&self, name: &str) -> Result<(PathBuf, File), PullCause> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let form = match self.stacking {
            Stacking::Overlay => Form::Directory,
            Stacking::Copies => Form::Tree,
        };
        let number = format!("{}-{number}{}", std::process::id(), form.ending());
        let path = self.folder.join(format!("{name}{PARTIAL}{number}"));
        let make = || {
            std::fs::create_dir(&path)?;
            // What a layer without an entry for its root gets.
            std::os::unix::fs::chown(&path, Some(0), Some(0)).or_else(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Ok(()),
                _ => Err(error),
            })?;
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            File::open(&path)
        };
        match make() {
            Ok(file) => Ok((path, file)),
            Err(error) => Err(PullCause::io(&path, error)),
        }
    }

    /// Whether a layer is to be packed into a file.
    pub(crate) fn packs(&self, id: &str) -> bool {
        self.packs && !self.table().unsuited.contains(id)
    }

    /// A layer cannot be packed: the next try makes a directory of it.
    pub(crate) fn set_unsuited(&self, id: &str) {
        self.table().unsuited.insert(id.to_owned());
    }

    /// An empty file for a layer that is about to be packed.
    pub(crate) fn new_file(&self, name: &str) -> Result<(PathBuf, File), PullCause> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!(
            "{name}{PARTIAL}{}-{number}{}",
            std::process::id(),
            Form::Erofs.ending()
        ));
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.read(true).write(true).create_new(true).open(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) => Err(PullCause::io(&path, error)),
        }
    }

    /// A layer as something that can be stacked; one that is a file is mounted if it is not yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn lower(&self, path: &Path) -> io::Result<Lower> {
        match Form::of(path) {
            Form::Directory | Form::Tree => Ok(Lower::Directory(path.to_owned())),
            Form::Erofs => self.mounts.lower(path),
        }
    }

    /// Takes a directory or file with a whole layer in it.
    pub(crate) fn unpacked(
        &self,
        id: String,
        blob: Option<Digest>,
        path: PathBuf,
        what: Unpacked,
    ) -> Arc<Partial> {
        let note = Note::new(&id, blob.as_ref(), &what);
        if let Some(Err(error)) = note.map(|note| note.write(&path)) {
            tracing::debug!(layer = id, %error, "no note of it could be left; if the daemon is killed now, it is fetched again");
        }
        self.known_partial(id, blob, path, what)
    }

    fn known_partial(&self, id: String, blob: Option<Digest>, path: PathBuf, what: Unpacked) -> Arc<Partial> {
        let partial = Arc::new(Partial {
            id: id.clone(),
            blob,
            path,
            usage: Usage { bytes: what.bytes, inodes: what.inodes },
            loose_ends: what.loose_ends,
            outline: what.outline,
            checksum: what.checksum,
            published: false.into(),
            mounts: Arc::clone(&self.mounts),
        });
        self.table().unpacked.insert(id, Arc::downgrade(&partial));
        partial
    }

    /// Throws away a directory that did not become a layer, or that nobody needs any more.
    pub(crate) fn discard(&self, path: &Path) {
        self.trash.discard(path);
    }

    /// Where layers go that nobody needs.
    pub(crate) fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Makes layers visible, with rows of their own and whatever `also` writes, all in one durable transaction: the data is synced before
    /// the names, and the names before the rows.
    pub(crate) fn publish(
        &self,
        partials: &[Arc<Partial>],
        also: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), PullCause> {
        let _one = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh: Vec<&Arc<Partial>> =
            partials.iter().filter(|p| !p.published.load(Ordering::Acquire)).collect();
        let placed = self.place(&fresh).map_err(|error| PullCause::io(&self.folder, error))?;
        // Only a damaged layer is made again while it is here.
        let replaced: Vec<_> = placed.iter().filter_map(|layer| self.published(&layer.id)).collect();
        let written = self.store.write(Durability::Disk, |tx| {
            for (partial, layer) in fresh.iter().zip(&placed) {
                rows::insert(tx, partial, layer)?;
            }
            replaced.iter().try_for_each(|old| damage::put_aside(tx, old))?;
            also(tx)
        });
        if let Err(error) = written {
            // Nothing refers to them, and their owners look for them where they were.
            for (partial, layer) in fresh.iter().zip(&placed) {
                let _ = std::fs::rename(&layer.path, &partial.path);
                self.mounts.rename(&layer.path, &partial.path);
            }
            return Err(error.into());
        }
        self.verity.take_over(placed.iter().map(|layer| layer.path.clone()));
        let mut table = self.table();
        for old in &replaced {
            let aside = damage::aside(old);
            table.known.insert(aside.id.clone(), Arc::new(aside));
        }
        for (partial, layer) in fresh.iter().zip(placed) {
            partial.published.store(true, Ordering::Release);
            unfinished::remove(&partial.path);
            table.unpacked.remove(&layer.id);
            table.known.insert(layer.id.clone(), Arc::new(layer));
        }
        Ok(())
    }

    /// One sync of the file system for all of them, one rename each, one sync of the folder.
    fn place(&self, fresh: &[&Arc<Partial>]) -> io::Result<Vec<Layer>> {
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let folder = File::open(&self.folder)?;
        rustix::fs::syncfs(&folder)?;
        let mut placed = Vec::new();
        for partial in fresh {
            let form = Form::of(&partial.path);
            let mut path = self.folder.join(file_name(&partial.id, form));
            // A layer without a row, of a database that was lost, may be under somebody's feet; and one that is lost has a row.
            let taken = |path: &Path| path.exists() || self.table().known.values().any(|l| l.path == path);
            for number in 2.. {
                if !taken(&path) {
                    break;
                }
                let digits = file_name(&partial.id, Form::Directory);
                path = self.folder.join(format!("{digits}-{number}{}", form.ending()));
            }
            std::fs::rename(&partial.path, &path)?;
            self.mounts.rename(&partial.path, &path);
            placed.push(Layer {
                id: partial.id.clone(),
                path,
                usage: partial.usage,
                loose_ends: partial.loose_ends.clone(),
                checksum: partial.checksum.clone(),
                damage: None,
            });
        }
        folder.sync_all()?;
        Ok(placed)
    }

    /// Throws away the layers that no image, no root file system and no running pull needs, and says what they took. `among`: only if
    /// they are one of these.
    pub(crate) fn collect(&self, among: Option<&BTreeSet<String>>) -> Result<Usage, PullCause> {
        let mut table = self.table();
        let unneeded = self.store.read(unneeded)?;
        let wanted =
            |id: &String| among.is_none_or(|among| among.contains(id)) && !table.leases.contains_key(id);
        let going: Vec<String> = unneeded.into_iter().filter(wanted).collect();
        if going.is_empty() {
            return Ok(Usage::default());
        }
        // Durable before anything is deleted: a row must not come back without its layer. A layer that got a new user meanwhile makes
        // the whole fail, as rows of its say so.
        self.store.let_go(Durability::Disk, |tx| {
            let mut statement = tx.prepare_cached("DELETE FROM layers WHERE id = ?1")?;
            going.iter().try_for_each(|id| statement.execute([id]).map(drop))
        })?;
        let mut freed = Usage::default();
        for id in &going {
            if let Some(layer) = table.known.remove(id) {
                freed.bytes += layer.usage.bytes;
                freed.inodes += layer.usage.inodes;
                self.mounts.forget(&layer.path);
                self.discard(&layer.path);
            }
        }
        Ok(freed)
    }

    /// Notes since when layers are unneeded, and which are needed again.
    pub(crate) fn mark_unneeded(&self, now: i64) -> Result<(), PullCause> {
        let claimed = self.claimed();
        let mut unneeded: BTreeSet<String> = self.store.read(unneeded)?.into_iter().collect();
        unneeded.retain(|id| !claimed.contains(id));
        let marked: BTreeSet<String> = self.store.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT id FROM layers WHERE unneeded_since IS NOT NULL")?;
            statement.query_map([], |row| row.get(0))?.collect()
        })?;
        if unneeded == marked {
            return Ok(());
        }
        self.store.let_go(Durability::Process, |tx| {
            let mut statement = tx.prepare_cached("UPDATE layers SET unneeded_since = ?2 WHERE id = ?1")?;
            unneeded.difference(&marked).try_for_each(|id| statement.execute(params![id, now]).map(drop))?;
            let none: Option<i64> = None;
            marked.difference(&unneeded).try_for_each(|id| statement.execute(params![id, none]).map(drop))
        })?;
        Ok(())
    }

    /// All layers there are.
    pub(crate) fn all(&self) -> Vec<Arc<Layer>> {
        self.table().known.values().cloned().collect()
    }

    /// The layers that running pulls count on.
    pub(crate) fn claimed(&self) -> BTreeSet<String> {
        self.table().leases.keys().cloned().collect()
    }

    /// While this is held, nothing that is in the folder of layers is without its row for a moment.
    pub(crate) fn at_rest(&self) -> MutexGuard<'_, ()> {
        self.publishing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layers that no image and no root file system has.
fn unneeded(connection: &rusqlite::Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM layers WHERE id NOT IN (SELECT layer FROM image_layers) \
         AND id NOT IN (SELECT layer FROM root_filesystem_layers)",
    )?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The digits of a digest, which are a plain file name, and what shows the form.
fn file_name(id: &str, form: Form) -> String {
    let digits = match id.strip_prefix("graft:") {
        Some(chain) => format!("graft-{}", chain.rsplit(':').next().unwrap_or(chain)),
        None => id.rsplit(':').next().unwrap_or(id).to_owned(),
    };
    digits + form.ending()
}
