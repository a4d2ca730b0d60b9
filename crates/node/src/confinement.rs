//! What the kernel's security modules confine containers with: the AppArmor profile that is there when it is needed, and labels of SELinux.

use std::path::Path;

use lsm::apparmor::{Apparmor, DEFAULT_PROFILE, LoadError};
use lsm::selinux::relabel::once;
use lsm::selinux::{Asked, LabelError, Labels, Levels, NoLevel, Selinux};
use model::id::PodId;
use model::request::{ContainerRequest, NamespaceMode, Namespaces, PidNamespace, PodRequest};
use spec::{SelinuxLabels, SpecError};
use tracing::{info, warn};

use crate::context::SecurityConfig;
use crate::record::PodRecord;

/// The security modules of this kernel, as far as they are used.
#[derive(Debug)]
pub(crate) struct Confinement {
    apparmor: Option<Apparmor>,
    /// The profile for containers that name none, where there is one for them.
    default_profile: Option<String>,
    selinux: Option<Selinux>,
    levels: Levels,
}

/// What SELinux keeps a pod apart by.
#[derive(Debug, Default)]
pub(crate) struct PodLabels {
    /// Two categories that no other pod has; none where the request names a level, or there are no levels.
    pub(crate) level: Option<String>,
    /// Of the files that its containers share.
    pub(crate) file: Option<String>,
    /// Of what stands for the pod among its containers.
    pub(crate) process: Option<String>,
}

impl PodLabels {
    /// As the pod's shim takes them.
    pub(crate) fn for_shim(&self) -> Option<shim::config::PodLabels> {
        let (process, file) = (self.process.clone()?, self.file.clone()?);
        Some(shim::config::PodLabels { process, file })
    }
}

