//! The index: the single source of names, lengths and digests of a bundle.
//!
//! JSON lines in one canonical form. [`Index::decode`] refuses whatever breaks a rule, so that an [`Index`] in
//! hand obeys all of them; sealing builds its index by the same rules.

use std::ops::Range;
use std::thread;

use pouch_statement::Blake3Digest;
use serde::{Deserialize, Serialize};

use super::archive::{Item, ItemKind};
use super::frames::{Compression, Frames};
use super::layout::{Layout, LayoutError};
use super::lines::{EntryLine, FrameLine, HeadLine, Lines, PartLine, entry_of, write_line};
use super::path::{EntryPath, PathError, in_order};
use super::plan::Plan;
use crate::age::sealed_len;

/// The most bytes of a plain index, before padding.
pub const MAX_INDEX: u64 = 256 << 20;
/// The most entries of a bundle.
pub const MAX_ENTRIES: u64 = 2_000_000;

/// Bytes that most lines of entries need: so little is copied while the whole grows.
const LINE: usize = 192;
/// Entries that are not worth another thread.
const MIN_SHARE: usize = 4096;

/// What the first line says that it is.
pub(super) const TYPE: &str = "pouch.index.v1";

/// Why bytes are not an index, or entries cannot be one.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum IndexError {
    /// Longer than [`MAX_INDEX`].
    #[error("the index has more than {MAX_INDEX} bytes")]
    TooLong,
    /// More than [`MAX_ENTRIES`].
    #[error("the index names {entries} entries, at most {MAX_ENTRIES} fit")]
    TooManyEntries {
        /// How many it says.
        entries: u64,
    },
    /// Of another kind or version.
    #[error("expected an index of type {TYPE}, of no other kind or version")]
    Type,
    /// A line that is missing, too long, not of its kind, or not in canonical form.
    #[error("line {line} of the index cannot be read: {reason}")]
    Line {
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong, in our words.
        reason: &'static str,
    },
    /// A path that no bundle may carry.
    #[error("entry {entry} of the index: {reason}")]
    Path {
        /// Number of the entry, from 1.
        entry: u64,
        /// What is wrong with it.
        reason: PathError,
    },
    /// Two entries with one path, or not sorted.
    #[error("{path:?} stands twice or out of order")]
    Order {
        /// The second of the two.
        path: EntryPath,
    },
    /// An entry beneath a file, or whose folder is no entry.
    #[error("{path:?} lies in no folder of the bundle")]
    NoFolder {
        /// The entry.
        path: EntryPath,
    },
    /// A stream is one file with a name of one component.
    #[error("the content is one stream, and the entries are not one plain file")]
    NotAStream,
    /// The sizes of entries, content, padding and parts do not fit each other.
    #[error("the sizes in the index do not fit each other: {what}")]
    Sizes {
        /// Which ones.
        what: &'static str,
    },
    /// More content than a bundle can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// What the parts hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentKind {
    /// An archive of profile 1.
    Tar,
    /// The raw bytes of one stream.
    Stream,
}

/// One entry of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub path: EntryPath,
    /// Last change, in seconds since 1970; negative before.
    pub mtime: i64,
    /// Folder or file.
    pub kind: EntryKind,
}

/// Folder or file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Its bytes.
        size: u64,
        /// Whether it may be run.
        executable: bool,
        /// Digest of its bytes.
        blake3: Blake3Digest,
    },
}

impl Entry {
    /// What the archive's header tells of it.
    #[must_use]
    pub fn item(&self) -> Item<'_> {
        let kind = match self.kind {
            EntryKind::Folder => ItemKind::Folder,
            EntryKind::File { size, executable, .. } => ItemKind::File { size, executable },
        };
        Item { path: &self.path, mtime: self.mtime, kind }
    }

    /// Bytes of a file, zero for a folder.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.item().kind.size()
    }
}

