//! Streaming: exec, attach and port-forward over SPDY/3.1 and WebSocket, for whoever has the containers.

mod backend;

pub use backend::{Attach, Backend, Boxed, Control, Exec, Exit, Process, Refusal, TerminalSize};
