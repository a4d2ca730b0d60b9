//! Layers whose bytes are not what they were: marked, so that the next pull fetches them again, and put aside when it has, so that those who
//! stand on them keep what they have.

use store::rusqlite::{self, Transaction, params};

use crate::layers::Layer;

/// What the ids of layers that were put aside begin with.
const ASIDE: &str = "damaged:";

/// Whether a layer was put aside: nothing new is given it any more.
pub(crate) fn is_aside(id: &str) -> bool {
    id.starts_with(ASIDE)
}

/// The layer under the id that it has once another has taken its place.
pub(crate) fn aside(old: &Layer) -> Layer {
    let directory = old.path.file_name().unwrap_or_default().to_string_lossy();
    Layer { id: format!("{ASIDE}{directory}"), ..old.clone() }
}

/// Gives `old`, whose row has become another's, a row of its own, and makes the root file systems that stand on it say so.
pub(crate) fn put_aside(tx: &Transaction<'_>, old: &Layer) -> rusqlite::Result<()> {
    let aside = aside(old);
    let directory = old.path.file_name().unwrap_or_default().to_string_lossy();
    tx.execute(
        "INSERT INTO layers (id, directory, bytes, inodes, loose_ends, checksum, damage) \
         SELECT ?1, ?2, ?3, ?4, loose_ends, ?5, ?6 FROM layers WHERE id = ?7",
        params![
            aside.id,
            directory,
            i64::try_from(old.usage.bytes).unwrap_or(i64::MAX),
            i64::try_from(old.usage.inodes).unwrap_or(i64::MAX),
            old.checksum,
            old.damage,
            old.id
        ],
    )?;
    tx.execute("UPDATE root_filesystem_layers SET layer = ?1 WHERE layer = ?2", params![aside.id, old.id])?;
    Ok(())
}

/// Records what a check found of a layer, or that it found nothing.
pub(crate) fn mark(tx: &Transaction<'_>, id: &str, damage: Option<&str>) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE layers SET damage = ?2 WHERE id = ?1")?.execute(params![id, damage]).map(drop)
}
