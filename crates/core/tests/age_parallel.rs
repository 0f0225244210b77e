//! Whole streams on several threads: the same bytes as on one, whatever the sizes, the way they are read and
//! written, and the number of threads; and nothing that is not authentic.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{self, Read, Write};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pouch_core::age::{
    CHUNK_LEN, Error, Identity, PayloadError, Workers, decrypt, decrypt_stream, encrypt_stream, seal_to_vec,
};
use proptest::prelude::*;

fn threads(count: usize) -> NonZero<usize> {
    NonZero::new(count).unwrap()
}

fn content(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn sealed(identity: &Identity, plain: &[u8]) -> Vec<u8> {
    seal_to_vec(&identity.recipient(), plain).unwrap()
}

/// Gives and takes what a list of sizes says, over and over.
struct InPieces<T> {
    inner: T,
    sizes: Vec<usize>,
    calls: usize,
}

impl<T> InPieces<T> {
    fn new(inner: T, sizes: &[usize]) -> Self {
        Self { inner, sizes: sizes.to_vec(), calls: 0 }
    }

    fn next(&mut self, len: usize) -> usize {
        self.calls += 1;
        self.sizes[self.calls % self.sizes.len()].min(len)
    }
}

impl<T: Read> Read for InPieces<T> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.calls.is_multiple_of(7) {
            self.calls += 1;
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = self.next(out.len());
        self.inner.read(&mut out[..len])
    }
}

impl<T: Write> Write for InPieces<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let len = self.next(data.len());
        self.inner.write(&data[..len])
    }
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Sizes around the borders of chunks and of batches.
fn sizes() -> impl Strategy<Value = usize> {
    let chunks = prop_oneof![0_usize..4, 7_usize..10, 15_usize..18, 30_usize..34];
    (chunks, prop_oneof![Just(0_isize), -2_isize..3, 0_isize..CHUNK_LEN as isize])
        .prop_map(|(chunks, more)| (chunks * CHUNK_LEN).saturating_add_signed(more))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_size_any_split_any_number_of_threads(
        len in sizes(),
        read in proptest::collection::vec(1_usize..200_000, 1..5),
        write in proptest::collection::vec(1_usize..200_000, 1..5),
        count in 1_usize..6,
    ) {
        let identity = Identity::generate();
        let plain = content(len);
        let mut file = InPieces::new(Vec::new(), &write);
        let input = InPieces::new(plain.as_slice(), &read);
        let sealed_bytes = encrypt_stream(&identity.recipient(), input, &mut file, threads(count)).unwrap();
        prop_assert_eq!(sealed_bytes, len as u64);
        let file = file.inner;

        // Our own reader on one thread, and the file that one thread writes.
        let mut back = Vec::new();
        decrypt(&identity, file.as_slice()).unwrap().read_to_end(&mut back).unwrap();
        prop_assert!(back == plain);
        prop_assert_eq!(file.len(), sealed(&identity, &plain).len());

        let mut opened = InPieces::new(Vec::new(), &write);
        let input = InPieces::new(file.as_slice(), &read);
        prop_assert_eq!(decrypt_stream(&identity, input, &mut opened, threads(count)).unwrap(), len as u64);
        prop_assert!(opened.inner == plain);
    }

    // attacks.md 17, 18, 19
    #[test]
    fn any_flipped_bit_cut_or_addition_is_refused_and_a_true_prefix_released(
        len in sizes(),
        place in any::<prop::sample::Index>(),
        bit in 0_u32..8,
        harm in 0_u8..3,
        count in 1_usize..5,
    ) {
        let identity = Identity::generate();
        let plain = content(len);
        let mut file = sealed(&identity, &plain);
        let at = place.index(file.len());
        match harm {
            0 => file[at] ^= 1 << bit,
            1 => file.truncate(at),
            _ => file.extend_from_slice(&content(at % 100_000 + 1)),
        }
        let mut released = Vec::new();
        let refused = decrypt_stream(&identity, file.as_slice(), &mut released, threads(count)).unwrap_err();
        prop_assert!(plain.starts_with(&released));

        // Verdict and release are those of the reader that goes chunk by chunk.
        let mut alone = Vec::new();
        let verdict = match decrypt(&identity, file.as_slice()) {
            Err(error) => error,
            Ok(mut reader) => Error::from(reader.read_to_end(&mut alone).unwrap_err()),
        };
        prop_assert_eq!(refused.to_string(), verdict.to_string());
        prop_assert!(released == alone);
    }
}

