//! The entry that a log holds for an event: a salted commitment, so that the tree can be shown to anybody while the
//! event itself goes only to those entitled to it (design §5).

use sha2::{Digest, Sha256};

/// What an event leaf was made for, and in which version: a label that ends in its only newline, such as
/// `pouch.log.event.v1\n`.
///
/// The newline ends the label, so no domain is a prefix of another, and since the salt after it has a fixed length,
/// equal inputs to the hash mean equal domain, salt and event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain<'a>(&'a str);

/// A text that cannot separate a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The newline that ends a label is missing.
    #[error("a domain must end in a newline")]
    Unterminated,
    /// Nothing before the newline.
    #[error("a domain must have a label before its newline")]
    Empty,
    /// Something else than `a`–`z`, `0`–`9`, `.` or `-` in the label.
    #[error("a domain holds lowercase letters, digits, dots and hyphens only, unlike at byte {at}")]
    Character {
        /// Offset of the first such byte.
        at: usize,
    },
}

impl Domain<'static> {
    /// Events of a relay's log.
    pub const EVENT_V1: Self = Self("pouch.log.event.v1\n");
    /// Records of somebody's own journal. Not [`Domain::EVENT_V1`], so that neither log's entry can be shown as one
    /// of the other.
    pub const JOURNAL_V1: Self = Self("pouch.journal.event.v1\n");
}

impl<'a> Domain<'a> {
    /// Reads a domain, with its final newline.
    ///
    /// # Errors
    ///
    /// [`DomainError`] when the text is not a non-empty label of `a`–`z`, `0`–`9`, `.` and `-` and one newline.
    pub fn parse(text: &'a str) -> Result<Self, DomainError> {
        let label = text.strip_suffix('\n').ok_or(DomainError::Unterminated)?;
        if label.is_empty() {
            return Err(DomainError::Empty);
        }
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        match label.bytes().position(|byte| !allowed(byte)) {
            Some(at) => Err(DomainError::Character { at }),
            None => Ok(Self(text)),
        }
    }

    /// The label with its newline: exactly what is hashed.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }
}

/// The entry for an event: SHA-256(`domain` ‖ `salt` ‖ `event`), design §5.
///
/// This is entry *data*: its place in the tree is [`leaf_hash`](crate::leaf_hash) of these 32 bytes. `salt` must be
/// fresh random bytes for each event; with a known or repeated salt a short event can be guessed from its leaf.
pub fn event_leaf(domain: Domain<'_>, salt: &[u8; 32], event: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(domain.0).chain_update(salt).chain_update(event).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_domains() {
        for domain in [Domain::EVENT_V1, Domain::JOURNAL_V1] {
            assert_eq!(Domain::parse(domain.as_str()), Ok(domain));
        }
    }

    #[test]
    fn a_domain_is_one_label_and_one_newline() {
        for (text, error) in [
            ("", DomainError::Unterminated),
            ("pouch.log.event.v1", DomainError::Unterminated),
            ("\n", DomainError::Empty),
            ("a\nb\n", DomainError::Character { at: 1 }),
            ("a\n\n", DomainError::Character { at: 1 }),
            ("ab C\n", DomainError::Character { at: 2 }),
            ("abC\n", DomainError::Character { at: 2 }),
            ("a\0\n", DomainError::Character { at: 1 }),
        ] {
            assert_eq!(Domain::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_leaf_is_the_digest_of_the_three_in_order() {
        let joined = [b"pouch.log.event.v1\n".as_slice(), &[7; 32], b"event"].concat();
        let want: [u8; 32] = Sha256::digest(joined).into();
        assert_eq!(event_leaf(Domain::EVENT_V1, &[7; 32], b"event"), want);
    }

    #[test]
    fn domain_salt_and_event_each_change_the_leaf() {
        let leaf = event_leaf(Domain::EVENT_V1, &[7; 32], b"event");
        assert_ne!(event_leaf(Domain::JOURNAL_V1, &[7; 32], b"event"), leaf);
        assert_ne!(event_leaf(Domain::EVENT_V1, &[8; 32], b"event"), leaf);
        assert_ne!(event_leaf(Domain::EVENT_V1, &[7; 32], b"Event"), leaf);
        assert_ne!(event_leaf(Domain::EVENT_V1, &[7; 32], b""), leaf);
    }
}
