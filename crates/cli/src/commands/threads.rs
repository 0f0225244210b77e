//! On how many threads encrypt and decrypt work.

use std::num::NonZero;
use std::thread::available_parallelism;

use clap::Args;

/// The flag of both verbs.
#[derive(Args)]
pub(crate) struct Threads {
    /// Work on so many threads, 256 at most, with 1 MiB of memory for each; as many as there are cores if not given
    #[arg(long = "threads", value_name = "N")]
    number: Option<NonZero<usize>>,
}

impl Threads {
    /// How many; one where the system does not say how many cores there are.
    pub(crate) fn count(&self) -> NonZero<usize> {
        self.number.or_else(|| available_parallelism().ok()).unwrap_or(NonZero::<usize>::MIN)
    }
}
