//! Whether the blobs are those of the ledger. A blob that no row names is deleted and an object whose blob is not there is
//! lost; so a relay that has one of the two from elsewhere would destroy both. Therefore the ledger gives the store an id,
//! once, and whoever opens both compares.

use crate::blob::{Blobs, StoreError, StoreId};
use crate::clock::Clock;
use crate::ledger::{CLAIM_SECONDS, Ledger, LedgerError};

/// Of the objects of a ledger that has given no store its id yet, so many are looked for in the one that it is to get.
const SAMPLE: usize = 16;

/// Why the blobs are not used with the ledger. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreIdError {
    /// The store has no id.
    #[error(
        "the blobs are not known to be this relay's: `store` is missing beside them, which must hold {ours}; see that `blobs` is \
         right, that all nodes have the same blobs, and that a restore brought `store` along; if the blobs are lost, \
         `pouch relay check --adopt-store` takes these"
    )]
    Absent {
        /// What the ledger says.
        ours: String,
    },
    /// The store has another id.
    #[error(
        "the blobs are another relay's: `store` beside them holds {found}, the ledger says {ours}; see that `blobs` and `ledger` are \
         right; if no other relay uses these blobs and this one's are lost, `pouch relay check --adopt-store` takes these"
    )]
    Other {
        /// What the ledger says.
        ours: String,
        /// What the store says.
        found: String,
    },
    /// A ledger that never had a store for certain, and a store with none of its objects.
    #[error(
        "the blobs are not this relay's: none of {looked} objects of the ledger that were looked for is there; see that `blobs` is \
         right; if the blobs are lost, `pouch relay check --adopt-store` takes these"
    )]
    Empty {
        /// How many.
        looked: usize,
    },
    /// Several nodes start for the first time.
    #[error("another node takes its blobs into use; start again in {CLAIM_SECONDS} seconds at most")]
    Claimed,
    /// The ledger.
    #[error("{0}")]
    Ledger(String),
    /// The blobs.
    #[error("blobs: {0}")]
    Blobs(String),
}

impl From<LedgerError> for StoreIdError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error.to_string())
    }
}

impl From<StoreError> for StoreIdError {
    fn from(error: StoreError) -> Self {
        Self::Blobs(error.to_string())
    }
}

/// Compares the ids; a ledger whose id no store has yet gives it to this one. `adopt`: gives it to this one in any case.
pub(crate) async fn settle(
    ledger: &Ledger,
    blobs: &Blobs,
    clock: &dyn Clock,
    adopt: bool,
) -> Result<StoreId, StoreIdError> {
    let (id, bound) = ledger.store().await?;
    if adopt {
        blobs.set_id(id).await?;
        ledger.bind_store().await?;
        return Ok(id);
    }
    if !bound {
        if let Some(claim) = ledger.claim_store(clock.now()).await? {
            let given = give(ledger, blobs, id).await;
            ledger.end_claim(claim, given.is_ok()).await?;
            given?;
            // Whoever was slower than its claim may have met another.
            return compare(id, blobs.id().await?).map(|()| id);
        }
        if !ledger.store().await?.1 {
            return Err(StoreIdError::Claimed);
        }
    }
    compare(id, blobs.id().await?).map(|()| id)
}

/// Whether a store with this id is the one.
fn compare(ours: StoreId, found: Option<StoreId>) -> Result<(), StoreIdError> {
    match found {
        Some(found) if found == ours => Ok(()),
        Some(found) => Err(StoreIdError::Other { ours: ours.to_string(), found: found.to_string() }),
        None => Err(StoreIdError::Absent { ours: ours.to_string() }),
    }
}

/// Gives a store its id, unless it has one or cannot be the one.
async fn give(ledger: &Ledger, blobs: &Blobs, id: StoreId) -> Result<(), StoreIdError> {
    if let Some(found) = blobs.id().await? {
        return compare(id, Some(found));
    }
    let objects = ledger.stored_objects(None).await?;
    let (mut looked, mut found) = (0, false);
    for object in objects.iter().take(SAMPLE) {
        match blobs.read(object.blob, 0, 1).await {
            Ok(_) => {
                found = true;
                break;
            }
            Err(StoreError::NotFound(_)) => looked += 1,
            Err(error) => return Err(error.into()),
        }
    }
    if looked > 0 && !found {
        return Err(StoreIdError::Empty { looked });
    }
    Ok(blobs.set_id(id).await?)
}
