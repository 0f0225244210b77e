//! The client of pouch: everything but the terminal.
//!
//! A [`Home`] holds one party's state. [`join`](join::join) makes it somebody on a relay; a [`Party`] sends, receives,
//! invites and keeps the journal. All network goes through one [`Transport`](transport::Transport).
//! How a send and a receive run is told in docs/architecture.md.

pub mod agent;
pub mod api;
pub mod backup;
pub mod clock;
pub mod contacts;
pub mod device;
mod error;
mod evidence;
mod home;
pub mod identity;
pub mod inbox;
pub mod invite;
pub mod join;
pub mod journal;
mod lanes;
pub mod outbox;
mod party;
mod pause;
pub mod pipeline;
pub mod receive;
pub mod requests;
pub mod rotate;
pub mod send;
mod spool;
pub mod transfer;
pub mod transport;
mod typed;
mod watch;

pub use error::{Class, Error, Hindrance, Result, Span};
pub use home::{Home, HomeError};
pub use party::{Party, is_joined};
pub use watch::{News, StartsOver, Unwatched, Watch};
