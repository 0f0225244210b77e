//! Frames on their way into parts: made side by side and in any order, put one behind the other, and cut where the parts are.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use super::frames::{SKIPPABLE_HEADER, Tail};
use super::layout::{Layout, LayoutError, part_capacity};
use super::zstd::Packer;

/// Frames that are being made or that wait for one in front of them, at most.
const AHEAD: usize = 16;

/// What the threads that seal one bundle share. Memory is a part that fills up, [`AHEAD`] frames, and for each thread what a
/// [`Packer`] has, and the frames of the part that it seals until they are in it.
#[derive(Default)]
pub(super) struct Packing {
    state: Mutex<State>,
    moved: Condvar,
    packers: Mutex<Vec<Packer>>,
}

#[derive(Default)]
struct State {
    /// How many frames there will be, once that is known.
    total: Option<usize>,
    /// Frames that somebody was told to make.
    begun: usize,
    /// Of these, those that are being made.
    busy: usize,
    /// Frames that wait for one in front of them.
    early: BTreeMap<usize, Packed>,
    /// Lengths of the frames in order.
    sizes: Vec<u64>,
    /// Where the last of these ends in the content.
    end: u64,
    /// The last of these, which are not in a part, or not all of them.
    queue: VecDeque<Arc<Packed>>,
    /// Bytes of the first one that are in a part.
    used: usize,
    /// Bytes of the padded content that are in a part.
    given: u64,
    /// Number of the next part.
    part: u32,
    failed: bool,
}

/// A frame that is made.
struct Packed {
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes in it before compression.
    raw: u64,
}

/// What a thread is to do next.
pub(super) enum Step {
    /// Make a frame; of files, the one with this number.
    Frame(usize),
    /// Seal a part.
    Part(Cut),
    /// All parts were given out.
    End,
}

/// The content of one part.
pub(super) struct Cut {
    pub(super) number: u32,
    /// Bytes of padded content in it.
    pub(super) size: u64,
    /// Bytes of content before compression in the frames that end in it.
    pub(super) raw: u64,
    pieces: VecDeque<(Arc<Packed>, Range<usize>)>,
    tail: Tail,
    /// Where the next byte stands in the padded content.
    at: u64,
}

