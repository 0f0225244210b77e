//! Padding: lengths that tell little (Padmé, "Reducing Metadata Leakage from Encrypted Files", PETS 2019, §4).

/// The least length of any padded object, in bytes.
pub const MIN_PADDED: u64 = 4096;

/// The length in bytes that `length` bytes are padded to: P(L) = max(4096, Padmé(L)); `None` beyond `u64`.
///
/// At most about 12 % more, less the larger the content is.
#[must_use]
pub fn padded(length: u64) -> Option<u64> {
    if length < MIN_PADDED {
        return Some(MIN_PADDED);
    }
    let exponent = u64::from(length.ilog2());
    let kept = u64::from(exponent.ilog2()) + 1;
    // kept <= exponent holds from length 4 on.
    let cleared = exponent.saturating_sub(kept);
    let mask = (1u64 << cleared) - 1;
    length.checked_add(mask).map(|l| l & !mask)
}

/// Whether all of `bytes` are zero, as padding must be.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_lengths() {
        let table = [(0, 4096), (4095, 4096), (4096, 4096), (4097, 4352), (10_000, 10_240), (1 << 20, 1 << 20)];
        for (length, wanted) in table {
            assert_eq!(padded(length), Some(wanted), "{length}");
        }
        assert_eq!(padded((1 << 20) + 1), Some((1 << 20) + (1 << 15)));
        assert_eq!(padded(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn never_shorter_little_longer_and_fixed(length in 0u64..1 << 62) {
            let p = padded(length).unwrap_or(0);
            prop_assert!(p >= length.max(MIN_PADDED));
            prop_assert!(p <= (length + length / 8).max(MIN_PADDED));
            prop_assert_eq!(padded(p), Some(p));
        }
    }
}
