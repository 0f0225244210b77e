//! Content on the sender's side: read once, in order, and cut into the plaintext of parts.
//!
//! The digest of a file is computed from the very bytes that go into a part, so what is listed is what was sealed.

use std::fs::File;
use std::io::{self, Read};

use pouch_statement::Blake3Digest;

use super::archive::{self, ARCHIVE_END, ItemKind, file_fill};
use super::index::{ContentKind, Entry, EntryKind};
use super::layout::{Layout, MAX_PARTS, part_capacity};
use super::path::EntryPath;
use super::seal::SealError;
use super::source::{Scan, SourceError, io_at};

/// What goes into a bundle.
pub enum Content {
    /// Files and folders.
    Tree(Scan),
    /// One stream of unknown length, for instance standard input.
    Stream {
        /// What it is called at the recipient's; one component.
        name: EntryPath,
        /// The time that stands for its last change, in seconds since 1970.
        mtime: i64,
        /// Read to its end.
        reader: Box<dyn Read + Send>,
    },
}

/// Gives the padded content, part by part.
pub(super) struct Cutter {
    feed: Feed,
    /// Number of the part that comes next.
    number: u32,
    /// Bytes of content so far, without padding.
    content_size: u64,
    /// Bytes given so far, with padding.
    given: u64,
}

impl Cutter {
    pub(super) fn new(content: Content) -> Self {
        let feed = match content {
            Content::Tree(scan) => Feed::Tree(Box::new(TreeFeed {
                scan,
                next: 0,
                pending: Vec::new(),
                pending_at: 0,
                body: None,
                entries: Vec::new(),
                bytes: 0,
                closed: false,
                ended: false,
            })),
            Content::Stream { name, mtime, reader } => {
                let hash = blake3::Hasher::new();
                Feed::Stream(Box::new(StreamFeed { name, mtime, reader, hash, size: 0, ended: false }))
            }
        };
        Self { feed, number: 0, content_size: 0, given: 0 }
    }

    /// Lengths of the whole, if they are known before the end is reached.
    pub(super) fn planned(&self) -> Option<&Layout> {
        match &self.feed {
            Feed::Tree(tree) => Some(tree.scan.layout()),
            Feed::Stream(_) => None,
        }
    }

    /// Bytes of files or stream read so far, and entries done.
    pub(super) fn progress(&self) -> (u64, u64) {
        match &self.feed {
            Feed::Tree(tree) => (tree.bytes, tree.entries.len() as u64),
            Feed::Stream(stream) => (stream.size, u64::from(stream.ended)),
        }
    }

    /// Puts the next part into `plain`, whose memory is kept and grows at most once. `None` behind the last part,
    /// otherwise the part's number.
    pub(super) fn next(&mut self, plain: &mut Vec<u8>) -> Result<Option<u32>, SealError> {
        plain.clear();
        let number = self.number;
        if number == MAX_PARTS {
            return self.end();
        }
        let capacity = part_capacity(number);
        let expected = self.planned().map_or(Some(capacity), |layout| layout.part_size(number)).unwrap_or(0);
        let room = usize::try_from(capacity).unwrap_or(usize::MAX);
        // Exactly, so that no copy of the content stays behind in memory that was given back.
        plain.reserve_exact(usize::try_from(expected).unwrap_or(room));
        self.feed.fill(plain, room)?;
        self.content_size += plain.len() as u64;
        if self.feed.ended() {
            let end = Layout::of(self.content_size)?.padded_size();
            let padding = (end - self.given - plain.len() as u64).min(capacity - plain.len() as u64);
            plain.resize(plain.len() + padding as usize, 0);
        }
        self.given += plain.len() as u64;
        if plain.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some(number))
    }

    /// After the last part that a bundle can have: fine only if nothing is left.
    fn end(&mut self) -> Result<Option<u32>, SealError> {
        let mut probe = Vec::new();
        self.feed.fill(&mut probe, 1)?;
        Layout::of(self.content_size + probe.len() as u64)?;
        Ok(None)
    }

    /// The kind of content and its entries, once the last part was given.
    pub(super) fn finish(self) -> (ContentKind, Vec<Entry>) {
        match self.feed {
            Feed::Tree(tree) => (ContentKind::Tar, tree.entries),
            Feed::Stream(stream) => {
                let kind = EntryKind::File { size: stream.size, executable: false, blake3: digest(&stream.hash) };
                (ContentKind::Stream, vec![Entry { path: stream.name, mtime: stream.mtime, kind }])
            }
        }
    }
}

enum Feed {
    Tree(Box<TreeFeed>),
    Stream(Box<StreamFeed>),
}

impl Feed {
    /// Appends content until `out` has `room` bytes or the content ends.
    fn fill(&mut self, out: &mut Vec<u8>, room: usize) -> Result<(), SealError> {
        match self {
            Self::Tree(tree) => Ok(tree.fill(out, room)?),
            Self::Stream(stream) => stream.fill(out, room).map_err(SealError::Stream),
        }
    }

