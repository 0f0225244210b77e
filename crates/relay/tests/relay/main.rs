//! The relay over TLS on loopback: what docs/protocol.md says, and the rows of attacks.md that are the relay's.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod harness;

mod abuse;
mod amend;
mod bundles;
mod crowd;
mod description;
mod devices;
mod durability;
mod kills;
mod limits;
mod operations;
mod people;
mod pipelines;
mod proxies;
mod rates;
mod requests;
mod rotations;
mod s3;
mod tls;
mod waits;
