//! Compressed bundles: the same files come out, whatever the threads; frames that lie are refused, and no byte more than
//! was signed is made of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::collections::BTreeSet;
use std::io::{Cursor, Read};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bundle_support::*;
use pouch_core::bundle::*;
use pouch_statement::Stage;
use proptest::prelude::*;

const FRAME: usize = FRAME_SIZE as usize;
const PART: usize = FIRST_PART_SIZE as usize;
const ZSTD: Option<Compression> = Some(Compression::Zstd);

/// Bytes that nothing compresses, the same each time.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| b"compressible, but not all the same; "[i % 36] ^ ((i >> 16) % 7) as u8).collect()
}

fn stream(bytes: &[u8]) -> Content {
    Content::Stream { name: "stream".parse().unwrap(), mtime: 7, reader: Box::new(Cursor::new(bytes.to_vec())) }
}

fn tree(path: &Path) -> Content {
    Content::Tree(Scan::new(&[path.to_owned()], ScanOptions::default()).unwrap())
}

fn threads(count: usize) -> NonZeroUsize {
    count.try_into().unwrap()
}

fn seal_on(world: &World, count: usize, content: Content) -> Result<Carried, SealError> {
    let sealer = Sealer::compressing(content, ZSTD)?;
    let mut parts = Vec::new();
    sealer.seal_all(threads(count), |part| {
        assert_eq!(part.number as usize, parts.len());
        parts.push(std::mem::take(&mut part.sealed));
        Ok::<_, SealError>(())
    })?;
    let sealed = sealer.finish()?;
    let manifest = Manifest::new(world.terms(), &sealed.summary).sign(&world.ada.signs).unwrap();
    let envelope = seal_envelope(&manifest, &sealed.key, &world.bo.age.recipient()).unwrap();
    Ok(Carried { parts, index: sealed.sealed_index, envelope, manifest, key: sealed.key })
}

fn open_on<S: Sink>(world: &World, count: usize, carried: &Carried, sink: S) -> Result<S::Done, OpenError> {
    let receiver = world.open(carried)?.receive(sink)?;
    receiver.accept_all(threads(count), |number, out: &mut Vec<u8>| {
        out.clone_from(&carried.parts[number as usize]);
        Ok::<_, OpenError>(true)
    })?;
    receiver.finish()
}

fn written(world: &World, count: usize, carried: &Carried) -> Vec<u8> {
    open_on(world, count, carried, Released::new(Vec::new())).unwrap()
}

#[test]
fn streams_at_the_borders_of_frames() {
    let world = World::new();
    for length in [0, 1, 4096, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 5 * FRAME + 77] {
        for bytes in [noise(1, length), text(length)] {
            let carried = seal_on(&world, 2, stream(&bytes)).unwrap();
            let opening = world.open(&carried).unwrap();
            let frames = opening.index().frames().unwrap();
            assert_eq!(frames.raw_size(), length as u64);
            assert_eq!(frames.sizes().len(), length.div_ceil(FRAME).max(1));
            assert!(written(&world, 2, &carried) == bytes, "{length}");
            let content = carried.content();
            assert_eq!(content.len() as u64, padded(carried.manifest.body().content_size).unwrap());
            // What is in the parts, padding and all, is what stock tools decompress.
            let mut whole = vec![0; length + 1];
            let size = zstd_safe::decompress(&mut whole[..], &content).unwrap();
            assert!(whole[..size] == bytes[..], "{length}");
        }
    }
}

#[test]
fn a_tree_with_a_bit_of_everything() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let source = home.path().join("source");
    std::fs::create_dir(&source).unwrap();
    sample_tree(&source);
    // Over frames and over parts; and behind it, files that are empty.
    std::fs::write(source.join("folder/noise"), noise(2, 2 * PART + 70_001)).unwrap();
    std::fs::write(source.join("folder/text"), text(3 * FRAME)).unwrap();
    std::fs::write(source.join("zz"), "").unwrap();
    for count in [1, 3] {
        let carried = seal_on(&world, count, tree(&source)).unwrap();
        assert!(carried.parts.len() > 2);
        let into = home.path().join(format!("in {count}"));
        open_on(&world, count, &carried, Staging::new(&into).unwrap()).unwrap().publish().unwrap();
        assert_eq!(snapshot(&into), snapshot(&source));
        // A receiver that takes them one after the other.
        let into = home.path().join(format!("one by one {count}"));
        world.receive_into(&carried, &into).unwrap();
        assert_eq!(snapshot(&into), snapshot(&source));
    }
    // Not compressed it is longer, and says nothing of frames.
    let plain = world.seal(tree(&source));
    let packed = seal_on(&world, 1, tree(&source)).unwrap();
    assert!(packed.manifest.body().content_size + 10_000_000 < plain.manifest.body().content_size);
    assert!(world.open(&plain).unwrap().index().compression().is_none() && !plain.index_text().contains("frame"));
}

