//! What the words mean: ids, digests, image references, requests, lifecycles, exits and verdicts. Pure: no IO, no clock, no kernel.

pub mod container;
pub mod digest;
pub mod exit;
pub mod id;
pub mod platform;
pub mod pod;
pub mod reference;
pub mod request;
pub mod time;
