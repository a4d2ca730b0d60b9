//! Parents a pod's containers: holds its namespaces, writes logs and exit records, answers the daemon.

pub mod config;
pub mod log;
pub mod protocol;
