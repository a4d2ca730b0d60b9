//! Room that is set aside, so that on a full disk it is still recorded what is let go.
//!
//! Blocks beyond the end of SQLite's log (fallocate(2) with `FALLOC_FL_KEEP_SIZE`) belong to the log: nobody who fills the disk gets them, and
//! SQLite writes into them without knowing. They last until the log would have to be written into a database that cannot grow: some
//! hundred pods.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};

/// How large the log becomes before it is written into the database and begun anew, in bytes (1,000 pages, SQLite's
/// `wal_autocheckpoint`), and one large transaction more.
const LOG: u64 = 5 << 20;

/// Sets room aside for the log, which comes into being with the first transaction.
pub(crate) fn of_log(connection: &mut Connection, log: &Path) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let transaction = connection.transaction()?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()?;
    if let Ok(file) = File::options().write(true).open(log) {
        // As good as it goes: a file system without this, or without so much room, has a database all the same.
        let _ = fallocate(file, FallocateFlags::KEEP_SIZE, 0, LOG);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use crate::{Durability, Store};

    /// A file system of its own, which goes with it.
    struct Small(tempfile::TempDir);

    impl Small {
        fn new(bytes: u64) -> Option<Small> {
            let folder = tempfile::tempdir().unwrap();
            let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            let mounted =
                rustix::mount::mount("test", folder.path(), "tmpfs", flags, Some(options.as_c_str()));
            mounted.ok().map(|()| Small(folder))
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    #[test]
    fn a_full_disk_does_not_keep_rows_from_going() {
        let Some(small) = Small::new(16 << 20) else {
            println!("SKIPPED: mounting needs root");
            return;
        };
        let store = Store::open(&small.0.path().join("pintle.db")).unwrap();
        let change = |sql: &str, id: usize| {
            store.write(Durability::Process, |tx| tx.execute(sql, [format!("{id:04}")])).unwrap()
        };
        for id in 0..100 {
            change("INSERT INTO images (id, config, pulled_at) VALUES (?1, zeroblob(1000), 0)", id);
        }
        let mut fill = std::fs::File::create(small.0.path().join("fill")).unwrap();
        while fill.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        for id in 0..100 {
            assert_eq!(change("DELETE FROM images WHERE id = ?1", id), 1);
        }
    }
}
