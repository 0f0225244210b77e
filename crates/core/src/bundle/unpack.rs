//! Frames on their way out of parts: put together from what the parts have of them, opened side by side, and checked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::check::{CheckError, Checker, ContentError};
use super::frames::{Frames, Tail};
use super::index::Index;
use super::layout::{Layout, part_start};
use super::sink::{Sink, SinkError};
use super::zstd::Unpacker;

/// How many parts may come before one that is missing or at work: what they have of frames that lie in two parts has to be
/// kept, and so have frames that may not be opened yet.
pub(super) const PARTS_AHEAD: u32 = 8;

/// A frame, or what a part has of it. It is authentic: the digest of its part was checked, and each of its chunks.
type Bytes = Zeroizing<Vec<u8>>;

/// What the threads that open one bundle share of its frames.
pub(super) struct Unpacking {
    state: Mutex<State>,
    unpackers: Mutex<Vec<Unpacker>>,
}

#[derive(Default)]
struct State {
    /// Of frames that lie in two parts, what came first.
    halves: HashMap<usize, Bytes>,
    /// Whole frames that nobody has opened yet.
    ready: BTreeMap<usize, Bytes>,
    /// Number of the first frame that is not done.
    due: usize,
    /// Frames behind it that are.
    done: BTreeSet<usize>,
}

impl Unpacking {
    /// Of the frames that are `needed`; the others are done.
    pub(super) fn of(needed: &[bool]) -> Self {
        let mut state = State::default();
        for (number, _) in needed.iter().enumerate().filter(|(_, needed)| !**needed) {
            state.finish(number);
        }
        Self { state: Mutex::new(state), unpackers: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The part in which the first frame begins that is not done; the number of parts behind the last one.
    pub(super) fn due_part(&self, frames: &Frames, layout: &Layout) -> u32 {
        let due = self.lock().due;
        frames.packed(due).and_then(|frame| layout.locate(frame.start)).map_or(layout.parts(), |(part, _)| part)
    }

    /// Whether all frames were good.
    pub(super) fn is_complete(&self, frames: &Frames) -> bool {
        self.lock().due == frames.sizes().len()
    }
}

impl State {
    /// A frame that may be opened: not further than `ahead` before the one that is due.
    fn take(&mut self, ahead: u32) -> Option<(usize, Bytes)> {
        let first = self.ready.first_entry()?;
        if *first.key() - self.due > ahead as usize {
            return None;
        }
        Some(first.remove_entry())
    }

    fn finish(&mut self, number: usize) {
        self.done.insert(number);
        while self.done.remove(&self.due) {
            self.due += 1;
        }
    }
}

/// Takes the frames out of one part.
pub(super) struct PartFrames<'a, S, G> {
    checker: &'a Checker<S>,
    index: &'a Index,
    frames: &'a Frames,
    tail: Tail,
    /// Where the next byte stands in the padded content.
    at: u64,
    /// Where the part ends.
    end: u64,
    /// What came of the frame that lies there.
    piece: Bytes,
    /// What must stand behind the frames.
    wanted: Vec<u8>,
    /// Whether another thread gave up.
    go_on: G,
}

impl<'a, S: Sink, G: Fn() -> Result<(), CheckError>> PartFrames<'a, S, G> {
    pub(super) fn new(checker: &'a Checker<S>, index: &'a Index, frames: &'a Frames, number: u32, go_on: G) -> Self {
        let (at, size) = (part_start(number), index.layout().part_size(number).unwrap_or(0));
        let tail = Tail::new(frames.end(), index.layout().padded_size());
        let (piece, wanted) = (Bytes::default(), Vec::new());
        Self { checker, index, frames, tail, at, end: at + size, piece, wanted, go_on }
    }

    /// Takes the next bytes of the part.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CheckError> {
        while !bytes.is_empty() {
            let Some(number) = self.frames.at(self.at) else { return self.padding(bytes) };
            let frame = self.frames.packed(number).ok_or(ContentError::Length)?;
            let end = frame.end.min(self.end);
            let left = end.checked_sub(self.at).filter(|left| *left > 0).ok_or(ContentError::Length)?;
            let needed = self.checker.needs(number);
            if needed && self.piece.capacity() == 0 {
                // At once, so that growing leaves no copies behind; a frame is not long.
                self.piece.reserve_exact(left as usize);
            }
            let (now, rest) = bytes.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
            if needed {
                self.piece.extend_from_slice(now);
            }
            self.at += now.len() as u64;
            bytes = rest;
            if needed && self.at == end {
                let piece = std::mem::take(&mut self.piece);
                self.put(number, piece, end == frame.end);
                self.open()?;
            }
        }
        Ok(())
    }

    /// What is behind the last frame.
    fn padding(&mut self, bytes: &[u8]) -> Result<(), CheckError> {
        self.wanted.resize(bytes.len(), 0);
        self.tail.fill(self.at, &mut self.wanted);
        self.at += bytes.len() as u64;
        if self.wanted == bytes { Ok(()) } else { Err(ContentError::Padding.into()) }
    }

    /// Completes the part; what it brought was given to whoever may open it.
    pub(super) fn finish(self) -> Result<(), CheckError> {
        if self.at == self.end { Ok(()) } else { Err(ContentError::Length.into()) }
    }

    /// Gives a piece to whoever opens frames; the second one of two is joined with the first.
    fn put(&self, number: usize, piece: Bytes, ends: bool) {
        let length = self.frames.packed(number).map_or(0, |frame| frame.end - frame.start);
        let mut state = self.checker.unpacking().lock();
        if piece.len() as u64 == length {
            state.ready.insert(number, piece);
            return;
        }
        let Some(other) = state.halves.remove(&number) else {
            state.halves.insert(number, piece);
            return;
        };
        let (front, back) = if ends { (&other, &piece) } else { (&piece, &other) };
        let mut whole = Bytes::new(Vec::with_capacity(front.len() + back.len()));
        whole.extend_from_slice(front);
        whole.extend_from_slice(back);
        state.ready.insert(number, whole);
    }

    /// Opens frames as long as there are some that may be. Whoever completes one looks again, so none is left behind.
    fn open(&self) -> Result<(), CheckError> {
        let unpacking = self.checker.unpacking();
        loop {
            let Some((number, frame)) = unpacking.lock().take(S::AHEAD) else { return Ok(()) };
            (self.go_on)()?;
            self.open_one(number, &frame)?;
            unpacking.lock().finish(number);
        }
    }

    fn open_one(&self, number: usize, frame: &[u8]) -> Result<(), CheckError> {
        let range = self.frames.raw(number).ok_or(ContentError::Length)?;
        let spares = &self.checker.unpacking().unpackers;
        let spare = spares.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut unpacker = spare.or_else(Unpacker::new).ok_or(SinkError::Memory)?;
        let opened = unpacker.unpack(frame, range.end - range.start);
        let raw = opened.map_err(|reason| ContentError::Frame { number: number as u64, reason })?;
        let mut check = self.checker.stretch(self.index, number as u32, range);
        check.feed(raw)?;
        check.finish()?;
        spares.lock().unwrap_or_else(PoisonError::into_inner).push(unpacker);
        Ok(())
    }
}
