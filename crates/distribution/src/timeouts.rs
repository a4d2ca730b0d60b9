//! How long a registry is waited for.

use std::time::Duration;

/// When a registry counts as not answering. None of these bounds how long a pull may take while it makes progress.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// From the request to the headers of the answer.
    pub headers: Duration,
    /// How long an endpoint may take to answer one request, all tries together, while others follow that may be asked instead.
    pub mirror: Duration,
    /// Within each span of waiting this long at least `stall_bytes` have to arrive.
    pub stall: Duration,
    pub stall_bytes: u64,
    /// How often a request is tried in all, and the first pause, which doubles.
    pub tries: u32,
    pub backoff: Duration,
    /// The longest `Retry-After` that is waited for.
    pub retry_after_max: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(15),
            headers: Duration::from_secs(60),
            mirror: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            stall_bytes: 16 << 10,
            tries: 4,
            backoff: Duration::from_millis(250),
            retry_after_max: Duration::from_secs(30),
        }
    }
}
