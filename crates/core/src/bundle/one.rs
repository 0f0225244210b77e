//! One file of a bundle without the others: which parts hold it, and its bytes out of them.

use std::io::Write;
use std::ops::Range;

use pouch_statement::Blake3Digest;
use zeroize::Zeroizing;

use super::check::{CheckError, ContentError};
use super::frames::Frames;
use super::index::{Entry, EntryKind};
use super::layout::part_start;
use super::open::{OpenError, Opening};
use super::sink::{HELD_BYTES, SinkError};
use super::zstd::Unpacker;
use crate::age::CHUNK_LEN;

/// One file of a bundle whose manifest and index are verified.
///
/// ```
/// # use pouch_core::age::Identity;
/// # use pouch_core::bundle::*;
/// # use pouch_statement::{BundleId, Fingerprint, SigningKey, Timestamp};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let home = tempfile::tempdir()?;
/// # std::fs::write(home.path().join("large.bin"), vec![7; 20 << 20])?;
/// # std::fs::write(home.path().join("readme.txt"), "all is well")?;
/// # let (ada, bo, ada_signs) = (Identity::generate(), Identity::generate(), SigningKey::generate()?);
/// # let ada_card = Fingerprint::of(&ada.recipient().to_string(), &ada_signs.public());
/// # let bo_card = Fingerprint::of(&bo.recipient().to_string(), &SigningKey::generate()?.public());
/// # let now = Timestamp::from_unix(1_700_000_000)?;
/// # let sealer = Sealer::new(Content::Tree(Scan::new(&[home.path().to_owned()], ScanOptions::default())?))?;
/// # let (mut part, mut carried) = (SealedPart::default(), Vec::new());
/// # while sealer.next_part(&mut part)? {
/// #     carried.push(part.sealed.clone());
/// # }
/// # let sealed = sealer.finish()?;
/// # let terms = Terms {
/// #     bundle: BundleId::random()?, kind: Kind::Dataset, sender: ada_card, recipient: bo_card, sequence: 1,
/// #     previous: None, revision: 1, created: now, expires: now.plus(86_400), note: None,
/// #     due: None, answers: None,
/// # };
/// # let manifest = Manifest::new(terms, &sealed.summary).sign(&ada_signs)?;
/// # let envelope = seal_envelope(&manifest, &sealed.key, &bo.recipient())?;
/// # let expected = Expected { me: &bo_card, sender: &ada_card, sender_key: &ada_signs.public(), bundle: None, now };
/// # let opening = open_envelope(&envelope, &bo)?.verify(&expected)?.open_index(&sealed.sealed_index)?;
/// // `opening` is what `Verified::open_index` gave; the bundle has three parts, and the file lies in the last one.
/// let file = opening.file("readme.txt").ok_or("no such file")?;
/// assert_eq!(file.parts(), 2..3);
/// let mut fetched = 0;
/// let text = file.extract(Vec::new(), |number, sealed| {
///     fetched += 1;
///     sealed.clone_from(&carried[number as usize]);
///     Ok::<_, OpenError>(())
/// })?;
/// assert_eq!((text.as_slice(), fetched), (&b"all is well"[..], 1));
/// # Ok(()) }
/// ```
pub struct OneFile<'a> {
    opening: &'a Opening,
    entry: &'a Entry,
    digest: Blake3Digest,
    /// Where its bytes lie in the content, before compression.
    body: Range<u64>,
    /// Which bytes of the padded content are needed for them: the same ones, or the frames that hold them.
    place: Range<u64>,
}

impl Opening {
    /// The file at `path`; `None` if there is no such entry, or it is a folder.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<OneFile<'_>> {
        let entry = self.index().entry(path)?;
        let EntryKind::File { blake3: digest, .. } = entry.kind else { return None };
        let body = self.index().locate(path)?;
        let place = match self.index().frames() {
            Some(frames) if !body.is_empty() => {
                let holding = Frames::holding(&body);
                frames.packed(holding.start)?.start..frames.packed(holding.end - 1)?.end
            }
            _ => body.clone(),
        };
        Some(OneFile { opening: self, entry, digest, body, place })
    }
}

