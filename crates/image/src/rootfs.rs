//! Root file systems: what a container may write over the layers of its image, and the mount of both.

mod error;
mod mounting;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::digest::{Digest, ImageId};
use model::request::UserNamespace;
use store::rusqlite::{self, params};
use store::{Durability, Store};

use crate::changes::{self, Deletions};
use crate::config::ImageConfig;
use crate::layers::{Layer, Layers};
use crate::native;
use crate::quota::Projects;
use crate::stacking::Stacking;
use crate::standing;
use crate::trash::Trash;
use crate::tree::{self, Usage};
use crate::unpack::copy_directory;

pub use error::RootfsError;

/// A root file system that is ready to be mounted.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// Whose it is: the container's id.
    pub owner: String,
    pub image: ImageId,
    /// Where what the container writes goes.
    pub upper: PathBuf,
    work: PathBuf,
    /// The highest first.
    layers: Vec<Arc<Layer>>,
    /// The highest layer that says how the root directory itself looks.
    root_like: Option<Arc<Layer>>,
}

impl Rootfs {
    /// Where its layers are, the highest first.
    pub(crate) fn lowers(&self) -> impl Iterator<Item = &Path> {
        self.layers.iter().map(|layer| layer.path.as_path())
    }
}

/// All root file systems of this node.
#[derive(Debug)]
pub struct RootFilesystems {
    folder: PathBuf,
    /// Where they would be if they had no root of their own: there may be some of before.
    elsewhere: Option<PathBuf>,
    trash: Trash,
    /// Two empty directories, for stacks that would be too low for overlayfs.
    empty: [PathBuf; 2],
    store: Arc<Store>,
    layers: Arc<Layers>,
    user_xattr: bool,
    /// What pods may write is limited.
    projects: Option<Projects>,
    known: Mutex<HashMap<String, Arc<Rootfs>>>,
}

impl RootFilesystems {
    /// Reads what the database knows; if it was lost, what is noted beside the root file systems.
    pub(crate) fn open(
        config: &ImageConfig,
        store: Arc<Store>,
        layers: Arc<Layers>,
        database_lost: bool,
    ) -> Result<RootFilesystems, RootfsError> {
        let (root, user_xattr) = (&config.root, config.user_xattr);
        let own_root = config.written_root();
        let folder = own_root.join("rootfs");
        let empty = [root.join("empty/0"), root.join("empty/1")];
        let failed = |path: &Path, source| RootfsError::Io {
            owner: "this node".into(),
            path: path.to_owned(),
            source,
        };
        for path in [&folder, &empty[0], &empty[1]] {
            std::fs::create_dir_all(path).map_err(|source| failed(path, source))?;
        }
        let trash = Trash::open(own_root).map_err(|source| failed(own_root, source))?;
        let elsewhere = (own_root != root).then(|| root.join("rootfs"));
        let projects = config.pod_write_limit.map(|limit| {
            Projects::open(&folder, limit, &paths_in(&folder), &trash.contents())
                .map_err(|why| RootfsError::NoQuota { path: folder.clone(), why })
        });
        let projects = projects.transpose()?;
        let known = Mutex::default();
        let all =
            RootFilesystems { folder, elsewhere, trash, empty, store, layers, user_xattr, projects, known };
        if database_lost {
            all.adopt();
        }
        all.load()?;
        Ok(all)
    }

    /// [`RootFilesystems::prepare_in`] for an owner that is a pod by itself.
    ///
    /// # Errors
    /// As there.
    pub fn prepare(
        &self,
        owner: &str,
        image: &ImageId,
        users: Option<&UserNamespace>,
    ) -> Result<Rootfs, RootfsError> {
        self.prepare_in(owner, owner, image, users)
    }

