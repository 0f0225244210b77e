//! How many bytes of uploads are in memory at once, on their way to a store that takes them only in large pieces.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::StoreError;

/// Room is counted in these.
const UNIT: usize = 1 << 10;
/// How long an upload waits for room before it is sent away (to come back, `Retry-After` says when).
const PATIENCE: Duration = Duration::from_secs(60);
/// An upload that fills its room more slowly than this gives way to others that wait for it: bytes a second, after
/// some time to begin.
const SLOWEST: usize = 64 << 10;
const BEGIN: Duration = Duration::from_secs(20);

/// Room in memory, given out in the order of asking.
pub(super) struct Admission {
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// Some of it, given back when dropped.
pub(super) struct Admitted {
    _room: OwnedSemaphorePermit,
    give_way: Instant,
}

impl Admission {
    pub(super) fn new(bytes: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(bytes / UNIT)), waiting: AtomicUsize::new(0) }
    }

    /// Waits for room for `bytes`, which must not be more than there is in all. Whoever holds some may ask for more
    /// only if what it holds comes free without it.
    pub(super) async fn admit(&self, bytes: usize) -> Result<Admitted, StoreError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let _waiting = Waiting::new(&self.waiting);
        let room = timeout(PATIENCE, Arc::clone(&self.room).acquire_many_owned(units)).await;
        let busy = || StoreError::Unavailable("more uploads are under way than there is memory for".to_owned());
        let room = room.map_err(|_| busy())?.map_err(|_| busy())?;
        let filling = Duration::from_secs((bytes / SLOWEST) as u64);
        Ok(Admitted { _room: room, give_way: Instant::now() + BEGIN + filling })
    }

    /// Returns when `admitted` has been filled for too long and others wait.
    pub(super) async fn give_way(&self, admitted: &Admitted) {
        sleep_until(admitted.give_way).await;
        while self.waiting.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// Counted as long as it is there.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn there_is_never_more_than_there_is_and_waiting_ends() {
        let admission = Admission::new(10 * UNIT);
        let first = admission.admit(6 * UNIT).await.unwrap();
        let _second = admission.admit(4 * UNIT).await.unwrap();
        let begun = Instant::now();
        assert!(matches!(admission.admit(1).await, Err(StoreError::Unavailable(_))));
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(first);
        let _third = admission.admit(6 * UNIT).await.unwrap();
    }

    // attacks.md 46: memory is not held by those who only trickle.
    #[tokio::test(start_paused = true)]
    async fn attack_46_a_slow_one_gives_way_once_others_wait() {
        let admission = Admission::new(SLOWEST);
        let slow = admission.admit(SLOWEST).await.unwrap();
        let alone = timeout(Duration::from_secs(3600), admission.give_way(&slow)).await;
        assert!(alone.is_err(), "nobody waits");
        let (gave_way, admitted) = tokio::join!(
            async {
                admission.give_way(&slow).await;
                drop(slow);
            },
            admission.admit(UNIT)
        );
        assert_eq!(gave_way, ());
        admitted.unwrap();
        let quick = admission.admit(SLOWEST / 2).await.unwrap();
        let (begun, _waiting) = (Instant::now(), Waiting::new(&admission.waiting));
        admission.give_way(&quick).await;
        assert!(begun.elapsed() >= BEGIN, "it has time to begin");
    }
}
