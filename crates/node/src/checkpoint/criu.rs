//! Whether CRIU is there and works, asked when somebody needs it and once for each version of the program.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::context::blocking;
use crate::error::CheckpointError;

/// The program that was found to work, as it was then.
#[derive(Debug, Default)]
pub(crate) struct Criu(Mutex<Option<(PathBuf, SystemTime)>>);

impl Criu {
    /// The program's absolute path, if it works.
    ///
    /// # Errors
    /// What is missing, and what to install.
    pub(crate) async fn ready(&self, name: &Path) -> Result<PathBuf, CheckpointError> {
        let path = runtime::locate_criu(name);
        let changed = std::fs::metadata(&path).and_then(|file| file.modified()).ok();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some((known, at)), Some(changed)) = (&known, changed)
            && *known == path
            && *at == changed
        {
            return Ok(path);
        }
        let asked = path.clone();
        blocking(move || runtime::check_criu(&asked)).await.map_err(|why| CheckpointError::NoCriu { why })?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = changed.map(|at| (path.clone(), at));
        Ok(path)
    }
}
