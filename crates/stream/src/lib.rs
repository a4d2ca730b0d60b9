//! Streaming: exec, attach and port-forward over SPDY/3.1 and WebSocket, for whoever has the containers.
//!
//! A call of the CRI asks [`Server`] for a URL with a one-time token; a client that comes with it talks with a [`Process`] or a port that
//! the [`Backend`] gives. Nothing here knows what a container is, and nothing is buffered without a bound: whoever is slow slows the other side.

mod backend;
mod channel;
pub mod client;
mod config;
mod converse;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
mod process;
mod protocol;
mod remote;
mod resize;
mod server;
mod session;
mod spdy;
mod status;
mod tls;
mod token;
mod websocket;

pub use backend::{Attach, Backend, Boxed, Control, Exec, Exit, Process, Refusal, TerminalSize};
pub use config::{Config, Tls};
pub use server::{Server, StartError};
pub use tls::TlsError;
pub use token::TooManyTokens;
