//! Room that is set aside, so that on a full disk it is still recorded what is let go.
//!
//! A change goes into two files, and there is room in both. Into the log first: blocks beyond its end (fallocate(2) with
//! `FALLOC_FL_KEEP_SIZE`) belong to it, so that nobody who fills the disk gets them, and SQLite writes into them without knowing. Then,
//! when the log is begun anew, into the database: free pages in it are taken before it grows. What comes has to leave some of them,
//! or make new ones; what goes gives pages back.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How large the log becomes before it is written into the database and begun anew, in bytes (1,000 pages, SQLite's
/// `wal_autocheckpoint`), and one large transaction more.
const LOG: u64 = 5 << 20;

/// How many free pages are made at a time, and how many there have to be. It is enough for some hundred rows that change once more
/// before they go.
const PAGES: i64 = 512;
const LEAST: i64 = PAGES / 2;

/// The room of one database.
#[derive(Debug)]
pub(crate) struct Reserve {
    log: PathBuf,
    /// Open for as long as SQLite has it: to close a second descriptor of a file takes a process's locks of it away (fcntl(2)).
    database: File,
}

impl Reserve {
    pub(crate) fn of(database: &Path, log: PathBuf) -> io::Result<Reserve> {
        Ok(Reserve { log, database: File::options().write(true).open(database)? })
    }

    /// Sets room aside behind the log, as good as it goes: a file system without this, or without so much room, has a log all the same.
    pub(crate) fn behind_log(&self) {
        if let Ok(file) = File::options().write(true).open(&self.log) {
            let _ = fallocate(file, FallocateFlags::KEEP_SIZE, 0, LOG);
        }
    }

    /// Makes free pages in the database where there are too few, and says whether there are enough then.
    pub(crate) fn within(&self, connection: &mut Connection) -> rusqlite::Result<bool> {
        if number(connection, "PRAGMA freelist_count")? >= LEAST {
            return Ok(true);
        }
        checkpoint(connection)?;
        let transaction = connection.transaction()?;
        let bytes = PAGES * number(&transaction, "PRAGMA page_size")?;
        transaction.execute("INSERT INTO reserve (pages) VALUES (zeroblob(?1))", [bytes])?;
        transaction.execute("DELETE FROM reserve", [])?;
        if !self.has_blocks(&transaction)? {
            return Ok(false);
        }
        transaction.commit()?;
        checkpoint(connection)?;
        Ok(true)
    }

    /// Whether the disk gives the blocks for all pages that the database has now, in a transaction that is not committed: a log with pages
    /// for which there are none could not be begun anew.
    pub(crate) fn has_blocks(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let pages = number(connection, "PRAGMA page_count")?;
        let size = u64::try_from(pages * number(connection, "PRAGMA page_size")?).unwrap_or(0);
        if self.database.metadata().is_ok_and(|metadata| metadata.len() >= size) {
            return Ok(true);
        }
        let given = fallocate(&self.database, FallocateFlags::KEEP_SIZE, 0, size);
        Ok(!matches!(given, Err(Errno::NOSPC | Errno::DQUOT)))
    }
}

/// Writes the log into the database, after which it is begun anew.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.prepare_cached("PRAGMA wal_checkpoint(PASSIVE)")?.query_row([], |_| Ok(()))
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached(pragma)?.query_row([], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::Command;

    use crate::{Durability, Store, StoreError};

    /// A file system of its own, which goes with it.
    struct Small(tempfile::TempDir);

    impl Small {
        fn tmpfs(bytes: u64) -> Option<Small> {
            let small = Small(tempfile::tempdir().unwrap());
            let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("test", small.path(), "tmpfs", flags, Some(options.as_c_str())).ok()?;
            Some(small)
        }

        /// In a file on a loop device, which goes with the mount.
        fn ext4(bytes: u64) -> Option<Small> {
            let image = tempfile::NamedTempFile::new().unwrap();
            image.as_file().set_len(bytes).unwrap();
            let made = Command::new("mkfs.ext4").arg("-q").arg(image.path()).status().ok()?;
            let small = Small(tempfile::tempdir().unwrap());
            let mounted = Command::new("mount")
                .args(["-o", "loop"])
                .args([image.path(), small.path()])
                .status()
                .ok()?;
            (made.success() && mounted.success()).then_some(small)
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn fill(&self) {
            let mut fill = std::fs::File::create(self.path().join("fill")).unwrap();
            for size in [1 << 20, 4096] {
                while fill.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
            }
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// Adds a row.
    fn insert(store: &Store, id: usize) -> Result<usize, StoreError> {
        store.write(Durability::Process, |tx| tx.execute(INSERT, [format!("{id:05}")]))
    }

    /// Lets go of a row, or records what became of it.
    fn change(store: &Store, sql: &str, id: usize) {
        let changed = store.let_go(Durability::Process, |tx| tx.execute(sql, [format!("{id:05}")]));
        assert_eq!(changed.map_err(|e| format!("{sql} {id}: {e}")), Ok(1));
    }

    const INSERT: &str = "INSERT INTO images (id, config, pulled_at) VALUES (?1, zeroblob(3000), 0)";
    const UPDATE: &str = "UPDATE images SET pulled_at = pulled_at + 1 WHERE id = ?1";
    const DELETE: &str = "DELETE FROM images WHERE id = ?1";

    /// Thousands of changes after the disk is full, which is many logs: rows that are there change and go, and rows that come make others
    /// go first.
    fn check(small: &Small) {
        let path = small.path().join("pintle.db");
        let store = Store::open(&path).unwrap();
        for id in 0..1500 {
            insert(&store, id).unwrap();
        }
        small.fill();
        for _ in 0..4 {
            for id in 0..1500 {
                change(&store, UPDATE, id);
            }
        }
        // What grows is refused at some time, and what goes is not.
        let refused = (0..20_000).find_map(|id| insert(&store, 50_000 + id).err()).expect("the disk is full");
        assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
        for id in 0..500 {
            change(&store, DELETE, id);
            change(&store, UPDATE, 1000 + id);
        }
        // The room is still there when the next process comes, whether this one ended in order or not.
        drop(store);
        small.fill();
        let store = Store::open(&path).unwrap();
        for id in 500..1000 {
            change(&store, DELETE, id);
        }
        // And once there is room on the disk, it is set aside again.
        std::fs::remove_file(small.path().join("fill")).unwrap();
        for id in 0..1500 {
            insert(&store, 20_000 + id).unwrap();
        }
        small.fill();
        for id in 0..1500 {
            change(&store, UPDATE, 20_000 + id);
            change(&store, DELETE, 20_000 + id);
        }
    }

    #[test]
    fn a_full_disk_does_not_keep_rows_from_going() {
        match Small::tmpfs(40 << 20) {
            Some(small) => check(&small),
            None => println!("SKIPPED: mounting needs root"),
        }
    }

    #[test]
    fn a_full_ext4_does_not_keep_rows_from_going() {
        match Small::ext4(64 << 20) {
            Some(small) => check(&small),
            None => println!("SKIPPED: needs root, mkfs.ext4 and loop devices"),
        }
    }
}
