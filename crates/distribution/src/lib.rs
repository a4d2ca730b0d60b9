//! The registry client (OCI distribution specification): HTTP with retries, redirects and deadlines by progress, and nothing said to a
//! host that it is not for.
//!
//! A [`Client`] holds the connections of all pulls; a [`Session`] is one conversation about one repository; a [`Download`] is one blob as
//! it arrives. What a registry sends is hostile: every answer is bounded, and what has a digest is checked against it.

mod auth;
mod challenge;
mod client;
mod credentials;
mod download;
mod error;
mod hasher;
mod range;
mod session;
mod timeouts;

pub use client::Client;
pub use credentials::Credentials;
pub use download::Download;
pub use error::{Attempt, RegistryError};
pub use hasher::Hasher;
pub use session::{Fetched, Session};
pub use timeouts::Timeouts;
