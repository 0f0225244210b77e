//! What covers a request's body: `Content-Digest` (RFC 9530) in general, an own field for parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_statement::{Blake3Digest, Sha256Digest};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

/// A field that is not in its one spelling.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the field {field} is not of the form that docs/protocol.md gives")]
pub struct PartFieldError {
    /// The field's name.
    pub field: &'static str,
}

/// The field `Pouch-Part`: `number=N, length=N, blake3=:BASE64:` (a dictionary of RFC 9651).
///
/// BLAKE3 is the digest that the index holds too, so a part is hashed once for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartField {
    /// Number of the part, from 0.
    pub number: u32,
    /// Length of the sealed part in bytes.
    pub length: u64,
    /// BLAKE3 of the sealed part.
    pub blake3: Blake3Digest,
}

impl PartField {
    /// The field's name.
    pub const NAME: &'static str = "pouch-part";

    /// The field's value.
    #[must_use]
    pub fn to_value(&self) -> String {
        format!("number={}, length={}, blake3=:{}:", self.number, self.length, STANDARD.encode(self.blake3.as_bytes()))
    }

    /// Reads a value; only the spelling that [`PartField::to_value`] gives.
    ///
    /// # Errors
    /// Any other spelling.
    pub fn parse(value: &str) -> Result<Self, PartFieldError> {
        let error = PartFieldError { field: Self::NAME };
        let read = || -> Option<Self> {
            let dictionary: Dictionary = Parser::new(value).parse().ok()?;
            let item = |key: &str| match dictionary.get(key)? {
                ListEntry::Item(item) => Some(&item.bare_item),
                ListEntry::InnerList(_) => None,
            };
            let number = |key: &str| match item(key)? {
                BareItem::Integer(n) => u64::try_from(i64::from(*n)).ok(),
                _ => None,
            };
            let BareItem::ByteSequence(digest) = item("blake3")? else { return None };
            Some(Self {
                number: u32::try_from(number("number")?).ok()?,
                length: number("length")?,
                blake3: Blake3Digest::from_bytes(digest.as_slice().try_into().ok()?),
            })
        };
        read().filter(|field| field.to_value() == value).ok_or(error)
    }
}

/// The value of `Content-Digest` for a body with this SHA-256.
#[must_use]
pub fn content_digest(digest: &Sha256Digest) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes()))
}

/// Reads `Content-Digest`; only the one algorithm and spelling.
///
/// # Errors
/// Any other spelling.
pub fn parse_content_digest(value: &str) -> Result<Sha256Digest, PartFieldError> {
    let error = PartFieldError { field: "content-digest" };
    let read = || -> Option<Sha256Digest> {
        let base64 = value.strip_prefix("sha-256=:")?.strip_suffix(':')?;
        let bytes = STANDARD.decode(base64).ok()?;
        Some(Sha256Digest::from_bytes(bytes.as_slice().try_into().ok()?))
    };
    read().filter(|digest| content_digest(digest) == value).ok_or(error)
}

/// What of the body a signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    /// No body: `GET`, `DELETE`.
    Nothing,
    /// `Content-Digest` with SHA-256.
    Digest(Sha256Digest),
    /// A part.
    Part(PartField),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_spelling() {
        let field = PartField { number: 7, length: 8_389_000, blake3: Blake3Digest::from_bytes([5; 32]) };
        let value = field.to_value();
        assert_eq!(PartField::parse(&value), Ok(field));
        let more = format!("{value}, more=1");
        let spaced = value.replace(", ", ",");
        let padded = value.replace("number=7", "number=07");
        for bad in ["", "number=7", more.as_str(), spaced.as_str(), padded.as_str()] {
            assert!(PartField::parse(bad).is_err(), "{bad}");
        }
        let digest = Sha256Digest::of(b"x");
        assert_eq!(parse_content_digest(&content_digest(&digest)), Ok(digest));
        assert!(parse_content_digest("sha-512=:AAAA:").is_err());
        assert!(parse_content_digest(&format!("{}, sha-512=:AAAA:", content_digest(&digest))).is_err());
    }
}
