//! What the kernel's security modules confine containers with: the AppArmor profile that is there when it is needed.

use lsm::apparmor::{Apparmor, DEFAULT_PROFILE, LoadError};
use spec::SpecError;
use tracing::{info, warn};

use crate::context::SecurityConfig;

/// The security modules of this kernel, as far as they are used.
#[derive(Debug)]
pub(crate) struct Confinement {
    apparmor: Option<Apparmor>,
    /// The profile for containers that name none, where there is one for them.
    default_profile: Option<String>,
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
        Confinement { apparmor, default_profile }
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

fn again(profile: &str, error: &LoadError) -> Result<(), SpecError> {
    warn!(%error, profile, "the AppArmor profile could not be loaded");
    Err(missing(profile))
}

fn missing(profile: &str) -> SpecError {
    let why = "the kernel of this node has no profile of this name; load it there with apparmor_parser -r FILE \
               (/sys/kernel/security/apparmor/profiles lists what is loaded)";
    SpecError::Apparmor { profile: profile.chars().take(64).collect(), why }
}
