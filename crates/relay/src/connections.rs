//! Connections: bounded in number, in all and for each address, and only as long as they take what they asked for
//! (attacks.md 46).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use crate::body::PROGRESS_BYTES;
use crate::metrics::Metrics;

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

/// All live connections, oldest first, and those of each network.
pub(crate) struct Connections {
    limit: usize,
    each: usize,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    next: u64,
    places: BTreeMap<u64, (Arc<Connection>, Option<u64>)>,
    networks: HashMap<u64, BTreeSet<u64>>,
}

/// A place among them, given back when dropped.
pub(crate) struct Place {
    pub(crate) connection: Arc<Connection>,
    number: u64,
    all: Arc<Connections>,
}

impl Connections {
    /// At most `limit`, and at most `each` from one network.
    pub(crate) fn new(limit: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { limit, each, live: Mutex::default() })
    }

    /// A place for a newcomer. When all are taken, the oldest connection on which nobody signed makes room, so that
    /// idle ones cannot keep out an honest client; then the oldest of the account that has most, so that no account can
    /// keep out the others. `None` when no account has more than [`FAIR`].
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Place> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.places.len() >= self.limit {
            let oldest = in_the_way(&live.places)?;
            live.evict(oldest);
        }
        let number = live.next;
        live.next += 1;
        let connection = Arc::new(Connection::default());
        live.places.insert(number, (Arc::clone(&connection), None));
        Some(Place { connection, number, all: Arc::clone(self) })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).places.len()
    }
}

impl Live {
    fn evict(&mut self, number: u64) {
        if let Some(connection) = self.remove(number) {
            connection.evicted.notify_one();
        }
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let (connection, network) = self.places.remove(&number)?;
        if let Some(network) = network
            && let Some(numbers) = self.networks.get_mut(&network)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.networks.remove(&network);
            }
        }
        Some(connection)
    }
}

impl Place {
    /// Counts the connection to its client's network. When that has as many as it may have, the oldest of them on which
    /// nobody signed makes room; `false` if there is none.
    #[must_use]
    pub(crate) fn comes_from(&self, network: u64) -> bool {
        let mut live = self.all.live.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = live.networks.get(&network);
        if let Some(numbers) = numbers.filter(|numbers| numbers.len() >= self.all.each) {
            let unsigned = |number: &&u64| live.places.get(number).is_some_and(|(c, _)| c.account() == 0);
            match numbers.iter().find(unsigned).copied() {
                Some(oldest) => live.evict(oldest),
                None => return false,
            }
        }
        if let Some((_, own)) = live.places.get_mut(&self.number) {
            *own = Some(network);
            live.networks.entry(network).or_default().insert(self.number);
        }
        true
    }
}

/// The number of the connection that has to go first.
fn in_the_way(places: &BTreeMap<u64, (Arc<Connection>, Option<u64>)>) -> Option<u64> {
    if let Some((number, _)) = places.iter().find(|(_, (c, _))| c.account() == 0) {
        return Some(*number);
    }
    let mut held: BTreeMap<i64, (usize, u64)> = BTreeMap::new();
    for (number, (connection, _)) in places {
        held.entry(connection.account()).or_insert((0, *number)).0 += 1;
    }
    held.values().max_by_key(|(count, _)| *count).filter(|(count, _)| *count > FAIR).map(|(_, oldest)| *oldest)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.live.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
    }
}

/// A stream whose bytes are counted, and whose writes fail when the other side takes too little of what waits for it:
/// less than [`PROGRESS_BYTES`] in each interval.
pub(crate) struct Paced<S> {
    stream: S,
    metrics: Arc<Metrics>,
    progress: Duration,
    /// The end of the present interval, while something waits, and the bytes still missing in it.
    deadline: Option<Pin<Box<Sleep>>>,
    missing: usize,
}

impl<S> Paced<S> {
    pub(crate) fn new(stream: S, progress: Duration, metrics: Arc<Metrics>) -> Self {
        Self { stream, metrics, progress, deadline: None, missing: PROGRESS_BYTES }
    }

    fn pace<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>, taken: Taken<T>) -> Poll<io::Result<T>> {
        match (&outcome, taken) {
            (Poll::Pending, _) => {
                let progress = self.progress;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(progress)));
                if deadline.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
            }
            (Poll::Ready(Ok(count)), Taken::Some(count_of)) => {
                let count = count_of(count);
                self.metrics.sent(count);
                self.missing = self.missing.saturating_sub(count);
                if self.missing == 0 {
                    (self.deadline, self.missing) = (None, PROGRESS_BYTES);
                }
            }
            // Nothing waits any more.
            (Poll::Ready(_), _) => (self.deadline, self.missing) = (None, PROGRESS_BYTES),
        }
        outcome
    }
}

