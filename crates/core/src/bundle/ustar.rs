//! One header block of POSIX ustar (IEEE Std 1003.1, pax), the only one that pouch writes.

/// Tar counts in blocks of so many bytes.
pub(super) const BLOCK: u64 = 512;
/// Two zero blocks close an archive.
pub(super) const END: u64 = 2 * BLOCK;
/// The largest number that eleven octal digits hold; above it profile 1 writes a pax record.
pub(super) const MAX_OCTAL: u64 = 0o77_777_777_777;

/// What differs between header blocks; everything else is fixed by profile 1.
pub(super) struct Block<'a> {
    /// At most 100 bytes.
    pub(super) name: &'a [u8],
    pub(super) mode: u32,
    /// At most [`MAX_OCTAL`].
    pub(super) size: u64,
    /// At most [`MAX_OCTAL`].
    pub(super) mtime: u64,
    pub(super) typeflag: u8,
}

impl Block<'_> {
    /// Appends the 512 bytes.
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let mut front = Vec::with_capacity(148);
        field(&mut front, self.name, 100);
        number(&mut front, self.mode.into(), 8);
        number(&mut front, 0, 8); // uid
        number(&mut front, 0, 8); // gid
        number(&mut front, self.size, 12);
        number(&mut front, self.mtime, 12);
        let mut back = Vec::with_capacity(356);
        back.push(self.typeflag);
        field(&mut back, b"", 100); // linkname
        field(&mut back, b"ustar\x0000", 8); // magic and version
        field(&mut back, b"", 64); // uname, gname
        number(&mut back, 0, 8); // devmajor
        number(&mut back, 0, 8); // devminor
        field(&mut back, b"", 155 + 12); // prefix, and the rest of the block
        // The checksum counts its own field as eight spaces.
        let sum: u64 = front.iter().chain(&back).map(|b| u64::from(*b)).sum::<u64>() + 8 * u64::from(b' ');
        out.extend_from_slice(&front);
        out.extend_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&back);
    }
}

/// `bytes` and then NULs, `width` in all.
fn field(out: &mut Vec<u8>, bytes: &[u8], width: usize) {
    out.extend(bytes.iter().copied().chain(std::iter::repeat(0)).take(width));
}

/// Octal digits that fill `width` but for a closing NUL.
fn number(out: &mut Vec<u8>, value: u64, width: usize) {
    field(out, format!("{value:0digits$o}", digits = width - 1).as_bytes(), width);
}

/// Bytes from the end of `length` bytes of content to the next block.
pub(super) const fn fill(length: u64) -> u64 {
    (BLOCK - length % BLOCK) % BLOCK
}
