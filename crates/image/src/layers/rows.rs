//! What the database says of layers.

use std::path::Path;

use store::rusqlite::{Connection, Error, Result, Transaction, params, types::Type};

use super::{Layer, Partial};
use crate::tree::Usage;

/// All layers; whether they are on disk is not looked at.
pub(super) fn read(connection: &Connection, folder: &Path) -> Result<Vec<Layer>> {
    let mut statement = connection
        .prepare("SELECT id, directory, bytes, inodes, loose_ends, checksum, damage FROM layers")?;
    let rows = statement.query_map([], |row| {
        let (directory, loose_ends) = (row.get::<_, String>(1)?, row.get::<_, String>(4)?);
        Ok(Layer {
            id: row.get(0)?,
            path: folder.join(directory),
            usage: Usage { bytes: unsigned(row.get(2)?), inodes: unsigned(row.get(3)?) },
            loose_ends: serde_json::from_str(&loose_ends)
                .map_err(|error| Error::FromSqlConversionFailure(4, Type::Text, error.into()))?,
            checksum: row.get(5)?,
            damage: row.get(6)?,
        })
    })?;
    rows.collect()
}

/// Records a layer that has its place now.
pub(super) fn insert(tx: &Transaction<'_>, partial: &Partial, layer: &Layer) -> Result<()> {
    let directory = layer.path.file_name().unwrap_or_default().to_string_lossy();
    let loose_ends = serde_json::to_string(&layer.loose_ends)
        .map_err(|error| Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached(
        "INSERT INTO layers (id, directory, bytes, inodes, loose_ends, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET directory = ?2, bytes = ?3, inodes = ?4, loose_ends = ?5, checksum = ?6, \
         damage = NULL",
    )?
    .execute(params![
        layer.id,
        directory,
        signed(layer.usage.bytes),
        signed(layer.usage.inodes),
        loose_ends,
        layer.checksum
    ])?;
    if let Some(outline) = &partial.outline {
        tx.prepare_cached(
            "INSERT OR REPLACE INTO layer_outlines (layer, size, outline) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![layer.id, signed(outline.size), outline.packed])?;
    }
    if let Some(blob) = &partial.blob {
        tx.prepare_cached("INSERT OR REPLACE INTO layer_blobs (digest, layer) VALUES (?1, ?2)")?
            .execute(params![blob.as_str(), layer.id])?;
    }
    Ok(())
}

/// SQLite's integers are signed; no size on a disk is too large for them.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