    /// Makes the writable part for `owner`, a container's id, on top of an image, and records it: its layers stay until it is removed,
    /// also if the image goes. With `users` its root directory has the owner that they make of the image's. If there is a limit for what
    /// is written, all owners of one `pod` have it together.
    ///
    /// # Errors
    /// [`RootfsError::NoImage`], [`RootfsError::Exists`], or what the disk says; nothing is left then.
    pub fn prepare_in(
        &self,
        pod: &str,
        owner: &str,
        image: &ImageId,
        users: Option<&UserNamespace>,
    ) -> Result<Rootfs, RootfsError> {
        check_owner(owner)?;
        let layers = self.record(owner, image)?;
        let made = self.describe(owner, image.clone(), &layers).and_then(|rootfs| {
            self.make_folders(pod, &rootfs, users).map_err(|source| RootfsError::Io {
                owner: owner.to_owned(),
                path: rootfs.upper.clone(),
                source,
            })?;
            Ok(rootfs)
        });
        match made {
            Ok(rootfs) => {
                self.known().insert(owner.to_owned(), Arc::new(rootfs.clone()));
                Ok(rootfs)
            }
            Err(error) => {
                let _ = self.remove(owner);
                Err(error)
            }
        }
    }

    /// Writes what the owner changed as an archive, and gives the paths, relative to the root, of what it deleted if those are to be
    /// listed. The owner must not change anything meanwhile.
    ///
    /// # Errors
    /// [`RootfsError::Absent`], or what the disk or `sink` says.
    pub fn export_changes(
        &self,
        owner: &str,
        deletions: Deletions,
        sink: impl Write,
    ) -> Result<Vec<Vec<u8>>, RootfsError> {
        let rootfs = self.get(owner)?;
        if self.layers.stacking() == Stacking::Copies {
            return Err(RootfsError::NoChanges { owner: owner.to_owned() });
        }
        let image = || self.mount_lowers(&rootfs, None, None, None).map_err(io::Error::other);
        changes::export(&rootfs, image, self.user_xattr, deletions, sink).map_err(|source| RootfsError::Io {
            owner: owner.to_owned(),
            path: rootfs.upper.clone(),
            source,
        })
    }

    /// Puts changes that were written with whiteouts, and that have this digest and size, into a root file system that was prepared and not
    /// mounted yet.
    ///
    /// # Errors
    /// [`RootfsError::Absent`]; [`RootfsError::Changes`] for an archive that is not what it should be.
    pub fn import_changes(
        &self,
        owner: &str,
        archive: impl Read + Send,
        digest: &Digest,
        size: u64,
    ) -> Result<(), RootfsError> {
        let rootfs = self.get(owner)?;
        if self.layers.stacking() == Stacking::Copies {
            return Err(RootfsError::NoChanges { owner: owner.to_owned() });
        }
        changes::import(&rootfs, archive, digest, size, self.user_xattr)
            .map_err(|source| RootfsError::Changes { owner: owner.to_owned(), source })
    }

    /// What the owner wrote, on disk. Unless the file system counts it, the whole writable part is walked: call it on a thread that may wait.
    ///
    /// # Errors
    /// [`RootfsError::Absent`], or what the disk says.
    pub fn usage(&self, owner: &str) -> Result<Usage, RootfsError> {
        let rootfs = self.get(owner)?;
        if let Some(usage) = self.projects.as_ref().and_then(|projects| projects.usage(owner)) {
            return Ok(usage);
        }
        let measure = || tree::usage(File::open(&rootfs.upper)?.into());
        measure().map_err(|source| RootfsError::Io {
            owner: owner.to_owned(),
            path: rootfs.upper.clone(),
            source,
        })
    }

