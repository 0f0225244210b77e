//! The relay: an HTTPS server that stores sealed objects, hands them to those they are for, and forgets them on time.
//!
//! It holds no key that opens anything and links no crate that could (design invariant; a test over `cargo metadata`
//! enforces it). What it says on the wire is docs/protocol.md; how it stores is the order
//! *pending row → blob → ledger commit → answer* in `ledger` and `blob`.
//!
//! - [`init`] makes the data folder, keys, ledger and the owner's one-time link;
//! - [`Relay::open`] locks the folder, checks the ledger and whether the blobs are its, and gives up what a crash left;
//! - [`Relay::serve`] answers until its shutdown future is done.

mod accept;
mod access;
mod answer;
mod auth;
mod blob;
mod body;
mod check;
mod clock;
mod conditional;
mod config;
mod connections;
mod disk;
mod ledger;
mod log;
mod metrics;
mod object;
mod operations;
mod orphans;
mod proxied;
mod rate;
mod routes;
mod server;
mod setup;
mod shares;
mod store;
mod sweep;
pub mod systemd;
mod tls;
mod waits;

pub use blob::S3Error;
pub use check::{CheckError, CheckOptions, Checked, Finding, check};
pub use clock::{Clock, SystemClock};
pub use config::{BlobConfig, ClientField, Config, ConfigError, EndpointError, InForce, Loaded, Networks};
pub use config::{OperationsAddress, S3Config, S3Endpoint, Source};
pub use disk::{DiskHook, DiskOp};
pub use ledger::LedgerOpenError;
pub use server::{OpenError, Relay, Reloader, Seams, ServeError};
pub use setup::{InitError, InitOptions, InitOutcome, init, new_owner_link};
pub use store::StoreIdError;
pub use tls::{TlsError, rotate as rotate_key};
