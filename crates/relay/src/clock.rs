//! The relay's clock, in one place, so that tests can move it.

use std::time::{SystemTime, UNIX_EPOCH};

use pouch_statement::Timestamp;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The present second.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
    }
}

/// The second `unix`; times beyond the year 9999, which only a wrong clock tells, become its last second.
pub(crate) fn at(unix: u64) -> Timestamp {
    Timestamp::EPOCH.plus(unix)
}