#[test]
fn the_same_content_gives_the_same_frames() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    std::fs::write(home.path().join("a"), [text(3 * FRAME), noise(3, 2 * FRAME), text(99)].concat()).unwrap();
    std::fs::write(home.path().join("b"), text(2 * FRAME)).unwrap();
    let one = seal_on(&world, 1, tree(home.path())).unwrap();
    let lines = |carried: &Carried| {
        let text = carried.index_text();
        text.lines().filter(|l| !l.contains("sealed")).map(str::to_owned).collect::<Vec<_>>()
    };
    for count in [1, 2, 5] {
        let again = seal_on(&world, count, tree(home.path())).unwrap();
        assert!(again.content() == one.content(), "{count} threads");
        assert_eq!(lines(&again), lines(&one));
        // A file key is drawn for each part, each time.
        assert!(again.parts.iter().zip(&one.parts).all(|(a, b)| a[..200] != b[..200]));
    }
}

#[test]
fn what_does_not_compress_hardly_grows() {
    let world = World::new();
    let bytes = noise(4, 3 * FRAME + 5);
    let carried = seal_on(&world, 1, stream(&bytes)).unwrap();
    let grown = carried.manifest.body().content_size - bytes.len() as u64;
    // Three bytes for each block of 128 KiB, and the headers.
    assert!(grown < 500, "{grown}");
}

#[test]
fn what_a_part_covers_adds_up() {
    let bytes = [noise(5, 3 * FRAME), text(9 * FRAME), noise(6, FRAME / 2)].concat();
    let sealer = Sealer::compressing(stream(&bytes), ZSTD).unwrap();
    assert!(sealer.planned().is_none());
    let (mut part, mut covered) = (SealedPart::default(), 0);
    while sealer.next_part(&mut part).unwrap() {
        covered += part.covers;
    }
    assert_eq!(covered, bytes.len() as u64);
    assert_eq!(sealer.progress(), Progress { bytes: bytes.len() as u64, entries: 1 });
}

// Of a bundle of many parts only those come that hold the frames of the file.
#[test]
fn one_file_from_its_own_parts() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let files = [
        ("a", noise(7, 3 * PART)),
        ("b", text(FRAME + 3)),
        ("c", Vec::new()),
        ("d", noise(8, PART + 1)),
        ("e", b"short".to_vec()),
        ("f", [text(40 << 20), noise(9, 100)].concat()),
    ];
    for (name, bytes) in &files {
        std::fs::write(home.path().join(name), bytes).unwrap();
    }
    let carried = seal_on(&world, 2, tree(home.path())).unwrap();
    assert!(carried.parts.len() >= 5);
    let opening = world.open(&carried).unwrap();
    let mut fetched_for_small = 0;
    for (name, bytes) in &files {
        let file = opening.file(name).unwrap();
        let mut fetched = Vec::new();
        let out = file.extract(Vec::new(), |number, sealed| {
            fetched.push(number);
            sealed.clone_from(&carried.parts[number as usize]);
            Ok::<_, OpenError>(())
        });
        assert!(out.unwrap() == *bytes, "{name}");
        assert_eq!(fetched, file.parts().collect::<Vec<_>>());
        assert!(fetched.len() < carried.parts.len(), "{name}");
        assert_eq!(fetched.is_empty(), bytes.is_empty());
        if bytes.len() < 10 {
            fetched_for_small += fetched.len();
        }
    }
    assert!(fetched_for_small <= 2);
    // A damaged part gives nothing of it.
    let file = opening.file("d").unwrap();
    let mut out = Vec::new();
    let error = file.extract(&mut out, |number, sealed| {
        sealed.clone_from(&carried.parts[number as usize]);
        sealed[5000] ^= 1;
        Ok::<_, OpenError>(())
    });
    assert!(matches!(error.unwrap_err(), OpenError::PartDigest { .. }));
    assert!(out.is_empty());
}

