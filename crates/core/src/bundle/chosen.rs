//! Some entries of a bundle without the others: which ones, and which stretches of content and which parts hold them.
//!
//! A stretch is what is checked by itself: a part, or of compressed content a frame.

use std::ops::Range;

use super::frames::Frames;
use super::index::{Entry, EntryKind, Index};
use super::layout::part_start;

/// A path that is no entry of the bundle.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no {path:?} in the bundle")]
pub struct NoEntry {
    /// What was asked for.
    pub path: String,
}

/// The entries that are wanted of a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen(Option<Vec<bool>>);

impl Chosen {
    /// All of them.
    #[must_use]
    pub const fn all() -> Self {
        Self(None)
    }

    /// Those at `paths`: files, and folders with all that is beneath them; and the folders around each. A `/` at the end
    /// of a path and `./` in front of it mean nothing.
    ///
    /// # Errors
    /// The first path that is no entry.
    pub fn at<P: AsRef<str>>(index: &Index, paths: &[P]) -> Result<Self, NoEntry> {
        let entries = index.entries();
        let mut chosen = vec![false; entries.len()];
        for path in paths {
            let typed = path.as_ref();
            let path = typed.strip_prefix("./").unwrap_or(typed);
            let path = path.strip_suffix('/').unwrap_or(path);
            let number = index.number(path).ok_or_else(|| NoEntry { path: typed.to_owned() })?;
            // All that is in a folder stands right behind it.
            let beneath = |entry: &Entry| entry.path.as_str().strip_prefix(path).is_some_and(|r| r.starts_with('/'));
            let behind = entries.iter().skip(number + 1).take_while(|entry| beneath(entry)).count();
            for place in chosen.iter_mut().skip(number).take(behind + 1) {
                *place = true;
            }
            let mut around = path;
            while let Some((folder, _)) = around.rsplit_once('/') {
                if let Some(place) = index.number(folder).and_then(|number| chosen.get_mut(number)) {
                    *place = true;
                }
                around = folder;
            }
        }
        Ok(Self(Some(chosen)))
    }

    /// Whether nothing was chosen: it is the whole bundle, with its padding.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether entry `number` is wanted.
    #[must_use]
    pub fn has(&self, number: usize) -> bool {
        self.0.as_ref().is_none_or(|chosen| chosen.get(number).copied().unwrap_or(false))
    }

    /// The entries that are wanted, with their numbers, sorted by path.
    pub fn entries<'a>(&'a self, index: &'a Index) -> impl DoubleEndedIterator<Item = (usize, &'a Entry)> {
        index.entries().iter().enumerate().filter(|(number, _)| self.has(*number))
    }

    /// The files among them.
    pub fn files<'a>(&'a self, index: &'a Index) -> impl DoubleEndedIterator<Item = (usize, &'a Entry)> {
        self.entries(index).filter(|(_, entry)| entry.kind != EntryKind::Folder)
    }

    /// Which stretches hold files that are wanted; of all entries all, for then padding is looked at too.
    pub(super) fn stretches(&self, index: &Index) -> Vec<bool> {
        let mut needed = vec![self.0.is_none(); index.stretches()];
        if self.0.is_some() {
            for (number, _) in self.files(index) {
                let holding = index.holding(number);
                needed.get_mut(holding).unwrap_or_default().fill(true);
            }
        }
        needed
    }
}

impl Index {
    /// Number of stretches.
    pub(super) fn stretches(&self) -> usize {
        self.frames().map_or(self.parts().len(), |frames| frames.sizes().len())
    }

    /// Which bytes of the content stretch `number` holds, before compression.
    pub(super) fn stretch(&self, number: usize) -> Option<Range<u64>> {
        if let Some(frames) = self.frames() {
            return frames.raw(number);
        }
        let part = u32::try_from(number).ok()?;
        let start = part_start(part);
        Some(start..start + self.layout().part_size(part)?)
    }

    /// The stretches in which the bytes of file `number` lie; of an empty one, the stretch in which its header ends.
    pub(super) fn holding(&self, number: usize) -> Range<usize> {
        let body = self.entries().get(number).and_then(|entry| self.plan().body(number, entry.size()));
        let Some(body) = body else { return 0..0 };
        let place = if body.is_empty() { body.start.saturating_sub(1)..body.start.max(1) } else { body };
        if self.frames().is_some() {
            return Frames::holding(&place);
        }
        let part = |offset| self.layout().locate(offset).map(|(part, _)| part as usize);
        part(place.start).zip(part(place.end - 1)).map_or(0..0, |(first, last)| first..last + 1)
    }

    /// The parts in which stretch `number` lies.
    pub(super) fn parts_of(&self, number: usize) -> Range<u32> {
        let Some(frames) = self.frames() else { return number as u32..number as u32 + 1 };
        let place = frames.packed(number).filter(|place| !place.is_empty());
        let part = |offset| self.layout().locate(offset).map(|(part, _)| part);
        place.and_then(|place| part(place.start).zip(part(place.end - 1))).map_or(0..0, |(first, last)| first..last + 1)
    }
}
