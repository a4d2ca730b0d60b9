//! Opening: a missing database is made, an older one upgraded, a newer one refused, a damaged one put aside.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::reserve::Reserve;
use crate::schema;

/// How long a statement waits for another process, such as a person with the sqlite3 shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite's files beside the database.
const COMPANIONS: [&str; 2] = [LOG, "-shm"];
const LOG: &str = "-wal";

/// "PNTL" as a number, in the header of every database of ours: another program's is not taken for a damaged one.
const APPLICATION_ID: i64 = 0x504e_544c;

/// A damaged database that was put aside.
#[derive(Debug, Clone)]
pub struct Quarantined {
    /// Where it is now.
    pub moved_to: PathBuf,
    /// What was wrong with it.
    pub why: String,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "database {path} has schema version {found}, and this release knows versions up to {known}: a newer release wrote it. \
         Start that release again, or move the file away to begin with an empty one", path = .path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{path} is a database of another program (application id {found:#x}); it was left as it is", path = .path.display())]
    Foreign { path: PathBuf, found: i64 },
    #[error("database {path}: step {step} of the schema failed, and nothing was changed: {source}", path = .path.display())]
    Upgrade { path: PathBuf, step: &'static str, source: rusqlite::Error },
    #[error("database {path} is damaged ({why}) and could not be put aside: {source}", path = .path.display())]
    Quarantine { path: PathBuf, why: String, source: io::Error },
    #[error("folder of database {path}: {source}", path = .path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("database {path}: {source}", path = .path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

/// A database that is ready to be used.
pub(crate) struct Opened {
    pub connection: Connection,
    pub reserve: Reserve,
    pub quarantined: Option<Quarantined>,
}

pub(crate) fn open(path: &Path) -> Result<Opened, OpenError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
    }
    match open_whole(path) {
        Err(OpenError::Sqlite { source, .. } | OpenError::Upgrade { source, .. }) if is_damage(&source) => {
            let quarantined = put_aside(path, source.to_string())?;
            open_whole(path).map(|opened| Opened { quarantined: Some(quarantined), ..opened })
        }
        done => done,
    }
}

fn open_whole(path: &Path) -> Result<Opened, OpenError> {
    let fail = |source| OpenError::Sqlite { path: path.to_owned(), source };
    // No mutex of SQLite's own: the store has one. No URI: a path with '?' is a path.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_EXRESCODE;
    let mut connection = Connection::open_with_flags(path, flags).map_err(fail)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let found = number("user_version").map_err(fail)?;
    let application = number("application_id").map_err(fail)?;
    if application != APPLICATION_ID
        && !(application == 0 && found == 0 && is_empty(&connection).map_err(fail)?)
    {
        return Err(OpenError::Foreign { path: path.to_owned(), found: application });
    }
    if found > schema::version() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: schema::version() });
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fail)?;
    debug_assert!(mode == "wal" || mode == "memory");
    connection.pragma_update(None, "foreign_keys", true).map_err(fail)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(fail)?;
    connection.set_prepared_statement_cache_capacity(128);
    if found > 0 {
        check(&connection).map_err(fail)?;
    }
    upgrade(&mut connection, path, found)?;
    // The log, and the room behind it, outlive the daemon: the disk may be full when the next one starts.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(fail)?;
    begin_log(&mut connection).map_err(fail)?;
    let reserve = Reserve::of(path, beside(path, LOG))
        .map_err(|source| OpenError::Folder { path: path.to_owned(), source })?;
    reserve.behind_log();
    // On a full disk there is none to be had, which is no reason not to begin.
    let _ = reserve.within(&mut connection);
    Ok(Opened { connection, reserve, quarantined: None })
}

/// The log comes into being with the first transaction.
fn begin_log(connection: &mut Connection) -> rusqlite::Result<()> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let transaction = connection.transaction()?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))
}

/// Reads every page once: the database is small, and to know now is better than to fail in the middle of something.
fn check(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
        Some(verdict.replace('\n', "; ")),
    ))
}

/// Every missing step, all of them in one transaction.
fn upgrade(connection: &mut Connection, path: &Path, found: i64) -> Result<(), OpenError> {
    let fail = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let steps = schema::STEPS.get(usize::try_from(found).unwrap_or(0)..).unwrap_or(&[]);
    if steps.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction().map_err(fail)?;
    for (step, sql) in steps {
        transaction.execute_batch(sql).map_err(|source| OpenError::Upgrade {
            path: path.to_owned(),
            step,
            source,
        })?;
    }
    transaction.pragma_update(None, "user_version", schema::version()).map_err(fail)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(fail)?;
    transaction.commit().map_err(fail)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Renames the database and its companions to a name with the time in it.
fn put_aside(path: &Path, why: String) -> Result<Quarantined, OpenError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let with = |suffix: &str| beside(path, suffix);
    let aside = format!(".damaged-{}-{:09}", now.as_secs(), now.subsec_nanos());
    let moved_to = with(&aside);
    let rename = || -> io::Result<()> {
        // The log first: a log without its database is ignored, a database without its log has lost transactions.
        for companion in COMPANIONS {
            match std::fs::rename(with(companion), with(&format!("{aside}{companion}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(path, &moved_to)
    };
    match rename() {
        Ok(()) => Ok(Quarantined { moved_to, why }),
        Err(source) => Err(OpenError::Quarantine { path: path.to_owned(), why, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Store};

    fn filled(path: &Path) {
        let store = Store::open(path).unwrap();
        store
            .write(Durability::Disk, |tx| {
                for n in 0..2000 {
                    tx.execute(
                        "INSERT INTO images (id, config, pulled_at) VALUES (?1, zeroblob(200), 0)",
                        [n.to_string()],
                    )?;
                }
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_newer_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pintle.db");
        filled(&path);
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 999).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 999, .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn another_programs_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pintle.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(matches!(Store::open(&path).unwrap_err(), OpenError::Foreign { .. }));
    }

    #[test]
    fn a_damaged_database_is_put_aside_whole() {
        for damage in ["garbage", "truncated", "flipped"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("pintle.db");
            filled(&path);
            let mut bytes = std::fs::read(&path).unwrap();
            match damage {
                "garbage" => {
                    bytes = b"this is no database at all, but long enough to have a header ".repeat(100)
                }
                "truncated" => bytes.truncate(bytes.len() / 2),
                _ => bytes[4096..12288].fill(0xa5),
            }
            std::fs::write(&path, &bytes).unwrap();
            let store = Store::open(&path).unwrap();
            let quarantined = store.quarantined().unwrap_or_else(|| panic!("{damage}: not noticed"));
            assert_eq!(std::fs::read(&quarantined.moved_to).unwrap(), bytes, "{damage}");
            assert!(!quarantined.why.is_empty());
            let rows: i64 =
                store.read(|c| c.query_row("SELECT count(*) FROM images", [], |row| row.get(0))).unwrap();
            assert_eq!(rows, 0);
        }
    }

    #[test]
    fn an_empty_file_is_a_new_database() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/pintle.db");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"").unwrap();
        assert!(Store::open(&path).unwrap().quarantined().is_none());
    }
}