// Frames lie across parts, so parts may come early, but not without bound.
#[test]
fn parts_in_another_order() {
    let world = World::new();
    let bytes = noise(10, 11 * PART + 5);
    let carried = seal_on(&world, 2, stream(&bytes)).unwrap();
    let home = tempfile::tempdir().unwrap();
    let receiver = world.open(&carried).unwrap().receive(Staging::new(&home.path().join("in")).unwrap()).unwrap();
    assert!(receiver.has_room_for(8) && !receiver.has_room_for(9));
    let error = receiver.accept(9, &carried.parts[9]).unwrap_err();
    assert!(matches!(error, OpenError::PartOrder { found: 9, wanted: 0 }), "{error}");
    for number in [3, 1, 2, 0, 11, 8, 9, 10, 7, 6, 5, 4] {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    receiver.finish().unwrap().publish().unwrap();
    assert!(std::fs::read(home.path().join("in/stream")).unwrap() == bytes);
    // A writer gets nothing before the first, and then all in order.
    let mut out = Vec::new();
    let receiver = world.open(&carried).unwrap().receive(Released::new(&mut out)).unwrap();
    for number in [2, 1, 3, 4, 0, 5, 6, 7, 8, 10, 9, 11] {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    receiver.finish().unwrap();
    assert!(out == bytes);
    // One that is missing is told.
    let receiver = world.open(&carried).unwrap().receive(Released::new(Vec::new())).unwrap();
    for number in [0, 2] {
        receiver.accept(number, &carried.parts[number as usize]).unwrap();
    }
    assert!(matches!(receiver.finish().err(), Some(OpenError::PartsMissing { .. })));
}

/// Notes which frame is begun while which one is due, and fails if that is further than it takes.
#[derive(Default)]
struct Near(Mutex<(BTreeSet<u32>, u32, u32)>);

struct NearPart<'a>(&'a Near, u32);

impl Sink for Near {
    type Done = u32;
    type Part<'a> = NearPart<'a>;
    const AHEAD: u32 = 2;

    fn begin(&mut self, _: &Index) -> Result<(), SinkError> {
        Ok(())
    }
    fn part(&self, number: u32) -> NearPart<'_> {
        let mut state = self.0.lock().unwrap();
        assert!(number <= state.1 + Self::AHEAD, "frame {number} while {} is due", state.1);
        state.2 += 1;
        NearPart(self, number)
    }
    fn finish(self, _: &Index) -> Result<u32, SinkError> {
        Ok(self.0.into_inner().unwrap().2)
    }
}

