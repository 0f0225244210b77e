//! Compressed bundles of somebody who signs anything: frames that lie are refused, no byte more than was signed is made of
//! them, and what comes early is bounded.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod bundle_support;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Mutex, mpsc};

use bundle_support::compressed::*;
use bundle_support::*;
use pouch_core::bundle::*;
use pouch_statement::{Blake3Digest, Stage};

const AHEAD: u32 = 2;

/// A sink that throws all away, and says of each frame when it is begun and when it is done.
struct Told<B, D> {
    begins: B,
    done: D,
}

struct ToldPart<'a, D>(&'a D, u32);

impl<B: Fn(u32) + Send + Sync, D: Fn(u32) + Send + Sync> Sink for Told<B, D> {
    type Done = ();
    type Part<'a>
        = ToldPart<'a, D>
    where
        Self: 'a;
    const AHEAD: u32 = AHEAD;

    fn begin(&mut self, _: &Index, _: &Chosen) -> Result<Had, SinkError> {
        Ok(Had::default())
    }
    fn part(&self, number: u32) -> ToldPart<'_, D> {
        (self.begins)(number);
        ToldPart(&self.done, number)
    }
    fn finish(self, _: &Index, _: &Chosen) -> Result<(), SinkError> {
        Ok(())
    }
}

impl<D: Fn(u32)> SinkPart for ToldPart<'_, D> {
    fn begin_file(&mut self, _: usize, _: &Entry, _: Range<u64>) -> Result<(), SinkError> {
        Ok(())
    }
    fn bytes(&mut self, _: u64, _: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
    fn end_file(&mut self, _: usize, _: &Entry) -> Result<(), SinkError> {
        Ok(())
    }
    fn done(self, _: &Blake3Digest) -> Result<(), SinkError> {
        (self.0)(self.1);
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
    // Frames that are done, and the first that is not.
    let state = Mutex::new((BTreeSet::new(), 0));
    let begins = |number| {
        let due = state.lock().unwrap().1;
        assert!(number <= due + AHEAD, "frame {number} while {due} is due");
    };
    let done = |number| {
        let (done, due) = &mut *state.lock().unwrap();
        done.insert(number);
        while done.contains(due) {
            *due += 1;
        }
    };
    let receiver = world.open(&carried).unwrap().receive(Told { begins, done }).unwrap();
    receiver.accept(1, &carried.parts[1]).unwrap();
    receiver.accept(0, &carried.parts[0]).unwrap();
    receiver.finish().unwrap();
    assert_eq!(std::mem::take(&mut *state.lock().unwrap()).1, 43);
    open_on(&world, 4, &carried, Told { begins, done }).unwrap();
    assert_eq!(state.lock().unwrap().1, 43);
}

// attacks.md 12: how far ahead parts may come counts from the first frame that is not opened, wherever that lies, and not
// from the part whose turn it is. Here that is part 2, and the frame that it completes begins in part 1.
#[test]
fn attack_12_frames_that_wait_bound_the_parts() {
    let world = World::new();
    let carried = seal_on(&world, 2, stream(&noise(5, 6 * PART))).unwrap();
    let ((begun, told), (open, gate)) = (mpsc::channel(), mpsc::channel());
    let gate = Mutex::new(gate);
    let begins = |number| {
        if number == 3 {
            begun.send(()).unwrap();
            gate.lock().unwrap().recv().unwrap();
        }
    };
    let receiver = world.open(&carried).unwrap().receive(Told { begins, done: |_| () }).unwrap();
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
