//! Where each entry lies in the content, so that any stretch of it can be made or checked by itself.

use std::ops::Range;

use super::archive::{ARCHIVE_END, Item, file_fill, header_len};
use super::index::ContentKind;

/// The place of every entry: eight bytes for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    kind: ContentKind,
    /// Where the header of each entry begins.
    starts: Vec<u64>,
    /// Where the last entry ends.
    end: u64,
}

impl Plan {
    /// Of no entries yet.
    pub(super) fn new(kind: ContentKind) -> Self {
        Self { kind, starts: Vec::new(), end: 0 }
    }

    /// Puts an entry behind the others; `None`, and no change, when their sizes do not add up to a `u64`.
    pub(super) fn push(&mut self, item: &Item<'_>) -> Option<()> {
        let size = item.kind.size();
        let whole = match self.kind {
            ContentKind::Tar => header_len(item).checked_add(size)?.checked_add(file_fill(size))?,
            ContentKind::Stream => size,
        };
        let end = self.end.checked_add(whole)?;
        end.checked_add(ARCHIVE_END)?;
        self.starts.push(self.end);
        self.end = end;
        Some(())
    }

    /// What the parts hold.
    pub(super) fn kind(&self) -> ContentKind {
        self.kind
    }

    /// Bytes of the content, without padding.
    pub(super) fn content_size(&self) -> u64 {
        match self.kind {
            ContentKind::Tar => self.end + ARCHIVE_END,
            ContentKind::Stream => self.end,
        }
    }

    /// Where the bytes of entry `number` lie, which has `size` of them.
    pub(super) fn body(&self, number: usize, size: u64) -> Option<Range<u64>> {
        self.starts.get(number)?;
        let next = self.starts.get(number + 1).copied().unwrap_or(self.end);
        let fill = if self.kind == ContentKind::Tar { file_fill(size) } else { 0 };
        let end = next.checked_sub(fill)?;
        Some(end.checked_sub(size)?..end)
    }

    /// Walks through the bytes `at..end` of the padded content.
    pub(super) fn walk(&self, at: u64, end: u64) -> Walk<'_> {
        // Behind the last entry comes none again, also if it is an empty file, which the walk up to there came by.
        let behind = at >= self.end && at > 0;
        let entry =
            if behind { self.starts.len() } else { self.starts.partition_point(|s| *s <= at).saturating_sub(1) };
        Walk { plan: self, at, end, entry }
    }
}

/// What stands next in the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes of an entry's header.
    Header {
        entry: usize,
        /// The first of them, counted in the header.
        from: usize,
        len: usize,
        /// Whether the header ends with them.
        ends: bool,
    },
    /// Bytes of a file; none of one that is empty, which comes up all the same, once.
    Body {
        entry: usize,
        /// The first of them, counted in the file.
        from: u64,
        len: usize,
        /// Where in the file the walk ends or the file does.
        till: u64,
    },
    /// Zeros behind a file, behind the archive, and to the end of the padding.
    Zeros { len: usize },
}

/// A way through a stretch of content.
pub(super) struct Walk<'a> {
    plan: &'a Plan,
    at: u64,
    end: u64,
    entry: usize,
}