/// One sealed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartSpec {
    /// Bytes of padded content.
    pub size: u64,
    /// Bytes of the age file.
    pub sealed_size: u64,
    /// Digest of the age file.
    pub sealed_blake3: Blake3Digest,
}

/// The index of one bundle; all rules of docs/format.md hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    plan: Plan,
    layout: Layout,
    entries: Vec<Entry>,
    frames: Option<Frames>,
    parts: Vec<PartSpec>,
}

impl Index {
    /// Puts an index together.
    ///
    /// # Errors
    /// Whatever a receiver would refuse.
    pub fn new(content: ContentKind, entries: Vec<Entry>, parts: Vec<PartSpec>) -> Result<Self, IndexError> {
        Self::put_together(content, entries, None, parts)
    }

    /// Puts an index of compressed content together, whose frames have so many bytes each.
    ///
    /// # Errors
    /// Whatever a receiver would refuse.
    pub fn compressed(
        content: ContentKind,
        entries: Vec<Entry>,
        frames: &[u64],
        parts: Vec<PartSpec>,
    ) -> Result<Self, IndexError> {
        Self::put_together(content, entries, Some(frames), parts)
    }

    fn put_together(
        content: ContentKind,
        entries: Vec<Entry>,
        frames: Option<&[u64]>,
        parts: Vec<PartSpec>,
    ) -> Result<Self, IndexError> {
        let mut rules = Rules::new(content, entries.len() as u64)?;
        for entry in entries {
            rules.entry(entry)?;
        }
        let Rules { entries, plan, .. } = rules;
        let frames = frames.map(|sizes| {
            let mut frames = new_frames(&plan)?;
            sizes.iter().try_for_each(|size| push_frame(&mut frames, *size)).map(|()| frames)
        });
        let frames = frames.transpose()?;
        let layout = layout_of(&plan, frames.as_ref())?;
        check_parts(&layout, &parts)?;
        Ok(Self { plan, layout, entries, frames, parts })
    }

