//! `relay check`: the ledger against the blobs, both ways, and against its own sums.
//!
//! It may run while nodes serve, where the ledger allows that: what looks wrong is looked at again in the ledger before it
//! is told, as its bundle may have ended meanwhile.

use std::io;

use futures_util::StreamExt as _;
use pouch_statement::{BundleId, Timestamp};

use crate::blob::{self, Announced, Blobs, Hasher, Listed, StoreError};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::disk::Disk;
use crate::ledger::{Ledger, LedgerError, Mended, StoredObject, Summed};
use crate::server::{OpenError, blobs_error, take_folder};
use crate::store;

/// Objects that are read at once.
const PARALLEL: usize = 16;

/// What is done beyond looking.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions {
    /// Repairs what can be.
    pub repair: bool,
    /// Reads all bytes and compares their digests.
    pub deep: bool,
    /// Takes the blobs for the relay's before, whatever id their store has.
    pub adopt_store: bool,
}

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A counter is not the sum of its rows.
    Sum {
        /// Of an account, a bundle or the relay.
        of: String,
        /// Which counter.
        counter: &'static str,
        /// What it says.
        says: i64,
        /// What its rows say.
        must: i64,
    },
    /// The blob of an object is not there, is shorter or longer, or has another digest.
    Lost {
        /// The bundle.
        bundle: BundleId,
        /// Its part; `None`: its index.
        part: Option<u32>,
        /// What is wrong with it.
        what: String,
    },
    /// Stored blobs that no object uses.
    Unused(u64),
    /// A blob that the ledger does not know, and that no backup of it can know.
    Orphan {
        /// Its length.
        length: u64,
        /// Since when it is there.
        since: Timestamp,
    },
    /// A bundle that is marked as damaged, and of which everything is there (again).
    Damaged(BundleId),
}

/// What came of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Objects that were looked at.
    pub objects: u64,
    /// Blobs that were listed.
    pub blobs: u64,
    /// Blobs that the ledger does not know, but that a backup of it may.
    pub kept: u64,
    /// Findings.
    pub found: u64,
    /// Findings of which nothing is left, as they were repaired.
    pub repaired: u64,
}

/// Why a check does not end.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The relay does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Too much at once.
    #[error("blobs are adopted or repaired, not both at once: adopt them, look at what a check finds, and repair then")]
    Options,
    /// The ledger.
    #[error("the check broke off: {0}")]
    Ledger(String),
    /// The blobs.
    #[error("the check broke off: blobs: {0}")]
    Blobs(String),
}

impl From<LedgerError> for CheckError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error.to_string())
    }
}

impl From<StoreError> for CheckError {
    fn from(error: StoreError) -> Self {
        Self::Blobs(error.to_string())
    }
}

/// Checks a relay; each finding is told as it comes, with whether it was repaired.
///
/// # Errors
/// What keeps a relay from being opened, and ledger or blobs that cannot be read. A ledger in a file is in use while its
/// relay runs.
pub async fn check(
    config: &Config,
    options: CheckOptions,
    tell: &mut (dyn FnMut(&Finding, bool) + Send),
) -> Result<Checked, CheckError> {
    // What no row names would be deleted, and what is not there forgotten, before anybody has seen whose blobs these are.
    if options.adopt_store && options.repair {
        return Err(CheckError::Options);
    }
    // A ledger on a server is for many: this is one more of them.
    let _lock = if config.ledger.is_none() { Some(take_folder(config)?) } else { None };
    let ledger = Ledger::open(config).await.map_err(OpenError::from)?;
    let blobs = blob::open(config, Disk::default()).await.map_err(|error| blobs_error(config, error))?;
    store::settle(&ledger, &blobs, &SystemClock, options.adopt_store).await.map_err(OpenError::from)?;
    let mut check = Check { config, options, ledger: &ledger, blobs, tell, checked: Checked::default() };
    let outcome = check.run().await;
    let checked = check.checked;
    ledger.close().await;
    outcome.map(|()| checked)
}

struct Check<'a> {
    config: &'a Config,
    options: CheckOptions,
    ledger: &'a Ledger,
    blobs: Blobs,
    tell: &'a mut (dyn FnMut(&Finding, bool) + Send),
    checked: Checked,
}

