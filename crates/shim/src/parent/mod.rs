//! What a small process needs that parents others, answers calls and waits for nobody: the loop's parts, without what is parented.
//!
//! Two servers are made of it: a pod's shim, and the server below containerd. Their states are their own.

pub(crate) mod calls;
pub(crate) mod children;
pub(crate) mod connection;
pub(crate) mod handed;
pub(crate) mod helper;
pub(crate) mod helpers;
pub(crate) mod memory;
pub(crate) mod pending;
pub(crate) mod poller;
pub(crate) mod work;

use crate::protocol::{CallError, ErrorCode};
use prost::Message;
use std::sync::Mutex;

/// All reading is done into this one buffer. It is part of the program's zeroed memory, so that only what is used of it takes up room.
pub(crate) static BUFFER: Mutex<[u8; 32 << 10]> = Mutex::new([0; 32 << 10]);

/// Numbers for what is waited for, none of which is given twice.
#[derive(Debug, Default)]
pub(crate) struct Serials(u32);

impl Serials {
    /// The next one, which is not 0.
    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1).max(1);
        self.0
    }
}

/// An answer, encoded.
pub(crate) fn message(message: &impl Message) -> Result<Vec<u8>, CallError> {
    Ok(message.encode_to_vec())
}

/// Decodes a call's message, or says what is wrong with it.
pub(crate) fn decode<M: Message + Default>(payload: &[u8]) -> Result<M, CallError> {
    M::decode(payload).map_err(|cause| {
        CallError::new(ErrorCode::InvalidArgument, format!("the request cannot be decoded: {cause}"))
    })
}

/// The time now, in nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}
