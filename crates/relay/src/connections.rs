//! Connections: bounded in number, and only as long as they take what they asked for (attacks.md 46).

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

/// Connections that one account may keep when others need room; a client uses a handful.
const FAIR: usize = 16;

/// One live connection.
#[derive(Default)]
pub(crate) struct Connection {
    /// The account that signed a request on it; 0 for none.
    account: AtomicI64,
    evicted: Notify,
}

impl Connection {
    /// Somebody with an account signed a request on it: it is not evicted for strangers.
    pub(crate) fn trust(&self, account: i64) {
        self.account.store(account, Ordering::Relaxed);
    }

    fn account(&self) -> i64 {
        self.account.load(Ordering::Relaxed)
    }

    /// Returns when the connection has to make room.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

/// All live connections, oldest first.
pub(crate) struct Connections {
    limit: usize,
    live: Mutex<(u64, BTreeMap<u64, Arc<Connection>>)>,
}

/// A place among them, given back when dropped.
pub(crate) struct Place {
    pub(crate) connection: Arc<Connection>,
    number: u64,
    all: Arc<Connections>,
}

impl Connections {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, live: Mutex::default() })
    }

    /// A place for a newcomer. When all are taken, the oldest connection on which nobody signed makes room, so that
    /// idle ones cannot keep out an honest client; then the oldest of the account that has most, so that no account can
    /// keep out the others. `None` when no account has more than [`FAIR`].
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, places) = &mut *live;
        if places.len() >= self.limit {
            let oldest = in_the_way(places)?;
            if let Some(connection) = places.remove(&oldest) {
                connection.evicted.notify_one();
            }
        }
        let number = *next;
        *next += 1;
        let connection = Arc::new(Connection::default());
        places.insert(number, Arc::clone(&connection));
        Some(Place { connection, number, all: Arc::clone(self) })
    }
}

/// The number of the connection that has to go first.
fn in_the_way(places: &BTreeMap<u64, Arc<Connection>>) -> Option<u64> {
    if let Some((number, _)) = places.iter().find(|(_, c)| c.account() == 0) {
        return Some(*number);
    }
    let mut held: BTreeMap<i64, (usize, u64)> = BTreeMap::new();
    for (number, connection) in places {
        held.entry(connection.account()).or_insert((0, *number)).0 += 1;
    }
    held.values().max_by_key(|(count, _)| *count).filter(|(count, _)| *count > FAIR).map(|(_, oldest)| *oldest)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.live.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&self.number);
    }
}

/// A stream whose writes fail when the other side takes nothing for a while.
pub(crate) struct Paced<S> {
    stream: S,
    progress: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, progress: Duration) -> Self {
        Self { stream, progress, stalled: None }
    }

    fn pace<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let progress = self.progress;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(progress)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.pace(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.pace(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // attacks.md 46: neither strangers nor one account can keep everybody else out.
    #[test]
    fn attack_46_who_makes_room() {
        let all = Connections::new(FAIR + 4);
        let place = |account: i64| {
            let place = all.admit();
            if let Some(place) = &place {
                place.connection.trust(account);
            }
            place
        };
        let held: Vec<_> = (0..=FAIR).map(|_| place(7).unwrap()).collect();
        let (honest, stranger, other) = (place(1).unwrap(), place(0).unwrap(), place(2).unwrap());
        let still = |p: &Place| all.live.lock().unwrap().1.contains_key(&p.number);
        // The stranger first, then the oldest of the account that has most, and then nobody.
        let first = place(3).unwrap();
        assert!(!still(&stranger) && still(held.first().unwrap()));
        let second = place(4).unwrap();
        assert!(!still(held.first().unwrap()) && still(held.get(1).unwrap()));
        assert!(place(5).is_none());
        assert!([&honest, &other, &first, &second].into_iter().all(still));
    }
}
