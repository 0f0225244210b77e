//! Content on the sender's side: read once, and put into the room of its part.
//!
//! The digest of a file is computed from the very bytes that go into a part, so what is listed is what was sealed.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use pouch_statement::Blake3Digest;

use super::archive::{self, ItemKind};
use super::kept::{self, DigestKey, Over};
use super::layout::{Layout, LayoutError, MAX_PARTS, part_capacity};
use super::path::EntryPath;
use super::plan::{Piece, Walk};
use super::source::{Found, Here, Scan, SourceError, io_at};
use super::spread::{self, PieceHasher};
use crate::age;

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

/// What a part has told of the files in it.
#[derive(Default)]
pub(super) struct Told {
    /// Digests of the files that lie in the part whole, by number of the entry.
    pub(super) whole: Vec<(usize, Blake3Digest)>,
    /// What the part adds to the digests of the others: two at most.
    pub(super) pieces: Vec<(usize, spread::Piece)>,
    /// Bytes of files or of the stream.
    pub(super) bytes: u64,
    /// Entries that end in the part.
    pub(super) entries: u64,
    /// The digest of all that is in the part, if it was asked for.
    pub(super) content: Option<Blake3Digest>,
}

/// Fills one part or frame from the files of a scan. They know nothing of each other, so each thread can fill another.
pub(super) struct TreePart<'a> {
    scan: &'a Scan,
    walk: Walk<'a>,
    /// The header that stands next, and whose it is.
    header: (Option<usize>, Vec<u8>),
    here: Here,
    body: Option<Body<'a>>,
    /// Takes headers and what files told. Their bytes are hashed already, so it need not take them again.
    content: Option<Box<blake3::Hasher>>,
    told: Told,
}

/// The file that is being read.
struct Body<'a> {
    number: usize,
    found: &'a Found,
    file: File,
    hash: Hash,
}

enum Hash {
    /// Of a file that lies in the part as a whole; nothing yet, if it is read in one go.
    Whole(Option<Box<blake3::Hasher>>),
    Piece(Box<PieceHasher>),
}

impl<'a> TreePart<'a> {
    /// For the bytes `at..end` of the content, before compression, with its padding.
    pub(super) fn new(scan: &'a Scan, at: u64, end: u64) -> Self {
        let walk = scan.plan().walk(at, end);
        let (header, here) = ((None, Vec::new()), Here::default());
        Self { scan, walk, header, here, body: None, content: None, told: Told::default() }
    }

    /// Also tells the digest under this key of all that is in the part.
    pub(super) fn digesting(mut self, key: &DigestKey) -> Self {
        let mut hasher = key.hasher(Over::Files);
        hasher.update(&self.walk.left().to_le_bytes());
        self.content = Some(hasher);
        self
    }

    /// Writes the next bytes of the part into all of `room`.
    pub(super) fn fill(&mut self, mut room: &mut [u8]) -> Result<(), SourceError> {
        while !room.is_empty() {
            let piece = self.piece(room.len()).ok_or(SourceError::Nothing)?;
            let length = self.put(piece, room)?;
            room = room.split_at_mut(length.min(room.len())).1;
        }
        Ok(())
    }

    /// Looks at what has no bytes, and gives what the files told.
    pub(super) fn finish(mut self) -> Result<Told, SourceError> {
        while let Some(piece) = self.piece(0) {
            self.put(piece, &mut [])?;
        }
        self.told.content = self.content.as_deref().map(kept::digest);
        Ok(self.told)
    }

    fn piece(&mut self, room: usize) -> Option<Piece> {
        let scan = self.scan;
        self.walk.next(room, |number| match scan.found(number)?.kind {
            ItemKind::Folder => None,
            ItemKind::File { size, .. } => Some(size),
        })
    }