    /// The canonical bytes, not padded.
    ///
    /// # Errors
    /// [`IndexError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, IndexError> {
        let mut out = Vec::with_capacity(self.entries.len() * LINE);
        let head = HeadLine {
            kind: TYPE.into(),
            content: self.content(),
            content_size: self.layout.content_size(),
            padded_size: self.layout.padded_size(),
            entries: self.entries.len() as u64,
            parts: self.layout.parts(),
            compression: self.compression(),
            raw_size: self.frames.as_ref().map(Frames::raw_size),
            frames: self.frames.as_ref().map(|frames| frames.sizes().len() as u64),
        };
        write_line(&head, &mut out, 1)?;
        write_entries(&self.entries, &mut out)?;
        let mut behind = self.entries.len() as u64 + 2;
        for (frame, size) in (0..).zip(self.frames.iter().flat_map(Frames::sizes)) {
            write_line(&FrameLine { frame, size }, &mut out, behind)?;
            behind += 1;
        }
        for (part, spec) in (0..).zip(&self.parts) {
            let PartSpec { size, sealed_size, sealed_blake3 } = *spec;
            write_line(&PartLine { part, size, sealed_size, sealed_blake3 }, &mut out, behind + u64::from(part))?;
        }
        if out.len() as u64 > MAX_INDEX { Err(IndexError::TooLong) } else { Ok(out) }
    }

    /// Reads an index without its padding. Memory grows with the lines that are there, never with a number that a
    /// line claims (attacks.md 11, 14).
    ///
    /// # Errors
    /// Everything that is not a canonical index obeying every rule of docs/format.md.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes.len() as u64 > MAX_INDEX {
            return Err(IndexError::TooLong);
        }
        let mut lines = Lines::new(bytes);
        let head: HeadLine<'_> = lines.next()?;
        if head.kind != TYPE {
            return Err(IndexError::Type);
        }
        let mut rules = Rules::new(head.content, head.entries)?;
        for number in 1..=head.entries {
            let entry = entry_of(lines.next()?, number, lines.line())?;
            rules.entry(entry)?;
        }
        let Rules { entries, plan, .. } = rules;
        let frames = match (head.compression, head.raw_size, head.frames) {
            (None, None, None) => None,
            (Some(Compression::Zstd), Some(raw_size), Some(count)) => {
                let mut frames = new_frames(&plan)?;
                if (raw_size, count) != (frames.raw_size(), Frames::count(raw_size)) {
                    return Err(IndexError::Sizes { what: "the content, its entries and its frames" });
                }
                for number in 0..count {
                    let FrameLine { frame, size } = lines.next()?;
                    if frame != number {
                        return Err(lines.error("frames are out of order"));
                    }
                    push_frame(&mut frames, size)?;
                }
                Some(frames)
            }
            _ => return Err(IndexError::Line { line: 1, reason: "not the members of compressed content or of other" }),
        };
        let layout = layout_of(&plan, frames.as_ref())?;
        if (layout.content_size(), layout.padded_size(), layout.parts())
            != (head.content_size, head.padded_size, head.parts)
        {
            return Err(IndexError::Sizes { what: "the content and its entries" });
        }
        let mut parts = Vec::new();
        for number in 0..head.parts {
            let line: PartLine = lines.next()?;
            if line.part != number {
                return Err(lines.error("parts are out of order"));
            }
            let PartLine { size, sealed_size, sealed_blake3, .. } = line;
            parts.push(PartSpec { size, sealed_size, sealed_blake3 });
        }
        if !lines.is_empty() {
            return Err(lines.error("there is more behind the last part"));
        }
        check_parts(&layout, &parts)?;
        Ok(Self { plan, layout, entries, frames, parts })
    }

    /// How the content is compressed, if it is.
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        self.frames.as_ref().map(|_| Compression::Zstd)
    }

    /// The frames of compressed content.
    #[must_use]
    pub fn frames(&self) -> Option<&Frames> {
        self.frames.as_ref()
    }

    /// What the parts hold.
    #[must_use]
    pub fn content(&self) -> ContentKind {
        self.plan.kind()
    }

    /// Where each entry lies in the content.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Lengths of content, padding and parts; behind compression.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The entries, sorted by path.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The parts by number.
    #[must_use]
    pub fn parts(&self) -> &[PartSpec] {
        &self.parts
    }

    /// Where in the content the bytes of a file lie. Of content that is not compressed, [`Layout::locate`] tells in which
    /// parts.
    #[must_use]
    pub fn locate(&self, path: &str) -> Option<Range<u64>> {
        let number = self.number(path)?;
        self.plan.body(number, self.entries.get(number)?.size())
    }

    /// The entry with this path.
    #[must_use]
    pub fn entry(&self, path: &str) -> Option<&Entry> {
        self.entries.get(self.number(path)?)
    }

    /// The number of the entry with this path.
    pub(super) fn number(&self, path: &str) -> Option<usize> {
        find(&self.entries, path)
    }
}

/// Writes the lines of entries, on all cores when there are many: nothing else can be done before they are there.
fn write_entries(entries: &[Entry], out: &mut Vec<u8>) -> Result<(), IndexError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = entries.len().div_ceil(threads).max(MIN_SHARE);
    let write = |number: usize, entries: &[Entry], out: &mut Vec<u8>| {
        // Behind the first line, from 1.
        let first = (number * share) as u64 + 2;
        (first..).zip(entries).try_for_each(|(line, entry)| write_line(&EntryLine::from(entry), out, line))
    };
    let written = |number: usize, entries: &[Entry]| {
        let mut out = Vec::with_capacity(entries.len() * LINE);
        write(number, entries, &mut out).map(|()| out)
    };
    let mut shares = entries.chunks(share).enumerate();
    let Some((_, mine)) = shares.next() else { return Ok(()) };
    thread::scope(|scope| {
        let others: Vec<_> = shares
            .map(|(number, entries)| {
                let other = thread::Builder::new().spawn_scoped(scope, move || written(number, entries)).ok();
                (number, entries, other)
            })
            .collect();
        write(0, mine, out)?;
        for (number, entries, other) in others {
            // A thread that the system did not grant leaves its share to this one.
            let lines = match other {
                Some(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                None => written(number, entries),
            };
            out.extend_from_slice(&lines?);
        }
        Ok(())
    })
}

