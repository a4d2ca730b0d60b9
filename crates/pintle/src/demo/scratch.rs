//! Everything the demonstration has on disk, below one directory, and the names by which it knows its own.

use super::subnet;
use crate::cli::failure::Failure;
use network::{Defaults, default_configuration};
use std::path::{Path, PathBuf};

/// The directory and the names of one demonstration.
pub(super) struct Scratch {
    directory: PathBuf,
    /// `pintle-demo-` and this process's id: name of the network, of the cgroup and in every other name.
    pub(super) tag: String,
    pub(super) bridge: String,
}

impl Scratch {
    /// Makes the directory, and in it the daemon's configuration and the network's.
    pub(super) fn make() -> Result<Scratch, Failure> {
        let tag = format!("pintle-demo-{}", std::process::id());
        let directory = std::env::temp_dir().join(&tag);
        let subnet = subnet::free_subnet(std::process::id()).ok_or_else(|| {
            Failure::Usage(
                "no free address range was found: this machine has routes for all of 10.231.0.0/16".into(),
            )
        })?;
        let scratch = Scratch { directory, tag, bridge: format!("pdemo{}", std::process::id()) };
        let network = default_configuration(&Defaults {
            name: scratch.tag.clone(),
            bridge: scratch.bridge.clone(),
            subnets: vec![subnet.into()],
            mtu: None,
        });
        // cgroupfs: only then are the control groups below one that is ours to remove.
        let config = format!(
            "[network]\nconf_dir = {:?}\n\n[nri]\nenabled = false\n\n[image]\ncerts_dirs = []\nregistries_conf = \"\"\nauth_files = []\n\n[runtime]\ncgroup_driver = \"cgroupfs\"\n",
            scratch.cni_directory().display().to_string()
        );
        scratch.make_directory(&scratch.directory)?;
        scratch.make_directory(&scratch.cni_directory())?;
        scratch.make_directory(&scratch.log_directory())?;
        scratch.write(&scratch.cni_directory().join("10-demo.conflist"), &network)?;
        scratch.write(&scratch.config_file(), &config)?;
        Ok(scratch)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.directory.join("config.toml")
    }

    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("pintle.sock")
    }

    pub(super) fn daemon_log(&self) -> PathBuf {
        self.directory.join("daemon.log")
    }

    pub(super) fn cni_directory(&self) -> PathBuf {
        self.directory.join("net.d")
    }

    pub(super) fn log_directory(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// The control group of all its pods, as a path inside the cgroup tree.
    pub(super) fn cgroup(&self) -> String {
        format!("/{}", self.tag)
    }

    fn make_directory(&self, path: &Path) -> Result<(), Failure> {
        let cannot = |source| Failure::File { what: "making a directory", path: path.to_owned(), source };
        std::fs::create_dir(path).map_err(cannot)
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Failure> {
        let cannot = |source| Failure::File { what: "writing", path: path.to_owned(), source };
        std::fs::write(path, text).map_err(cannot)
    }
}