impl SinkPart for NearPart<'_> {
    fn begin_file(&mut self, _: usize, _: &Entry, _: Range<u64>) -> Result<(), SinkError> {
        Ok(())
    }
    fn bytes(&mut self, _: u64, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
    fn end_file(&mut self, _: usize, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn done(self) -> Result<(), SinkError> {
        let mut state = self.0.0.lock().unwrap();
        state.0.insert(self.1);
        while state.0.contains(&state.1) {
            state.1 += 1;
        }
        Ok(())
    }
}

// attacks.md 12: what comes early waits compressed; no more frames are opened than are taken.
#[test]
fn attack_12_early_frames_wait_compressed() {
    let world = World::new();
    let bytes = [noise(11, PART + 1000), text(40 * FRAME)].concat();
    let carried = seal_on(&world, 2, stream(&bytes)).unwrap();
    assert_eq!(carried.parts.len(), 2);
    let receiver = world.open(&carried).unwrap().receive(Near::default()).unwrap();
    receiver.accept(1, &carried.parts[1]).unwrap();
    receiver.accept(0, &carried.parts[0]).unwrap();
    assert_eq!(receiver.finish().unwrap(), 43);
    assert_eq!(open_on(&world, 4, &carried, Near::default()).unwrap(), 43);
}

/// A sink whose fourth frame tells that it is begun, and waits until it is let go.
struct Held {
    gate: Mutex<mpsc::Receiver<()>>,
    begun: mpsc::Sender<()>,
}

struct HeldPart;

impl Sink for Held {
    type Done = ();
    type Part<'a> = HeldPart;
    const AHEAD: u32 = 2;

    fn begin(&mut self, _: &Index) -> Result<(), SinkError> {
        Ok(())
    }
    fn part(&self, number: u32) -> HeldPart {
        if number == 3 {
            self.begun.send(()).unwrap();
            self.gate.lock().unwrap().recv().unwrap();
        }
        HeldPart
    }
    fn finish(self, _: &Index) -> Result<(), SinkError> {
        Ok(())
    }
}

impl SinkPart for HeldPart {
    fn begin_file(&mut self, _: usize, _: &Entry, _: Range<u64>) -> Result<(), SinkError> {
        Ok(())
    }
    fn bytes(&mut self, _: u64, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
    fn end_file(&mut self, _: usize, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn done(self) -> Result<(), SinkError> {
        Ok(())
    }
}

// attacks.md 12: how far ahead parts may come counts from the first frame that is not opened, wherever that lies, and not
// from the part whose turn it is. Here that is part 2, and the frame that it completes begins in part 1.
#[test]
fn attack_12_frames_that_wait_bound_the_parts() {
    let world = World::new();
    let carried = seal_on(&world, 2, stream(&noise(5, 6 * PART))).unwrap();
    let ((begun, told), (open, gate)) = (mpsc::channel(), mpsc::channel());
    let receiver = world.open(&carried).unwrap().receive(Held { gate: Mutex::new(gate), begun }).unwrap();
    let accept = |number: u32| receiver.accept(number, &carried.parts[number as usize]);
    std::thread::scope(|scope| {
        accept(0).unwrap();
        accept(1).unwrap();
        scope.spawn(|| accept(2).unwrap());
        told.recv().unwrap();
        assert_eq!(receiver.due(), 2);
        assert!(receiver.has_room_for(3) && !receiver.has_room_for(4));
        assert!(matches!(accept(4), Err(OpenError::PartOrder { found: 4, .. })));
        open.send(()).unwrap();
    });
    for number in 3..carried.parts.len() as u32 {
        accept(number).unwrap();
    }
    receiver.finish().unwrap();
}

// What compresses well comes out of few parts: all threads are at its frames, and a writer still gets them in order.
#[test]
fn many_frames_out_of_one_part() {
    let world = World::new();
    let bytes = text(60 * FRAME + 9);
    let carried = seal_on(&world, 3, stream(&bytes)).unwrap();
    assert_eq!(carried.parts.len(), 1);
    for count in [1, 4] {
        assert!(written(&world, count, &carried) == bytes);
    }
}

/// Fails, or panics, after so many bytes.
struct Breaks {
    left: usize,
    panics: bool,
}

impl Read for Breaks {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            assert!(!self.panics, "a reader that panics");
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        let length = out.len().min(self.left);
        self.left -= length;
        Ok(length)
    }
}

#[test]
fn an_error_or_a_panic_ends_all_threads() {
    let breaks = |panics| {
        let reader = Box::new(Breaks { left: 5 * FRAME + 10, panics });
        Content::Stream { name: "s".parse().unwrap(), mtime: 0, reader }
    };
    let world = World::new();
    for count in [1, 2, 5] {
        let error = seal_on(&world, count, breaks(false)).err().unwrap();
        assert!(matches!(&error, SealError::Stream(e) if e.kind() == std::io::ErrorKind::TimedOut), "{error}");
        let panic = std::panic::catch_unwind(|| seal_on(&World::new(), count, breaks(true)).map(|_| ()));
        assert!(panic.is_err());
    }
    // Not sealed to the end, there is no bundle.
    let sealer = Sealer::compressing(stream(&noise(1, 3 * PART)), ZSTD).unwrap();
    assert!(sealer.next_part(&mut SealedPart::default()).unwrap());
    assert!(matches!(sealer.finish(), Err(SealError::Unfinished)));
}

// attacks.md 15
#[test]
fn attack_15_a_source_that_changes() {
    let home = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let source = home.path().join(round.to_string());
        std::fs::create_dir_all(source.join("sub")).unwrap();
        std::fs::write(source.join("sub/a"), text(3 * FRAME)).unwrap();
        std::fs::write(source.join("sub/b"), noise(1, 3 * FRAME)).unwrap();
        let content = tree(&source);
        match round {
            0 => set_mtime(&source.join("sub/a"), 5),
            1 => std::fs::write(source.join("sub/b"), "shorter than it was").unwrap(),
            _ => set_mtime(&source.join("sub"), 5),
        }
        let error = seal_on(&World::new(), 3, content).err().unwrap();
        assert!(matches!(error, SealError::Source(SourceError::Changed { .. })), "{error}");
    }
}

/// Very many, and counted.
struct Zeros(Arc<AtomicU64>);

const MANY: u64 = 8 << 30;

impl Read for Zeros {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        out.fill(0);
        let before = self.0.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(if before < MANY { out.len() } else { 0 })
    }
}

