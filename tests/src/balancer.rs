//! A load balancer that passes TLS through: each connection goes to the next node that answers, whoever it is from.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::listening::Listening;

/// It stops when it is dropped; connections that are under way end with their peers.
pub struct Balancer {
    nodes: Arc<Nodes>,
    _listening: Listening,
}

struct Nodes {
    nodes: Vec<Node>,
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
        let nodes = Arc::new(Nodes { nodes, moved: AtomicU64::new(0) });
        let mut turns = 0..;
        let listening = Listening::start(listener, {
            let nodes = Arc::clone(&nodes);
            move |client| {
                let (nodes, turn) = (Arc::clone(&nodes), turns.next().unwrap());
                thread::spawn(move || nodes.pass(turn, client));
            }
        });
        Self { nodes, _listening: listening }
    }

    /// How many bytes the nodes sent to clients, TLS and all.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.nodes.moved.load(Ordering::Relaxed)
    }

    /// How many connections each node got.
    #[must_use]
    pub fn taken(&self) -> Vec<usize> {
        self.nodes.nodes.iter().map(|node| node.taken.load(Ordering::Relaxed)).collect()
    }
}

impl Nodes {
    fn pass(&self, turn: usize, client: TcpStream) {
        let in_turn = self.nodes.iter().cycle().skip(turn % self.nodes.len()).take(self.nodes.len());
        let connect = |node: &Node| TcpStream::connect((Ipv4Addr::LOCALHOST, node.port)).ok();
        let found = in_turn.filter_map(|node| Some((node, connect(node)?))).next();
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
