//! The archive of profile 1: the header of each entry, derived from the index alone.
//!
//! Both sides derive: the sender writes these bytes, the receiver compares them. Nobody parses a tar.

use super::path::EntryPath;
use super::ustar::{BLOCK, Block, END, MAX_OCTAL, fill};

/// What a header tells of an entry: all that the archive carries beside the bytes of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Where it stands.
    pub path: &'a EntryPath,
    /// Last change, in seconds since 1970; negative before.
    pub mtime: i64,
    /// What it is.
    pub kind: ItemKind,
}

/// Folder or file; there is nothing else in a bundle (attacks.md 3, 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Its bytes.
        size: u64,
        /// Whether it may be run, the only part of its mode that travels.
        executable: bool,
    },
}

impl ItemKind {
    /// Bytes of content: those of a file, none for a folder.
    #[must_use]
    pub const fn size(self) -> u64 {
        match self {
            Self::Folder => 0,
            Self::File { size, .. } => size,
        }
    }
}

/// Appends the entry's header: a pax header where one is needed, then the ustar header. A multiple of 512 bytes.
pub fn header(item: &Item<'_>, out: &mut Vec<u8>) {
    let (mode, typeflag, slash) = match item.kind {
        ItemKind::Folder => (0o755, b'5', "/"),
        ItemKind::File { executable: true, .. } => (0o755, b'0', ""),
        ItemKind::File { executable: false, .. } => (0o644, b'0', ""),
    };
    let size = item.kind.size();
    let mtime = u64::try_from(item.mtime).ok().filter(|t| *t <= MAX_OCTAL);
    if !is_plain(item) {
        let records = records(item, slash);
        let length = records.len() as u64;
        Block { name: [b"pax", b""], mode: 0o644, size: length, mtime: 0, typeflag: b'x' }.append(out);
        out.extend_from_slice(&records);
        out.extend(std::iter::repeat_n(0, fill(length) as usize));
    }
    let path = item.path.as_str().as_bytes();
    let name = match path.split_at_checked(100) {
        Some((short, _)) => [short, b""],
        None => [path, slash.as_bytes()],
    };
    let size = if size > MAX_OCTAL { 0 } else { size };
    Block { name, mode, size, mtime: mtime.unwrap_or(0), typeflag }.append(out);
}

/// Whether the ustar header alone can say all: no pax header is needed.
fn is_plain(item: &Item<'_>) -> bool {
    let path = item.path.as_str();
    let length = path.len() + usize::from(item.kind == ItemKind::Folder);
    (0..=MAX_OCTAL as i64).contains(&item.mtime)
        && length <= 100
        && path.bytes().all(|b| (0x20..=0x7e).contains(&b))
        && item.kind.size() <= MAX_OCTAL
}

/// The records of the pax header.
fn records(item: &Item<'_>, slash: &str) -> Vec<u8> {
    let name = format!("{}{slash}", item.path.as_str());
    let mut records = Vec::new();
    if !(0..=MAX_OCTAL as i64).contains(&item.mtime) {
        record("mtime", &item.mtime.to_string(), &mut records);
    }
    if name.len() > 100 || !name.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        record("path", &name, &mut records);
    }
    if item.kind.size() > MAX_OCTAL {
        record("size", &item.kind.size().to_string(), &mut records);
    }
    records
}

/// Bytes of the entry's header.
pub(super) fn header_len(item: &Item<'_>) -> u64 {
    if is_plain(item) {
        return BLOCK;
    }
    let records = records(item, if item.kind == ItemKind::Folder { "/" } else { "" }).len() as u64;
    2 * BLOCK + records + fill(records)
}

/// `LENGTH KEY=VALUE` LF, LENGTH being the length of the whole record in bytes with its own digits.
fn record(key: &str, value: &str, out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3; // space, equals sign, line feed
    let digits = (1..).find(|d| (rest + d).to_string().len() == *d).unwrap_or(1);
    out.extend_from_slice(format!("{} {key}={value}\n", rest + digits).as_bytes());
}