// Whoever takes the parts and cannot, or panics, ends the making of more: input that compresses to next to nothing fills no
// other part for a long time.
#[test]
fn a_failed_delivery_ends_the_reading() {
    for panics in [false, true] {
        let read = Arc::new(AtomicU64::new(0));
        let input = std::io::Cursor::new(noise(9, PART + 1000)).chain(Zeros(read.clone()));
        let content = Content::Stream { name: "stream".parse().unwrap(), mtime: 0, reader: Box::new(input) };
        let sealer = Sealer::compressing(content, ZSTD).unwrap();
        let failed = catch_unwind(AssertUnwindSafe(|| {
            sealer.seal_all(threads(3), |_| {
                assert!(!panics, "delivery");
                Err::<(), _>(SealError::Unfinished)
            })
        }));
        assert_eq!(failed.is_err(), panics);
        assert!(failed.is_err() || failed.unwrap().is_err());
        assert!(read.load(Ordering::Relaxed) < MANY);
    }
}

/// A frame as zstd makes it.
fn frame(raw: &[u8]) -> Vec<u8> {
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::WindowLog(22)).unwrap();
    let mut out = vec![0; zstd_safe::compress_bound(raw.len())];
    let size = context.compress2(&mut out[..], raw).unwrap();
    out.truncate(size);
    out
}

/// A frame that says it holds `said` bytes, if anything, with blocks of any kind (RFC 8878, §3.1.1.2): 0 raw, 1 RLE. Its
/// window is its content, or has a byte of its own.
fn crafted(said: Option<u32>, window: Option<u8>, blocks: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut out = 0xFD2F_B528_u32.to_le_bytes().to_vec();
    out.push(if said.is_some() { 0x80 } else { 0 } | if window.is_none() { 0x20 } else { 0 });
    out.extend(window);
    if let Some(said) = said {
        out.extend_from_slice(&said.to_le_bytes());
    }
    for (number, (kind, size, bytes)) in blocks.iter().enumerate() {
        let last = u32::from(number + 1 == blocks.len());
        out.extend_from_slice(&(last | kind << 1 | size << 3).to_le_bytes()[..3]);
        out.extend_from_slice(bytes);
    }
    out
}

fn frame_error(error: &OpenError) -> FrameError {
    match error {
        OpenError::Content(ContentError::Frame { reason, .. }) => *reason,
        other => panic!("{other}"),
    }
}

