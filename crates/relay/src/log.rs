//! What the log says, and how often: nobody outside decides how long it gets (attacks.md 46, 48).

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines of the same kind.
const PAUSE: Duration = Duration::from_secs(10);

/// A line for what may happen often: told at once, and then with its count, once in each [`PAUSE`].
#[derive(Default)]
pub(crate) struct Often(Mutex<(Option<Instant>, u64)>);

impl Often {
    /// Counts, and calls `line` with the count if it is time to.
    pub(crate) fn tell(&self, line: impl FnOnce(u64)) {
        if let Some(count) = self.count_at(Instant::now()) {
            line(count);
        }
    }

    fn count_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (told, count) = &mut *state;
        *count += 1;
        if told.is_some_and(|told| now.saturating_duration_since(told) < PAUSE) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(count))
    }
}

/// Names a request in the log and to who made it, so that they can tell the operator. It is random: a number would tell
/// everybody how many there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId([u8; 8]);

impl RequestId {
    /// A new one. Without randomness all are zero: a request is not refused for want of a name.
    pub(crate) fn random() -> Self {
        Self(pouch_statement::random().unwrap_or_default())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_46_a_flood_is_a_line_now_and_then_and_every_one_is_counted() {
        let often = Often::default();
        let start = Instant::now();
        let lines: Vec<u64> = (0..2500).filter_map(|n| often.count_at(start + Duration::from_millis(n * 10))).collect();
        assert_eq!(lines, [1, 1000, 1000]);
    }
}