/// A disk that fails in the middle: what was read is judged and released as by the reader that goes chunk by chunk.
#[test]
fn what_came_before_a_failed_read_is_released_and_judged_first() {
    let identity = Identity::generate_x25519();
    let plain = content(20 * CHUNK_LEN);
    let file = sealed(&identity, &plain);
    let header = file.len() - 20 * (CHUNK_LEN + 16);
    let mut tampered = file.clone();
    tampered[header + 3 * (CHUNK_LEN + 16)] ^= 1;
    for file in [&file, &tampered] {
        for cut in [header, header + 1, header + 5 * (CHUNK_LEN + 16), header + 19 * (CHUNK_LEN + 16) + 7, file.len()] {
            let broken = || (&file[..cut]).chain(Fails { left: 0, panics: false });
            let mut alone = Vec::new();
            let verdict = Error::from(decrypt(&identity, broken()).unwrap().read_to_end(&mut alone).unwrap_err());
            for count in [1, 2, 4] {
                let mut released = Vec::new();
                let refused = decrypt_stream(&identity, broken(), &mut released, threads(count)).unwrap_err();
                assert_eq!(refused.to_string(), verdict.to_string(), "{cut}");
                assert!(released == alone, "{cut}: {} instead of {}", released.len(), alone.len());
            }
        }
    }
}

// attacks.md 17: at every border of a chunk of a file of several batches.
#[test]
fn cut_at_every_chunk_border() {
    let identity = Identity::generate();
    let file = sealed(&identity, &content(20 * CHUNK_LEN));
    for chunks in 0..20 {
        let cut = file.len() - (20 - chunks) * (CHUNK_LEN + 16);
        for count in [1, 3] {
            let mut released = Vec::new();
            let error = decrypt_stream(&identity, &file[..cut], &mut released, threads(count)).unwrap_err();
            assert!(matches!(error, Error::PayloadFailure(PayloadError::Truncated)), "{error}");
            assert_eq!(released.len(), chunks * CHUNK_LEN);
        }
    }
}

/// Fails after so many bytes; panics if asked to.
struct Fails {
    left: usize,
    panics: bool,
}

impl Fails {
    fn take(&mut self, len: usize) -> io::Result<usize> {
        if self.left == 0 {
            assert!(!self.panics, "as ordered");
            return Err(io::ErrorKind::StorageFull.into());
        }
        let len = len.min(self.left);
        self.left -= len;
        Ok(len)
    }
}

impl Read for Fails {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.take(out.len())
    }
}

impl Write for Fails {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.take(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_error_or_panic_of_either_side_comes_out_once() {
    let recipient = Identity::generate().recipient();
    for left in [1, 10 * CHUNK_LEN, 50 * CHUNK_LEN + 3] {
        for count in [1, 2, 4] {
            let failing = || Fails { left, panics: false };
            let sides = [
                encrypt_stream(&recipient, failing(), io::sink(), threads(count)),
                encrypt_stream(&recipient, io::repeat(1), failing(), threads(count)),
            ];
            for side in sides {
                let Err(Error::Io(error)) = side else { panic!("{side:?}") };
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            }
            let panicking = || Fails { left, panics: true };
            for run in [
                catch_unwind(AssertUnwindSafe(|| {
                    encrypt_stream(&recipient, panicking(), io::sink(), threads(count)).map(|_| ())
                })),
                catch_unwind(AssertUnwindSafe(|| {
                    encrypt_stream(&recipient, io::repeat(1), panicking(), threads(count)).map(|_| ())
                })),
            ] {
                assert_eq!(run.unwrap_err().downcast_ref(), Some(&"as ordered"));
            }
        }
    }
}

/// Says how far it was read.
struct Counted<'a> {
    left: usize,
    read: &'a AtomicUsize,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let len = out.len().min(self.left);
        self.left -= len;
        self.read.fetch_add(len, Ordering::Relaxed);
        Ok(len)
    }
}