// attacks.md 12: Ada's keys sign whatever she likes; of a frame comes what its line in the index says, or nothing.
#[test]
fn attack_12_a_frame_holds_what_was_signed_or_is_refused() {
    let world = World::new();
    let bytes = text(1000);
    let line = [file_line("stream", &bytes)];
    let forge = |frame: Vec<u8>| world.forge_frames(ContentKind::Stream, 1000, &[frame], &line, |_| (), |t| t);
    let refused = |frame: Vec<u8>| {
        let carried = forge(frame);
        let error = world.refused(&carried);
        assert_eq!(error.stage(), Some(Stage::Content));
        // Neither does a single file or a writer get a byte.
        let mut out = Vec::new();
        let opening = world.open(&carried).unwrap();
        let alone = opening.file("stream").unwrap().extract(&mut out, |number, sealed| {
            sealed.clone_from(&carried.parts[number as usize]);
            Ok::<_, OpenError>(())
        });
        assert_eq!(frame_error(&alone.unwrap_err()), frame_error(&error));
        assert!(open_on(&world, 2, &carried, Released::new(&mut out)).is_err());
        assert!(out.is_empty());
        frame_error(&error)
    };
    let good = frame(&bytes);
    assert!(written(&world, 1, &forge(good.clone())) == bytes);
    assert!(written(&world, 1, &forge(crafted(Some(1000), None, &[(0, 1000, &bytes)]))) == bytes);

    // Bombs: a few bytes that become 128 KiB each, under an honest or a lying header.
    let many: Vec<(u32, u32, &[u8])> = vec![(1, 1 << 17, b"\0"); 200];
    assert_eq!(refused(crafted(Some(200 << 17), None, &many)), FrameError::Size);
    assert!(matches!(refused(crafted(Some(1000), None, &many)), FrameError::Damaged(_)));
    assert_eq!(refused(crafted(None, Some(7 << 3), &many)), FrameError::Window);
    // One byte more or less than it says.
    for len in [999, 1001] {
        let raw = text(len as usize);
        let lies = crafted(Some(1000), None, &[(0, len, &raw)]);
        assert!(matches!(refused(lies), FrameError::Damaged(_)), "{len}");
        assert_eq!(refused(frame(&raw)), FrameError::Size);
    }
    // A window of its own: too large to keep, or so small that the zstd program refuses what is beyond it.
    for window in [0, 7 << 3, 12 << 3, 0xff] {
        assert_eq!(refused(crafted(Some(1000), Some(window), &[(0, 1000, &bytes)])), FrameError::Window);
    }
    // More behind it, in it, or less.
    assert_eq!(refused([&good[..], b"\0"].concat()), FrameError::Length);
    assert_eq!(refused(good[..good.len() - 1].to_vec()), FrameError::Length);
    let skippable = b"\x50\x2a\x4d\x18\x01\0\0\0\0";
    assert_eq!(refused([&good[..], skippable].concat()), FrameError::Length);
    assert_eq!(refused([skippable, &good[..]].concat()), FrameError::Header);
    assert_eq!(refused(skippable.to_vec()), FrameError::Header);
    let halves = [frame(&bytes[..500]), frame(&bytes[500..])].concat();
    assert_eq!(refused(halves), FrameError::Size);
    // A dictionary, reserved and unused bits, older formats.
    for bit in [0x01, 0x02, 0x08, 0x10] {
        let mut odd = good.clone();
        odd[4] |= bit;
        assert_eq!(refused(odd), FrameError::Header);
    }
    for (at, byte) in [(0, 0x27), (0, 0x26), (0, 0x25), (0, 0x1e), (3, 0)] {
        let mut old = good.clone();
        old[at] = byte;
        assert_eq!(refused(old), FrameError::Header);
    }
    // With a checksum, as other programs write it, it must be right.
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
    let mut sums = vec![0; 2000];
    let size = context.compress2(&mut sums[..], &bytes).unwrap();
    sums.truncate(size);
    assert!(written(&world, 1, &forge(sums.clone())) == bytes);
    *sums.last_mut().unwrap() ^= 1;
    assert!(matches!(refused(sums), FrameError::Damaged(_)));
    // Cut anywhere, or any bit of it another: refused as a frame, or by the digest of the file.
    for at in 0..good.len() {
        let carried = forge(good[..at.max(1)].to_vec());
        frame_error(&world.refused(&carried));
        for bit in 0..8 {
            let mut flipped = good.clone();
            flipped[at] ^= 1 << bit;
            let carried = forge(flipped);
            match world.receive(&carried, Released::new(Vec::new())) {
                Err(OpenError::Content(_)) => {}
                Err(other) => panic!("{other}"),
                // Bits that say the same, as the size of a window: then it is the same content.
                Ok(out) => assert!(out == bytes),
            }
        }
    }
}

// attacks.md 12: nothing is made of a frame beyond what its part of the signed size is, however many there are.
#[test]
fn attack_12_among_many_frames() {
    let (world, home) = (World::new(), tempfile::tempdir().unwrap());
    let bytes = vec![0; 3 * FRAME + 10];
    let line = [file_line("stream", &bytes)];
    let zeros: Vec<(u32, u32, &[u8])> = vec![(1, 1 << 17, b"\0"); 32];
    let good = crafted(Some(4 << 20), None, &zeros);
    let bomb: Vec<(u32, u32, &[u8])> = vec![(1, 1 << 17, b"\0"); 100_000];
    let bomb = crafted(Some(4 << 20), None, &bomb);
    let last = frame(&bytes[..10]);
    let whole = |frames: &[&Vec<u8>]| {
        let frames: Vec<Vec<u8>> = frames.iter().map(|f| (*f).clone()).collect();
        world.forge_frames(ContentKind::Stream, bytes.len() as u64, &frames, &line, |_| (), |t| t)
    };
    assert!(written(&world, 3, &whole(&[&good, &good, &good, &last])) == bytes);
    let carried = whole(&[&good, &bomb, &good, &last]);
    for count in [1, 4] {
        let into = home.path().join("in");
        let error = open_on(&world, count, &carried, Staging::new(&into).unwrap()).err().unwrap();
        assert!(matches!(frame_error(&error), FrameError::Damaged(_)));
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
        let mut out = Vec::new();
        open_on(&world, count, &carried, Released::new(&mut out)).err().unwrap();
        assert!(out.is_empty());
    }
}

