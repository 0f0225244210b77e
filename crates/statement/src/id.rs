//! Opaque identifiers: 128 random bits, written as 26 characters of Crockford's base32.

use std::fmt;
use std::str::FromStr;

use crate::RandomError;

/// Crockford's base32 alphabet in lower case: no `i`, `l`, `o`, `u`.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CHARS: usize = 26;

/// Why a text is not an identifier.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IdError {
    /// Not 26 characters long.
    #[error("an id has 26 characters, this has {0}")]
    Length(usize),
    /// A character outside the alphabet, or bits set beyond the 128.
    #[error("not an id: only the characters 0-9 and a-z without i, l, o and u are used")]
    Alphabet,
}

fn encode(bytes: &[u8; 16], out: &mut String) {
    // 128 bits fill 25 characters and 3 bits of the 26th; the two bits left over are zero.
    let value = u128::from_be_bytes(*bytes);
    for i in 0..CHARS {
        let shift = 123i32 - 5 * i as i32;
        let bits = if shift >= 0 { value >> shift } else { value << -shift };
        let symbol = ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'0');
        out.push(symbol as char);
    }
}

fn decode(text: &str) -> Result<[u8; 16], IdError> {
    if text.len() != CHARS {
        return Err(IdError::Length(text.chars().count()));
    }
    let mut value: u128 = 0;
    for (i, c) in text.bytes().enumerate() {
        let bits = ALPHABET.iter().position(|a| *a == c).ok_or(IdError::Alphabet)? as u128;
        if i + 1 == CHARS {
            if bits & 0b11 != 0 {
                return Err(IdError::Alphabet);
            }
            value = (value << 3) | (bits >> 2);
        } else {
            value = (value << 5) | bits;
        }
    }
    Ok(value.to_be_bytes())
}

/// Whether `typed`, as a person wrote it, is a prefix of `id`.
///
/// Upper case and the look-alikes `i`, `l` and `o` are read as Crockford's base32 reads them.
/// At least one character is needed.
#[must_use]
pub fn matches_prefix(id: &str, typed: &str) -> bool {
    let folded: String = typed
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            'i' | 'l' => '1',
            'o' => '0',
            other => other,
        })
        .collect();
    !folded.is_empty() && id.starts_with(&folded)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 128 bits from the operating system; on the wire and in `-q` and JSON output 26 characters.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A fresh random id.
            ///
            /// # Errors
            /// When the operating system has no random bytes to give.
            pub fn random() -> Result<Self, RandomError> {
                Ok(Self(crate::random()?))
            }

            /// The 16 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// From 16 bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut out = String::with_capacity(CHARS);
                encode(&self.0, &mut out);
                f.write_str(&out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                decode(text).map(Self)
            }
        }

        spelled!($name);
    };
}

id! {
    /// One bundle: what one send delivers.
    BundleId
}
id! {
    /// A recipient's opaque address on a relay.
    MailboxId
}
id! {
    /// One journal; a journal begun anew has another.
    JournalId
}
id! {
    /// A one-time link, as its maker and the relay name it; the link's secret is another thing.
    LinkId
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        assert_eq!(BundleId::from_bytes([0; 16]).to_string(), "0".repeat(26));
        assert_eq!(BundleId::from_bytes([0xff; 16]).to_string(), format!("{}w", "z".repeat(25)));
    }

    // attacks.md 39: decoded, fixed-length ids only.
    #[test]
    fn attack_39_only_fixed_length_ids_are_read() {
        let long = "0".repeat(1 << 16);
        for bad in ["", "..", "%2e%2e", "%00", "../../etc/passwd", long.as_str()] {
            assert!(matches!(bad.parse::<BundleId>(), Err(IdError::Length(_))), "{bad:.20}");
        }
        let mut text = "0".repeat(26);
        text.replace_range(25.., "1");
        assert_eq!(text.parse::<BundleId>(), Err(IdError::Alphabet), "bits beyond the 128");
        text.replace_range(25.., "u");
        assert_eq!(text.parse::<BundleId>(), Err(IdError::Alphabet));
        text.replace_range(25.., "Z");
        assert_eq!(text.parse::<BundleId>(), Err(IdError::Alphabet), "one spelling only");
    }

    // attacks.md 41: at least 128 bits, from the operating system.
    #[test]
    fn attack_41_ids_carry_128_bits() {
        let a = BundleId::random().unwrap();
        let b = BundleId::random().unwrap();
        assert_ne!(a, b);
        assert_eq!(a.as_bytes().len() * 8, 128);
    }

    #[test]
    fn prefixes_as_people_type_them() {
        let id = "b7k2010000000000000000000w";
        assert!(matches_prefix(id, "b7k2"));
        assert!(matches_prefix(id, "B7K2O1"));
        assert!(matches_prefix(id, "b7k20l"));
        assert!(!matches_prefix(id, ""));
        assert!(!matches_prefix(id, "b7k3"));
    }

    proptest! {
        #[test]
        fn every_value_survives_the_round_trip(bytes: [u8; 16]) {
            let id = BundleId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse::<BundleId>(), Ok(id));
        }
    }
}
