//! The lines of an index: one JSON object each, in one spelling.

use std::borrow::Cow;

use pouch_statement::Blake3Digest;
use serde::{Deserialize, Serialize};

use super::frames::Compression;
use super::index::{ContentKind, Entry, EntryKind, IndexError, MAX_INDEX};
use super::path::MAX_PATH;

/// Room for the longest line: each byte of a path can take six in JSON, and the other members are short.
const MAX_LINE: usize = 6 * MAX_PATH + 512;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadLine<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    pub(super) content: ContentKind,
    pub(super) content_size: u64,
    pub(super) padded_size: u64,
    pub(super) entries: u64,
    pub(super) parts: u32,
    // These three together or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) compression: Option<Compression>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) raw_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) frames: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LineKind {
    Folder,
    File,
}

/// One entry.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine<'a> {
    #[serde(borrow)]
    pub(super) path: Cow<'a, str>,
    pub(super) kind: LineKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) executable: Option<bool>,
    pub(super) mtime: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blake3: Option<Blake3Digest>,
}

/// One frame of compressed content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameLine {
    pub(super) frame: u64,
    pub(super) size: u64,
}

/// One part.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartLine {
    pub(super) part: u32,
    pub(super) size: u64,
    pub(super) sealed_size: u64,
    pub(super) sealed_blake3: Blake3Digest,
}

impl<'a> From<&'a Entry> for EntryLine<'a> {
    fn from(entry: &'a Entry) -> Self {
        let path = Cow::Borrowed(entry.path.as_str());
        let mtime = entry.mtime;
        match entry.kind {
            EntryKind::Folder => {
                Self { path, kind: LineKind::Folder, size: None, executable: None, mtime, blake3: None }
            }
            EntryKind::File { size, executable, blake3 } => Self {
                path,
                kind: LineKind::File,
                size: Some(size),
                executable: Some(executable),
                mtime,
                blake3: Some(blake3),
            },
        }
    }
}

/// What a line says, if it has the members of a file or of a folder.
pub(super) fn entry_of(line: EntryLine<'_>, number: u64, at: u64) -> Result<Entry, IndexError> {
    let path = line.path.parse().map_err(|reason| IndexError::Path { entry: number, reason })?;
    let kind = match line {
        EntryLine { kind: LineKind::Folder, size: None, executable: None, blake3: None, .. } => EntryKind::Folder,
        EntryLine {
            kind: LineKind::File,
            size: Some(size),
            executable: Some(executable),
            blake3: Some(blake3),
            ..
        } => EntryKind::File { size, executable, blake3 },
        _ => return Err(IndexError::Line { line: at, reason: "not the members of a file or a folder" }),
    };
    Ok(Entry { path, mtime: line.mtime, kind })
}

/// Appends the one spelling of a line.
pub(super) fn write_line(value: &impl Serialize, out: &mut Vec<u8>, line: u64) -> Result<(), IndexError> {
    if out.len() as u64 > MAX_INDEX {
        return Err(IndexError::TooLong);
    }
    serde_json::to_writer(&mut *out, value).map_err(|_| IndexError::Line { line, reason: "not encodable" })?;
    out.push(b'\n');
    Ok(())
}

/// The lines that are left.
pub(super) struct Lines<'a> {
    rest: &'a [u8],
    /// Number of the line read last, from 1.
    line: u64,
    scratch: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, line: 0, scratch: Vec::new() }
    }

    /// Number of the line read last, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next line, which must be exactly what its own meaning encodes to.
    pub(super) fn next<T: Serialize + Deserialize<'a>>(&mut self) -> Result<T, IndexError> {
        self.line += 1;
        let length = self.rest.iter().take(MAX_LINE).position(|b| *b == b'\n');
        let length = length.ok_or_else(|| self.error("missing, cut short or too long"))?;
        let (line, rest) = self.rest.split_at(length + 1);
        self.rest = rest;
        let value: T = serde_json::from_slice(line)
            .map_err(|_| self.error("a member is missing, unknown, doubled or out of range"))?;
        self.scratch.clear();
        write_line(&value, &mut self.scratch, self.line)?;
        if self.scratch == line { Ok(value) } else { Err(self.error("not in canonical form")) }
    }

    /// What is wrong with the line read last.
    pub(super) fn error(&self, reason: &'static str) -> IndexError {
        IndexError::Line { line: self.line, reason }
    }
}