// attacks.md 11, 12, 13, 14: sizes that do not follow from each other, or that nobody has room for, before anything is
// fetched.
#[test]
fn attack_12_every_lie_about_frames_is_refused_with_the_index() {
    let world = World::new();
    let bytes = text(2 * FRAME + 9);
    let frames: Vec<Vec<u8>> = bytes.chunks(FRAME).map(frame).collect();
    let line = [file_line("stream", &bytes)];
    let raw = bytes.len() as u64;
    let forge =
        |edit: &dyn Fn(String) -> String| world.forge_frames(ContentKind::Stream, raw, &frames, &line, |_| (), edit);
    assert!(written(&world, 2, &forge(&|t| t)) == bytes);
    let first = format!("{{\"frame\":0,\"size\":{}}}\n", frames[0].len());
    let second = format!("{{\"frame\":1,\"size\":{}}}\n", frames[1].len());
    let raw_size = format!("\"raw_size\":{raw}");
    let replace = |from: &str, to: &str| match world.open(&forge(&|text| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })) {
        Err(OpenError::Index(error)) => error,
        Err(other) => panic!("{from} → {to}: {other}"),
        Ok(_) => panic!("{from} → {to} was taken"),
    };
    let sizes = |from: &str, to: &str| {
        let error = replace(from, to);
        assert!(matches!(error, IndexError::Sizes { .. } | IndexError::Layout(_)), "{from} → {to}: {error}");
    };
    let lines = |from: &str, to: &str| {
        let error = replace(from, to);
        assert!(matches!(error, IndexError::Line { .. }), "{from} → {to}: {error}");
    };
    // Lengths of frames: none, longer than any, and such that their sum is another or none.
    for size in [0, 1, frames[0].len() as u64 + 1, FRAME_SIZE + FRAME_SIZE / 256 + 65, u64::MAX] {
        sizes(&first, &format!("{{\"frame\":0,\"size\":{size}}}\n"));
    }
    // Their number and order.
    lines(&first, "");
    lines(&first, &format!("{first}{first}"));
    lines(&format!("{first}{second}"), &format!("{second}{first}"));
    lines(&first, &format!("{first}{{\"frame\":1,\"size\":9}}\n"));
    sizes("\"frames\":3", "\"frames\":2");
    sizes("\"frames\":3", "\"frames\":4");
    sizes("\"frames\":3", "\"frames\":18446744073709551615");
    // The whole.
    sizes(&raw_size, &format!("\"raw_size\":{}", raw - 1));
    sizes(&raw_size, "\"raw_size\":18446744073709551615");
    sizes(&format!("\"size\":{raw},"), &format!("\"size\":{},", raw + 1));
    // More than any bundle holds does not come out of one: before a line of frames is read.
    for huge in [u64::MAX - 2000, 8 << 40] {
        let frames = huge.div_ceil(FRAME_SIZE);
        let error = match world.open(&forge(&|text| {
            text.replacen(&raw_size, &format!("\"raw_size\":{huge}"), 1)
                .replacen("\"frames\":3", &format!("\"frames\":{frames}"), 1)
                .replacen(&format!("\"size\":{raw},"), &format!("\"size\":{huge},"), 1)
        })) {
            Err(OpenError::Index(error)) => error,
            _ => panic!("{huge}"),
        };
        assert!(
            matches!(error, IndexError::Layout(LayoutError::TooLarge { .. }) | IndexError::Sizes { .. }),
            "{error}"
        );
    }
    // Members: one without the others, unknown values, another order or spelling.
    lines(",\"compression\":\"zstd\"", "");
    lines(&format!(",{raw_size}"), "");
    lines(",\"frames\":3", "");
    lines("\"compression\":\"zstd\"", "\"compression\":\"gzip\"");
    lines("\"compression\":\"zstd\"", "\"compression\":null");
    lines("\"compression\":\"zstd\"", "\"compression\":\"zstd\",\"level\":3");
    lines(&format!("\"compression\":\"zstd\",{raw_size}"), &format!("{raw_size},\"compression\":\"zstd\""));
    lines(&first, &first.replace("\"frame\":0,", "\"frame\":0,\"raw\":1,"));
    lines(&first, &first.replace("\"frame\":0", "\"frame\": 0"));
    // Frames where there is no compression, and none where there is.
    lines(&format!(",\"compression\":\"zstd\",{raw_size},\"frames\":3"), &format!(",{raw_size},\"frames\":3"));
    sizes(&format!(",\"compression\":\"zstd\",{raw_size},\"frames\":3"), "");
}

