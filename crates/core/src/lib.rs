//! Streaming encryption and bundles: synchronous, over `std::io`; no network, no clock, no `$HOME`.

pub mod age;
pub mod bundle;