impl Check<'_> {
    async fn run(&mut self) -> Result<(), CheckError> {
        self.objects().await?;
        self.unused().await?;
        self.listing().await?;
        // Last, as repairs change what is to be summed up.
        self.sums().await
    }

    fn found(&mut self, finding: &Finding, repaired: bool) {
        self.checked.found += 1;
        self.checked.repaired += u64::from(repaired);
        (self.tell)(finding, repaired);
    }

    /// Every object that can be fetched has its blob.
    async fn objects(&mut self) -> Result<(), CheckError> {
        let mut last: Option<StoredObject> = None;
        // They come bundle by bundle.
        let mut bundle: Option<Looked> = None;
        loop {
            let page = self.ledger.stored_objects(last.as_ref()).await?;
            let Some(end) = page.last().copied() else { return self.whole(bundle).await };
            let (blobs, deep) = (&self.blobs, self.options.deep);
            let looked = futures_util::stream::iter(page)
                .map(|object| async move { (object, look(blobs, &object, deep).await) })
                .buffered(PARALLEL)
                .collect::<Vec<_>>()
                .await;
            for (object, wrong) in looked {
                self.checked.objects += 1;
                if bundle.is_none_or(|looked| looked.bundle != object.bundle) {
                    self.whole(bundle).await?;
                    bundle = Some(Looked { bundle: object.bundle, damaged: object.damaged, lost: false });
                }
                if let Some(what) = wrong?
                    && self.lost(object, what).await?
                {
                    bundle = bundle.map(|looked| Looked { lost: true, ..looked });
                }
            }
            last = Some(end);
        }
    }

    /// Whether it is really lost, and not only over.
    async fn lost(&mut self, object: StoredObject, what: String) -> Result<bool, CheckError> {
        if !self.ledger.is_stored(&object).await? {
            return Ok(false);
        }
        // What is lost of a delivered bundle stays lost: its mark is no repair.
        let repaired = self.options.repair && self.ledger.mend(object, SystemClock.now()).await? == Mended::Forgotten;
        self.found(&Finding::Lost { bundle: object.bundle, part: object.part, what }, repaired);
        Ok(true)
    }

    /// The mark of a bundle that is whole again goes, if all of it was read: another look would not see what was altered.
    async fn whole(&mut self, looked: Option<Looked>) -> Result<(), CheckError> {
        let Some(Looked { bundle, damaged: true, lost: false }) = looked else { return Ok(()) };
        let repairs = self.options.repair && self.options.deep;
        if repairs {
            self.ledger.unmark(bundle).await?;
        }
        self.found(&Finding::Damaged(bundle), repairs);
        Ok(())
    }

    async fn unused(&mut self) -> Result<(), CheckError> {
        let (mut count, mut last) = (0, None);
        loop {
            let (unused, end) = self.ledger.unused_blobs(last).await?;
            count += unused.len() as u64;
            if self.options.repair && !unused.is_empty() {
                self.ledger.doom_unused(unused, SystemClock.now()).await?;
            }
            last = end;
            if last.is_none() {
                break;
            }
        }
        if count > 0 {
            self.found(&Finding::Unused(count), self.options.repair);
        }
        Ok(())
    }

    /// Every blob is one that the ledger knows, and as long as it says.
    async fn listing(&mut self) -> Result<(), CheckError> {
        let mut next = None;
        loop {
            let page = self.blobs.list(next).await?;
            for blob in page.blobs {
                self.checked.blobs += 1;
                match self.ledger.object_of(blob.name).await? {
                    Some(object) if object.length < blob.length => {
                        let what = format!("{} bytes instead of {}", blob.length, object.length);
                        self.lost(object, what).await?;
                    }
                    Some(_) => {}
                    None if self.ledger.has_blob(blob.name).await? => {}
                    None => self.orphan(blob).await?,
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    async fn orphan(&mut self, blob: Listed) -> Result<(), CheckError> {
        let least = crate::orphans::least_age(self.config, &*self.blobs);
        if SystemClock.now().since(blob.modified) < least {
            self.checked.kept += 1;
            return Ok(());
        }
        if self.options.repair {
            self.blobs.remove(blob.name).await?;
        }
        self.found(&Finding::Orphan { length: blob.length, since: blob.modified }, self.options.repair);
        Ok(())
    }

    async fn sums(&mut self) -> Result<(), CheckError> {
        let mut after = Some(Summed::NOTHING);
        while let Some(summed) = after {
            let (wrong, next) = self.ledger.wrong_sums(summed).await?;
            for sum in wrong {
                // Before those that are compared next: accounts are the sums of their bundles, the relay that of its accounts.
                if self.options.repair {
                    self.ledger.repair_sum(&sum).await?;
                }
                let finding = Finding::Sum { of: sum.of, counter: sum.counter, says: sum.says, must: sum.must };
                self.found(&finding, self.options.repair);
            }
            after = next;
        }
        Ok(())
    }
}

/// A bundle of which objects were looked at.
#[derive(Clone, Copy)]
struct Looked {
    bundle: BundleId,
    /// Whether it is marked.
    damaged: bool,
    /// Whether something of it is lost.
    lost: bool,
}

/// What is wrong with an object's blob. Its last byte alone tells that it is there and long enough.
async fn look(blobs: &Blobs, object: &StoredObject, deep: bool) -> Result<Option<String>, CheckError> {
    let offset = if deep { 0 } else { object.length.saturating_sub(1) };
    let mut stream = match blobs.read(object.blob, offset, object.length - offset).await {
        Ok(stream) => stream,
        Err(StoreError::NotFound(_)) => return Ok(Some("missing".to_owned())),
        // Whatever else it is may pass, and is no reason to call something lost.
        Err(error) => return Err(CheckError::Blobs(error.to_string())),
    };
    let hasher = if object.part.is_some() { Hasher::blake3() } else { Hasher::sha256() };
    let mut announced = Announced::new(object.length, hasher, object.digest);
    let altered = || Ok(Some("altered: another digest".to_owned()));
    let mut length = 0;
    while let Some(bytes) = stream.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Some("too short".to_owned())),
            Err(error) => return Err(CheckError::Blobs(error.to_string())),
        };
        length += bytes.len() as u64;
        if deep && announced.take(&bytes).is_err() {
            return altered();
        }
    }
    if length != object.length - offset {
        return Ok(Some("too short".to_owned()));
    }
    if deep && announced.check().is_err() { altered() } else { Ok(None) }
}
