//! Points in time, as CRI counts them.

use serde::{Deserialize, Serialize};

/// Nanoseconds since the Unix epoch, UTC. Whoever has a clock makes it; this floor has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// What CRI wants where something has not happened yet.
    pub const NEVER: Timestamp = Timestamp(0);

    /// Nanoseconds since the Unix epoch.
    pub fn nanoseconds(self) -> i64 {
        self.0
    }
}
