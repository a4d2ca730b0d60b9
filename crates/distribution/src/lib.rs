//! The registry client (OCI distribution specification): HTTP with retries, redirects and deadlines by progress, and nothing said to a
//! host that it is not for.
//!
//! A [`Client`] holds the connections of all pulls; a [`Session`] is one conversation about one repository; a [`Download`] is one blob as
//! it arrives. What a registry sends is hostile: every answer is bounded, and what has a digest is checked against it.

mod auth;
mod body;
mod challenge;
mod client;
mod connections;
mod connector;
mod conversation;
mod credentials;
mod detours;
mod download;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hasher;
mod helper;
mod host;
mod part;
mod place;
mod proxy;
mod range;
mod referrers;
pub mod routes;
mod session;
mod timeouts;
mod tls;
mod upload;

pub use client::Client;
pub use connections::Bounds;
pub use credentials::{CredentialSource, Credentials};
pub use download::Download;
pub use endpoint::{Capabilities, Capability, Endpoint, Scheme};
pub use error::{Attempt, RegistryError};
pub use hasher::Hasher;
pub use place::Place;
pub use proxy::{BadProxy, Proxies, Proxy, ProxyKind};
pub use referrers::{referrers_tag, session_at};
pub use routes::{Candidate, Plan, RouteError, ShortNames, Sources};
pub use session::{Fetched, Session};
pub use timeouts::Timeouts;
pub use tls::{Identity, Pem, Tls};
pub use upload::{Begun, Upload};