// attacks.md 18, 19: what stands behind the frames is one skippable frame of zeros, and nothing else.
#[test]
fn attack_18_the_padding_is_checked() {
    let world = World::new();
    let bytes = text(1000);
    let frames = [frame(&bytes)];
    let line = [file_line("stream", &bytes)];
    let length = frames[0].len();
    let forge = |at: usize, byte: u8| {
        let tail = |content: &mut Vec<u8>| content[at] ^= byte;
        world.forge_frames(ContentKind::Stream, 1000, &frames, &line, tail, |t| t)
    };
    assert!(written(&world, 1, &forge(0, 0)) == bytes);
    for at in (length..length + 12).chain([4095]) {
        let error = world.refused(&forge(at, 1));
        assert!(matches!(error, OpenError::Content(ContentError::Padding)), "{at}: {error}");
    }
}

// Content that says it is compressed the other way about: neither is taken for the other.
#[test]
fn compressed_content_is_not_taken_for_other() {
    let world = World::new();
    let bytes = text(1000);
    let line = [file_line("stream", &bytes)];
    let plain = world.forge_frames(ContentKind::Stream, 1000, std::slice::from_ref(&bytes), &line, |_| (), |t| t);
    assert_eq!(frame_error(&world.refused(&plain)), FrameError::Header);
    let packed = frame(&bytes);
    let mut padded = packed.clone();
    padded.resize(1000, 0);
    let carried = world.forge(ContentKind::Stream, &padded, &line, |t| t);
    assert!(matches!(world.refused(&carried), OpenError::Content(ContentError::Digest { .. })));
}

#[test]
fn a_secret_into_memory() {
    let world = World::new();
    for length in [0, 1, MAX_IN_MEMORY as usize] {
        let carried = seal_on(&world, 1, stream(&noise(3, length))).unwrap();
        let out = open_on(&world, 1, &carried, InMemory::new()).unwrap();
        assert!(*out == noise(3, length));
    }
    // More than memory takes is refused by what is signed, before anything comes.
    let carried = seal_on(&world, 1, stream(&text(MAX_IN_MEMORY as usize + 1))).unwrap();
    let error = world.open(&carried).unwrap().receive(InMemory::new()).err().unwrap();
    assert!(matches!(error, OpenError::Sink(SinkError::TooLarge { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]

    // Any content, any threads on either side; any flipped bit or cut in any part is refused.
    #[test]
    fn any_content_and_any_threads(
        pieces in proptest::collection::vec((any::<bool>(), 0usize..7 << 20), 0..5),
        sealers in 1usize..5,
        openers in 1usize..5,
        damage: (u64, u64, bool),
    ) {
        let (world, home) = (World::new(), tempfile::tempdir().unwrap());
        let source = home.path().join("source");
        std::fs::create_dir(&source).unwrap();
        let mut all = Vec::new();
        for (number, (compresses, len)) in pieces.iter().enumerate() {
            let bytes = if *compresses { text(*len) } else { noise(number as u64, *len) };
            std::fs::write(source.join(number.to_string()), &bytes).unwrap();
            all.extend_from_slice(&bytes);
        }
        let carried = seal_on(&world, sealers, stream(&all)).unwrap();
        prop_assert!(written(&world, openers, &carried) == all);

        let mut carried = seal_on(&world, sealers, tree(&source)).unwrap();
        let (place, into) = (home.path().join("place"), home.path().join("place/in"));
        std::fs::create_dir(&place).unwrap();
        open_on(&world, openers, &carried, Staging::new(&into).unwrap()).unwrap().publish().unwrap();
        prop_assert!(snapshot(&source) == snapshot(&into));
        std::fs::remove_dir_all(&into).unwrap();

        let (part, at, cut) = damage;
        let part = part as usize % carried.parts.len();
        let at = at as usize % carried.parts[part].len();
        if cut {
            carried.parts[part].truncate(at);
        } else {
            carried.parts[part][at] ^= 1 << (at % 8);
        }
        let error = open_on(&world, openers, &carried, Staging::new(&into).unwrap()).err().unwrap();
        prop_assert!(matches!(error, OpenError::PartDigest { .. } | OpenError::PartSize { .. }), "{}", error);
        prop_assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    }
}
