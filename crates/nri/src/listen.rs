//! The socket to which plugins connect. Whoever can connect can change any container, so only root can.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tracing::warn;

use crate::error::StartError;
use crate::plugins::Inner;
use crate::register;

/// Makes the socket. What a runtime that has ended left there is replaced.
pub(crate) fn bind(path: &Path) -> Result<UnixListener, StartError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| StartError::Folder { path: folder.to_owned(), source })?;
    let failed = |source| StartError::Socket { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(StartError::Taken { path: path.to_owned() });
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Lets plugins in, as many as there are places.
pub(crate) async fn accept(listener: UnixListener, inner: Arc<Inner>) {
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors or of memory: others need a moment, too.
                warn!(%error, "an NRI plugin could not connect");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(place) = inner.places.clone().try_acquire_owned() else {
            warn!("an NRI plugin was turned away: too many are connected");
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let inner = inner.clone();
        tokio::spawn(async move {
            register::serve(inner, socket, None, None).await;
            drop(place);
        });
    }
}
