//! A load balancer that passes TLS through: each connection goes to the next node that answers, whoever it is from.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// It stops when it is dropped; connections that are under way end with their peers.
pub struct Balancer {
    shared: Arc<Shared>,
    listens: Option<JoinHandle<()>>,
}

struct Shared {
    port: u16,
    nodes: Vec<Node>,
    stopped: AtomicBool,
    moved: AtomicU64,
}

struct Node {
    port: u16,
    taken: AtomicUsize,
}

impl Balancer {
    /// Behind `listener`, in front of nodes that listen on these ports.
    #[must_use]
    pub fn start(listener: TcpListener, ports: &[u16]) -> Self {
        let nodes = ports.iter().map(|port| Node { port: *port, taken: AtomicUsize::new(0) }).collect();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { port, nodes, stopped: AtomicBool::new(false), moved: AtomicU64::new(0) });
        let listens = Some(thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&listener)
        }));
        Self { shared, listens }
    }

    /// How many bytes the nodes sent to clients, TLS and all.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.shared.moved.load(Ordering::Relaxed)
    }

    /// How many connections each node got.
    #[must_use]
    pub fn taken(&self) -> Vec<usize> {
        self.shared.nodes.iter().map(|node| node.taken.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // One more connection, so that it looks.
        let _ = TcpStream::connect(address(self.shared.port));
        if let Some(listens) = self.listens.take() {
            let _ = listens.join();
        }
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Shared {
    fn serve(self: &Arc<Self>, listener: &TcpListener) {
        for turn in 0.. {
            let Ok((client, _)) = listener.accept() else { return };
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pass(turn, client));
        }
    }

    fn pass(&self, turn: usize, client: TcpStream) {
        let in_turn = self.nodes.iter().cycle().skip(turn % self.nodes.len()).take(self.nodes.len());
        let found = in_turn.filter_map(|node| Some((node, TcpStream::connect(address(node.port)).ok()?))).next();
        let Some((node, server)) = found else { return };
        node.taken.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let up = thread::spawn(move || copy(from, to, |_| ()));
        copy(server, client, |bytes| {
            self.moved.fetch_add(bytes, Ordering::Relaxed);
        });
        let _ = up.join();
    }
}

/// Until either side ends; then the other one is told.
fn copy(mut from: TcpStream, mut to: TcpStream, mut moved: impl FnMut(u64)) {
    let mut room = vec![0; 64 << 10];
    let mut pass = || -> io::Result<bool> {
        let count = from.read(&mut room)?;
        to.write_all(&room[..count])?;
        moved(count as u64);
        Ok(count > 0)
    };
    while let Ok(true) = pass() {}
    let _ = to.shutdown(Shutdown::Write);
}
