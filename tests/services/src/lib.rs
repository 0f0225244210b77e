//! Real servers for tests: started in a temporary folder, reached on this machine alone, stopped when they are dropped.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod ceph;
mod postgres;

pub use ceph::{Ceph, Outage};
pub use postgres::Postgres;

use std::io::Write as _;

/// Says that something is left out, and why. Past the capture of passing tests: it must be seen.
pub fn skip(why: &str) {
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr().lock(), "skipped: {}: {why}", thread.name().unwrap_or_default());
}

/// Says that something is left out because a tool or a service is not there; where `POUCH_REQUIRE_TOOLS` is set, as in CI, that
/// is a failure.
///
/// # Panics
/// With `POUCH_REQUIRE_TOOLS`.
#[track_caller]
pub fn missing(what: &str) {
    assert!(std::env::var_os("POUCH_REQUIRE_TOOLS").is_none(), "POUCH_REQUIRE_TOOLS: {what}");
    skip(what);
}

/// Whether this process is root's; servers refuse to be.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
