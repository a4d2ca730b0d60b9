//! Plugins that are installed on the node: started with their connection open, as standard input.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::error::StartError;
use crate::plugins::Inner;
use crate::register::{self, Identity};

/// The longest configuration a plugin is given.
const CONFIG_LIMIT: u64 = 1 << 20;

/// Starts every plugin of the folder and waits until each is let in or given up.
///
/// # Errors
/// The folder cannot be read. That there is none is fine.
pub(crate) async fn all(inner: &Arc<Inner>) -> Result<(), StartError> {
    let folder = &inner.config.plugin_dir;
    let names = match names(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(StartError::Plugins { path: folder.clone(), source }),
    };
    let mut waiting = Vec::new();
    for name in names {
        match start(inner, &name) {
            Ok(ready) => waiting.push(ready),
            Err(why) => warn!(plugin = name, folder = %folder.display(), why, "an NRI plugin is not started"),
        }
    }
    for ready in waiting {
        let _ = ready.await;
    }
    Ok(())
}

/// The executable files of the folder, in their order.
fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = fs::metadata(entry.path());
        let executable =
            metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if executable {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Starts one; what is returned ends when it is settled whether it is let in.
fn start(inner: &Arc<Inner>, name: &str) -> Result<oneshot::Receiver<()>, String> {
    let (index, base) = name.split_once('-').ok_or("its name is not of the form 10-name")?;
    let mut identity = Identity::new(index, base)?;
    identity.config = config(&inner.config.config_dir, &identity)?;
    let (child, socket) =
        spawn(&inner.config.plugin_dir.join(name), &identity).map_err(|why| why.to_string())?;
    let (ready, settled) = oneshot::channel();
    let (inner, name) = (inner.clone(), name.to_owned());
    tokio::spawn(async move {
        let mut child = child;
        register::serve(inner, socket, Some(identity), Some(ready)).await;
        // Without its connection it has nothing to do.
        let _ = child.start_kill();
        let ended = child.wait().await;
        info!(plugin = name, ?ended, "NRI plugin ended");
    });
    Ok(settled)
}

fn spawn(program: &Path, identity: &Identity) -> std::io::Result<(tokio::process::Child, UnixStream)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let ours = UnixStream::from_std(OwnedFd::into(ours))?;
    let child = tokio::process::Command::new(program)
        .env_clear()
        .env("NRI_PLUGIN_NAME", &identity.base)
        .env("NRI_PLUGIN_IDX", &identity.index)
        .env("NRI_PLUGIN_SOCKET", "0")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, ours))
}

/// What the folder has for a plugin: `NN-name.conf`, else `name.conf`, else nothing.
fn config(folder: &Path, identity: &Identity) -> Result<String, String> {
    for name in [identity.name(), identity.base.clone()] {
        let path = folder.join(format!("{name}.conf"));
        let read = File::open(&path).and_then(|file| {
            let mut text = String::new();
            file.take(CONFIG_LIMIT + 1).read_to_string(&mut text).map(|_| text)
        });
        match read {
            Ok(text) if text.len() as u64 > CONFIG_LIMIT => {
                return Err(format!("{} is longer than {CONFIG_LIMIT} bytes", path.display()));
            }
            Ok(text) => return Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(String::new())
}
