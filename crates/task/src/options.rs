//! Options of runtimes, as containerd passes them on: those of runc's kind, and those that are only a file or a text.

use crate::any::named;

/// Options of a runtime of runc's kind, in `Create` and among the extensions of a start.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Options {
    /// Enter the root by chroot(2) instead of pivot_root(2).
    #[prost(bool, tag = "1")]
    pub no_pivot_root: bool,
    #[prost(bool, tag = "2")]
    pub no_new_keyring: bool,
    /// The control group for the shim itself.
    #[prost(string, tag = "3")]
    pub shim_cgroup: String,
    /// Who owns the pipes of the standard streams.
    #[prost(uint32, tag = "4")]
    pub io_uid: u32,
    #[prost(uint32, tag = "5")]
    pub io_gid: u32,
    /// The runtime's program.
    #[prost(string, tag = "6")]
    pub binary_name: String,
    /// The folder of the runtime's state.
    #[prost(string, tag = "7")]
    pub root: String,
    /// The program CRIU. containerd 2 does not send it any more.
    #[prost(string, tag = "8")]
    pub criu_path: String,
    #[prost(bool, tag = "9")]
    pub systemd_cgroup: bool,
    #[prost(string, tag = "10")]
    pub criu_image_path: String,
    #[prost(string, tag = "11")]
    pub criu_work_path: String,
    #[prost(string, tag = "12")]
    pub task_api_address: String,
    #[prost(uint32, tag = "13")]
    pub task_api_version: u32,
}

/// How a checkpoint is made.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CheckpointOptions {
    /// The task ends with it.
    #[prost(bool, tag = "1")]
    pub exit: bool,
    #[prost(bool, tag = "2")]
    pub open_tcp: bool,
    #[prost(bool, tag = "3")]
    pub external_unix_sockets: bool,
    #[prost(bool, tag = "4")]
    pub terminal: bool,
    #[prost(bool, tag = "5")]
    pub file_locks: bool,
    #[prost(string, repeated, tag = "6")]
    pub empty_namespaces: Vec<String>,
    #[prost(string, tag = "7")]
    pub cgroups_mode: String,
    /// The folder for the images, instead of the call's own.
    #[prost(string, tag = "8")]
    pub image_path: String,
    /// The folder for CRIU's log.
    #[prost(string, tag = "9")]
    pub work_path: String,
    #[prost(string, tag = "10")]
    pub parent_path: String,
}

/// What is known of a process beside its number.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProcessDetails {
    #[prost(string, tag = "1")]
    pub exec_id: String,
}

named! { "containerd.runc.v1" => Options, CheckpointOptions, ProcessDetails }

/// Options of runtimes that have their own configuration: gVisor's, Kata's, runwasi's.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GenericOptions {
    /// What the configuration is of.
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(string, tag = "2")]
    pub config_path: String,
    /// TOML, if there is no path.
    #[prost(bytes = "vec", tag = "3")]
    pub config_body: Vec<u8>,
}

impl crate::Named for GenericOptions {
    const NAME: &str = "runtimeoptions.v1.Options";
}
