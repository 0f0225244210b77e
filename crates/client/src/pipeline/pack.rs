//! Text made shorter, within bounds, for what a pipeline carries and leaves.

use zeroize::Zeroizing;

/// One Zstandard frame (RFC 8878) that holds `text`.
pub(super) fn pack(text: &[u8], level: i32) -> Option<Zeroizing<Vec<u8>>> {
    let mut packed = Zeroizing::new(vec![0; zstd_safe::compress_bound(text.len())]);
    let length = zstd_safe::compress(packed.as_mut_slice(), text, level).ok()?;
    packed.truncate(length);
    Some(packed)
}

/// What one frame holds, if it says how long that is, and says no more than `most`.
pub(super) fn unpack(packed: &[u8], most: usize) -> Option<Zeroizing<Vec<u8>>> {
    let length = usize::try_from(zstd_safe::get_frame_content_size(packed).ok()??).ok()?;
    let mut text = Zeroizing::new(vec![0; Some(length).filter(|length| *length <= most)?]);
    let found = zstd_safe::decompress(text.as_mut_slice(), packed).ok()?;
    (found == length).then_some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_packed_and_no_more_than_allowed() {
        let text = [b'x'; 5000];
        let packed = pack(&text, 3).unwrap();
        assert!(packed.len() < 100);
        assert_eq!(**unpack(&packed, 5000).unwrap(), text);
        assert!(unpack(&packed, 4999).is_none());
        assert!(unpack(b"", 5000).is_none());
        let (cut, _) = packed.split_at(packed.len() - 1);
        assert!(unpack(cut, 5000).is_none());
    }
}
