//! How many bytes of uploads are in memory at once, on their way to a store that takes them only in large pieces.
//!
//! Who sends slowly holds its room for long. So one account gets half of it at most, and whoever fills its room too slowly
//! gives way once others wait for some.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::StoreError;
use crate::shares::{Share, Shares};

/// Room is counted in these.
const UNIT: usize = 1 << 10;
/// How long an upload waits for room before it is sent away (to come back, `Retry-After` says when).
const PATIENCE: Duration = Duration::from_secs(60);
/// An upload that fills its room more slowly than this gives way to others that wait for it: bytes a second, from the
/// beginning on, and after some time to begin.
const SLOWEST: u64 = 64 << 10;
const BEGIN: Duration = Duration::from_secs(10);
/// How often somebody who is too slow looks whether others wait.
const LOOK: Duration = Duration::from_millis(500);

/// Room in memory, given out in the order of asking.
pub(super) struct Admission {
    room: Arc<Semaphore>,
    shares: Arc<Shares>,
    waiting: AtomicUsize,
}

/// Some of it, given back when dropped.
pub(super) struct Admitted {
    _room: OwnedSemaphorePermit,
    _share: Share,
    since: Instant,
    filled: AtomicUsize,
}

impl Admitted {
    /// How many bytes of it are filled by now.
    pub(super) fn is_filled(&self, bytes: usize) {
        self.filled.store(bytes, Ordering::Relaxed);
    }

    /// When it is too slow, if nothing more comes.
    fn too_slow(&self) -> Instant {
        let filled = self.filled.load(Ordering::Relaxed) as u64;
        self.since + BEGIN + Duration::from_millis(filled * 1000 / SLOWEST)
    }
}

impl Admission {
    /// `least`: what one upload may ask for, and so what one account may have at least.
    pub(super) fn new(bytes: usize, least: usize) -> Self {
        let each = (bytes / 2).max(least).min(bytes);
        Self {
            room: Arc::new(Semaphore::new(bytes / UNIT)),
            shares: Shares::new(each / UNIT),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for room for `bytes`, which must not be more than one account may have. Whoever holds some may ask for more
    /// only if what it holds comes free without it.
    pub(super) async fn admit(&self, account: i64, bytes: usize) -> Result<Admitted, StoreError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let end = Instant::now() + PATIENCE;
        let busy =
            |what: &str| StoreError::Unavailable(format!("{what} has more uploads under way than there is memory for"));
        // First, so that those who wait in the one queue for all are of many accounts.
        let share = self.shares.take(account, units, PATIENCE).await.ok_or_else(|| busy("the account"))?;
        let _waiting = Waiting::new(&self.waiting);
        let room = timeout_at(end, Arc::clone(&self.room).acquire_many_owned(units)).await;
        let room = room.map_err(|_| busy("the relay"))?.map_err(|_| busy("the relay"))?;
        Ok(Admitted { _room: room, _share: share, since: Instant::now(), filled: AtomicUsize::new(0) })
    }

    /// Returns when `admitted` is filled too slowly and others wait.
    pub(super) async fn give_way(&self, admitted: &Admitted) {
        loop {
            let too_slow = admitted.too_slow();
            if Instant::now() < too_slow {
                sleep_until(too_slow).await;
            } else if self.waiting.load(Ordering::SeqCst) > 0 {
                return;
            } else {
                tokio::time::sleep(LOOK).await;
            }
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
        let admission = Admission::new(10 * UNIT, 6 * UNIT);
        let first = admission.admit(1, 6 * UNIT).await.unwrap();
        let _second = admission.admit(2, 4 * UNIT).await.unwrap();
        let begun = Instant::now();
        assert!(matches!(admission.admit(3, 1).await, Err(StoreError::Unavailable(_))));
        assert_eq!(begun.elapsed(), PATIENCE);
        drop(first);
        let _third = admission.admit(3, 6 * UNIT).await.unwrap();
    }

    // attacks.md 46: one account cannot have all of it, however many uploads it begins.
    #[tokio::test(start_paused = true)]
    async fn attack_46_an_account_has_half_of_it() {
        let admission = Arc::new(Admission::new(8 * UNIT, 2 * UNIT));
        let mut uploads = Vec::new();
        for _ in 0..20 {
            let admission = Arc::clone(&admission);
            uploads.push(tokio::spawn(async move {
                let admitted = admission.admit(1, 2 * UNIT).await;
                tokio::time::sleep(PATIENCE / 2).await;
                drop(admitted);
            }));
        }
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let _honest = (admission.admit(2, 2 * UNIT).await.unwrap(), admission.admit(2, 2 * UNIT).await.unwrap());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for upload in uploads {
            upload.await.unwrap();
        }
    }

    // attacks.md 46: memory is not held by those who only trickle.
    #[tokio::test(start_paused = true)]
    async fn attack_46_a_slow_one_gives_way_once_others_wait() {
        let room = 100 * SLOWEST as usize;
        let admission = Admission::new(room, room);
        let slow = admission.admit(1, room).await.unwrap();
        let alone = tokio::time::timeout(Duration::from_secs(3600), admission.give_way(&slow)).await;
        assert!(alone.is_err(), "nobody waits");
        let (gave_way, admitted) = tokio::join!(
            async {
                admission.give_way(&slow).await;
                drop(slow);
            },
            admission.admit(2, UNIT)
        );
        assert_eq!(gave_way, ());
        drop(admitted.unwrap());
        // Judged by what came, from the beginning on.
        let some = admission.admit(1, room).await.unwrap();
        let (begun, _waiting) = (Instant::now(), Waiting::new(&admission.waiting));
        some.is_filled(5 * SLOWEST as usize);
        admission.give_way(&some).await;
        assert!((begun.elapsed() - (BEGIN + Duration::from_secs(5))).as_millis() < 10, "{:?}", begun.elapsed());
    }
}
