//! The harness: real `pouch` processes, a relay on loopback, parties with homes of their own, folders to send and compare.
//!
//! Everything is bounded in time, everything started is stopped when it is dropped, and all of it lives in one
//! temporary folder. [`Pair`] is where most tests begin.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod balancer;
mod faults;
mod file_key;
mod holding;
pub mod hostile;
mod listening;
mod party;
mod program;
mod proxy;
mod random;
mod relay;
mod run;
mod runner;
mod small;
mod tools;
mod tree;

pub use balancer::Balancer;
pub use faults::{Fate, Faults};
pub use file_key::file_key;
pub use holding::Holding;
pub use party::{Cluster, Pair, Party, request};
pub use pouch_services::{Ceph, Postgres, skip};
pub use program::{program, workspace};
pub use proxy::Proxy;
pub use random::{Random, kills, seeds};
pub use relay::Relay;
pub use run::{LIMIT, Ran, Run, Running, until};
pub use runner::{Runner, as_pipeline};
pub use small::Small;
pub use tools::{folder, go_age, have, large};
pub use tree::{Node, Snapshot, files_beneath, find_bytes, holds, noise, sample_tree, set_mtime, snapshot};

/// A path as an argument.
///
/// # Panics
/// A path that is not UTF-8; tests make none outside the trees they send.
#[must_use]
pub fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}
