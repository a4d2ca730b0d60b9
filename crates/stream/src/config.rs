//! Where the streaming server listens and what it allows.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The settings of a streaming server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Without it, plain HTTP.
    pub tls: Option<Tls>,
    /// What the URLs begin with (scheme, host and port), where clients come by another name than `address`.
    pub base_url: Option<String>,
    /// A connection on which nothing moves for so long is closed.
    pub idle_timeout: Duration,
    /// After so long without anything to send, a client gets a sign of life: only sending finds out that it is gone while its own data waits
    /// to be read.
    pub ping_interval: Duration,
    /// How long the token of a URL can be used.
    pub token_lifetime: Duration,
    /// How many tokens may be out at a time.
    pub max_tokens: usize,
    /// Within this time after the upgrade a client opens all the streams that it asked for.
    pub stream_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            base_url: None,
            idle_timeout: Duration::from_secs(4 * 60 * 60),
            ping_interval: Duration::from_secs(30),
            token_lifetime: Duration::from_secs(60),
            max_tokens: 1000,
            stream_timeout: Duration::from_secs(30),
        }
    }
}

/// The files of a server that speaks TLS, in PEM. They are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The server's certificate, then those of whoever signed it.
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    /// When given, only clients with a certificate of one of these authorities are served.
    pub client_ca_file: Option<PathBuf>,
}
