//! The one database: its schema, its versions and its transactions.
//!
//! SQLite in WAL mode behind one mutex. Nothing here knows what the rows mean: each crate above brings its own statements, and the
//! schema they agree on is in [`schema`]. No List or Status call comes here; they are served from memory.

mod open;
mod reserve;
pub mod schema;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use open::{OpenError, Quarantined};
use reserve::Reserve;
pub use rusqlite;
use rusqlite::{Connection, Transaction, TransactionBehavior};

/// How much of a crash an acknowledged transaction must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The death of the process: no fsync. After a power cut the newest transactions may be missing, never a part of one.
    Process,
    /// A power cut: the log is synced before the commit returns.
    Disk,
}

/// An open database.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
    /// After the connection, whose locks go with its file.
    reserve: Reserve,
    path: PathBuf,
    quarantined: Option<Quarantined>,
}

/// What a transaction may use of a disk that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Nothing.
    Shared,
    /// What is set aside.
    Reserved,
}

impl Drop for Store {
    /// The database is whole in its one file when the daemon has ended in order; the room behind its log is for the next one.
    fn drop(&mut self) {
        let _ = self.lock().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        self.reserve.behind_log();
    }
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database {path}: the disk is full; free some space below its folder and try again", path = .path.display())]
    Full { path: PathBuf },
    #[error("database {path}: {source}", path = .path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

impl Store {
    /// Opens the database at `path`, makes it if it is absent, and brings an older one to the present schema.
    ///
    /// A database that is damaged is renamed aside, never deleted, and an empty one takes its place: see [`Store::quarantined`].
    ///
    /// # Errors
    /// [`OpenError::Newer`] if a newer release wrote it, which is left as it is; else what the file system or SQLite says.
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        let open::Opened { connection, reserve, quarantined } = open::open(path)?;
        Ok(Store { connection: Mutex::new(connection), reserve, path: path.to_owned(), quarantined })
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The damaged database that opening found and put aside, if so. What its rows said has to be rebuilt from the disk.
    pub fn quarantined(&self) -> Option<&Quarantined> {
        self.quarantined.as_ref()
    }

    /// Runs statements that only read. Prefer `prepare_cached`, so that a statement is compiled once.
    ///
    /// # Errors
    /// [`StoreError`] around what `work` returned.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        work(&self.lock()).map_err(|source| self.error(source))
    }

    /// Runs `work` in one transaction, and commits it if `work` returns `Ok`; else nothing of it remains.
    ///
    /// # Errors
    /// [`StoreError`] around what `work` or the commit returned; [`StoreError::Full`] also where it would take room that is set aside for
    /// [`Store::let_go`].
    pub fn write<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.transact(durability, Room::Shared, work)
    }

    /// As [`Store::write`], for what takes rows away, or records in a row that is there what became of it: it works on a full disk too.
    ///
    /// # Errors
    /// [`StoreError`] around what `work` or the commit returned.
    pub fn let_go<T>(
        &self,
        durability: Durability,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.transact(durability, Room::Reserved, work)
    }

    fn transact<T>(
        &self,
        durability: Durability,
        room: Room,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.lock();
        let run = |connection: &mut Connection| {
            if room == Room::Shared && !self.reserve.within(connection)? {
                return Ok(None);
            }
            // In WAL mode NORMAL syncs only at checkpoints and FULL at every commit. It cannot be changed within a transaction.
            connection.pragma_update(
                None,
                "synchronous",
                match durability {
                    Durability::Process => "NORMAL",
                    Durability::Disk => "FULL",
                },
            )?;
            // IMMEDIATE: a transaction that will write takes the lock at its beginning, so that it cannot fail in its middle.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = work(&transaction)?;
            if !self.reserve.has_blocks(&transaction)? {
                return Ok(None);
            }
            transaction.commit()?;
            Ok(Some(value))
        };
        let done = run(&mut connection).map_err(|source| self.error(source))?;
        done.ok_or_else(|| StoreError::Full { path: self.path.clone() })
    }

    /// A panic within `work` rolled its transaction back, so the connection behind a poisoned lock is whole.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, source: rusqlite::Error) -> StoreError {
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => StoreError::Full { path: self.path.clone() },
            _ => StoreError::Sqlite { path: self.path.clone(), source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Store, id: &str, durability: Durability) {
        store
            .write(durability, |tx| {
                tx.execute("INSERT INTO images (id, config, pulled_at) VALUES (?1, x'', 0)", [id])
            })
            .unwrap();
    }

    fn count(store: &Store) -> u32 {
        store.read(|c| c.query_row("SELECT count(*) FROM images", [], |row| row.get(0))).unwrap()
    }

    #[test]
    fn what_was_written_is_read_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pintle.db");
        let store = Store::open(&path).unwrap();
        put(&store, "a", Durability::Process);
        put(&store, "b", Durability::Disk);
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(count(&store), 2);
        assert!(store.quarantined().is_none());
    }

    #[test]
    fn a_failed_transaction_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("pintle.db")).unwrap();
        let error = store.write(Durability::Process, |tx| {
            tx.execute("INSERT INTO images (id, config, pulled_at) VALUES ('a', x'', 0)", [])?;
            tx.execute("INSERT INTO image_references (name, image) VALUES ('n', 'absent')", [])
        });
        assert!(error.unwrap_err().to_string().contains("pintle.db"));
        assert_eq!(count(&store), 0);
    }

    #[test]
    fn a_transaction_is_rolled_back_when_its_work_panics() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("pintle.db")).unwrap();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            store.write(Durability::Process, |tx| -> rusqlite::Result<()> {
                tx.execute("INSERT INTO images (id, config, pulled_at) VALUES ('a', x'', 0)", [])?;
                panic!("in the middle");
            })
        }));
        assert!(panic.is_err());
        assert_eq!(count(&store), 0);
        put(&store, "b", Durability::Disk);
    }

    #[test]
    fn synchronous_follows_the_durability() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("pintle.db")).unwrap();
        let level = |durability| {
            store
                .write(durability, |tx| tx.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0)))
                .unwrap()
        };
        assert_eq!(level(Durability::Disk), 2);
        assert_eq!(level(Durability::Process), 1);
        assert_eq!(level(Durability::Disk), 2);
    }
}
