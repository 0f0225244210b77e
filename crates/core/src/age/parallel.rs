//! Whole streams, sealed and opened by several threads: the chunks of a payload do not depend on each other.

use std::io::{self, Read, Write};
use std::ops::{Deref, Range};

use zeroize::{Zeroize as _, Zeroizing};

use super::aead::TAG_LEN;
use super::error::{Error, Result};
use super::pipeline::{self, Intake, Outlet, Workers};
use super::read::Source;
use super::recipient::{Opener, Sealer, open_header, start};
use super::stream::{CHUNK_LEN, PayloadKey, SEALED_CHUNK_LEN};

/// Chunks that travel together: few enough for the caches, enough for the way to cost little.
const CHUNKS_PER_BATCH: usize = 8;
/// What the input writes to begins at a multiple of this. The kernel copies a third faster to the beginning of a
/// cache line than to the byte behind it, which is where the carried byte would put it.
const CACHE_LINE: usize = 64;

/// Seals all of `input` for `to` into `output`, as one age file; gives the bytes of plaintext.
///
/// The workers are a number of threads, or [`Workers`]; memory is 2 MiB for each thread. Any number gives the same
/// kind of file as [`encrypt`](super::encrypt), whose writer works on one. Neither side needs a buffer of its own:
/// both are used in pieces of up to 512 KiB. An input that trickles is sealed as its chunks come.
///
/// # Errors
///
/// No recipients or too many, no random bytes, or whatever `input` or `output` says. What was written then is no
/// whole file, and nothing opens it to its end. See [`Workers::telling`] for an input that may stall.
///
/// ```
/// use std::num::NonZero;
/// use pouch_core::age::{Identity, decrypt_stream, encrypt_stream};
///
/// let threads = std::thread::available_parallelism()?;
/// let identity = Identity::generate();
/// let (mut sealed, mut plain) = (Vec::new(), Vec::new());
/// encrypt_stream(&identity.recipient(), &b"for one person"[..], &mut sealed, threads)?;
/// decrypt_stream(&identity, sealed.as_slice(), &mut plain, threads)?;
/// assert_eq!(plain, b"for one person");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encrypt_stream<'a, 'w>(
    to: impl Into<Sealer<'a>>,
    input: impl Read + Send,
    mut output: impl Write + Send,
    workers: impl Into<Workers<'w>>,
) -> Result<u64> {
    let (header, key) = start(&to.into())?;
    output.write_all(&header)?;
    run(workers.into(), CHUNK_LEN, SEALED_CHUNK_LEN, input, output, |batch| batch.seal(&key)).map(|lens| lens.read)
}

/// Opens an age file from `input` into `output`, to its end; gives the bytes of plaintext. Armor is recognised.
///
/// Like [`encrypt_stream`], with several threads. Only what is authentic is written, in order, so whatever happens
/// `output` holds a true prefix of the content; it is the whole if and only if this returns `Ok`.
///
/// # Errors
///
/// Everything about the header and the payload, no key that opens it, and whatever `input` or `output` says; see
/// [`Error::kind`]. See [`Workers::telling`] for an input that may stall.
pub fn decrypt_stream<'a, 'w>(
    with: impl Into<Opener<'a>>,
    input: impl Read + Send,
    output: impl Write + Send,
    workers: impl Into<Workers<'w>>,
) -> Result<u64> {
    let mut source = Source::recognise(input)?;
    let key = open_header(&with.into(), &mut source)?;
    run(workers.into(), SEALED_CHUNK_LEN, CHUNK_LEN, source, output, |batch| batch.open(&key)).map(|lens| lens.written)
}

/// Bytes that went in and came out.
#[derive(Default)]
struct Lens {
    read: u64,
    written: u64,
}

fn run(
    workers: Workers<'_>,
    piece_len: usize,
    made_len: usize,
    input: impl Read + Send,
    output: impl Write + Send,
    work: impl Fn(&mut Batch) + Sync,
) -> Result<Lens> {
    let mut pieces =
        Pieces { input, piece_len, carried: Zeroizing::new(Vec::with_capacity(piece_len)), next: 0, read: 0 };
    let mut writer = Writer { output, written: 0 };
    pipeline::run(workers, || Batch::new(piece_len, made_len), &mut pieces, work, &mut writer)?;
    writer.output.flush()?;
    Ok(Lens { read: pieces.read, written: writer.written })
}

/// Some chunks in a row, as they were read and as they will be written.
struct Batch {
    /// Number of the first chunk.
    first: u64,
    /// Whether the input ends behind it.
    end: bool,
    /// Holds plaintext on one of the two ways.
    read: Wiped,
    read_at: Range<usize>,
    /// Holds plaintext on the other.
    made: Wiped,
    made_len: usize,
    /// Why no more was made.
    error: Option<Error>,
    /// Why no more was read: stands behind all that was made.
    after: Option<Error>,
}

impl Batch {
    fn new(piece_len: usize, made_len: usize) -> Self {
        Self {
            first: 0,
            end: false,
            // A byte more tells whether anything follows.
            read: Wiped::new(2 * CACHE_LINE + CHUNKS_PER_BATCH * piece_len + 1),
            read_at: 0..0,
            made: Wiped::new(CHUNKS_PER_BATCH * made_len),
            made_len: 0,
            error: None,
            after: None,
        }
    }