    /// Removes it with its volumes and everything the owner wrote: out of sight at once, off the disk in the background. One that is not there is removed
    /// already.
    ///
    /// # Errors
    /// What the disk says; the next call goes on where this one stopped.
    pub fn remove(&self, owner: &str) -> Result<(), RootfsError> {
        check_owner(owner)?;
        let path = self.folder.join(owner);
        self.trash.throw_away(&path).map_err(|source| RootfsError::Io {
            owner: owner.to_owned(),
            path,
            source,
        })?;
        if let Some(projects) = &self.projects {
            projects.leave(owner);
        }
        // The rows last: as long as there is something, it has an owner.
        let volumes = format!("{}*", crate::volume::prefix(owner));
        let unneeded = self.store.let_go(Durability::Process, |tx| {
            let mut statement = tx.prepare_cached(
                "SELECT layer FROM root_filesystem_layers WHERE (container = ?1 OR container GLOB ?2) \
                 AND layer NOT IN (SELECT layer FROM image_layers)",
            )?;
            let unneeded = statement.query_map([owner, &volumes], |row| row.get(0))?;
            let unneeded = unneeded.collect::<rusqlite::Result<BTreeSet<String>>>()?;
            tx.prepare_cached("DELETE FROM root_filesystems WHERE container = ?1 OR container GLOB ?2")?
                .execute([owner, &volumes])?;
            Ok(unneeded)
        })?;
        self.known().remove(owner);
        // Of an image that went before its container.
        if !unneeded.is_empty()
            && let Err(error) = self.layers.collect(Some(&unneeded))
        {
            tracing::warn!(container = owner, %error, "layers that nothing needs any more could not be removed; it is tried again later");
        }
        Ok(())
    }

    /// All owners.
    pub fn owners(&self) -> Vec<String> {
        self.known().keys().cloned().collect()
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The folders there are, of whomever, also where root file systems were kept before they got a root of their own.
    pub(crate) fn on_disk(&self) -> Vec<PathBuf> {
        std::iter::once(&self.folder).chain(&self.elsewhere).flat_map(|folder| paths_in(folder)).collect()
    }

    /// The folder of one.
    pub(crate) fn folder_of(&self, owner: &str) -> PathBuf {
        self.folder.join(owner)
    }

    pub(crate) fn trash(&self) -> &Trash {
        &self.trash
    }

    /// Where all files are kept that containers see: layers, and what is written above them.
    pub fn folders(&self) -> [&Path; 2] {
        [self.layers.folder(), &self.folder]
    }

    /// Where root file systems are kept.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn get(&self, owner: &str) -> Result<Arc<Rootfs>, RootfsError> {
        self.known().get(owner).cloned().ok_or_else(|| RootfsError::Absent { owner: owner.to_owned() })
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Arc<Rootfs>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row and its layers, in one transaction with the question whether the image is still there.
    pub(crate) fn record(&self, owner: &str, image: &ImageId) -> Result<Vec<String>, RootfsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
        enum Found {
            Layers(Vec<String>),
            NoImage,
            Exists,
        }
        let found = self.store.write(Durability::Process, |tx| {
            let there = tx.prepare_cached("SELECT 1 FROM images WHERE id = ?1")?.exists([image.as_str()])?;
            if !there {
                return Ok(Found::NoImage);
            }
            let inserted = tx
                .prepare_cached(
                    "INSERT INTO root_filesystems (container, image, created_at) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (container) DO NOTHING",
                )?
                .execute(params![owner, image.as_str(), now])?;
            if inserted == 0 {
                return Ok(Found::Exists);
            }
            tx.prepare_cached(
                "INSERT INTO root_filesystem_layers (container, position, layer) \
                 SELECT ?1, position, layer FROM image_layers WHERE image = ?2",
            )?
            .execute(params![owner, image.as_str()])?;
            let layers = tx
                .prepare_cached("SELECT layer FROM image_layers WHERE image = ?1 ORDER BY position")?
                .query_map([image.as_str()], |row| row.get(0))?
                .collect::<rusqlite::Result<Vec<String>>>()?;
            Ok(Found::Layers(layers))
        })?;
        match found {
            Found::Layers(layers) => Ok(layers),
            Found::NoImage => Err(RootfsError::NoImage { image: image.clone() }),
            Found::Exists => Err(RootfsError::Exists { owner: owner.to_owned() }),
        }
    }

    pub(crate) fn describe(
        &self,
        owner: &str,
        image: ImageId,
        layers: &[String],
    ) -> Result<Rootfs, RootfsError> {
        let mut found = Vec::with_capacity(layers.len());
        let mut root_like = None;
        for id in layers.iter().rev() {
            let layer = self
                .layers
                .published(id)
                .ok_or_else(|| RootfsError::NoLayer { owner: owner.to_owned(), layer: id.clone() })?;
            if layer.loose_ends.has_root && root_like.is_none() {
                root_like = Some(Arc::clone(&layer));
            }
            found.push(layer);
        }
        let folder = self.folder.join(owner);
        let (upper, work) = (folder.join("upper"), folder.join("work"));
        Ok(Rootfs { owner: owner.to_owned(), image, upper, work, layers: found, root_like })
    }

