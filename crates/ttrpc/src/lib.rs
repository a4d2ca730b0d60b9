//! ttrpc, as far as both of its ends need it: frames and the envelope of calls. No IO.
//!
//! The daemon and its shims speak it, and NRI plugins do.

mod envelope;
mod frame;

pub use envelope::*;
pub use frame::{
    Decoder, FLAG_NO_DATA, FLAG_REMOTE_CLOSED, FLAG_REMOTE_OPEN, Frame, FrameError, FrameKind, HEADER_BYTES,
    Header, MAX_PAYLOAD, encode,
};
