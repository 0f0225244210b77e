//! A network between client and relay that misbehaves beneath TLS: connections are cut, stalled, held up, cut in one direction,
//! or have bytes changed on the way, as a plan or chance says.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::Random;
use crate::listening::Listening;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing.
    Passes,
    /// It is closed before anything is said.
    Refused,
    /// It is cut in both directions after so many bytes.
    Cut(u64),
    /// What goes to the relay ends after so many bytes; what comes back goes on.
    Truncated(u64),
    /// After so many bytes nothing more passes for a while, and then it is cut.
    Stalls(u64, Duration),
    /// After so many bytes one of them is another one.
    Corrupted(u64),
    /// It is held up before anything is said, so that others overtake it, and slow.
    Late(Duration),
}

/// Stops when it is dropped.
pub struct Faults {
    shared: Arc<Shared>,
    _listening: Listening,
}

type Plan = Box<dyn FnMut() -> Fate + Send>;

struct Shared {
    relay: u16,
    plan: Mutex<Plan>,
    met: AtomicU64,
}

impl Faults {
    /// Behind `listener`, in front of the relay that listens on this port. All passes until there is a plan.
    #[must_use]
    pub fn start(listener: TcpListener, relay: u16) -> Self {
        let plan: Mutex<Plan> = Mutex::new(Box::new(|| Fate::Passes));
        let shared = Arc::new(Shared { relay, plan, met: AtomicU64::new(0) });
        let listening = Listening::start(listener, {
            let shared = Arc::clone(&shared);
            move |client| shared.take(client)
        });
        Self { shared, _listening: listening }
    }

    /// What becomes of each connection from now on.
    pub fn plan(&self, plan: impl FnMut() -> Fate + Send + 'static) {
        *self.shared.plan.lock().unwrap() = Box::new(plan);
    }

    /// One connection in `one_in` meets a fault, by chance.
    pub fn by_chance(&self, seed: u64, one_in: u64, most: u64) {
        let mut random = Random(seed);
        self.plan(move || {
            if random.below(one_in) > 0 {
                return Fate::Passes;
            }
            let after = random.below(most);
            match random.below(6) {
                0 => Fate::Refused,
                1 => Fate::Cut(after),
                2 => Fate::Truncated(after),
                3 => Fate::Stalls(after, Duration::from_millis(random.below(300))),
                4 => Fate::Corrupted(after),
                _ => Fate::Late(Duration::from_millis(random.below(100))),
            }
        });
    }

    /// How many connections met a fault.
    #[must_use]
    pub fn met(&self) -> u64 {
        self.shared.met.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn take(&self, client: TcpStream) {
        let fate = (self.plan.lock().unwrap())();
        self.met.fetch_add(u64::from(fate != Fate::Passes), Ordering::Relaxed);
        let relay = self.relay;
        thread::spawn(move || pass(client, relay, fate));
    }
}

fn pass(client: TcpStream, relay: u16, fate: Fate) {
    match fate {
        Fate::Refused => return,
        Fate::Late(held) => thread::sleep(held),
        _ => {}
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, relay)) else { return };
    let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
    let moved = Arc::new(AtomicU64::new(0));
    let up = Line { moved: Arc::clone(&moved), fate, up: true };
    let down = Line { moved, fate, up: false };
    let up = thread::spawn(move || up.copy(from, to));
    down.copy(server, client);
    let _ = up.join();
}

/// One direction of a connection.
struct Line {
    /// Bytes in both directions.
    moved: Arc<AtomicU64>,
    fate: Fate,
    up: bool,
}

impl Line {
    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        while let Ok(true) = self.step(&mut from, &mut to) {}
        let _ = to.shutdown(Shutdown::Write);
    }

    /// `false` when this direction is over.
    fn step(&self, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<bool> {
        let mut room = [0; 16 << 10];
        let count = from.read(&mut room)?;
        let before = self.moved.fetch_add(count as u64, Ordering::SeqCst);
        let left = |limit: u64| usize::try_from(limit.saturating_sub(before)).unwrap_or(usize::MAX).min(count);
        let over = |limit: u64| before + count as u64 > limit;
        match self.fate {
            Fate::Cut(limit) | Fate::Stalls(limit, _) if over(limit) => {
                to.write_all(&room[..left(limit)])?;
                if let Fate::Stalls(_, long) = self.fate {
                    thread::sleep(long);
                }
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return Ok(false);
            }
            Fate::Truncated(limit) if self.up && over(limit) => {
                to.write_all(&room[..left(limit)])?;
                return Ok(false);
            }
            Fate::Corrupted(at) if over(at) && before <= at => room[left(at)] ^= 1,
            Fate::Late(_) => thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
        to.write_all(&room[..count])?;
        Ok(count > 0)
    }
}
