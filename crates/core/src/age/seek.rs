//! Random access: any range of the content, without opening what lies before it.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use zeroize::Zeroizing;

use super::error::{Error, Result};
use super::recipient::{Opener, open_header};
use super::stream::{CHUNK_LEN, PayloadError, PayloadKey, SEALED_CHUNK_LEN, payload_plain_len};

/// Reads the header of a binary age file that begins where `input` stands and goes to its end, verifies the last
/// chunk, and returns the reader that can go to any place of the content.
///
/// The length of a file is anybody's claim until its last chunk is verified (C2SP age, "Payload"); so that comes first,
/// and every position of the reader is one of the true content.
///
/// ```
/// use std::io::{Cursor, Read, Seek, SeekFrom};
/// use pouch_core::age::{Identity, decrypt_seekable, seal_to_vec};
///
/// let identity = Identity::generate();
/// let file = Cursor::new(seal_to_vec(&identity.recipient(), b"all is well")?);
/// let mut reader = decrypt_seekable(&identity, file)?;
/// assert_eq!(reader.len(), 11);
/// reader.seek(SeekFrom::End(-4))?;
/// let mut end = String::new();
/// reader.read_to_string(&mut end)?;
/// assert_eq!(end, "well");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Everything about the header, no key that opens it, and a last chunk that is not authentic or not the last. Armor is
/// refused as no age file: its bytes have no fixed places.
pub fn decrypt_seekable<'a, R: Read + Seek>(with: impl Into<Opener<'a>>, mut input: R) -> Result<SeekableReader<R>> {
    let (key, start) = {
        let mut input = BufReader::new(&mut input);
        (open_header(&with.into(), &mut input)?, input.stream_position()?)
    };
    let end = input.seek(SeekFrom::End(0))?;
    let len = end.checked_sub(start).and_then(payload_plain_len).ok_or(PayloadError::Truncated)?;
    let mut reader = SeekableReader {
        input,
        key,
        start,
        len,
        position: 0,
        sealed: vec![0; SEALED_CHUNK_LEN],
        plain: Zeroizing::new(vec![0; CHUNK_LEN]),
        held: None,
    };
    reader.hold(reader.last_chunk())?;
    Ok(reader)
}

/// Reads and seeks in the content of an age file, and gives only what is authentic.
///
/// It holds one chunk. A seek costs nothing, a read elsewhere one chunk of the input. Unlike
/// [`DecryptReader`](super::DecryptReader) it does not vouch for what lies before or between what was read.
pub struct SeekableReader<R> {
    input: R,
    key: PayloadKey,
    /// Where the first chunk begins in the input.
    start: u64,
    /// Bytes of content.
    len: u64,
    position: u64,
    sealed: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
    /// Number and length of the chunk in `plain`.
    held: Option<(u64, usize)>,
}

impl<R: Read + Seek> SeekableReader<R> {
    /// Bytes of content, verified.
    #[expect(clippy::len_without_is_empty, reason = "the length of a file, not of a collection")]
    pub fn len(&self) -> u64 {
        self.len
    }

    fn last_chunk(&self) -> u64 {
        self.len.saturating_sub(1) / CHUNK_LEN as u64
    }

    /// Bytes of content in a chunk.
    fn chunk_len(&self, chunk: u64) -> usize {
        (self.len - chunk * CHUNK_LEN as u64).min(CHUNK_LEN as u64) as usize
    }

    /// Opens a chunk, unless it is the one at hand.
    fn hold(&mut self, chunk: u64) -> Result<()> {
        if self.held.is_some_and(|(held, _)| held == chunk) {
            return Ok(());
        }
        self.held = None;
        let is_last = chunk == self.last_chunk();
        let sealed_len = self.chunk_len(chunk) + SEALED_CHUNK_LEN - CHUNK_LEN;
        let sealed = self.sealed.get_mut(..sealed_len).ok_or(Error::Library)?;
        self.input.seek(SeekFrom::Start(self.start + chunk * SEALED_CHUNK_LEN as u64))?;
        self.input.read_exact(sealed).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::from(PayloadError::Truncated),
            _ => error.into(),
        })?;
        let opened = self.key.open(chunk, is_last, sealed, &mut self.plain)?;
        opened.ends(is_last)?;
        self.held = Some((chunk, opened.len));
        Ok(())
    }
}

impl<R: Read + Seek> Read for SeekableReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() || self.position >= self.len {
            return Ok(0);
        }
        let chunk = self.position / CHUNK_LEN as u64;
        self.hold(chunk)?;
        let within = (self.position % CHUNK_LEN as u64) as usize;
        let held = self.held.map_or(0, |(_, len)| len);
        let taken = self.plain.get(within..held).unwrap_or_default().read(out)?;
        self.position += taken as u64;
        Ok(taken)
    }
}

impl<R: Read + Seek> Seek for SeekableReader<R> {
    /// A place behind the end is allowed, as with files; nothing is read there.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
