//! Opening a payload as it is read.

use std::io::{self, BufRead, BufReader, Read};

use zeroize::Zeroizing;

use super::armor::{self, ArmorReader, Encoding};
use super::error::{Error, Result};
use super::recipient::{Opener, open_header};
use super::stream::{CHUNK_LEN, PayloadError, PayloadKey, SEALED_CHUNK_LEN};

/// Reads an age file's header from `input` and returns the reader of its content. Armor is recognised.
///
/// # Errors
///
/// Everything about the header, and no key that opens it; see [`Error::kind`].
pub fn decrypt<'a, R: Read>(with: impl Into<Opener<'a>>, input: R) -> Result<DecryptReader<R>> {
    DecryptReader::new(&with.into(), Source::recognise(input)?)
}

/// Like [`decrypt`] for input whose encoding is known, so that the other one is refused.
///
/// # Errors
///
/// Everything about the header, and no key that opens it; see [`Error::kind`].
pub fn decrypt_encoded<'a, R: Read>(
    with: impl Into<Opener<'a>>,
    input: R,
    encoding: Encoding,
) -> Result<DecryptReader<R>> {
    let input = BufReader::with_capacity(INPUT_BUFFER_LEN, input);
    DecryptReader::new(&with.into(), Source::new(input, encoding))
}

/// Enough for a header of a few recipients; a chunk is read past it, straight to its place.
const INPUT_BUFFER_LEN: usize = 4096;

/// The binary age file, whatever encoding it came in.
pub(super) enum Source<R: Read> {
    Binary(BufReader<R>),
    Armor(ArmorReader<BufReader<R>>),
}

impl<R: Read> Source<R> {
    /// The first byte decides: a binary file begins with an `a`. An armor behind something else is one all the same, and
    /// refused as such: whoever pasted too much is told.
    pub(super) fn recognise(input: R) -> Result<Self> {
        let mut input = BufReader::with_capacity(INPUT_BUFFER_LEN, input);
        let bytes = loop {
            match input.fill_buf() {
                Ok(bytes) => break bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        let encoding = match bytes.first() {
            Some(byte) if *byte == b'-' || byte.is_ascii_whitespace() => Encoding::Armor,
            Some(byte) if *byte != b'a' && armor::begins_in(bytes) => Encoding::Armor,
            _ => Encoding::Binary,
        };
        Ok(Self::new(input, encoding))
    }

    fn new(input: BufReader<R>, encoding: Encoding) -> Self {
        match encoding {
            Encoding::Binary => Self::Binary(input),
            Encoding::Armor => Self::Armor(ArmorReader::new(input)),
        }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Binary(input) => input.read(out),
            Self::Armor(input) => input.read(out),
        }
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::Binary(input) => input.fill_buf(),
            Self::Armor(input) => input.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::Binary(input) => input.consume(amount),
            Self::Armor(input) => input.consume(amount),
        }
    }
}

/// Gives the plaintext of an age file, and only what is authentic.
///
/// What comes before a failure is a true prefix of the content, no more: the file as a whole is good only
/// once a read has returned `Ok(0)`. An error of this module travels inside the [`io::Error`]; see
/// [`Error::of`]. After such an error every read repeats it; after an error of the input, reading may go on.
pub struct DecryptReader<R: Read> {
    source: Source<R>,
    key: PayloadKey,
    /// Number of the chunk that is read next.
    chunk: u64,
    sealed: Vec<u8>,
    sealed_len: usize,
    plain: Zeroizing<Vec<u8>>,
    plain_pos: usize,
    plain_len: usize,
    state: State,
}

enum State {
    /// Another chunk must follow.
    Chunks,
    /// The last chunk was a full one: nothing may follow.
    AfterLast,
    /// The end was seen.
    Done,
    Failed(PayloadError),
}

impl<R: Read> DecryptReader<R> {
    fn new(with: &Opener<'_>, mut source: Source<R>) -> Result<Self> {
        let key = open_header(with, &mut source)?;
        Ok(Self {
            source,
            key,
            chunk: 0,
            sealed: vec![0; SEALED_CHUNK_LEN],
            sealed_len: 0,
            plain: Zeroizing::new(vec![0; CHUNK_LEN]),
            plain_pos: 0,
            plain_len: 0,
            state: State::Chunks,
        })
    }

    /// Fills `sealed` as far as the input reaches; what an error interrupts is kept.
    fn read_sealed(&mut self) -> io::Result<()> {
        while let Some(room) = self.sealed.get_mut(self.sealed_len..).filter(|room| !room.is_empty()) {
            match self.source.read(room) {
                Ok(0) => break,
                Ok(read) => self.sealed_len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Opens the next chunk, into `direct` (of [`CHUNK_LEN`] bytes at least) or else into the buffer, and gives
    /// its length.
    fn read_chunk(&mut self, direct: Option<&mut [u8]>) -> io::Result<usize> {
        self.read_sealed()?;
        let sealed = self.sealed.get(..self.sealed_len).unwrap_or_default();
        let plain = direct.unwrap_or(&mut self.plain);
        let opened = self.key.open(self.chunk, false, sealed, plain).map_err(|error| self.fail(error))?;
        self.state = match (opened.last, self.sealed_len == SEALED_CHUNK_LEN) {
            (false, _) => State::Chunks,
            (true, true) => State::AfterLast,
            (true, false) => State::Done,
        };
        self.sealed_len = 0;
        self.chunk = self.chunk.checked_add(1).ok_or(Error::Length { len: u64::MAX })?;
        Ok(opened.len)
    }

    fn check_end(&mut self) -> io::Result<()> {
        match self.source.read(&mut [0])? {
            0 => self.state = State::Done,
            _ => return Err(self.fail(PayloadError::TrailingData)),
        }
        Ok(())
    }

    fn fail(&mut self, error: PayloadError) -> io::Error {
        self.state = State::Failed(error);
        Error::from(error).into()
    }
}

impl<R: Read> Read for DecryptReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            let mut ready = self.plain.get(self.plain_pos..self.plain_len).unwrap_or_default();
            if !ready.is_empty() {
                let taken = ready.read(out)?;
                self.plain_pos += taken;
                return Ok(taken);
            }
            match self.state {
                // Straight to its place where there is room; an empty chunk goes around once more.
                State::Chunks if out.len() >= CHUNK_LEN => match self.read_chunk(Some(out))? {
                    0 => {}
                    len => return Ok(len),
                },
                State::Chunks => {
                    self.plain_len = self.read_chunk(None)?;
                    self.plain_pos = 0;
                }
                State::AfterLast => self.check_end()?,
                State::Done => return Ok(0),
                State::Failed(error) => return Err(Error::from(error).into()),
            }
        }
    }
}
