//! Requests that wait for a delivery (`GET /v1/inbox?wait=`): bounded for each account and in all, woken by a commit on this
//! node, and all at once when the relay stops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pouch_statement::MailboxId;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, watch};

/// How often a waiting request looks for what was delivered through another node.
pub(crate) const LOOK: Duration = Duration::from_secs(2);

/// All that wait.
pub(crate) struct Waits {
    each: usize,
    all: usize,
    live: Mutex<Live>,
    over: watch::Sender<bool>,
}

#[derive(Default)]
struct Live {
    count: usize,
    mailboxes: BTreeMap<MailboxId, (Arc<Notify>, usize)>,
}

/// One of them; its place is given back when dropped.
pub(crate) struct Waiting {
    mailbox: MailboxId,
    delivered: Arc<Notify>,
    over: watch::Receiver<bool>,
    all: Arc<Waits>,
}

impl Waits {
    /// At most `all`, and at most `each` of one account.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { each, all, live: Mutex::default(), over: watch::Sender::new(false) })
    }

    /// A place; `None` where all, or all of the account, are taken, and once the relay stops.
    pub(crate) fn enter(self: &Arc<Self>, mailbox: MailboxId) -> Option<Waiting> {
        let over = self.over.subscribe();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let held = live.mailboxes.get(&mailbox).map_or(0, |(_, count)| *count);
        if *over.borrow() || live.count >= self.all || held >= self.each {
            return None;
        }
        live.count += 1;
        let (delivered, count) = live.mailboxes.entry(mailbox).or_default();
        *count += 1;
        Some(Waiting { mailbox, delivered: Arc::clone(delivered), over, all: Arc::clone(self) })
    }

    /// Something was delivered into these mailboxes.
    pub(crate) fn wake(&self, mailboxes: &[MailboxId]) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for (delivered, _) in mailboxes.iter().filter_map(|mailbox| live.mailboxes.get(mailbox)) {
            delivered.notify_waiters();
        }
    }

    /// Nobody waits any more.
    pub(crate) fn end(&self) {
        self.over.send_replace(true);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).count
    }
}

impl Waiting {
    /// Done with the next delivery after this call, also if it comes before the future is first polled.
    pub(crate) fn delivery(&self) -> OwnedNotified {
        Arc::clone(&self.delivered).notified_owned()
    }

    /// Done when the relay stops.
    pub(crate) async fn is_over(&mut self) {
        let _ = self.over.wait_for(|over| *over).await;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut live = self.all.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.count = live.count.saturating_sub(1);
        if let Some((_, count)) = live.mailboxes.get_mut(&self.mailbox) {
            *count -= 1;
            if *count == 0 {
                live.mailboxes.remove(&self.mailbox);
            }
        }
    }
}
