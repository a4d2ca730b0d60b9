//! The registry client: HTTP with retries, redirects and deadlines by progress, and nothing said to a host that it is not for.

mod auth;
mod challenge;
mod download;
mod session;
mod transport;

pub(crate) use session::Session;
pub(crate) use transport::Client;
