//! A listener that hands over every connection until it is dropped.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Takes connections on a thread of its own. Dropped, it takes no more; what it handed over is the taker's.
pub(crate) struct Listening {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    /// Calls `take` with each connection, one after the other.
    pub(crate) fn start(listener: TcpListener, mut take: impl FnMut(TcpStream) + Send + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = Some(thread::spawn({
            let stopped = Arc::clone(&stopped);
            move || {
                while let Ok((client, _)) = listener.accept() {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    take(client);
                }
            }
        }));
        Self { address, stopped, thread }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // One more connection, so that it looks.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