/// Bytes of the whole archive, with the zeros that close it; `None` beyond `u64`.
pub fn archive_size<'a>(items: impl IntoIterator<Item = Item<'a>>) -> Option<u64> {
    items.into_iter().try_fold(END, |sum, item| {
        let size = item.kind.size();
        sum.checked_add(header_len(&item))?.checked_add(size)?.checked_add(fill(size))
    })
}

/// Zeros behind a file's bytes, up to the next block.
pub(super) const fn file_fill(size: u64) -> u64 {
    fill(size)
}

/// Zeros behind the last entry.
pub(super) const ARCHIVE_END: u64 = END;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn bytes(path: &str, mtime: i64, kind: ItemKind) -> Vec<u8> {
        let mut out = Vec::new();
        header(&Item { path: &path.parse().unwrap(), mtime, kind }, &mut out);
        assert_eq!(out.len() as u64, header_len(&Item { path: &path.parse().unwrap(), mtime, kind }));
        out
    }

    #[test]
    fn plain_entries_have_one_block() {
        let file = bytes("a/b", 1_700_000_000, ItemKind::File { size: 5, executable: true });
        assert_eq!(file.len(), 512);
        assert!(file.starts_with(b"a/b\0"));
        assert_eq!(&file[100..108], b"0000755\0");
        assert_eq!(&file[124..136], b"00000000005\0");
        assert_eq!(&file[136..148], b"14524770400\0");
        assert_eq!(&file[148..156], b"007631\0 ");
        assert_eq!(file[156], b'0');
        assert!(file[157..257].iter().all(|b| *b == 0));
        assert_eq!(&file[257..265], b"ustar\x0000");
        let folder = bytes("a", 0, ItemKind::Folder);
        assert!(folder.starts_with(b"a/\0"));
        assert_eq!(folder[156], b'5');
    }

    #[test]
    fn pax_records_come_when_needed_and_in_order() {
        let long = format!("{}/é", "x".repeat(99));
        let out = bytes(&long, -1, ItemKind::File { size: MAX_OCTAL + 1, executable: false });
        assert_eq!(out.len(), 3 * 512);
        assert!(out.starts_with(b"pax\0"));
        assert_eq!(out[156], b'x');
        let records = format!("12 mtime=-1\n112 path={long}\n19 size=8589934592\n");
        assert_eq!(&out[512..512 + records.len()], records.as_bytes());
        assert_eq!(&out[1024..1124], &long.as_bytes()[..100]);
        assert_eq!(&out[1148..1160], b"00000000000\0");
        assert_eq!(&out[1160..1172], b"00000000000\0");
        // The longest name of 100 bytes needs none; a folder's slash counts.
        let edge = "y".repeat(100);
        assert_eq!(bytes(&edge, 0, ItemKind::File { size: 0, executable: false }).len(), 512);
        assert_eq!(bytes(&edge, 0, ItemKind::Folder).len(), 3 * 512);
        assert_eq!(bytes("tab\there", 0, ItemKind::Folder).len(), 3 * 512);
        assert_eq!(bytes("z", MAX_OCTAL as i64, ItemKind::Folder).len(), 512);
        assert_eq!(bytes("z", MAX_OCTAL as i64 + 1, ItemKind::Folder).len(), 3 * 512);
    }

    // A record's length counts its own digits, also where these become one more.
    #[test]
    fn record_lengths_at_the_border() {
        for length in 80..110usize {
            let mut out = Vec::new();
            record("path", &"p".repeat(length), &mut out);
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse::<usize>().unwrap(), text.len());
        }
    }

    // attacks.md 14: sizes that do not add up to a u64.
    #[test]
    fn attack_14_the_sum_is_checked() {
        let path = "a".parse().unwrap();
        let item = Item { path: &path, mtime: 0, kind: ItemKind::File { size: u64::MAX, executable: false } };
        assert_eq!(archive_size([item]), None);
        let item = Item { kind: ItemKind::File { size: 1 << 63, executable: false }, ..item };
        assert_eq!(archive_size([item, item]), None);
        assert_eq!(archive_size([]), Some(1024));
    }
}
