//! One-time tokens: a URL is good for one use, for a minute, and cannot be guessed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Attach, Exec};

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Exec(Exec),
    Attach(Attach),
    PortForward { pod: String, ports: Vec<u16> },
}

/// No URL can be given now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} streaming URLs wait for their client already; use or drop some (they expire after {} s), then try again", lifetime.as_secs())]
pub struct TooManyTokens {
    pub limit: usize,
    pub lifetime: Duration,
}

/// The tokens that are out.
pub(crate) struct Tokens {
    limit: usize,
    lifetime: Duration,
    waiting: Mutex<HashMap<String, Waiting>>,
}

struct Waiting {
    request: Request,
    until: Instant,
}

impl Tokens {
    pub(crate) fn new(limit: usize, lifetime: Duration) -> Tokens {
        Tokens { limit, lifetime, waiting: Mutex::default() }
    }

    /// A new token, 128 bits from the kernel, for one request.
    ///
    /// # Errors
    /// As many as may be are out.
    pub(crate) fn issue(&self, request: Request) -> Result<String, TooManyTokens> {
        let token = random();
        let now = Instant::now();
        let mut waiting = self.lock();
        waiting.retain(|_, entry| entry.until > now);
        if waiting.len() >= self.limit {
            return Err(TooManyTokens { limit: self.limit, lifetime: self.lifetime });
        }
        waiting.insert(token.clone(), Waiting { request, until: now + self.lifetime });
        Ok(token)
    }

    /// What a token stands for, once.
    pub(crate) fn redeem(&self, token: &str) -> Option<Request> {
        let entry = self.lock().remove(token)?;
        (entry.until > Instant::now()).then_some(entry.request)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn random() -> String {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // It fails on a signal only: the kernel's source is seeded long before a daemon starts.
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward() -> Request {
        Request::PortForward { pod: "p".into(), ports: vec![80] }
    }

    #[test]
    fn a_token_is_good_once() {
        let tokens = Tokens::new(2, Duration::from_secs(60));
        let token = tokens.issue(forward()).unwrap();
        assert_eq!(token.len(), 22);
        assert_eq!(tokens.redeem(&token), Some(forward()));
        assert_eq!(tokens.redeem(&token), None);
        assert_eq!(tokens.redeem(""), None);
    }

    #[test]
    fn the_limit_holds_and_expiry_makes_room() {
        let tokens = Tokens::new(2, Duration::from_millis(50));
        let first = tokens.issue(forward()).unwrap();
        tokens.issue(forward()).unwrap();
        assert_eq!(
            tokens.issue(forward()),
            Err(TooManyTokens { limit: 2, lifetime: Duration::from_millis(50) })
        );
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(tokens.redeem(&first), None, "expired");
        tokens.issue(forward()).unwrap();
        assert_eq!(tokens.lock().len(), 1, "the expired ones were swept");
    }
}
