//! Which store the blobs of this ledger are in: the id that the ledger gave it, and whether one has it.

use pouch_statement::Timestamp;

use super::database::query;
use super::row::{bytes, uint};
use super::{Ledger, Result, int};
use crate::blob::StoreId;

/// For how long whoever gives the id to a store may do so alone.
pub(crate) const CLAIM_SECONDS: u64 = 120;

impl Ledger {
    /// The id of this ledger's store, and whether a store has it.
    pub(crate) async fn store(&self) -> Result<(StoreId, bool)> {
        let row = query("SELECT name, bound FROM store WHERE id = 1").fetch_one(&mut self.look().await?).await?;
        Ok((StoreId::from_bytes(bytes(&row, "name")?), uint(&row, "bound")? != 0))
    }

    /// Begins to give the id to a store: the claim. `None` when one has it, or somebody else is about to.
    pub(crate) async fn claim_store(&self, now: Timestamp) -> Result<Option<i64>> {
        // Nobody else can be: what is left is of a run that was cut off.
        let over = if self.is_exclusive() { i64::MAX } else { int(now.unix()) };
        self.write((), move |conn, ()| {
            Box::pin(async move {
                let claim = query("UPDATE store SET claimed = $1 WHERE bound = 0 AND claimed <= $2");
                let until = int(now.plus(CLAIM_SECONDS).unix());
                Ok((claim.bind(until).bind(over).execute(conn).await? > 0).then_some(until))
            })
        })
        .await
    }

    /// Ends a claim, and no other that came after it. `bound`: a store has the id, durably, and the ledger takes no other from
    /// now on.
    pub(crate) async fn end_claim(&self, claim: i64, bound: bool) -> Result<()> {
        self.write((), move |conn, ()| {
            Box::pin(async move {
                let end = query(
                    "UPDATE store SET claimed = CASE WHEN claimed = $2 THEN 0 ELSE claimed END,
                     bound = CASE WHEN $1 = 1 THEN 1 ELSE bound END",
                );
                end.bind(i64::from(bound)).bind(claim).execute(conn).await.map(drop)
            })
        })
        .await
    }

    /// A store has the id because the operator says so.
    pub(crate) async fn bind_store(&self) -> Result<()> {
        self.write((), move |conn, ()| {
            Box::pin(async move { query("UPDATE store SET claimed = 0, bound = 1").execute(conn).await.map(drop) })
        })
        .await
    }
}
