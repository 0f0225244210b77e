//! One header block of POSIX ustar (IEEE Std 1003.1, pax), the only one that pouch writes.

/// Tar counts in blocks of so many bytes.
pub(super) const BLOCK: u64 = 512;
/// Two zero blocks close an archive.
pub(super) const END: u64 = 2 * BLOCK;
/// The largest number that eleven octal digits hold; above it profile 1 writes a pax record.
pub(super) const MAX_OCTAL: u64 = 0o77_777_777_777;

/// What differs between header blocks; everything else is fixed by profile 1.
pub(super) struct Block<'a> {
    /// In two halves, at most 100 bytes together.
    pub(super) name: [&'a [u8]; 2],
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
        let start = out.len();
        for half in self.name {
            out.extend_from_slice(half);
        }
        out.resize(start + 100, 0);
        number(out, self.mode.into(), 8);
        number(out, 0, 8); // uid
        number(out, 0, 8); // gid
        number(out, self.size, 12);
        number(out, self.mtime, 12);
        // The checksum counts its own field as eight spaces.
        let checksum = out.len();
        out.extend_from_slice(b"        ");
        out.push(self.typeflag);
        out.resize(out.len() + 100, 0); // linkname
        out.extend_from_slice(b"ustar\x0000"); // magic and version
        out.resize(out.len() + 64, 0); // uname, gname
        number(out, 0, 8); // devmajor
        number(out, 0, 8); // devminor
        let sum = out.get(start..).unwrap_or_default().iter().map(|b| u32::from(*b)).sum::<u32>();
        out.resize(start + BLOCK as usize, 0); // prefix, and the rest of the block
        if let Some(field) = out.get_mut(checksum..checksum + 7) {
            octal(sum.into(), field.split_at_mut(6).0);
            field.split_at_mut(6).1.fill(0);
        }
    }
}

/// Octal digits that fill `width` but for a closing NUL.
fn number(out: &mut Vec<u8>, value: u64, width: usize) {
    let start = out.len();
    out.resize(start + width, 0);
    octal(value, out.get_mut(start..start + width - 1).unwrap_or_default());
}

/// Fills `field` with the digits of `value`, zeros in front.
fn octal(mut value: u64, field: &mut [u8]) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// Bytes from the end of `length` bytes of content to the next block.
pub(super) const fn fill(length: u64) -> u64 {
    (BLOCK - length % BLOCK) % BLOCK
}
