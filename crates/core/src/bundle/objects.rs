//! Object archives: ustars of fixed layout for envelope, sealed receipt and `.pouch` file.
//!
//! A reader knows each name beforehand. It takes the size from a header, derives the whole header again and
//! compares, so there is nothing to parse but eleven octal digits.

use super::padding::{is_zero, padded};
use super::ustar::{BLOCK, Block, END, MAX_OCTAL, fill};

/// Why bytes are not the object archive that was expected.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObjectError {
    /// The header in front of an object is not the one that its name and size give.
    #[error("the header of {name} is not the one expected")]
    Header {
        /// The object expected, in our words.
        name: &'static str,
    },
    /// The archive ends within an object.
    #[error("cut short within {name}")]
    CutShort {
        /// The object expected.
        name: &'static str,
    },
    /// What should be zero is not: the filling of a block, the end, or the padding.
    #[error("bytes that must be zero are not")]
    NotZero,
    /// Too few or too many zeros behind the archive.
    #[error("the length is not the padded length of what is in it")]
    Length,
}

/// Appends one object: header, bytes, zeros up to a block.
pub(super) fn append(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    out.extend_from_slice(&header(name, bytes.len() as u64));
    out.extend_from_slice(bytes);
    out.extend(std::iter::repeat_n(0, fill(bytes.len() as u64) as usize));
}

/// Closes the archive and pads it to P(length).
pub(super) fn close_padded(out: &mut Vec<u8>) {
    let length = out.len() as u64 + END;
    out.resize(padded(length).unwrap_or(length) as usize, 0);
}

/// The 512 bytes in front of an object. Sizes of objects stay far below [`MAX_OCTAL`].
pub(super) fn header(name: &str, size: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK as usize);
    Block { name: [name.as_bytes(), b""], mode: 0o600, size: size.min(MAX_OCTAL), mtime: 0, typeflag: b'0' }
        .append(&mut out);
    out
}

/// The size in `block`, if it is the header that `name` and this size give.
pub(super) fn size_in(block: &[u8], name: &str) -> Option<u64> {
    let digits = block.get(124..135)?;
    let size = digits.iter().try_fold(0u64, |sum, d| match d {
        b'0'..=b'7' => Some(sum * 8 + u64::from(d - b'0')),
        _ => None,
    })?;
    (header(name, size) == block).then_some(size)
}

/// Whether the first object has this name. The rest is for [`read_padded`] to judge.
pub(super) fn begins_with(bytes: &[u8], name: &str) -> bool {
    bytes.get(..BLOCK as usize).is_some_and(|block| size_in(block, name).is_some())
}

/// Reads an archive of exactly these objects, closed and padded to P(length).
///
/// # Errors
/// Everything else.
pub(super) fn read_padded<'a, const N: usize>(
    bytes: &'a [u8],
    names: [&'static str; N],
) -> Result<[&'a [u8]; N], ObjectError> {
    let mut rest = bytes;
    let mut objects = [bytes; N];
    for (object, name) in objects.iter_mut().zip(names) {
        let (block, behind) = rest.split_at_checked(BLOCK as usize).ok_or(ObjectError::CutShort { name })?;
        let size = size_in(block, name).ok_or(ObjectError::Header { name })?;
        let length = usize::try_from(size).map_err(|_| ObjectError::CutShort { name })?;
        let (content, behind) = behind.split_at_checked(length).ok_or(ObjectError::CutShort { name })?;
        let (zeros, behind) = behind.split_at_checked(fill(size) as usize).ok_or(ObjectError::CutShort { name })?;
        if !is_zero(zeros) {
            return Err(ObjectError::NotZero);
        }
        (*object, rest) = (content, behind);
    }
    let length = (bytes.len() - rest.len()) as u64 + END;
    if padded(length) != Some(bytes.len() as u64) {
        return Err(ObjectError::Length);
    }
    if is_zero(rest) { Ok(objects) } else { Err(ObjectError::NotZero) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, "one", b"first");
        append(&mut out, "two", &[7; 512]);
        close_padded(&mut out);
        out
    }

    #[test]
    fn round_trip() {
        let bytes = sample();
        assert_eq!(bytes.len(), 4096);
        let [one, two] = read_padded(&bytes, ["one", "two"]).unwrap();
        assert_eq!((one, two), (&b"first"[..], &[7; 512][..]));
        assert_eq!(read_padded(&bytes, ["one", "other"]), Err(ObjectError::Header { name: "other" }));
        assert_eq!(read_padded(&bytes, ["one"]), Err(ObjectError::NotZero));
    }

    // attacks.md 13, 17, 18, 19: cut, flipped, lengthened, or with a size that lies.
    #[test]
    fn attack_18_every_changed_byte_outside_the_objects_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(read_padded(&bytes[..length], ["one", "two"]).is_err(), "{length}");
        }
        for at in (0..bytes.len()).filter(|i| !(512..517).contains(i) && !(1536..2048).contains(i)) {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read_padded(&changed, ["one", "two"]).is_err(), "byte {at}, bit {bit}");
            }
        }
        let mut longer = bytes.clone();
        longer.resize(4352, 0);
        assert_eq!(read_padded(&longer, ["one", "two"]), Err(ObjectError::Length));
        let mut huge = header("one", MAX_OCTAL);
        huge.resize(4096, 0);
        assert_eq!(read_padded(&huge, ["one"]), Err(ObjectError::CutShort { name: "one" }));
    }
}