/// Why a pod has no labels.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodLabelError {
    #[error(transparent)]
    Label(#[from] LabelError),
    #[error(transparent)]
    Level(#[from] NoLevel),
}

/// What a container is labelled with.
#[derive(Debug, Default)]
pub(crate) struct ContainerLabels {
    pub(crate) spec: SelinuxLabels,
    /// What volumes are relabelled to that are to be; none for a container that reaches them whatever their label.
    pub(crate) volumes: Option<String>,
    /// What the pod's files are relabelled to, where this container has another level than they have: one that each may read.
    pub(crate) shared: Option<String>,
}

impl Confinement {
    /// Loads the default AppArmor profile where the kernel enforces AppArmor. That it cannot be loaded is told, and no reason not to start.
    pub(crate) fn start(config: &SecurityConfig) -> Confinement {
        let apparmor = Apparmor::detect();
        let default_profile = match &apparmor {
            Some(apparmor) if config.apparmor_profile == DEFAULT_PROFILE => match apparmor.load_default() {
                Ok(()) => Some(DEFAULT_PROFILE.to_owned()),
                Err(error) => {
                    warn!(%error, profile = DEFAULT_PROFILE, "containers that name no AppArmor profile run unconfined by it, and those that ask for the runtime's default are refused");
                    None
                }
            },
            Some(_) => Some(config.apparmor_profile.clone()),
            None => None,
        };
        if let Some(profile) = &default_profile {
            info!(profile, "AppArmor is on; containers that name no profile get this one");
        }
        let selinux = config.selinux.then(Selinux::detect).flatten();
        if let Some(selinux) = &selinux {
            match &selinux.defaults().process {
                Some(label) => {
                    info!(%label, "SELinux is on; containers have this label, with a level of each pod's own")
                }
                None => warn!(
                    "SELinux is on, and its policy has no type for containers: they have the daemon's own label; install the policy's module for containers"
                ),
            }
        }
        Confinement { apparmor, default_profile, selinux, levels: Levels::default() }
    }

    /// Gives the folders in which images are unpacked the label from which containers may read. Only the first start finds work to do: what
    /// is made in them later has it too.
    pub(crate) fn label_layers(&self, folders: [&Path; 2]) {
        let Some(label) = self.selinux.as_ref().and_then(|selinux| selinux.defaults().layer.as_ref()) else {
            return;
        };
        for folder in folders {
            if let Err(error) = once(folder, &label.to_string()) {
                warn!(%error, %label, "layers could not be labelled; SELinux may keep containers from running their programs");
            }
        }
    }

    /// Labels for a new pod. Its level is its own until it is released.
    pub(crate) fn pod(&self, id: &PodId, request: &PodRequest) -> Result<PodLabels, PodLabelError> {
        let Some(selinux) = &self.selinux else { return Ok(PodLabels::default()) };
        let named = named_level(request);
        let level = match named {
            Some(_) => None,
            None => selinux.has_levels().then(|| self.levels.allocate(id)).transpose()?,
        };
        let asked = Asked { pod: request.selinux.as_ref(), level: level.as_deref(), ..Asked::default() };
        let labels = selinux.labels(&asked).inspect_err(|_| self.levels.release(id))?;
        if let Some(level) = named {
            self.levels.keep(id, level);
        }
        Ok(PodLabels { file: labels.file, process: labels.process, level })
    }

    /// A pod that an earlier daemon made has its level still.
    pub(crate) fn keep(&self, pod: &PodRecord) {
        if let Some(level) = pod.state.selinux_level.as_deref().or(named_level(&pod.request)) {
            self.levels.keep(&pod.id, level);
        }
    }

    /// The pod is gone, and another may have its level.
    pub(crate) fn release(&self, pod: &PodId) {
        self.levels.release(pod);
    }

    /// Labels for a container of the pod.
    pub(crate) fn container(
        &self,
        pod: &PodRecord,
        request: &ContainerRequest,
    ) -> Result<ContainerLabels, LabelError> {
        let Some(selinux) = &self.selinux else { return Ok(ContainerLabels::default()) };
        let security = &request.security;
        let asked = Asked {
            pod: pod.request.selinux.as_ref(),
            container: security.selinux.as_ref(),
            level: pod.state.selinux_level.as_deref(),
            together: security.privileged || among_the_hosts(&pod.request.namespaces, &security.namespaces),
        };
        let Labels { process, file, separated } = selinux.labels(&asked)?;
        let volumes = file.clone().filter(|_| separated);
        let of_pod = selinux.labels(&Asked { container: None, together: false, ..asked })?.file;
        let plain = selinux.defaults().file.as_ref().map(ToString::to_string);
        let shared = plain.filter(|_| file != of_pod);
        Ok(ContainerLabels { spec: SelinuxLabels { process, mount: file }, volumes, shared })
    }

    /// What specs are made with.
    pub(crate) fn apparmor(&self) -> Option<spec::Apparmor> {
        let default_profile = self.default_profile.clone();
        self.apparmor.as_ref().map(|_| spec::Apparmor { default_profile })
    }

    /// Makes sure that the kernel has the profile. The default one is loaded again if somebody has taken it away.
    ///
    /// # Errors
    /// Nobody has loaded a profile of that name.
    pub(crate) fn ensure(&self, profile: &str) -> Result<(), SpecError> {
        let Some(apparmor) = &self.apparmor else { return Ok(()) };
        // Of a profile in another namespace, and of several at once, only the kernel knows; it answers when the label is set.
        if profile.starts_with(':') || profile.contains("//&") {
            return Ok(());
        }
        match apparmor.has(profile) {
            Ok(true) => Ok(()),
            Ok(false) if profile == DEFAULT_PROFILE => {
                info!(profile, "somebody has unloaded the AppArmor profile; it is loaded again");
                apparmor.load_default().or_else(|error| again(profile, &error))
            }
            Ok(false) => Err(missing(profile)),
            Err(error) => {
                // The kernel refuses it later, if it has none.
                warn!(%error, profile, "whether the AppArmor profile is loaded could not be found out");
                Ok(())
            }
        }
    }
}

fn named_level(request: &PodRequest) -> Option<&str> {
    request.selinux.as_ref().map(|label| label.level.as_str()).filter(|level| !level.is_empty())
}

/// Whether its processes see those of the host, or share memory with them: SELinux would keep them from doing so.
fn among_the_hosts(pod: &Namespaces, container: &Namespaces) -> bool {
    pod.ipc == NamespaceMode::Host || pod.pid == PidNamespace::Host || container.pid == PidNamespace::Host
}

fn again(profile: &str, error: &LoadError) -> Result<(), SpecError> {
    warn!(%error, profile, "the AppArmor profile could not be loaded");
    Err(missing(profile))
}

fn missing(profile: &str) -> SpecError {
    let why = "the kernel of this node has no profile of this name; load it there with apparmor_parser -r FILE \
               (/sys/kernel/security/apparmor/profiles lists what is loaded)";
    SpecError::Apparmor { profile: profile.chars().take(64).collect(), why }
}
