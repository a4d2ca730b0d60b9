//! The client's side of CNI: configuration lists, calls of plugins, their results, and what is remembered of each attachment.

pub mod chain;
pub mod config;
pub mod error;
pub mod exec;
pub mod record;
pub mod result;
pub mod version;