/// Takes nothing for a while, once some was written.
struct Stalls<'a> {
    read: &'a AtomicUsize,
    seen: Option<usize>,
}

impl Write for Stalls<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.seen.is_none() && data.len() > CHUNK_LEN {
            std::thread::sleep(Duration::from_millis(100));
            self.seen = Some(self.read.load(Ordering::Relaxed));
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stalled_output_stops_the_input() {
    let recipient = Identity::generate().recipient();
    let read = AtomicUsize::new(0);
    let mut output = Stalls { read: &read, seen: None };
    let input = Counted { left: 64 << 20, read: &read };
    encrypt_stream(&recipient, input, &mut output, threads(2)).unwrap();
    let ahead = output.seen.unwrap();
    assert!(ahead <= 4 << 20, "{ahead} bytes were read while nothing was taken");
    assert_eq!(read.load(Ordering::Relaxed), 64 << 20);
}

/// Gives something, and then nothing until it is told.
struct Stalling<'a> {
    left: usize,
    told: &'a AtomicBool,
}

impl Read for Stalling<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            while !self.told.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            return Err(io::ErrorKind::TimedOut.into());
        }
        let len = out.len().min(self.left);
        self.left -= len;
        Ok(len)
    }
}

/// The failure that one thread met comes out, not the end of another's wait.
#[test]
fn an_input_that_stalls_is_told_of_a_failure() {
    let recipient = Identity::generate().recipient();
    for count in [2, 4] {
        let told = AtomicBool::new(false);
        let input = Stalling { left: 2 * CHUNK_LEN, told: &told };
        // The header goes through, the first chunk does not.
        let output = Fails { left: 5000, panics: false };
        let workers = Workers::new(threads(count)).telling(&told);
        let Err(Error::Io(error)) = encrypt_stream(&recipient, input, output, workers) else { panic!("it fails") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}

/// A chunk that is known not to be the last goes out although nothing more comes.
#[test]
fn what_trickles_in_trickles_out() {
    let identity = Identity::generate();
    let (reader, mut writer) = io::pipe().unwrap();
    let (mut out_reader, out_writer) = io::pipe().unwrap();
    let recipient = identity.recipient();
    std::thread::scope(|scope| {
        scope.spawn(|| encrypt_stream(&recipient, reader, out_writer, threads(2)).unwrap());
        let plain = content(CHUNK_LEN + 1);
        writer.write_all(&plain).unwrap();
        let mut first = vec![0; sealed(&identity, &plain[..CHUNK_LEN]).len()];
        out_reader.read_exact(&mut first).unwrap();
        drop(writer);
        let mut rest = Vec::new();
        out_reader.read_to_end(&mut rest).unwrap();
        first.extend(rest);
        let mut back = Vec::new();
        decrypt_stream(&identity, first.as_slice(), &mut back, threads(2)).unwrap();
        assert!(back == plain);
    });
}

#[test]
fn armor_is_recognised() {
    use pouch_core::age::ArmorWriter;
    let identity = Identity::generate();
    let plain = content(9 * CHUNK_LEN + 5);
    let mut armor = ArmorWriter::new(Vec::new());
    encrypt_stream(&identity.recipient(), plain.as_slice(), &mut armor, threads(2)).unwrap();
    let armored = armor.finish().unwrap();
    let mut back = Vec::new();
    decrypt_stream(&identity, armored.as_slice(), &mut back, threads(2)).unwrap();
    assert!(back == plain);
}
