//! The images of the cluster's pods, made here, and the registries that serve them: one for everybody, one for a password.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::conformance::{self, Registry};

/// Busybox with a shell, for everything.
pub(super) const BOX: &str = "registry.test/cluster/box:1";
/// The same with the file `/second`.
pub(super) const SECOND: &str = "registry.test/cluster/box:2";
/// The configuration of the daemon pins it.
pub(super) const PINNED: &str = "registry.test/cluster/pinned:1";
/// Nobody's.
pub(super) const UNUSED: &str = "registry.test/cluster/unused:1";
/// For another platform only.
pub(super) const ELSEWHERE: &str = "registry.test/cluster/elsewhere:1";
/// Behind a password.
pub(super) const PRIVATE: &str = "private.test/cluster/private:1";

/// The names of the registries.
pub(super) const HOSTS: [&str; 2] = ["registry.test", "private.test"];

fn layout() -> Result<PathBuf> {
    Ok(conformance::cache()?.join("cluster-images-1"))
}

/// Makes the images, unless the cache has them.
pub(super) fn build() -> Result<()> {
    conformance::build_images(&layout()?, "cluster")
}

/// Serves them at two addresses, port 80, until dropped.
pub(super) fn serve(open: &str, private: &str, logs: &Path) -> Result<[Registry; 2]> {
    let layout = layout()?;
    Ok([
        Registry::of(&layout, &format!("{open}:80"), None, &logs.join("registry.log"))?,
        Registry::of(&layout, &format!("{private}:80"), Some("somebody:secret"), &logs.join("private.log"))?,
    ])
}
