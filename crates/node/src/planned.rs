//! A container as it is planned: its spec, what devices and plugins make of it, and its bundle.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use model::request::ContainerRequest;
use nri::api::ContainerAdjustment;
use oci_spec::runtime::Spec;
use spec::ResolvedUser;
use tracing::warn;

use crate::error::{CreateContainerError, Fault};
use crate::record::PodRecord;

/// What is to be made.
pub(crate) struct Planned {
    pub(crate) name: String,
    pub(crate) pod: Arc<PodRecord>,
    pub(crate) request: Arc<ContainerRequest>,
    pub(crate) bundle: PathBuf,
    pub(crate) spec: Spec,
    /// What of the environment is no text.
    pub(crate) raw: Vec<u8>,
    pub(crate) user: ResolvedUser,
    pub(crate) rootfs: OwnedFd,
}

impl Planned {
    /// With the CDI devices of these names.
    pub(crate) fn with_devices(
        mut self,
        devices: &cdi::Registry,
        names: &[String],
    ) -> Result<Planned, CreateContainerError> {
        let unreadable = devices
            .inject(&mut self.spec, names)
            .map_err(|source| CreateContainerError::Device { name: self.name.clone(), source })?;
        for error in unreadable {
            warn!(%error, "a file that describes CDI devices cannot be used");
        }
        Ok(self)
    }

    /// With what plugins want.
    pub(crate) fn adjusted(
        mut self,
        devices: &cdi::Registry,
        adjust: &ContainerAdjustment,
    ) -> Result<Planned, CreateContainerError> {
        nri::adjust_spec(&mut self.spec, adjust)
            .map_err(|source| CreateContainerError::Adjusted { name: self.name.clone(), source })?;
        let names: Vec<String> = adjust.cdi_devices.iter().map(|device| device.name.clone()).collect();
        self.with_devices(devices, &names)
    }

    /// With the hooks that the node's administrator gives such a container. Annotations of the pod and its own decide.
    pub(crate) fn with_hooks(mut self, folders: &hooks::Folders) -> Planned {
        if folders.is_empty() {
            return self;
        }
        let mut annotations = self.pod.request.annotations.clone();
        annotations.extend(self.request.annotations.clone());
        let bind_mounts = self.request.mounts.iter().any(|mount| mount.image.is_none());
        let asked = hooks::Asked { annotations: &annotations, bind_mounts };
        for error in folders.add(&mut self.spec, &asked) {
            warn!(%error, "a file that describes a hook cannot be used");
        }
        self
    }

    /// As a bundle on disk.
    pub(crate) fn written(self) -> Result<Planned, CreateContainerError> {
        let write = || -> std::io::Result<()> {
            std::fs::create_dir(&self.bundle)?;
            if !self.raw.is_empty() {
                std::fs::write(self.bundle.join(shim::config::RAW_ENVIRONMENT), &self.raw)?;
            }
            std::fs::write(self.bundle.join("config.json"), serde_json::to_vec(&self.spec)?)
        };
        write().map_err(|source| CreateContainerError::Failed {
            name: self.name.clone(),
            stage: "its bundle",
            fault: Fault::File { path: self.bundle.clone(), source },
        })?;
        Ok(self)
    }

    /// Where it is to run, after all.
    pub(crate) fn cgroup(&self) -> Option<String> {
        let path = self.spec.linux().as_ref()?.cgroups_path().as_ref()?;
        Some(path.to_string_lossy().into_owned())
    }
}