    /// The root directory is the upper's own, so that it has to look as the image says.
    fn make_folders(&self, pod: &str, rootfs: &Rootfs, users: Option<&UserNamespace>) -> io::Result<()> {
        let folder = self.folder.join(&rootfs.owner);
        std::fs::create_dir(&folder)?;
        // First of all: what is in it belongs to the same project, and what overlayfs makes in one place and renames to the other must.
        if let Some(projects) = &self.projects {
            projects.admit(pod, &rootfs.owner, &folder)?;
        }
        std::fs::create_dir(&rootfs.upper)?;
        std::fs::create_dir(&rootfs.work)?;
        standing::note(&folder, &rootfs.image, false, rootfs.lowers())?;
        let upper = File::open(&rootfs.upper)?;
        let copies = self.layers.stacking() == Stacking::Copies;
        if copies {
            native::put_together(&self.lowers(rootfs)?, &upper, self.user_xattr)?;
        }
        match &rootfs.root_like {
            Some(layer) => copy_directory(self.layers.lower(&layer.path)?.open()?, &upper)?,
            None => upper.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))?,
        }
        match users {
            // A copy is mounted with all its owners mapped.
            Some(users) if !copies => give_away(&upper, users),
            _ => Ok(()),
        }
    }

    fn load(&self) -> Result<(), RootfsError> {
        let rows = self.store.read(|connection| {
            let mut rows: HashMap<String, (String, Vec<String>)> = connection
                .prepare("SELECT container, image FROM root_filesystems")?
                .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, Vec::new()))))?
                .collect::<rusqlite::Result<_>>()?;
            let mut statement = connection.prepare(
                "SELECT container, layer FROM root_filesystem_layers ORDER BY container, position",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                if let Some((_, layers)) = rows.get_mut(&row.get::<_, String>(0)?) {
                    layers.push(row.get(1)?);
                }
            }
            Ok(rows)
        })?;
        for (owner, (image, layers)) in rows {
            let described = ImageId::parse(&image)
                .map_err(|error| error.to_string())
                .and_then(|image| self.describe(&owner, image, &layers).map_err(|error| error.to_string()));
            match described {
                Ok(_) if crate::volume::is_one(&owner) => {}
                Ok(rootfs) => drop(self.known().insert(owner, Arc::new(rootfs))),
                Err(error) => tracing::warn!(container = owner, error, "a root file system is not whole"),
            }
        }
        Ok(())
    }

    /// Records again what is on disk, after the database was lost.
    fn adopt(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let image = standing::image(&entry.path().join("image"));
            let (Some(owner), Some(image)) = (name.to_str(), image) else { continue };
            if let Err(error) = check_owner(owner).and_then(|()| self.record(owner, &image)) {
                tracing::warn!(container = owner, %error, "a root file system cannot be recorded again");
            }
            self.adopt_volumes(owner);
        }
    }
}

fn paths_in(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Gives a directory that looks as in the image to whom its owner is outside. One who is nobody there would be one whom the container
/// cannot be, so the directory goes to its superuser.
fn give_away(directory: &File, users: &UserNamespace) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
    let metadata = directory.metadata()?;
    let uid = users.host_uid(metadata.uid()).or_else(|| users.host_uid(0));
    let gid = users.host_gid(metadata.gid()).or_else(|| users.host_gid(0));
    fchown(directory, uid, gid)?;
    // A change of the owner takes the special bits.
    directory.set_permissions(PermissionsExt::from_mode(metadata.mode() & 0o7777))
}

/// The name becomes a directory's.
fn check_owner(owner: &str) -> Result<(), RootfsError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if owner.is_empty() || owner.len() > 128 || owner.starts_with('.') || !owner.bytes().all(plain) {
        return Err(RootfsError::BadOwner { owner: owner.chars().take(80).collect() });
    }
    Ok(())
}
