//! Real containers of a static busybox, made by the OCI command line. They need root and are skipped without it.

mod bundle;
mod callers;
mod checkpoint;
mod errors;
mod exec;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod net_devices;
mod newer;
mod process;
mod rootless;
mod rootless_systemd;
mod security;
mod terminal;