impl Walk<'_> {
    /// Bytes that the walk has left.
    pub(super) fn left(&self) -> u64 {
        self.end - self.at
    }

    /// What stands next, at most `room` bytes of it; `None` at the end. `size` gives the bytes of an entry, `None` for
    /// a folder. Without room, only an empty file comes up.
    pub(super) fn next(&mut self, room: usize, size: impl Fn(usize) -> Option<u64>) -> Option<Piece> {
        loop {
            let entry = self.entry;
            let Some(start) = self.plan.starts.get(entry).copied() else {
                let len = self.take(self.end, room)?;
                return Some(Piece::Zeros { len });
            };
            let file = size(entry);
            let body = self.plan.body(entry, file.unwrap_or(0))?;
            if self.at < body.start {
                let from = (self.at - start) as usize;
                let len = self.take(body.start, room)?;
                return Some(Piece::Header { entry, from, len, ends: self.at == body.start });
            }
            if self.at == body.start && file == Some(0) {
                self.entry += 1;
                return Some(Piece::Body { entry, from: 0, len: 0, till: 0 });
            }
            if self.at < body.end {
                let from = self.at - body.start;
                let till = body.end.min(self.end) - body.start;
                let len = self.take(body.end, room)?;
                return Some(Piece::Body { entry, from, len, till });
            }
            let next = self.plan.starts.get(entry + 1).copied().unwrap_or(self.plan.end);
            if self.at < next {
                let len = self.take(next, room)?;
                return Some(Piece::Zeros { len });
            }
            self.entry += 1;
        }
    }

    /// Goes on towards `border` as far as there is room; `None` if that is nowhere.
    fn take(&mut self, border: u64, room: usize) -> Option<usize> {
        let left = border.min(self.end) - self.at;
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(room);
        self.at += len as u64;
        (len > 0).then_some(len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::archive::ItemKind;
    use super::*;
    use proptest::prelude::*;

    /// The same content as text: entry and kind of every byte.
    fn told(plan: &Plan, sizes: &[Option<u64>], ranges: &[(u64, u64)], room: usize) -> Vec<(char, usize, u64)> {
        let mut told = Vec::new();
        for (at, end) in ranges {
            let mut walk = plan.walk(*at, *end);
            loop {
                let room = if walk.left() == 0 { 0 } else { room };
                match walk.next(room, |n| sizes[n]) {
                    Some(Piece::Header { entry, from, len, .. }) => {
                        told.extend((from..from + len).map(|i| ('h', entry, i as u64)));
                    }
                    Some(Piece::Body { entry, from, len: 0, till }) => {
                        assert_eq!((from, till), (0, 0));
                        told.push(('e', entry, 0));
                    }
                    Some(Piece::Body { entry, from, len, till }) => {
                        assert!(from + len as u64 <= till && till <= sizes[entry].unwrap());
                        told.extend((from..from + len as u64).map(|i| ('b', entry, i)));
                    }
                    Some(Piece::Zeros { len }) => told.extend(std::iter::repeat_n(('0', 0, 0), len)),
                    None => break,
                }
            }
        }
        told
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        // Every byte once, every empty file once, however the content is cut and however little room there is.
        #[test]
        fn any_cut_tells_the_same(
            entries in proptest::collection::vec(
                (prop_oneof![Just(None), Just(Some(0)), Just(Some(512)), (0_u64..2000).prop_map(Some)], any::<bool>()),
                0..6,
            ),
            at_borders: bool,
            cuts in proptest::collection::vec(0u64..20_000, 0..6),
            room in 1usize..3000,
            stream: bool,
        ) {
            let kind = if stream { ContentKind::Stream } else { ContentKind::Tar };
            let entries = if stream { vec![(entries.first().and_then(|e| e.0).or(Some(0)), false)] } else { entries };
            let sizes: Vec<_> = entries.iter().map(|e| e.0).collect();
            let mut plan = Plan::new(kind);
            for (number, (size, long)) in entries.iter().enumerate() {
                let path = if *long { format!("{number}{}", "x".repeat(150)) } else { number.to_string() };
                let path = path.parse().unwrap();
                let kind = size.map_or(ItemKind::Folder, |size| ItemKind::File { size, executable: false });
                plan.push(&Item { path: &path, mtime: 0, kind }).unwrap();
            }
            let end = plan.content_size() + 4096;
            let whole = told(&plan, &sizes, &[(0, end)], usize::MAX);
            prop_assert_eq!(whole.iter().filter(|t| t.0 != 'e').count() as u64, end);
            for (number, size) in sizes.iter().enumerate() {
                let bytes = whole.iter().filter(|t| t.0 == 'b' && t.1 == number).count() as u64;
                prop_assert_eq!(bytes, size.unwrap_or(0));
                let empty = whole.iter().filter(|t| t.0 == 'e' && t.1 == number).count();
                prop_assert_eq!(empty, usize::from(*size == Some(0)));
            }
            let mut borders: Vec<u64> = cuts.iter().map(|c| (c % end) & !511).chain([0, end]).collect();
            if at_borders && !stream {
                borders.extend(plan.starts.iter().chain([&plan.end]));
            }
            borders.sort_unstable();
            borders.dedup();
            let ranges: Vec<_> = borders.windows(2).map(|w| (w[0], w[1])).collect();
            prop_assert_eq!(told(&plan, &sizes, &ranges, room), whole);
        }
    }

    // attacks.md 14
    #[test]
    fn attack_14_sizes_that_do_not_add_up() {
        let path = "a".parse().unwrap();
        let item = |size| Item { path: &path, mtime: 0, kind: ItemKind::File { size, executable: false } };
        for kind in [ContentKind::Tar, ContentKind::Stream] {
            let mut plan = Plan::new(kind);
            assert_eq!(plan.push(&item(u64::MAX)), None);
            plan.push(&item(1 << 63)).unwrap();
            assert_eq!(plan.push(&item(1 << 63)), None);
        }
    }
}