impl OneFile<'_> {
    /// What the index says of it.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        self.entry
    }

    /// Numbers of the parts that hold its bytes; none if it is empty.
    #[must_use]
    pub fn parts(&self) -> Range<u32> {
        let locate = |offset| self.opening.index().layout().locate(offset).map(|(number, _)| number);
        match self.place.is_empty() {
            true => 0..0,
            false => locate(self.place.start).zip(locate(self.place.end - 1)).map_or(0..0, |(a, b)| a..b + 1),
        }
    }

    /// Writes the file to `to`. `fetch` brings its parts, each once and in order, into memory that is used again.
    ///
    /// Each part has the digest of the index before any of it is decrypted, and of a part only those chunks are decrypted
    /// that hold bytes of the file, or of the frames that it lies in. Up to [`HELD_BYTES`] nothing is written before the
    /// file has its digest; beyond, a prefix of verified parts is, and only the return tells whether it was the whole.
    ///
    /// # Errors
    /// What `fetch` says, and those of the stages part and content, as from [`super::Receiver::accept`].
    pub fn extract<W: Write, E: From<OpenError>>(
        &self,
        to: W,
        mut fetch: impl FnMut(u32, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<W, E> {
        let mut out = Out {
            to,
            size: self.entry.size(),
            hasher: blake3::Hasher::new(),
            length: 0,
            held: Vec::new(),
            held_bytes: 0,
        };
        let mut sealed = Vec::new();
        let mut frames = self.opening.index().frames().map(|frames| (frames, Piece::default()));
        for number in self.parts() {
            fetch(number, &mut sealed)?;
            match &mut frames {
                None => {
                    // At once, so that growing leaves no copies behind; it is no more than the part has.
                    let share = self.share(number);
                    let room = share.end.saturating_sub(share.start);
                    let mut bytes = Zeroizing::new(Vec::with_capacity(room as usize));
                    self.open(number, &sealed, |now| {
                        bytes.extend_from_slice(now);
                        Ok(())
                    })?;
                    out.take(bytes).map_err(OpenError::Sink)?;
                }
                Some((frames, piece)) => self.open(number, &sealed, |now| self.unpack(frames, piece, now, &mut out))?,
            }
        }
        Ok(out.finish(self)?)
    }

    /// Which bytes of a part are needed.
    fn share(&self, number: u32) -> Range<u64> {
        let at = part_start(number);
        let size = self.opening.index().layout().part_size(number).unwrap_or(0);
        self.place.start.max(at) - at..self.place.end.min(at + size).saturating_sub(at)
    }

    /// Gives `each` these bytes, in order.
    fn open(
        &self,
        number: u32,
        sealed: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), CheckError>,
    ) -> Result<(), OpenError> {
        let share = self.share(number);
        let chunk = CHUNK_LEN as u64;
        let mut place = share.start / chunk * chunk;
        self.opening.open_part(number, sealed, share.start / chunk..share.end.div_ceil(chunk), |bytes| {
            let from = share.start.saturating_sub(place) as usize;
            let till = usize::try_from(share.end - place).unwrap_or(usize::MAX).min(bytes.len());
            place += bytes.len() as u64;
            each(bytes.get(from..till).unwrap_or_default())
        })
    }

    /// Takes bytes of the frames that hold the file, and gives `out` what of it the frames have that end in them.
    fn unpack<W: Write>(
        &self,
        frames: &Frames,
        piece: &mut Piece,
        mut bytes: &[u8],
        out: &mut Out<W>,
    ) -> Result<(), CheckError> {
        while !bytes.is_empty() {
            let number = Frames::holding(&self.body).start + piece.done;
            let (packed, raw) = frames.packed(number).zip(frames.raw(number)).ok_or(ContentError::Length)?;
            let length = (packed.end - packed.start) as usize;
            let (now, rest) = bytes.split_at(length.saturating_sub(piece.bytes.len()).min(bytes.len()));
            if piece.bytes.is_empty() && piece.bytes.capacity() < length {
                // At once, so that growing leaves no copies behind; a frame is not long.
                piece.bytes = Zeroizing::new(Vec::with_capacity(length));
            }
            piece.bytes.extend_from_slice(now);
            bytes = rest;
            if piece.bytes.len() < length {
                continue;
            }
            let unpacker = match &mut piece.unpacker {
                Some(unpacker) => unpacker,
                None => piece.unpacker.insert(Unpacker::new().ok_or(SinkError::Memory)?),
            };
            let opened = unpacker.unpack(&piece.bytes, raw.end - raw.start);
            let opened = opened.map_err(|reason| ContentError::Frame { number: number as u64, reason })?;
            let from = self.body.start.max(raw.start) - raw.start;
            let till = self.body.end.min(raw.end) - raw.start;
            let wanted = opened.get(from as usize..till as usize).ok_or(ContentError::Length)?;
            out.take(Zeroizing::new(wanted.to_vec()))?;
            piece.bytes.clear();
            piece.done += 1;
        }
        Ok(())
    }
}

/// What came of the frame that is due.
#[derive(Default)]
struct Piece {
    bytes: Zeroizing<Vec<u8>>,
    /// Frames before it.
    done: usize,
    unpacker: Option<Unpacker>,
}

/// The file on its way out.
struct Out<W> {
    to: W,
    /// Bytes that it has in all.
    size: u64,
    hasher: blake3::Hasher,
    /// Bytes that came.
    length: u64,
    held: Vec<Zeroizing<Vec<u8>>>,
    held_bytes: usize,
}

impl<W: Write> Out<W> {
    fn take(&mut self, bytes: Zeroizing<Vec<u8>>) -> Result<(), SinkError> {
        self.hasher.update(&bytes);
        self.length += bytes.len() as u64;
        self.held_bytes += bytes.len();
        self.held.push(bytes);
        if self.held_bytes > HELD_BYTES && self.length < self.size { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), SinkError> {
        self.held.drain(..).try_for_each(|bytes| self.to.write_all(&bytes)).map_err(SinkError::Write)
    }

    fn finish(mut self, file: &OneFile<'_>) -> Result<W, OpenError> {
        if self.length != self.size {
            return Err(OpenError::Content(ContentError::Length));
        }
        if Blake3Digest::from_bytes(*self.hasher.finalize().as_bytes()) != file.digest {
            return Err(OpenError::Content(ContentError::Digest { path: file.entry.path.clone() }));
        }
        self.write()?;
        self.to.flush().map_err(SinkError::Write)?;
        Ok(self.to)
    }
}
