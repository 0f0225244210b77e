//! The end of sealing: the index, made of what all parts told.

use std::sync::PoisonError;
use std::thread;

use pouch_statement::{Blake3Digest, Sha256Digest};
use zeroize::Zeroizing;

use super::{SealError, SealedBundle, Sealer, Source};
use crate::age::seal_part;
use crate::bundle::archive::ItemKind;
use crate::bundle::index::{ContentKind, Entry, EntryKind, Index, IndexError};
use crate::bundle::manifest::Summary;
use crate::bundle::padding::padded;
use crate::bundle::source::{Found, Scan};

impl Sealer {
    /// Makes and seals the index.
    ///
    /// # Errors
    /// [`SealError::Unfinished`] before every part was sealed and, of a stream, [`Sealer::next_part`] gave `false`; an
    /// index that is too long.
    pub fn finish(self) -> Result<SealedBundle, SealError> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let parts: Option<Vec<_>> = state.parts.into_iter().collect();
        let parts = parts.filter(|_| !state.failed).ok_or(SealError::Unfinished)?;
        let frames = match self.packing {
            Some(packing) => Some(packing.into_sizes().ok_or(SealError::Unfinished)?),
            None => None,
        };
        let (content, entries) = match self.source {
            Source::Tree(scan) if frames.is_some() || parts.len() as u64 == u64::from(scan.layout().parts()) => {
                (ContentKind::Tar, entries(*scan, state.digests)?)
            }
            Source::Stream { name, mtime, cut } if state.closed => {
                let cut = cut.into_inner().unwrap_or_else(PoisonError::into_inner);
                let (size, blake3) = cut.told().ok_or(SealError::Unfinished)?;
                let kind = EntryKind::File { size, executable: false, blake3 };
                (ContentKind::Stream, vec![Entry { path: name, mtime, kind }])
            }
            _ => return Err(SealError::Unfinished),
        };
        let index = match frames {
            Some(frames) => Index::compressed(content, entries, &frames, parts)?,
            None => Index::new(content, entries, parts)?,
        };
        let mut plain = Zeroizing::new(index.encode()?);
        let index_size = plain.len() as u64;
        let end = padded(index_size).ok_or(IndexError::TooLong)?;
        plain.resize(end as usize, 0);
        let (signed, _) = plain.split_at(index_size as usize);
        let (index_sha256, sealed_index) = thread::scope(|scope| {
            let digest = scope.spawn(|| Sha256Digest::of(signed));
            let mut sealed = Vec::new();
            let made = seal_part(&self.recipient, &plain, &mut sealed);
            let digest = digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            made.map(|()| (digest, sealed))
        })?;
        let summary = Summary {
            content,
            layout: *index.layout(),
            index_size,
            index_sha256,
            sealed_index_size: sealed_index.len() as u64,
            sealed_index_sha256: Sha256Digest::of(&sealed_index),
        };
        Ok(SealedBundle { index, sealed_index, summary, key: self.key })
    }
}

/// The entries of a scan with the digests of its files.
fn entries(scan: Scan, digests: Vec<Option<Blake3Digest>>) -> Result<Vec<Entry>, SealError> {
    let entry = |(found, digest): (Found, Option<Blake3Digest>)| {
        let mtime = found.item().mtime;
        let kind = match (found.kind, digest) {
            (ItemKind::Folder, _) => EntryKind::Folder,
            (ItemKind::File { size, executable }, Some(blake3)) => EntryKind::File { size, executable, blake3 },
            (ItemKind::File { .. }, None) => return Err(SealError::Unfinished),
        };
        Ok(Entry { path: found.path, mtime, kind })
    };
    scan.into_found().zip(digests).map(entry).collect()
}
