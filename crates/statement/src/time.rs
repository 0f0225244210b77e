//! Points in time as statements carry them. This crate has no clock: callers bring the time.

use serde::{Deserialize, Deserializer, Serialize};

/// The last second of the year 9999, the end of what RFC 3339 can write.
const LATEST: u64 = 253_402_300_799;

/// A number that is not a point in time that statements can carry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0} s after 1970 lies beyond the year 9999")]
pub struct TimeError(u64);

/// Whole seconds since 1970-01-01T00:00:00Z without leap seconds, up to the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From seconds since 1970.
    ///
    /// # Errors
    /// Beyond the year 9999.
    pub fn from_unix(seconds: u64) -> Result<Self, TimeError> {
        if seconds > LATEST { Err(TimeError(seconds)) } else { Ok(Self(seconds)) }
    }

    /// Seconds since 1970.
    #[must_use]
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// This time and `seconds` later, at the latest the end of the year 9999.
    #[must_use]
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds).min(LATEST))
    }

    /// Seconds from `earlier` to this time; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_unix(u64::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn bounded() {
        assert!(Timestamp::from_unix(LATEST).is_ok());
        assert_eq!(Timestamp::from_unix(u64::MAX), Err(TimeError(u64::MAX)));
        assert_eq!(Timestamp(LATEST).plus(u64::MAX), Timestamp(LATEST));
        assert_eq!(Timestamp(5).since(Timestamp(9)), 0);
    }
}
