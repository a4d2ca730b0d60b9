//! Turns a container request into an OCI runtime spec. Pure: what it must know of the host and the image is passed in.
//!
//! [`container_spec`] is the whole of it; the other modules are the rules it is made of, and the few texts and checks that a pod
//! needs beside its containers ([`sysctl`], [`hostname`], [`resolv_conf`], [`hosts`]).

mod annotations;
mod apparmor;
pub mod capabilities;
mod container;
mod devices;
mod error;
pub mod hostname;
pub mod hosts;
mod input;
mod mounts;
mod namespaces;
mod path;
pub mod paths;
mod process;
pub mod resolv_conf;
pub mod resources;
pub mod seccomp_profile;
pub mod signal;
pub mod sysctl;
pub mod user;

pub use container::container_spec;
pub use devices::plain_device_rules;
pub use error::{Refusal, SpecError};
pub use input::{
    Apparmor, CgroupVersion, DeviceKind, HostDevice, HostFacts, ImageFacts, NamespacePlan, PidPlan, PodFiles,
    RequestedDevice, SelinuxLabels, SpecInput,
};
pub use namespaces::id_mappings;
pub use process::raw_environment;
pub use seccomp_profile::SeccompPlan;
pub use user::ResolvedUser;
