//! An address that no request may arrive at.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// A place that must never be visited: counts whoever connects.
pub struct Trap {
    address: SocketAddr,
    visits: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trap {
    pub fn set() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (visits, stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (visits, stopped) = (visits.clone(), stopped.clone());
            std::thread::spawn(move || {
                while listener.accept().is_ok() && !stopped.load(Ordering::Relaxed) {
                    visits.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Self { address, visits, stopped, thread: Some(thread) }
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }

    pub fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