fn find(entries: &[Entry], path: &str) -> Option<usize> {
    entries.binary_search_by(|e| in_order(e.path.as_str(), path)).ok()
}

/// The rules for entries, applied to each as it comes.
struct Rules {
    entries: Vec<Entry>,
    plan: Plan,
    /// Numbers of the folders around the last entry, itself included: whatever may lie in one follows right behind it.
    around: Vec<usize>,
}

impl Rules {
    fn new(content: ContentKind, entries: u64) -> Result<Self, IndexError> {
        if entries > MAX_ENTRIES {
            return Err(IndexError::TooManyEntries { entries });
        }
        if content == ContentKind::Stream && entries != 1 {
            return Err(IndexError::NotAStream);
        }
        Ok(Self { entries: Vec::new(), plan: Plan::new(content), around: Vec::new() })
    }

    fn entry(&mut self, entry: Entry) -> Result<(), IndexError> {
        if self.entries.last().is_some_and(|last| last.path >= entry.path) {
            return Err(IndexError::Order { path: entry.path });
        }
        let parent = entry.path.parent();
        while let Some(number) = self.around.last() {
            if self.entries.get(*number).map(|folder| folder.path.as_str()) == parent {
                break;
            }
            self.around.pop();
        }
        if parent.is_some() && self.around.is_empty() {
            return Err(IndexError::NoFolder { path: entry.path });
        }
        if self.plan.kind() == ContentKind::Stream && !matches!(entry.kind, EntryKind::File { executable: false, .. }) {
            return Err(IndexError::NotAStream);
        }
        if self.plan.push(&entry.item()).is_none() {
            return Err(IndexError::Sizes { what: "the entries are larger than any content" });
        }
        if entry.kind == EntryKind::Folder {
            self.around.push(self.entries.len());
        }
        self.entries.push(entry);
        Ok(())
    }
}

/// The frames of this content, of which none is known. What does not fit into a bundle does not fit compressed either, so
/// there is an end to what may come out of it (attacks.md 12).
fn new_frames(plan: &Plan) -> Result<Frames, IndexError> {
    Layout::of(plan.content_size())?;
    Ok(Frames::new(plan.content_size()))
}

fn push_frame(frames: &mut Frames, size: u64) -> Result<(), IndexError> {
    frames.push(size).ok_or(IndexError::Sizes { what: "a frame and its content" })
}

/// The lengths that follow from the entries or, of compressed content, from all its frames.
fn layout_of(plan: &Plan, frames: Option<&Frames>) -> Result<Layout, IndexError> {
    let content_size = match frames {
        None => Some(plan.content_size()),
        Some(frames) if frames.is_complete() => frames.content_size(),
        Some(_) => None,
    };
    Ok(Layout::of(content_size.ok_or(IndexError::Sizes { what: "the number of frames" })?)?)
}

fn check_parts(layout: &Layout, parts: &[PartSpec]) -> Result<(), IndexError> {
    if parts.len() as u64 != u64::from(layout.parts()) {
        return Err(IndexError::Sizes { what: "the number of parts" });
    }
    for (number, spec) in (0..).zip(parts) {
        if layout.part_size(number) != Some(spec.size) {
            return Err(IndexError::Sizes { what: "a part and the content" });
        }
        // One stanza of one kind: the length of the age file follows.
        if sealed_len(spec.size) != Some(spec.sealed_size) {
            return Err(IndexError::Sizes { what: "a part, plain and sealed" });
        }
    }
    Ok(())
}
