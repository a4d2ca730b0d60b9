//! The parts of the one binary; `main` only chooses which of them this process is.

pub mod cli;
pub mod config;
mod demo;
mod observe;
pub mod serve;
pub mod shim_elf;
pub mod userland;
