//! What is asked of the ledger from beside: whether it answers, and how full it is.

use sqlx::Row as _;

use super::{Ledger, Result};

impl Ledger {
    /// Bytes that count to the relay's whole quota.
    pub(crate) async fn used(&self) -> Result<u64> {
        let mut tx = self.read().await?;
        let row = sqlx::query("SELECT used FROM space").fetch_one(&mut *tx).await?;
        Ok(u64::try_from(row.try_get::<i64, _>("used")?).unwrap_or(0))
    }
}
