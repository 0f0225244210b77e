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
use crate::metrics::{Lost, Metrics};

/// Connections that one account may keep when others need room; a client uses a handful.
const FAIR: usize = 16;
/// Connections through a balancer that may, beside all others, not yet have said whose they are.
const UNTOLD: usize = 64;

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

    /// The account has lost its standing, and the connection with it; one on which another signed last is theirs.
    pub(crate) fn distrust(&self, account: i64) {
        let _ = self.account.compare_exchange(account, 0, Ordering::Relaxed, Ordering::Relaxed);
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
    /// Each with its client's network; `None` for one that is a balancer's own.
    places: BTreeMap<u64, (Arc<Connection>, Option<u64>)>,
    networks: HashMap<u64, BTreeSet<u64>>,
    /// Those that have no place yet: whose they are is not known.
    untold: BTreeMap<u64, Arc<Connection>>,
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

    /// A place for a newcomer from `network`; `None` is a balancer's own, counted to no network.
    ///
    /// A network that has as many as it may have makes room among its own: its oldest connection on which nobody signed
    /// goes, or the newcomer is refused, and nobody else loses anything. When all places are taken, the oldest of all on
    /// which nobody signed makes room, so that idle ones cannot keep out an honest client; then the oldest of the account
    /// that has most, so that no account can keep out the others; and when no account has more than [`FAIR`], none does.
    pub(crate) fn admit(self: &Arc<Self>, network: Option<u64>) -> Result<Place, Lost> {
        let place = self.place();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.make_room(network, self.limit, self.each)?;
        live.put(&place, network);
        drop(live);
        Ok(place)
    }

    /// No place yet, for a newcomer of whom a balancer is to say whose it is ([`Place::comes_from`]). Of [`UNTOLD`] such the
    /// oldest makes room.
    pub(crate) fn await_network(self: &Arc<Self>) -> Place {
        let place = self.place();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live.untold.len() >= UNTOLD
            && let Some((_, oldest)) = live.untold.pop_first()
        {
            oldest.evicted.notify_one();
        }
        live.untold.insert(place.number, Arc::clone(&place.connection));
        drop(live);
        place
    }

    fn place(self: &Arc<Self>) -> Place {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let number = live.next;
        live.next += 1;
        Place { connection: Arc::default(), number, all: Arc::clone(self) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.places.len() + live.untold.len()
    }
}

impl Live {
    /// One place more, if there may be one ([`Connections::admit`]).
    fn make_room(&mut self, network: Option<u64>, limit: usize, each: usize) -> Result<(), Lost> {
        let own = network.and_then(|network| self.networks.get(&network));
        let evicted = match own.filter(|own| own.len() >= each) {
            Some(own) => {
                let unsigned = |number: &&u64| self.places.get(number).is_some_and(|(c, _)| c.account() == 0);
                Some(own.iter().find(unsigned).copied().ok_or(Lost::Address)?)
            }
            None if self.places.len() >= limit => Some(in_the_way(&self.places).ok_or(Lost::Full)?),
            None => None,
        };
        if let Some(connection) = evicted.and_then(|number| self.remove(number)) {
            connection.evicted.notify_one();
        }
        Ok(())
    }

    fn put(&mut self, place: &Place, network: Option<u64>) {
        self.places.insert(place.number, (Arc::clone(&place.connection), network));
        if let Some(network) = network {
            self.networks.entry(network).or_default().insert(place.number);
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
    /// The place itself, once a balancer has said whose the connection is: [`Connections::admit`] for one that waited.
    pub(crate) fn comes_from(&self, network: Option<u64>) -> Result<(), Lost> {
        let mut live = self.all.live.lock().unwrap_or_else(PoisonError::into_inner);
        // Gone: it had to make room while it waited.
        live.untold.remove(&self.number).ok_or(Lost::Evicted)?;
        live.make_room(network, self.all.limit, self.all.each)?;
        live.put(self, network);
        Ok(())
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
        let mut live = self.all.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.untold.remove(&self.number);
        live.remove(self.number);
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
            let place = all.admit(None)?;
            place.connection.trust(account);
            Ok::<_, Lost>(place)
        };
        let held: Vec<_> = (0..=FAIR).map(|_| place(7).unwrap()).collect();
        let (honest, stranger, other) = (place(1).unwrap(), place(0).unwrap(), place(2).unwrap());
        let still = |p: &Place| is_live(&all, p);
        // The stranger first, then the oldest of the account that has most, and then nobody.
        let first = place(3).unwrap();
        assert!(!still(&stranger) && still(held.first().unwrap()));
        let second = place(4).unwrap();
        assert!(!still(held.first().unwrap()) && still(held.get(1).unwrap()));
        assert_eq!(place(5).err(), Some(Lost::Full));
        assert!([&honest, &other, &first, &second].into_iter().all(still));
        // Whose account lost its standing is a stranger; on a connection that another signs, nobody else's is lost.
        first.connection.distrust(3);
        second.connection.distrust(3);
        place(5).unwrap();
        assert!(!still(&first) && still(&second));
    }

    // attacks.md 46: one address cannot take all places, and whoever signed keeps theirs.
    #[test]
    fn attack_46_who_makes_room_at_one_address() {
        let all = Connections::new(100, 2);
        let [one, two, elsewhere] = [1, 1, 2].map(|network| all.admit(Some(network)).unwrap());
        one.connection.trust(7);
        let three = all.admit(Some(1)).unwrap();
        assert!(is_live(&all, &one) && !is_live(&all, &two) && is_live(&all, &elsewhere));
        three.connection.trust(7);
        assert_eq!(all.admit(Some(1)).err(), Some(Lost::Address));
        // A place that is given back counts no more, whether it was evicted or not.
        drop((one, two));
        let four = all.admit(Some(1)).unwrap();
        drop((three, four, elsewhere));
        let live = all.live.lock().unwrap();
        assert!(live.places.is_empty() && live.networks.is_empty() && live.untold.is_empty());
    }

    // attacks.md 46: whoever has all places of their address pushes out nobody elsewhere, directly or through a balancer.
    #[test]
    fn attack_46_a_full_address_costs_strangers_no_place() {
        let all = Connections::new(3, 2);
        let [one, two, stranger] = [1, 1, 2].map(|network| all.admit(Some(network)).unwrap());
        one.connection.trust(7);
        two.connection.trust(7);
        assert_eq!(all.admit(Some(1)).err(), Some(Lost::Address));
        let told = all.await_network();
        assert_eq!(told.comes_from(Some(1)), Err(Lost::Address));
        assert!([&one, &two, &stranger].into_iter().all(|place| is_live(&all, place)));
        // With one of its own that nobody signed on, that one goes, though the stranger is older.
        two.connection.distrust(7);
        let told = all.await_network();
        told.comes_from(Some(1)).unwrap();
        assert!(!is_live(&all, &two) && is_live(&all, &told) && is_live(&all, &stranger));
        // A newcomer from elsewhere takes the oldest of all.
        let other = all.admit(Some(3)).unwrap();
        assert!(!is_live(&all, &stranger) && is_live(&all, &other));
    }

    // attacks.md 46: nor do those that never say whose they are.
    #[test]
    fn attack_46_connections_that_do_not_tell_are_bounded() {
        let all = Connections::new(2, 2);
        let stranger = all.admit(Some(1)).unwrap();
        let untold: Vec<_> = (0..=UNTOLD).map(|_| all.await_network()).collect();
        assert_eq!(all.count(), 1 + UNTOLD);
        let (first, second) = (untold.first().unwrap(), untold.get(1).unwrap());
        assert_eq!(first.comes_from(Some(2)), Err(Lost::Evicted));
        second.comes_from(Some(2)).unwrap();
        assert!(is_live(&all, &stranger) && is_live(&all, second));
        drop(untold);
        assert_eq!(all.count(), 1);
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
