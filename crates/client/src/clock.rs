//! The client's clock; the crates beneath it have none.

use std::time::{SystemTime, UNIX_EPOCH};

use pouch_statement::Timestamp;

/// Now, by the system's clock; 1970 if the clock stands before that.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::EPOCH.plus(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}