    /// Puts a piece to the front of `room`; its length.
    fn put(&mut self, piece: Piece, room: &mut [u8]) -> Result<usize, SourceError> {
        match piece {
            Piece::Header { entry, from, len, ends } => {
                let found = self.scan.found(entry).ok_or(SourceError::Nothing)?;
                if self.header.0 != Some(entry) {
                    self.header.1.clear();
                    archive::header(&found.item(), &mut self.header.1);
                    self.header.0 = Some(entry);
                }
                if let (Some(room), Some(bytes)) = (room.get_mut(..len), self.header.1.get(from..from + len)) {
                    room.copy_from_slice(bytes);
                    self.tell(b'h', entry, from as u64, |hasher| {
                        hasher.update(room);
                    });
                }
                self.told.entries += u64::from(ends && found.kind == ItemKind::Folder);
                Ok(len)
            }
            Piece::Body { entry, from, len, till } => {
                self.read(entry, from, len, till, room)?;
                Ok(len)
            }
            Piece::Zeros { len } => {
                room.get_mut(..len).unwrap_or_default().fill(0);
                Ok(len)
            }
        }
    }

    fn read(&mut self, number: usize, from: u64, len: usize, till: u64, room: &mut [u8]) -> Result<(), SourceError> {
        let mut body = match self.body.take() {
            Some(body) if body.number == number => body,
            _ => self.open(number, from, till)?,
        };
        let size = body.found.kind.size();
        let end = from + len as u64;
        let changed = || SourceError::Changed { path: self.scan.place(body.found) };
        // What cannot be read may be something else by now, and that is the better reason.
        let io = |error| match self.scan.unchanged(body.found, &body.file) {
            Err(changed) => changed,
            Ok(()) => io_at(&self.scan.place(body.found))(error),
        };
        // A file must end where it was listed to: where there is room one byte more is asked for, and must not come.
        let beyond = usize::from(end == size && room.len() > len);
        let wanted = room.get_mut(..len + beyond).ok_or(SourceError::Nothing)?;
        if read_at(&body.file, from, len, wanted).map_err(io)? != len {
            return Err(changed());
        }
        if end == size && beyond == 0 && read_at(&body.file, size, 1, &mut [0]).map_err(io)? > 0 {
            return Err(changed());
        }
        let bytes = room.get(..len).unwrap_or_default();
        self.told.bytes += len as u64;
        if end < till {
            match &mut body.hash {
                Hash::Whole(hasher) => {
                    hasher.get_or_insert_default().update(bytes);
                }
                Hash::Piece(hasher) => hasher.update(bytes),
            }
            self.body = Some(body);
            return Ok(());
        }
        self.scan.unchanged(body.found, &body.file)?;
        self.told.entries += u64::from(end == size);
        let whole = match body.hash {
            Hash::Whole(None) => digest(&blake3::hash(bytes)),
            Hash::Whole(Some(mut hasher)) => {
                hasher.update(bytes);
                digest(&hasher.finalize())
            }
            Hash::Piece(mut hasher) => {
                hasher.update(bytes);
                let piece = hasher.finish();
                self.tell(b'p', number, till, |hasher| piece.tell(hasher));
                self.told.pieces.push((number, piece));
                return Ok(());
            }
        };
        self.tell(b'w', number, size, |hasher| {
            hasher.update(whole.as_bytes());
        });
        self.told.whole.push((number, whole));
        Ok(())
    }

    /// Puts something that the part holds of entry `number` into the digest of its content.
    fn tell(&mut self, kind: u8, number: usize, at: u64, what: impl FnOnce(&mut blake3::Hasher)) {
        if let Some(hasher) = &mut self.content {
            hasher.update(&[kind]).update(&(number as u64).to_le_bytes()).update(&at.to_le_bytes());
            what(hasher);
        }
    }

    /// Opens a file of which the part has the bytes `from..till`.
    fn open(&mut self, number: usize, from: u64, till: u64) -> Result<Body<'a>, SourceError> {
        let found = self.scan.found(number).ok_or(SourceError::Nothing)?;
        let file = self.scan.open(found, &mut self.here)?;
        let size = found.kind.size();
        let hash = if from == 0 && till == size {
            Hash::Whole(None)
        } else {
            Hash::Piece(Box::new(PieceHasher::new(size, from, till)))
        };
        Ok(Body { number, found, file, hash })
    }
}