    fn ended(&self) -> bool {
        match self {
            Self::Tree(tree) => tree.ended,
            Self::Stream(stream) => stream.ended,
        }
    }
}

struct TreeFeed {
    scan: Scan,
    /// Number of the entry that comes next.
    next: usize,
    /// A header or filling on its way out.
    pending: Vec<u8>,
    pending_at: usize,
    body: Option<Body>,
    entries: Vec<Entry>,
    bytes: u64,
    closed: bool,
    ended: bool,
}

/// The file that is being read: entry `next - 1`.
struct Body {
    file: File,
    left: u64,
    hash: blake3::Hasher,
}

impl TreeFeed {
    fn fill(&mut self, out: &mut Vec<u8>, room: usize) -> Result<(), SourceError> {
        while out.len() < room && !self.ended {
            if let Some(pending) = self.pending.get(self.pending_at..).filter(|p| !p.is_empty()) {
                let (now, _) = pending.split_at(pending.len().min(room - out.len()));
                out.extend_from_slice(now);
                self.pending_at += now.len();
            } else if let Some(body) = &mut self.body {
                if body.left > 0 {
                    let before = out.len();
                    let found = self.scan.found(self.next - 1).ok_or(SourceError::Nothing)?;
                    body.read(out, room).map_err(|error| match error {
                        Some(error) => io_at(&self.scan.place(found))(error),
                        None => SourceError::Changed { path: self.scan.place(found) },
                    })?;
                    self.bytes += (out.len() - before) as u64;
                } else {
                    self.end_of_file()?;
                }
            } else {
                self.next_entry()?;
            }
        }
        Ok(())
    }

    fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.pending.clear();
        self.pending_at = 0;
        write(&mut self.pending);
    }

    fn next_entry(&mut self) -> Result<(), SourceError> {
        let Some(found) = self.scan.found(self.next) else {
            if self.closed {
                self.scan.folders_unchanged()?;
                self.ended = true;
            } else {
                self.closed = true;
                self.put(|out| out.resize(ARCHIVE_END as usize, 0));
            }
            return Ok(());
        };
        match found.kind {
            ItemKind::Folder => {
                let mtime = found.item().mtime;
                self.entries.push(Entry { path: found.path.clone(), mtime, kind: EntryKind::Folder });
            }
            ItemKind::File { size, .. } => {
                let file = self.scan.open(found)?;
                self.body = Some(Body { file, left: size, hash: blake3::Hasher::new() });
            }
        }
        self.pending.clear();
        self.pending_at = 0;
        archive::header(&found.item(), &mut self.pending);
        self.next += 1;
        Ok(())
    }

    /// All bytes that were listed are read: there must be no more, and the file must be what it was.
    fn end_of_file(&mut self) -> Result<(), SourceError> {
        let found = self.scan.found(self.next - 1).ok_or(SourceError::Nothing)?;
        let Some(mut body) = self.body.take() else { return Ok(()) };
        let path = self.scan.place(found);
        let more = read_fully(&mut body.file, 1, &mut Vec::new()).map_err(io_at(&path))?;
        if more > 0 {
            return Err(SourceError::Changed { path });
        }
        self.scan.unchanged(found, &body.file)?;
        if let ItemKind::File { size, executable } = found.kind {
            let kind = EntryKind::File { size, executable, blake3: digest(&body.hash) };
            self.entries.push(Entry { path: found.path.clone(), mtime: found.item().mtime, kind });
            self.put(|out| out.resize(file_fill(size) as usize, 0));
        }
        Ok(())
    }
}

impl Body {
    /// Reads into `out` up to `room`; `None` as error when the file ends too early.
    fn read(&mut self, out: &mut Vec<u8>, room: usize) -> Result<(), Option<io::Error>> {
        let before = out.len();
        let wanted = self.left.min((room - before) as u64);
        let read = read_fully(&mut self.file, wanted, out).map_err(Some)?;
        self.hash.update(out.get(before..).unwrap_or_default());
        self.left -= read;
        if read < wanted { Err(None) } else { Ok(()) }
    }
}

struct StreamFeed {
    name: EntryPath,
    mtime: i64,
    reader: Box<dyn Read + Send>,
    hash: blake3::Hasher,
    size: u64,
    ended: bool,
}

impl StreamFeed {
    fn fill(&mut self, out: &mut Vec<u8>, room: usize) -> io::Result<()> {
        if self.ended {
            return Ok(());
        }
        let before = out.len();
        let wanted = room.saturating_sub(before) as u64;
        let read = read_fully(&mut self.reader, wanted, out)?;
        self.hash.update(out.get(before..).unwrap_or_default());
        self.size += read;
        self.ended = read < wanted;
        Ok(())
    }
}

/// Appends up to `wanted` bytes; fewer only at the end of the input.
fn read_fully(reader: &mut impl Read, wanted: u64, out: &mut Vec<u8>) -> io::Result<u64> {
    Ok(reader.take(wanted).read_to_end(out)? as u64)
}

fn digest(hash: &blake3::Hasher) -> Blake3Digest {
    Blake3Digest::from_bytes(*hash.finalize().as_bytes())
}
