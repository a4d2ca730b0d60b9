//! The node as NRI's plugins see it: what they are told, and what they may change.

mod door;
mod events;
mod messages;
mod wishes;

pub(crate) use door::Door;
pub(crate) use events::{About, container_ended, pod_stopping};
pub(crate) use messages::{limits, pod_message};
pub(crate) use wishes::{fulfil, to_request};
