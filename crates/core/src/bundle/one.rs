//! One file of a bundle without the others: which parts hold it, and its bytes out of them.

use std::io::Write;
use std::ops::Range;

use pouch_statement::Blake3Digest;
use zeroize::Zeroizing;

use super::check::ContentError;
use super::index::{Entry, EntryKind};
use super::layout::part_start;
use super::open::{OpenError, Opening};
use super::sink::{HELD_BYTES, SinkError};
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
    /// Where its bytes lie in the content.
    body: Range<u64>,
}

impl Opening {
    /// The file at `path`; `None` if there is no such entry, or it is a folder.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<OneFile<'_>> {
        let entry = self.index().entry(path)?;
        let EntryKind::File { blake3: digest, .. } = entry.kind else { return None };
        Some(OneFile { opening: self, entry, digest, body: self.index().locate(path)? })
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
        match self.body.is_empty() {
            true => 0..0,
            false => locate(self.body.start).zip(locate(self.body.end - 1)).map_or(0..0, |(a, b)| a..b + 1),
        }
    }

    /// Writes the file to `to`. `fetch` brings its parts, each once and in order, into memory that is used again.
    ///
    /// Each part has the digest of the index before any of it is decrypted, and of a part only those chunks are decrypted
    /// that hold bytes of the file. Up to [`HELD_BYTES`] nothing is written before the file has its digest; beyond, a
    /// prefix of verified parts is, and only the return tells whether it was the whole.
    ///
    /// # Errors
    /// What `fetch` says, and those of the stages part and content, as from [`super::Receiver::accept`].
    pub fn extract<W: Write, E: From<OpenError>>(
        &self,
        mut to: W,
        mut fetch: impl FnMut(u32, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<W, E> {
        let write = |to: &mut W, held: &mut Vec<Zeroizing<Vec<u8>>>| {
            let written = held.drain(..).try_for_each(|bytes| to.write_all(&bytes));
            written.map_err(|error| OpenError::Sink(SinkError::Write(error)))
        };
        let (mut sealed, mut hasher, mut length) = (Vec::new(), blake3::Hasher::new(), 0u64);
        let (mut held, mut held_bytes) = (Vec::new(), 0);
        for number in self.parts() {
            fetch(number, &mut sealed)?;
            let bytes = self.open(number, &sealed)?;
            hasher.update(&bytes);
            length += bytes.len() as u64;
            held_bytes += bytes.len();
            held.push(bytes);
            if held_bytes > HELD_BYTES && length < self.entry.size() {
                write(&mut to, &mut held)?;
            }
        }
        if length != self.entry.size() {
            return Err(OpenError::Content(ContentError::Length).into());
        }
        if Blake3Digest::from_bytes(*hasher.finalize().as_bytes()) != self.digest {
            return Err(OpenError::Content(ContentError::Digest { path: self.entry.path.clone() }).into());
        }
        write(&mut to, &mut held)?;
        to.flush().map_err(|error| OpenError::Sink(SinkError::Write(error)))?;
        Ok(to)
    }

    /// The bytes of the file in one part.
    fn open(&self, number: u32, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let at = part_start(number);
        let size = self.opening.index().layout().part_size(number).unwrap_or(0);
        let share = self.body.start.max(at) - at..self.body.end.min(at + size).saturating_sub(at);
        let chunk = CHUNK_LEN as u64;
        let mut place = share.start / chunk * chunk;
        // At once, so that growing leaves no copies behind; it is no more than the part has.
        let mut out = Zeroizing::new(Vec::with_capacity(share.end.saturating_sub(share.start) as usize));
        self.opening.open_part(number, sealed, share.start / chunk..share.end.div_ceil(chunk), |bytes| {
            let from = share.start.saturating_sub(place) as usize;
            let till = usize::try_from(share.end - place).unwrap_or(usize::MAX).min(bytes.len());
            out.extend_from_slice(bytes.get(from..till).unwrap_or_default());
            place += bytes.len() as u64;
            Ok(())
        })?;
        Ok(out)
    }
}
