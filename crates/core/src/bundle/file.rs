//! A whole bundle as one `.pouch` file, for USB sticks, mail and buckets.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pouch_statement::BundleId;

use super::envelope::MAX_ENVELOPE;
use super::index::MAX_INDEX;
use super::layout::{MAX_PARTS, part_capacity};
use super::litter::{self, MakeError};
use super::objects;
use super::os::Folder;
use super::padding::is_zero;
use super::stage::{StageError, place, rename};
use super::ustar::{BLOCK, END, fill};
use crate::age::sealed_len;

/// The first object: it says what the file is, and holds the bundle's id and a line feed.
const FIRST: &str = "pouch.bundle.v1";
const ID_LINE: u64 = 27;
const INDEX: &str = "index";
const ENVELOPE: &str = "envelope";

/// Why a `.pouch` file was refused or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Another kind of file, or another version.
    #[error("not a .pouch file of version 1")]
    NotPouch,
    /// It ends too early, or what stands there is not what must.
    #[error("the .pouch file is damaged or cut short at byte {at}")]
    Damaged {
        /// Where, in bytes.
        at: u64,
    },
    /// An object is longer than any.
    #[error("an object of {size} bytes at byte {at} of the .pouch file is longer than any")]
    TooLong {
        /// Where, in bytes.
        at: u64,
        /// Its size.
        size: u64,
    },
    /// There is something behind the end.
    #[error("the .pouch file has {bytes} bytes behind its end")]
    Trailing {
        /// How many.
        bytes: u64,
    },
    /// A part that it does not have, or parts written out of order.
    #[error("part {number} is not in the .pouch file, or not in its turn")]
    NoPart {
        /// The number.
        number: u32,
    },
    /// Making or publishing it failed.
    #[error(transparent)]
    Place(#[from] StageError),
    /// Reading or writing failed.
    #[error("reading or writing the .pouch file failed: {0}")]
    Io(#[from] io::Error),
}

fn part_name(number: u32) -> String {
    format!("part.{number:05}")
}

/// Writes a `.pouch` file: parts in order, then index and envelope. Nothing stands at the destination before the end.
/// Dropped before [`PouchWriter::finish`], it leaves nothing behind.
pub struct PouchWriter {
    destination: PathBuf,
    parent: Folder,
    name: OsString,
    private: String,
    file: File,
    parts: u32,
    published: bool,
}

impl PouchWriter {
    /// Begins a file that will stand at `destination`, which must not exist.
    ///
    /// # Errors
    /// [`StageError::Exists`] and whatever the disk refuses.
    pub fn create(destination: &Path, bundle: BundleId) -> Result<Self, FileError> {
        let (parent, name) = place(destination, None)?;
        let (private, file) = litter::make(|name| parent.create_file(name), &parent).map_err(|e| match e {
            MakeError::Random(error) => FileError::Place(StageError::Random(error)),
            MakeError::Io(error) => FileError::Io(error),
        })?;
        let destination = destination.to_owned();
        let mut writer = Self { destination, parent, name, private, file, parts: 0, published: false };
        writer.object(FIRST, format!("{bundle}\n").as_bytes())?;
        Ok(writer)
    }

    fn object(&mut self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        let size = bytes.len() as u64;
        self.file.write_all(&objects::header(name, size))?;
        self.file.write_all(bytes)?;
        self.file.write_all(&vec![0; fill(size) as usize])?;
        Ok(())
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// A part out of its turn, and whatever the disk refuses.
    pub fn add_part(&mut self, number: u32, sealed: &[u8]) -> Result<(), FileError> {
        if number != self.parts || number >= MAX_PARTS {
            return Err(FileError::NoPart { number });
        }
        self.object(&part_name(number), sealed)?;
        self.parts += 1;
        Ok(())
    }

    /// Adds index and envelope, makes the file durable and publishes it, private to its owner (0600).
    ///
    /// # Errors
    /// [`StageError::Exists`] when something appeared at the destination, and whatever the disk refuses.
    pub fn finish(mut self, sealed_index: &[u8], envelope: &[u8]) -> Result<PathBuf, FileError> {
        self.object(INDEX, sealed_index)?;
        self.object(ENVELOPE, envelope)?;
        self.file.write_all(&vec![0; END as usize])?;
        self.file.sync_all()?;
        rename(&self.parent, &self.private, &self.name, &self.destination)?;
        self.published = true;
        self.parent.sync()?;
        Ok(self.destination.clone())
    }
}

impl Drop for PouchWriter {
    fn drop(&mut self) {
        if !self.published {
            let _ = self.parent.remove_file(self.private.as_str());
        }
    }
}

/// Where an object lies: offset and length in bytes.
type Span = (u64, u64);

/// A `.pouch` file whose layout was checked. Its objects are as they came: nothing in them is believed yet.
pub struct PouchFile<R> {
    file: R,
    bundle: BundleId,
    parts: Vec<Span>,
    index: Span,
    envelope: Span,
}

impl<R: Read + Seek> PouchFile<R> {
    /// Walks the headers and checks the layout to the last byte. Reads no object but the first.
    ///
    /// # Errors
    /// Everything that is not a `.pouch` file, whole and with nothing behind.
    pub fn open(mut file: R) -> Result<Self, FileError> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut walk = Walk { file: &mut file, length, at: 0 };
        let (_, size) = walk.header(&[FIRST]).map_err(|e| match e {
            FileError::Io(e) => FileError::Io(e),
            _ => FileError::NotPouch,
        })?;
        if size != ID_LINE {
            return Err(FileError::NotPouch);
        }
        let first = walk.object(size, ID_LINE)?;
        let mut parts = Vec::new();
        let index = loop {
            let number = parts.len() as u32;
            let part = part_name(number);
            let names = if number < MAX_PARTS { [part.as_str(), INDEX] } else { [INDEX, INDEX] };
            let (name, size) = walk.header(&names)?;
            if name == INDEX {
                break walk.object(size, sealed_len(MAX_INDEX).unwrap_or(MAX_INDEX))?;
            }
            let most = sealed_len(part_capacity(number)).unwrap_or(0);
            parts.push(walk.object(size, most)?);
        };
        let (_, size) = walk.header(&[ENVELOPE])?;
        let envelope = walk.object(size, MAX_ENVELOPE)?;
        walk.zeros(END)?;
        if walk.at != length {
            return Err(FileError::Trailing { bytes: length - walk.at });
        }
        let line = read(&mut file, first)?;
        let id = line.strip_suffix(b"\n").and_then(|id| std::str::from_utf8(id).ok());
        let bundle = id.and_then(|id| id.parse().ok()).ok_or(FileError::NotPouch)?;
        Ok(Self { file, bundle, parts, index, envelope })
    }

    /// The bundle that it claims to be; the manifest in the envelope must agree.
    #[must_use]
    pub fn bundle(&self) -> BundleId {
        self.bundle
    }

    /// Number of parts.
    #[must_use]
    pub fn parts(&self) -> u32 {
        self.parts.len() as u32
    }

    /// The envelope.
    ///
    /// # Errors
    /// When reading fails.
    pub fn envelope(&mut self) -> Result<Vec<u8>, FileError> {
        read(&mut self.file, self.envelope)
    }

    /// The sealed index.
    ///
    /// # Errors
    /// When reading fails.
    pub fn index(&mut self) -> Result<Vec<u8>, FileError> {
        read(&mut self.file, self.index)
    }

    /// Sealed part `number`, into `out`, whose memory is reused.
    ///
    /// # Errors
    /// [`FileError::NoPart`], or when reading fails.
    pub fn part(&mut self, number: u32, out: &mut Vec<u8>) -> Result<(), FileError> {
        let span = self.parts.get(number as usize).copied().ok_or(FileError::NoPart { number })?;
        read_into(&mut self.file, span, out)
    }
}

fn read(file: &mut (impl Read + Seek), span: Span) -> Result<Vec<u8>, FileError> {
    let mut out = Vec::new();
    read_into(file, span, &mut out)?;
    Ok(out)
}

fn read_into(file: &mut (impl Read + Seek), (at, size): Span, out: &mut Vec<u8>) -> Result<(), FileError> {
    file.seek(SeekFrom::Start(at))?;
    out.clear();
    // Grows with what is there: the length was held against the file's, which may have changed since.
    let read = file.take(size).read_to_end(out)? as u64;
    if read == size { Ok(()) } else { Err(FileError::Damaged { at: at + read }) }
}

struct Walk<'a, R> {
    file: &'a mut R,
    length: u64,
    at: u64,
}

