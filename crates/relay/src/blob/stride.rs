//! How much goes between a connection and the disk in one go.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What any transfer gets.
pub(super) const NARROW: u64 = 128 << 10;
/// What some get.
pub(super) const WIDE: u64 = 512 << 10;
/// How many.
const WIDE_AT_ONCE: usize = 12;

/// Each piece costs two changes of threads, so that long ones are faster; but two of them are in memory for each transfer,
/// so that only the first few of those under way have them.
pub(super) struct Strides(Arc<Semaphore>);

/// What one transfer has.
pub(super) struct Stride(Option<OwnedSemaphorePermit>);

impl Strides {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(WIDE_AT_ONCE)))
    }

    /// For a transfer of `length` bytes, as long as it lasts.
    pub(super) fn take(&self, length: u64) -> Stride {
        let wide = if length > NARROW { Arc::clone(&self.0).try_acquire_owned().ok() } else { None };
        Stride(wide)
    }
}

impl Stride {
    pub(super) fn bytes(&self) -> u64 {
        if self.0.is_some() { WIDE } else { NARROW }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_few_long_transfers_go_in_long_strides() {
        let strides = Strides::new();
        let short: Vec<_> = (0..100).map(|_| strides.take(NARROW)).collect();
        assert!(short.iter().all(|stride| stride.bytes() == NARROW));
        let mut long: Vec<_> = (0..100).map(|_| strides.take(8 << 20)).collect();
        assert_eq!(long.iter().filter(|stride| stride.bytes() == WIDE).count(), WIDE_AT_ONCE);
        long.remove(0);
        assert_eq!(strides.take(8 << 20).bytes(), WIDE);
    }
}
