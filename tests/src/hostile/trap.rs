//! An address that no request may arrive at.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::listening::Listening;

/// A place that must never be visited: counts whoever connects.
pub struct Trap {
    visits: Arc<AtomicU64>,
    listening: Listening,
}

impl Trap {
    pub fn set() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let visits = Arc::new(AtomicU64::new(0));
        let listening = Listening::start(listener, {
            let visits = visits.clone();
            move |_| {
                visits.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self { visits, listening }
    }

    pub fn authority(&self) -> String {
        self.listening.address().to_string()
    }

    pub fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }
}