impl<R: Read + Seek> Walk<'_, R> {
    fn take(&mut self, size: u64) -> Result<Vec<u8>, FileError> {
        if self.length - self.at < size {
            return Err(FileError::Damaged { at: self.length });
        }
        let bytes = read(self.file, (self.at, size))?;
        self.at += size;
        Ok(bytes)
    }

    /// Reads a header that must be of one of `names`.
    fn header<'n>(&mut self, names: &[&'n str]) -> Result<(&'n str, u64), FileError> {
        let at = self.at;
        let block = self.take(BLOCK)?;
        let found = names.iter().find_map(|name| Some((*name, objects::size_in(&block, name)?)));
        found.ok_or(FileError::Damaged { at })
    }

    /// Passes an object of at most `most` bytes, and the zeros behind it.
    fn object(&mut self, size: u64, most: u64) -> Result<Span, FileError> {
        let span = (self.at, size);
        if size > most {
            return Err(FileError::TooLong { at: self.at, size });
        }
        if self.length - self.at < size {
            return Err(FileError::Damaged { at: self.length });
        }
        self.at += size;
        self.zeros(fill(size))?;
        Ok(span)
    }

    fn zeros(&mut self, size: u64) -> Result<(), FileError> {
        let at = self.at;
        let zeros = self.take(size)?;
        if is_zero(&zeros) { Ok(()) } else { Err(FileError::Damaged { at }) }
    }
}
