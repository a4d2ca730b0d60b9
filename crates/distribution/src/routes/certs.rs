//! Certificates in a host's folder, as Docker and containers-certs.d(5) have them: `*.crt` are authorities, `NAME.cert` with `NAME.key` are
//! shown to the host.

use std::path::{Path, PathBuf};

use super::error::RouteError;
use super::file;
use crate::tls::{Identity, Pem, Tls};

/// Adds to `tls` what lies in a folder, and says whether there was anything.
pub(super) fn add(tls: &mut Tls, folder: &Path) -> Result<bool, RouteError> {
    let before = tls.authorities.len() + tls.identities.len();
    for path in file::with_suffix(folder, ".crt")? {
        tls.authorities.push(pem(&path)?);
    }
    for path in file::with_suffix(folder, ".cert")? {
        let key = path.with_extension("key");
        let key = file::read(&key)?.map(|bytes| Pem { path: key, bytes: bytes.into() });
        tls.identities.push(Identity { certificate: pem(&path)?, key });
    }
    Ok(tls.authorities.len() + tls.identities.len() > before)
}

/// Adds files that something names.
pub(super) fn add_named(
    tls: &mut Tls,
    authorities: &[PathBuf],
    identities: &[(PathBuf, Option<PathBuf>)],
) -> Result<(), RouteError> {
    for path in authorities {
        tls.authorities.push(pem(path)?);
    }
    for (certificate, key) in identities {
        let key = key.as_deref().map(pem).transpose()?;
        tls.identities.push(Identity { certificate: pem(certificate)?, key });
    }
    Ok(())
}

fn pem(path: &Path) -> Result<Pem, RouteError> {
    Ok(Pem { path: path.to_owned(), bytes: file::read_named(path)?.into() })
}

/// The names of a host's folder: containerd's, whose file systems may know no colon, and everybody's.
pub(super) fn folder_names(host: &str) -> Vec<String> {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => vec![format!("{name}_{port}_"), host.to_owned()],
        _ => vec![host.to_owned()],
    }
}