/// Reads into `room` until `least` bytes have come or the file ends; how many came, which may be more.
fn read_at(file: &File, from: u64, least: usize, room: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    loop {
        match file.read_at(room.get_mut(read..).unwrap_or_default(), from + read as u64) {
            Ok(0) => return Ok(read),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if read >= least {
            return Ok(read);
        }
    }
}

/// Cuts a stream into parts or frames. Its reader has one place, so one thread at a time reads.
pub(super) struct StreamCut {
    reader: Box<dyn Read + Send>,
    hash: blake3::Hasher,
    /// Bytes read.
    size: u64,
    /// Bytes given, with padding.
    given: u64,
    /// Number of the part or frame that comes next.
    number: u32,
    ended: bool,
    /// Within a part, and after an error or a panic there.
    broken: bool,
}

impl StreamCut {
    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, hash: blake3::Hasher::new(), size: 0, given: 0, number: 0, ended: false, broken: false }
    }

    /// Bytes and digest of the whole, once it has ended.
    pub(super) fn told(&self) -> Option<(u64, Blake3Digest)> {
        self.ended.then(|| (self.size, digest(&self.hash.finalize())))
    }

    /// Puts the next part to where it will be sealed in `out`. Its number, its bytes with padding, and the bytes of the
    /// stream in it; `None` behind the last one.
    pub(super) fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<(u32, u64, u64)>, StreamError> {
        // Nobody reads on behind an error.
        if std::mem::replace(&mut self.broken, true) {
            return Err(StreamError::Broken);
        }
        let next = self.try_next(out)?;
        self.broken = false;
        Ok(next)
    }

    /// Reads the next frame into `room`: its number and its bytes, fewer than there is room for only at the end. `None`
    /// behind the last one; even of no bytes there is one.
    pub(super) fn next_frame(&mut self, room: &mut [u8]) -> Result<Option<(u32, usize)>, StreamError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(StreamError::Broken);
        }
        let read = if self.ended { 0 } else { read_fully(&mut self.reader, room)? };
        self.hash.update(room.get(..read).unwrap_or_default());
        self.size += read as u64;
        self.ended |= read < room.len();
        Layout::of(self.size)?;
        let number = self.number;
        let is_frame = read > 0 || number == 0;
        self.number += u32::from(is_frame);
        self.broken = false;
        Ok(is_frame.then_some((number, read)))
    }

    /// How many parts or frames were given; all there are once the stream has ended.
    pub(super) fn count(&self) -> (u32, bool) {
        (self.number, self.ended)
    }

    fn try_next(&mut self, out: &mut Vec<u8>) -> Result<Option<(u32, u64, u64)>, StreamError> {
        let number = self.number;
        if number == MAX_PARTS {
            // Fine only if nothing is left.
            let more = if self.ended { 0 } else { read_fully(&mut self.reader, &mut [0])? };
            Layout::of(self.size + more as u64)?;
            self.ended = true;
            return Ok(None);
        }
        let (capacity, before) = (part_capacity(number), out.len());
        let mut read = 0;
        if !self.ended {
            age::make_room(out, capacity)?;
            for room in age::rooms(out) {
                let now = read_fully(&mut self.reader, room)?;
                self.hash.update(room.get(..now).unwrap_or_default());
                read += now as u64;
                if now < room.len() {
                    self.ended = true;
                    break;
                }
            }
            self.size += read;
        }
        let mut length = read;
        if self.ended {
            let end = Layout::of(self.size)?.padded_size();
            length += (end - self.given - read).min(capacity - read);
            if length == 0 {
                out.truncate(before);
                return Ok(None);
            }
            age::make_room(out, length)?;
            let mut at = 0;
            for room in age::rooms(out) {
                let kept = usize::try_from(read.saturating_sub(at)).unwrap_or(usize::MAX).min(room.len());
                room.get_mut(kept..).unwrap_or_default().fill(0);
                at += room.len() as u64;
            }
        }
        self.given += length;
        self.number += 1;
        Ok(Some((number, length, read)))
    }
}

/// Why a stream gives no further part.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error(transparent)]
    Age(#[from] age::Error),
    #[error("the stream broke off before")]
    Broken,
}

/// Reads until `room` is full or the input ends.
fn read_fully(reader: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = room.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn digest(hash: &blake3::Hash) -> Blake3Digest {
    Blake3Digest::from_bytes(*hash.as_bytes())
}