    /// Puts `carried` in front, such that what follows it begins a cache line, and gives the room from there on.
    fn begin(&mut self, carried: &[u8], piece_len: usize) -> Result<Range<usize>> {
        let line = self.read.as_ptr().align_offset(CACHE_LINE) % CACHE_LINE;
        let start = (line + carried.len().next_multiple_of(CACHE_LINE) - carried.len()) % CACHE_LINE;
        let room = start + carried.len()..start + CHUNKS_PER_BATCH * piece_len + 1;
        self.read.use_to(room.start).get_mut(start..).ok_or(Error::Library)?.copy_from_slice(carried);
        self.read_at = start..room.start;
        Ok(room)
    }

    fn seal(&mut self, key: &PayloadKey) {
        self.made_len = 0;
        let mut rest = self.read.get(self.read_at.clone()).unwrap_or_default();
        if rest.is_empty() && !self.end {
            return;
        }
        for chunk in self.first.. {
            let (plain, behind) = rest.split_at(rest.len().min(CHUNK_LEN));
            let last = self.end && behind.is_empty();
            let made = self.made.use_to(self.made_len + plain.len() + TAG_LEN).get_mut(self.made_len..);
            let sealed = made.ok_or(Error::Library).and_then(|made| key.seal(chunk, last, plain, made));
            if let Err(error) = sealed {
                self.error = Some(error);
                return;
            }
            self.made_len += plain.len() + TAG_LEN;
            rest = behind;
            if rest.is_empty() {
                return;
            }
        }
    }

    fn open(&mut self, key: &PayloadKey) {
        self.made_len = 0;
        let mut rest = self.read.get(self.read_at.clone()).unwrap_or_default();
        if rest.is_empty() && !self.end {
            return;
        }
        for chunk in self.first.. {
            let (sealed, behind) = rest.split_at(rest.len().min(SEALED_CHUNK_LEN));
            let end = self.end && behind.is_empty();
            // Also what is not authentic may be written there, before it is known.
            let made = self.made.use_to(self.made_len + sealed.len()).get_mut(self.made_len..).unwrap_or_default();
            match key.open(chunk, end, sealed, made) {
                Ok(opened) => {
                    self.made_len += opened.len;
                    // Whether anything stands behind what was read last is not known if reading failed there.
                    let unknown = behind.is_empty() && self.after.is_some();
                    self.error = if unknown { None } else { opened.ends(end).err().map(Error::from) };
                }
                Err(error) => self.error = Some(error.into()),
            }
            rest = behind;
            if rest.is_empty() || self.error.is_some() {
                return;
            }
        }
    }
}

/// Memory that holds plaintext. It is wiped as far as it was used, so that a short stream does not cost the wiping, nor
/// even the having, of a whole batch.
struct Wiped {
    bytes: Vec<u8>,
    used: usize,
}

impl Wiped {
    fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], used: 0 }
    }

    /// The bytes up to `end`, which will be wiped.
    fn use_to(&mut self, end: usize) -> &mut [u8] {
        let end = end.min(self.bytes.len());
        self.used = self.used.max(end);
        self.bytes.get_mut(..end).unwrap_or_default()
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.bytes.get_mut(..self.used).unwrap_or_default().zeroize();
    }
}

/// The input in batches of whole pieces; only the very last piece may be shorter.
struct Pieces<R> {
    input: R,
    piece_len: usize,
    /// What was read and belongs to the next batch: at least a byte, once there was a batch.
    carried: Zeroizing<Vec<u8>>,
    /// Number of the chunk that comes next.
    next: u64,
    read: u64,
}

impl<R: Read + Send> Intake<Batch> for Pieces<R> {
    fn fill(&mut self, batch: &mut Batch) -> Result<bool> {
        let Range { start: mut filled, end } = batch.begin(&self.carried, self.piece_len)?;
        let start = batch.read_at.start;
        batch.end = false;
        while let Some(room) = batch.read.bytes.get_mut(filled..end).filter(|room| !room.is_empty()) {
            let wanted = room.len();
            let read = self.input.read(room);
            // A reader that fails, or says what cannot be, may have written anywhere.
            batch.read.use_to(match &read {
                Ok(read) => filled.saturating_add(*read),
                Err(_) => end,
            });
            match read {
                Ok(0) => {
                    batch.end = true;
                    break;
                }
                Ok(read) if read > wanted => return Err(Error::Library),
                Ok(read) => {
                    filled += read;
                    // What is there now goes on its way; more may be long in coming.
                    if read < wanted && filled - start > self.piece_len {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before it is whole, and goes on its way.
                Err(error) => {
                    batch.after = Some(error.into());
                    break;
                }
            }
        }
        let len = filled - start;
        let whole = match (batch.end, &batch.after) {
            (true, _) => len,
            // A chunk says of itself whether it is the last, once it is opened.
            (false, Some(_)) if self.piece_len == SEALED_CHUNK_LEN => len / self.piece_len * self.piece_len,
            // At least a byte is carried on, so that no chunk is sealed as if more followed.
            (false, _) => len.saturating_sub(1) / self.piece_len * self.piece_len,
        };
        batch.read_at = start..start + whole;
        self.carried.clear();
        self.carried.extend_from_slice(batch.read.get(start + whole..filled).unwrap_or_default());
        batch.first = self.next;
        self.next += whole.div_ceil(self.piece_len) as u64;
        self.read += whole as u64;
        Ok(!batch.end && batch.after.is_none())
    }
}

struct Writer<W> {
    output: W,
    written: u64,
}

impl<W: Write + Send> Outlet<Batch> for Writer<W> {
    fn put(&mut self, batch: &mut Batch) -> Result<()> {
        self.output.write_all(batch.made.get(..batch.made_len).unwrap_or_default())?;
        self.written += batch.made_len as u64;
        batch.error.take().or(batch.after.take()).map_or(Ok(()), Err)
    }
}
