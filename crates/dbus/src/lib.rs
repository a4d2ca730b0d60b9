//! D-Bus, as far as calling a service and hearing its signals needs it: how values and messages are written and read. No IO.
//!
//! After the D-Bus Specification, "Type System", "Message Format" and "Authentication Protocol". Both byte orders are read; written is
//! the machine's own. What is read is hostile: every length is checked before it is believed.

mod auth;
mod message;
mod read;
mod value;
mod write;

pub use auth::{greeting, is_accepted};
pub use message::{Call, HEAD_BYTES, LARGEST, Message, MessageKind, length};
pub use read::{BadMessage, Reader};
pub use value::Value;
pub use write::Writer;
