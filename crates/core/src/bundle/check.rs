//! Content on the recipient's side: each byte is a derived header, a file's byte, or a zero, and is checked as such.

use pouch_statement::Blake3Digest;

use super::archive::{self, ARCHIVE_END, file_fill};
use super::index::{ContentKind, Entry, EntryKind, Index};
use super::padding::is_zero;
use super::path::EntryPath;
use super::sink::{Sink, SinkError};

/// Where the content is not what the index says.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContentError {
    /// The archive's header of an entry is not the derived one (attacks.md 3).
    #[error("the header of {path:?} in the archive is not the one that the index gives")]
    Header {
        /// The entry.
        path: EntryPath,
    },
    /// A file's bytes have another digest.
    #[error("the bytes of {path:?} do not have the digest in the index")]
    Digest {
        /// The entry.
        path: EntryPath,
    },
    /// A byte between or behind the entries is not zero.
    #[error("padding in the content is not zero")]
    Padding,
    /// More or less content than the index says; parts of the right size cannot add up to this.
    #[error("the content has another length than the index says")]
    Length,
}

/// Either the content is wrong, or what takes it failed.
pub(super) enum CheckError {
    Content(ContentError),
    Sink(SinkError),
}

impl From<ContentError> for CheckError {
    fn from(error: ContentError) -> Self {
        Self::Content(error)
    }
}

impl From<SinkError> for CheckError {
    fn from(error: SinkError) -> Self {
        Self::Sink(error)
    }
}

/// The state of reading content in order.
pub(super) struct Checker<S> {
    sink: S,
    /// Number of the entry that comes next.
    next: usize,
    step: Step,
}

enum Step {
    /// Bytes that must be exactly these; then the entry begins.
    Header { bytes: Vec<u8>, at: usize },
    /// A file's bytes.
    Body { left: u64, hash: Box<blake3::Hasher> },
    /// Zeros behind a file, up to the next header.
    Fill { left: u64 },
    /// Zeros to the end.
    End { left: u64 },
}

impl<S: Sink> Checker<S> {
    /// Stands in front of the first byte; `sink` hears at once what is coming, and may refuse.
    pub(super) fn new(index: &Index, mut sink: S) -> Result<Self, SinkError> {
        sink.begin(index)?;
        // Behind a filling of nothing stands the first entry.
        Ok(Self { sink, next: 0, step: Step::Fill { left: 0 } })
    }

    /// Takes the next bytes of the padded content. They are authentic, for their part's digest was checked.
    pub(super) fn feed(&mut self, index: &Index, mut bytes: &[u8]) -> Result<(), CheckError> {
        self.settle(index)?;
        while !bytes.is_empty() {
            let taken = self.take(index, bytes)?;
            if taken == 0 {
                return Err(ContentError::Length.into());
            }
            bytes = bytes.split_at(taken).1;
            self.settle(index)?;
        }
        Ok(())
    }

    /// A part came to its end, and was good.
    pub(super) fn part_done(&mut self) -> Result<(), SinkError> {
        self.sink.part_done()
    }

    /// The sink, once every byte was there.
    pub(super) fn finish(self, index: &Index) -> Result<S::Done, CheckError> {
        match self.step {
            Step::End { left: 0 } if self.next == index.entries().len() => Ok(self.sink.finish(index)?),
            _ => Err(ContentError::Length.into()),
        }
    }

    /// Checks as many bytes as the present step takes; their number, 0 at the end.
    fn take(&mut self, index: &Index, bytes: &[u8]) -> Result<usize, CheckError> {
        match &mut self.step {
            Step::Header { bytes: wanted, at } => {
                let wanted = wanted.get(*at..).unwrap_or_default();
                let length = wanted.len().min(bytes.len());
                if wanted.get(..length) != bytes.get(..length) {
                    let path = entry_at(index, self.next)?.path.clone();
                    return Err(ContentError::Header { path }.into());
                }
                *at += length;
                Ok(length)
            }
            Step::Body { left, hash } => {
                let now = within(bytes, *left);
                hash.update(now);
                self.sink.bytes(now)?;
                *left -= now.len() as u64;
                Ok(now.len())
            }
            Step::Fill { left } | Step::End { left } => {
                let now = within(bytes, *left);
                if !is_zero(now) {
                    return Err(ContentError::Padding.into());
                }
                *left -= now.len() as u64;
                Ok(now.len())
            }
        }
    }

    /// Goes on to the step that takes at least one byte, or to the end.
    fn settle(&mut self, index: &Index) -> Result<(), CheckError> {
        loop {
            let next = match &self.step {
                Step::Header { bytes, at } if *at == bytes.len() => {
                    let entry = entry_at(index, self.next)?;
                    self.begin(entry)?
                }
                Step::Body { left: 0, hash } => {
                    let entry = entry_at(index, self.next)?;
                    let found = Blake3Digest::from_bytes(*hash.finalize().as_bytes());
                    if !matches!(entry.kind, EntryKind::File { blake3, .. } if blake3 == found) {
                        return Err(ContentError::Digest { path: entry.path.clone() }.into());
                    }
                    self.sink.end_file(entry)?;
                    self.next += 1;
                    let left = if index.content() == ContentKind::Tar { file_fill(entry.size()) } else { 0 };
                    Step::Fill { left }
                }
                Step::Fill { left: 0 } => match index.entries().get(self.next) {
                    Some(entry) if index.content() == ContentKind::Stream => self.begin(entry)?,
                    Some(entry) => {
                        let mut bytes = Vec::new();
                        archive::header(&entry.item(), &mut bytes);
                        Step::Header { bytes, at: 0 }
                    }
                    None => {
                        let closing = if index.content() == ContentKind::Tar { ARCHIVE_END } else { 0 };
                        let layout = index.layout();
                        Step::End { left: layout.padded_size() - layout.content_size() + closing }
                    }
                },
                _ => return Ok(()),
            };
            self.step = next;
        }
    }

    /// The entry's header was right, or it needs none.
    fn begin(&mut self, entry: &Entry) -> Result<Step, CheckError> {
        match entry.kind {
            EntryKind::Folder => {
                self.sink.folder(entry)?;
                self.next += 1;
                Ok(Step::Fill { left: 0 })
            }
            EntryKind::File { size, .. } => {
                self.sink.begin_file(entry)?;
                Ok(Step::Body { left: size, hash: Box::new(blake3::Hasher::new()) })
            }
        }
    }
}

fn entry_at(index: &Index, number: usize) -> Result<&Entry, CheckError> {
    index.entries().get(number).ok_or_else(|| ContentError::Length.into())
}

fn within(bytes: &[u8], left: u64) -> &[u8] {
    let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    bytes.split_at(length).0
}
