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

/// Chunks that travel together: few enough to stay in a core's own cache from the reading to the writing, enough for the
/// way to cost little.
const CHUNKS_PER_BATCH: usize = 4;
/// What is read beyond a batch tells whether anything follows, and is carried to the next one. So many bytes of it, because
/// then the reads, and the chunks, begin at a cache line, and the kernel copies a third faster to there.
const CACHE_LINE: usize = 64;

/// Seals all of `input` for `to` into `output`, as one age file; gives the bytes of plaintext.
///
/// The workers are a number of threads, or [`Workers`]; memory is 1 MiB for each thread. Any number gives the same
/// kind of file as [`encrypt`](super::encrypt), whose writer works on one. Neither side needs a buffer of its own:
/// both are used in pieces of up to 256 KiB. An input that trickles is sealed as its chunks come.
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
    run(workers.into(), CHUNK_LEN, input, output, |batch| batch.seal(&key)).map(|lens| lens.read)
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
    run(workers.into(), SEALED_CHUNK_LEN, source, output, |batch| batch.open(&key)).map(|lens| lens.written)
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
    input: impl Read + Send,
    output: impl Write + Send,
    work: impl Fn(&mut Batch) + Sync,
) -> Result<Lens> {
    let carried = Zeroizing::new(Vec::with_capacity(piece_len));
    let mut pieces = Pieces { input, piece_len, carried, next: 0, read: 0 };
    let mut writer = Writer { output, written: 0 };
    pipeline::run(workers, Batch::new, &mut pieces, work, &mut writer)?;
    writer.output.flush()?;
    Ok(Lens { read: pieces.read, written: writer.written })
}

/// Some chunks in a row, as they were read and then as they will be written, in one piece of memory.
///
/// There is room for a chunk more: each one is sealed to where the chunk behind it was, the last one first; and opened to
/// where the chunk before it was, the first one first. So the memory stays half of what two places would take.
struct Batch {
    /// Number of the first chunk.
    first: u64,
    /// Whether the input ends behind it.
    end: bool,
    bytes: Wiped,
    /// Where a cache line begins.
    base: usize,
    read_len: usize,
    made: Range<usize>,
    /// Why no more was made.
    error: Option<Error>,
    /// Why no more was read: stands behind all that was made.
    after: Option<Error>,
}

impl Batch {
    fn new() -> Self {
        let bytes = Wiped::new((CHUNKS_PER_BATCH + 1) * SEALED_CHUNK_LEN + 2 * CACHE_LINE);
        let base = bytes.as_ptr().align_offset(CACHE_LINE) % CACHE_LINE;
        Self { first: 0, end: false, bytes, base, read_len: 0, made: 0..0, error: None, after: None }
    }

    /// Where reading puts its bytes: a chunk's room is kept free in front of what will be opened, behind what will be sealed.
    fn place(&self, piece_len: usize) -> usize {
        if piece_len == CHUNK_LEN { self.base } else { self.base + CHUNK_LEN }
    }

    fn seal(&mut self, key: &PayloadKey) {
        let (from, to) = (self.base, self.base + CHUNK_LEN);
        self.made = to..to;
        if self.read_len == 0 && !self.end {
            return;
        }
        let chunks = self.read_len.div_ceil(CHUNK_LEN).max(1);
        for chunk in (0..chunks).rev() {
            let last = self.end && chunk + 1 == chunks;
            let plain_end = self.read_len.min((chunk + 1) * CHUNK_LEN);
            let len = plain_end - chunk * CHUNK_LEN;
            let at = to + chunk * SEALED_CHUNK_LEN;
            let sealed = self.bytes.use_to(at + len + TAG_LEN).split_at_mut_checked(at).ok_or(Error::Library);
            let sealed = sealed.and_then(|(plain, made)| {
                let plain = plain.get(from + chunk * CHUNK_LEN..from + plain_end).ok_or(Error::Library)?;
                key.seal(self.first + chunk as u64, last, plain, made)
            });
            if let Err(error) = sealed {
                // Nothing of the batch is written: what would stand in front is not sealed yet.
                self.error = Some(error);
                return;
            }
        }
        self.made.end = to + self.read_len + chunks * TAG_LEN;
    }

    fn open(&mut self, key: &PayloadKey) {
        let (from, to) = (self.base + CHUNK_LEN, self.base);
        self.made = to..to;
        if self.read_len == 0 && !self.end {
            return;
        }
        let chunks = self.read_len.div_ceil(SEALED_CHUNK_LEN).max(1);
        for chunk in 0..chunks {
            let behind = chunk + 1 == chunks;
            let end = self.end && behind;
            let at = from + chunk * SEALED_CHUNK_LEN;
            let sealed_end = from + self.read_len.min((chunk + 1) * SEALED_CHUNK_LEN);
            let Some((made, sealed)) = self.bytes.use_to(sealed_end).split_at_mut_checked(at) else {
                self.error = Some(Error::Library);
                return;
            };
            match key.open(self.first + chunk as u64, end, sealed, made.get_mut(self.made.end..).unwrap_or_default()) {
                Ok(opened) => {
                    self.made.end += opened.len;
                    // Whether anything stands behind what was read last is not known if reading failed there.
                    let unknown = behind && self.after.is_some();
                    self.error = if unknown { None } else { opened.ends(end).err().map(Error::from) };
                }
                Err(error) => self.error = Some(error.into()),
            }
            if self.error.is_some() {
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
        let start = batch.place(self.piece_len);
        let mut filled = start + self.carried.len();
        let end = start + CHUNKS_PER_BATCH * self.piece_len + CACHE_LINE;
        batch.bytes.use_to(filled).get_mut(start..).ok_or(Error::Library)?.copy_from_slice(&self.carried);
        batch.end = false;
        while let Some(room) = batch.bytes.bytes.get_mut(filled..end).filter(|room| !room.is_empty()) {
            let wanted = room.len();
            let read = self.input.read(room);
            // A reader that fails, or says what cannot be, may have written anywhere.
            batch.bytes.use_to(match &read {
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
        batch.read_len = whole;
        self.carried.clear();
        self.carried.extend_from_slice(batch.bytes.get(start + whole..filled).unwrap_or_default());
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
        let made = batch.bytes.get(batch.made.clone()).unwrap_or_default();
        self.output.write_all(made)?;
        self.written += made.len() as u64;
        batch.error.take().or(batch.after.take()).map_or(Ok(()), Err)
    }
}
