//! What is asked of the ledger from beside: whether it answers, and how full it is.

use super::database::query;
use super::row::uint;
use super::{Ledger, Result};

impl Ledger {
    /// Bytes that count to the relay's whole quota.
    pub(crate) async fn used(&self) -> Result<u64> {
        let mut conn = self.look().await?;
        uint(&query("SELECT used FROM space").fetch_one(&mut conn).await?, "used")
    }
}
