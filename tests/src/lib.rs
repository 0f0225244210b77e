//! Test support.

pub mod hostile;
