//! Reading, sealing and uploading at once.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use pouch_core::age;
use pouch_core::bundle::{Compression, Content, Kept, Layout, SealError, SealedBundle, SealedPart, Sealer};
use pouch_protocol::{PartField, parts_digest};
use pouch_statement::{BundleId, Sha256Digest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::deliver::Sending;
use super::ride_out;
use crate::api::ApiError;
use crate::error::{Error, Result};
use crate::lanes::Lanes;
use crate::spool::Spool;
use crate::transfer::{Part, Transfer};

/// Threads that seal or open at most: what they do is faster than any network then, and each holds a part.
const MAX_THREADS: usize = 4;

pub(super) type SealWorker = JoinHandle<std::result::Result<SealedBundle, SealError>>;

/// How many threads seal or open.
pub(crate) fn threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores.min(MAX_THREADS)).unwrap_or(NonZeroUsize::MIN)
}

/// The memory of parts that are out of the house, for the next ones.
#[derive(Clone, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    pub(super) fn give(&self, memory: Vec<u8>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
    }
}

/// What is sealed, and how.
pub(super) struct Making {
    pub(super) content: Content,
    pub(super) compression: Option<Compression>,
    /// Of a send that can go on after an interruption: the bundle key, and what need not be sealed again.
    pub(super) kept: Option<(age::Identity, Kept)>,
}

impl Making {
    fn sealer(self) -> std::result::Result<Sealer, SealError> {
        match self.kept {
            Some((key, kept)) => Sealer::continuing(self.content, self.compression, key, kept),
            None => Sealer::compressing(self.content, self.compression),
        }
    }
}

/// Reads and seals on threads of their own; sealed parts come out of the channel in order, and the bundle behind the last
/// one.
pub(super) fn seal_in_background(making: Making, spare: Spare) -> (mpsc::Receiver<SealedPart>, SealWorker) {
    let (parts, queue) = mpsc::channel(1);
    let worker = tokio::task::spawn_blocking(move || {
        let sealer = making.sealer()?;
        sealer.seal_all(threads(), |part| {
            let next = SealedPart { sealed: spare.take(), ..SealedPart::default() };
            parts.blocking_send(std::mem::replace(part, next)).map_err(|_| SealError::Unfinished)
        })?;
        sealer.finish()
    });
    (queue, worker)
}

/// What all parts will cover, if it is known before the end: of files, and of a stream that is kept.
pub(super) fn planned(content: &Content, kept: Option<&Spool>, compression: Option<Compression>) -> Option<u64> {
    let layout = match (content, kept) {
        (Content::Tree(scan), _) => *scan.layout(),
        (Content::Stream { .. }, Some(spool)) => Layout::of(spool.size).ok()?,
        (Content::Stream { .. }, None) => return None,
    };
    Some(if compression.is_none() { layout.padded_size() } else { layout.content_size() })
}

/// What an upload leaves.
pub(super) struct Uploaded {
    pub(super) sealed: SealedBundle,
    /// Digest over all parts.
    pub(super) parts_sha256: Sha256Digest,
}

/// A part that the relay has acknowledged.
struct Through {
    /// Bytes of content that it stands for.
    covers: u64,
    sealed_size: u64,
    /// What is to be noted of it.
    part: Option<Part>,
}

impl Sending<'_> {
    /// Uploads the parts that the relay does not have, and notes each that it acknowledges.
    pub(super) async fn upload_parts(
        &self,
        transfer: &mut Transfer,
        bundle: BundleId,
        content: Content,
    ) -> Result<Uploaded> {
        let compression = self.how.compression;
        self.watch.stage("sending", self.how.planned(&content));
        let kept = match (&transfer.secrets, transfer.kept()) {
            (Some(secrets), Some(kept)) => Some((secrets.bundle_key()?, kept)),
            _ => None,
        };
        let spare = Spare::default();
        let (mut queue, worker) = seal_in_background(Making { content, compression, kept }, spare.clone());
        let mut uploads = FuturesUnordered::new();
        let (mut digests, mut lanes) = (Vec::new(), Lanes::new());
        loop {
            tokio::select! {
                part = queue.recv(), if uploads.len() < lanes.open() => {
                    let Some(part) = part else { break };
                    digests.push((part.sealed_size, part.blake3));
                    if part.is_kept() {
                        self.watch.advance(part.covers);
                        spare.give(part.sealed);
                        continue;
                    }
                    uploads.push(self.upload(bundle, part, &spare));
                }
                Some(done) = uploads.next(), if !uploads.is_empty() => {
                    let done = done?;
                    lanes.through(done.sealed_size, uploads.len());
                    self.acknowledged(transfer, done)?;
                }
            }
        }
        while let Some(done) = uploads.next().await {
            self.acknowledged(transfer, done?)?;
        }
        let sealed = worker.await.map_err(|_| Error::Worker)??;
        let parts_sha256 = parts_digest(digests.iter().map(|(length, blake3)| (*length, blake3)));
        Ok(Uploaded { sealed, parts_sha256 })
    }

    /// Uploads one part.
    async fn upload(
        &self,
        bundle: BundleId,
        part: SealedPart,
        spare: &Spare,
    ) -> std::result::Result<Through, ApiError> {
        let SealedPart { number, covers, sealed_size, blake3, content, sealed, .. } = part;
        let field = PartField { number, length: sealed_size, blake3 };
        let sealed = Bytes::from(sealed);
        ride_out(self.api, self.watch, || self.api.put_part(bundle, field, sealed.clone())).await?;
        if sealed.is_unique() {
            spare.give(sealed.into());
        }
        let note = |content| Part { part: number, sealed_size, sealed_blake3: blake3, content, covers };
        Ok(Through { covers, sealed_size, part: content.map(note) })
    }

    fn acknowledged(&self, transfer: &mut Transfer, Through { covers, part, .. }: Through) -> Result<()> {
        part.map_or(Ok(()), |part| transfer.note(part))?;
        self.watch.advance(covers);
        Ok(())
    }
}
