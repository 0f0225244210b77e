//! What many accounts use together, and of which one account gets no more than its share, so that the others find some left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The shares that are in use.
pub(crate) struct Shares {
    each: usize,
    used: Mutex<BTreeMap<i64, Arc<Semaphore>>>,
}

/// A piece of an account's share, given back when dropped.
pub(crate) struct Share {
    account: i64,
    permit: Option<OwnedSemaphorePermit>,
    shares: Arc<Shares>,
}

impl Shares {
    /// So many units for each account.
    pub(crate) fn new(each: usize) -> Arc<Self> {
        Arc::new(Self { each, used: Mutex::default() })
    }

    /// Waits for `units` of the account's share, in the order of asking; `None` if there are none for so long.
    pub(crate) async fn take(self: &Arc<Self>, account: i64, units: u32, patience: Duration) -> Option<Share> {
        let mut share = Share { account, permit: None, shares: Arc::clone(self) };
        let own = Arc::clone(
            self.used
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(account)
                .or_insert_with(|| Arc::new(Semaphore::new(self.each))),
        );
        share.permit = timeout(patience, own.acquire_many_owned(units)).await.ok()?.ok();
        share.permit.is_some().then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.permit.take();
        let mut used = self.shares.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever holds or waits for some has it, too.
        if used.get(&self.account).is_some_and(|own| Arc::strong_count(own) == 1) {
            used.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn nobody_has_more_than_a_share_and_nothing_is_left_behind() {
        let shares = Shares::new(3);
        let first = shares.take(1, 2, SOON).await.unwrap();
        let second = shares.take(1, 1, SOON).await.unwrap();
        assert!(shares.take(1, 1, SOON).await.is_none());
        let other = shares.take(2, 3, SOON).await.unwrap();
        let (waited, ()) = tokio::join!(shares.take(1, 2, SOON), async {
            tokio::time::sleep(SOON / 2).await;
            drop(first);
        });
        assert_eq!(shares.used.lock().unwrap().len(), 2);
        drop((waited.unwrap(), other, second));
        assert!(shares.used.lock().unwrap().is_empty());
    }
}