/// What a write that is done says of the bytes that wait.
enum Taken<T> {
    /// So many of them went.
    Some(fn(&T) -> usize),
    /// All of them.
    All,
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.metrics.received(buf.filled().len().saturating_sub(before));
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pace(cx, outcome, Taken::Some(|count| *count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pace(cx, outcome, Taken::Some(|count| *count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.pace(cx, outcome, Taken::All)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.pace(cx, outcome, Taken::All)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn is_live(all: &Connections, place: &Place) -> bool {
        all.live.lock().unwrap().places.contains_key(&place.number)
    }

    // attacks.md 46: neither strangers nor one account can keep everybody else out.
    #[test]
    fn attack_46_who_makes_room() {
        let all = Connections::new(FAIR + 4, FAIR + 4);
        let place = |account: i64| {
            let place = all.admit();
            if let Some(place) = &place {
                place.connection.trust(account);
            }
            place
        };
        let held: Vec<_> = (0..=FAIR).map(|_| place(7).unwrap()).collect();
        let (honest, stranger, other) = (place(1).unwrap(), place(0).unwrap(), place(2).unwrap());
        let still = |p: &Place| is_live(&all, p);
        // The stranger first, then the oldest of the account that has most, and then nobody.
        let first = place(3).unwrap();
        assert!(!still(&stranger) && still(held.first().unwrap()));
        let second = place(4).unwrap();
        assert!(!still(held.first().unwrap()) && still(held.get(1).unwrap()));
        assert!(place(5).is_none());
        assert!([&honest, &other, &first, &second].into_iter().all(still));
    }

    // attacks.md 46: one address cannot take all places, and whoever signed keeps theirs.
    #[test]
    fn attack_46_who_makes_room_at_one_address() {
        let all = Connections::new(100, 2);
        let [one, two, three, four, elsewhere] = [(); 5].map(|()| all.admit().unwrap());
        assert!(one.comes_from(1) && two.comes_from(1) && elsewhere.comes_from(2));
        one.connection.trust(7);
        assert!(three.comes_from(1));
        assert!(is_live(&all, &one) && !is_live(&all, &two) && is_live(&all, &elsewhere));
        three.connection.trust(7);
        assert!(!four.comes_from(1));
        // A place that is given back counts no more, whether it was evicted or not.
        drop((one, two));
        assert!(four.comes_from(1));
        drop((three, four, elsewhere));
        let live = all.live.lock().unwrap();
        assert!(live.places.is_empty() && live.networks.is_empty());
    }

    // attacks.md 46: a reader that takes a few bytes now and then is as good as one that takes none.
    #[tokio::test(start_paused = true)]
    async fn attack_46_a_trickle_is_no_progress() {
        let send = async |every: usize| {
            let (near, mut far) = duplex(1024);
            let mut near = Paced::new(near, Duration::from_secs(10), Arc::default());
            let reader = tokio::spawn(async move {
                let mut bytes = vec![0; every];
                while far.read_exact(&mut bytes).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            });
            let outcome = near.write_all(&vec![0; 20 * PROGRESS_BYTES]).await;
            reader.abort();
            outcome.map_err(|error| error.kind())
        };
        assert_eq!(send(1024).await, Err(io::ErrorKind::TimedOut));
        assert_eq!(send(512).await, Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn enough_at_a_time_is_progress_and_idling_costs_nothing() {
        let (near, mut far) = duplex(PROGRESS_BYTES);
        let mut near = Paced::new(near, Duration::from_secs(10), Arc::default());
        let reader = tokio::spawn(async move {
            let mut bytes = vec![0; PROGRESS_BYTES];
            let mut read = 0;
            while far.read_exact(&mut bytes).await.is_ok() {
                read += bytes.len();
                tokio::time::sleep(Duration::from_secs(9)).await;
            }
            read
        });
        for _ in 0..3 {
            near.write_all(&vec![0; 4 * PROGRESS_BYTES]).await.unwrap();
            near.flush().await.unwrap();
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
        drop(near);
        assert_eq!(reader.await.unwrap(), 12 * PROGRESS_BYTES);
    }
}