impl Packing {
    /// For so many frames, if that is known.
    pub(super) fn new(total: Option<usize>) -> Self {
        Self { state: Mutex::new(State { total, ..State::default() }), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory to make frames in.
    pub(super) fn packer(&self) -> Result<Packer, &'static str> {
        let spare = self.packers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.map_or_else(Packer::new, Ok)
    }

    /// Gives that memory back.
    pub(super) fn spare(&self, packer: Packer) {
        self.packers.lock().unwrap_or_else(PoisonError::into_inner).push(packer);
    }

    /// Nobody goes on.
    pub(super) fn fail(&self) {
        self.lock().failed = true;
        self.moved.notify_all();
    }

    /// What there is to do, as soon as there is something; `None` after [`Packing::fail`].
    pub(super) fn next(&self) -> Result<Option<Step>, LayoutError> {
        let mut state = self.lock();
        loop {
            if state.failed {
                return Ok(None);
            }
            if let Some(step) = state.step()? {
                return Ok(Some(step));
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Puts a frame of `raw` bytes to its place. `total` is how many there are, if that is known now.
    pub(super) fn put(&self, number: usize, frame: &[u8], raw: u64, total: Option<usize>) -> Result<(), LayoutError> {
        let packed = Packed { bytes: Zeroizing::new(frame.to_vec()), raw };
        let mut state = self.lock();
        state.busy -= 1;
        state.total = state.total.or(total);
        state.early.insert(number, packed);
        while let Some(packed) = {
            let due = state.sizes.len();
            state.early.remove(&due)
        } {
            let size = packed.bytes.len() as u64;
            state.sizes.push(size);
            state.end += size;
            state.queue.push_back(Arc::new(packed));
        }
        let fits = state.layout();
        self.moved.notify_all();
        fits.map(|_| ())
    }

    /// There was no frame to be made: the stream had ended after `total` of them.
    pub(super) fn ended(&self, total: usize) {
        let mut state = self.lock();
        state.busy -= 1;
        state.total = Some(total);
        self.moved.notify_all();
    }

    /// Lengths of all frames; `None` if a part was not given out.
    pub(super) fn into_sizes(self) -> Option<Vec<u64>> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_complete = state.total == Some(state.sizes.len())
            && state.layout().is_ok_and(|layout| layout.padded_size() == state.given);
        (is_complete && !state.failed).then_some(state.sizes)
    }
}

impl State {
    /// The lengths of the content if no other frame comes.
    fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::of(self.end.saturating_add(SKIPPABLE_HEADER))
    }

    fn step(&mut self) -> Result<Option<Step>, LayoutError> {
        let capacity = part_capacity(self.part);
        // The frames alone fill it, so what stands behind them is not known here and not needed.
        if self.end.saturating_sub(self.given) >= capacity {
            return Ok(Some(Step::Part(self.cut(capacity, Tail::new(self.end, self.end)))));
        }
        if self.total == Some(self.sizes.len()) {
            let padded_size = self.layout()?.padded_size();
            let left = padded_size - self.given;
            return Ok(Some(match left.min(capacity) {
                0 => Step::End,
                size => Step::Part(self.cut(size, Tail::new(self.end, padded_size))),
            }));
        }
        if self.total.is_none_or(|total| self.begun < total) && self.busy + self.early.len() < AHEAD {
            (self.begun, self.busy) = (self.begun + 1, self.busy + 1);
            return Ok(Some(Step::Frame(self.begun - 1)));
        }
        Ok(None)
    }

    /// The next part, of so many bytes.
    fn cut(&mut self, size: u64, tail: Tail) -> Cut {
        let mut cut = Cut { number: self.part, size, raw: 0, pieces: VecDeque::new(), tail, at: self.given };
        let mut left = size;
        while let Some(first) = self.queue.front().filter(|_| left > 0) {
            let rest = first.bytes.len() - self.used;
            let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest);
            cut.pieces.push_back((first.clone(), self.used..self.used + taken));
            left -= taken as u64;
            self.used += taken;
            if taken == rest {
                cut.raw += first.raw;
                self.used = 0;
                self.queue.pop_front();
            }
        }
        self.given += size;
        self.part += 1;
        cut
    }
}

impl Cut {
    /// Gives the bytes of the part to `hasher`; they can still be written.
    pub(super) fn tell(&self, hasher: &mut blake3::Hasher) {
        let mut at = self.at;
        for (packed, range) in &self.pieces {
            hasher.update(packed.bytes.get(range.clone()).unwrap_or_default());
            at += range.len() as u64;
        }
        // Behind the frames; at most a part of it, and most of that zeros.
        let end = self.at + self.size;
        let mut room = [0; 4096];
        while at < end {
            let now = usize::try_from(end - at).unwrap_or(usize::MAX).min(room.len());
            let room = room.get_mut(..now).unwrap_or_default();
            self.tail.fill(at, room);
            hasher.update(room);
            at += now as u64;
        }
    }

    /// Writes the next bytes of the part into all of `room`.
    pub(super) fn fill(&mut self, mut room: &mut [u8]) {
        while let Some((packed, range)) = self.pieces.front_mut().filter(|_| !room.is_empty()) {
            let taken = range.len().min(room.len());
            let (now, rest) = room.split_at_mut(taken);
            now.copy_from_slice(packed.bytes.get(range.start..range.start + taken).unwrap_or_default());
            range.start += taken;
            self.at += taken as u64;
            room = rest;
            if range.start == range.end {
                self.pieces.pop_front();
            }
        }
        self.tail.fill(self.at, room);
        self.at += room.len() as u64;
    }
}
