//! Signed statements: exact bytes, one canonical form, a detached signature.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sshsig::{SignatureError, sign_detached, verify_detached};
use crate::{PublicKey, Sha256Digest, SigningKey};

/// The longest statement, in bytes. Lists that grow (entries, parts) live in the sealed index instead.
pub const MAX_STATEMENT: usize = 64 * 1024;

/// Why bytes are not a statement that can be relied on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StatementError {
    /// Longer than any statement.
    #[error("a statement has at most {MAX_STATEMENT} bytes, this has {0}")]
    TooLong(usize),
    /// Of another kind or version.
    #[error("expected a statement of type {wanted}, of no other kind or version")]
    Type {
        /// The type that was wanted, with its version.
        wanted: &'static str,
    },
    /// Not readable as this kind: fields missing, unknown, doubled or out of range.
    #[error("the {kind} cannot be read: {reason}")]
    Body {
        /// The type being read.
        kind: &'static str,
        /// What the reader said; its text holds no more than names and positions.
        reason: String,
    },
    /// The same meaning in other bytes.
    #[error("the {kind} is not in its canonical form")]
    NotCanonical {
        /// The type being read.
        kind: &'static str,
    },
    /// The signature is not good.
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// A kind of statement. The type is also the signature's namespace, so one kind can never pass as another.
pub trait Statement: Serialize + DeserializeOwned {
    /// `pouch.KIND.vN`.
    const TYPE: &'static str;
}

/// The canonical bytes of `body`: one line of JSON with the type first, the fields in the order of
/// docs/format.md, no white space, ended by one line feed.
///
/// # Errors
/// [`StatementError::TooLong`], or [`StatementError::Body`] for what JSON cannot carry.
fn encode<T: Statement>(body: &T) -> Result<Vec<u8>, StatementError> {
    let json = serde_json::to_vec(body).map_err(|e| StatementError::Body { kind: T::TYPE, reason: e.to_string() })?;
    let fields = json.strip_prefix(b"{").unwrap_or(&json);
    let mut bytes = type_prefix(T::TYPE);
    bytes.extend_from_slice(fields);
    bytes.push(b'\n');
    if bytes.len() > MAX_STATEMENT { Err(StatementError::TooLong(bytes.len())) } else { Ok(bytes) }
}

fn type_prefix(kind: &str) -> Vec<u8> {
    format!("{{\"type\":\"{kind}\",").into_bytes()
}

/// Reads canonical bytes: parses, encodes again and compares, so that one meaning has one spelling.
pub(crate) fn decode<T: Statement>(bytes: &[u8]) -> Result<T, StatementError> {
    if bytes.len() > MAX_STATEMENT {
        return Err(StatementError::TooLong(bytes.len()));
    }
    let fields = bytes.strip_prefix(type_prefix(T::TYPE).as_slice()).ok_or(StatementError::Type { wanted: T::TYPE })?;
    let mut json = Vec::with_capacity(fields.len() + 1);
    json.push(b'{');
    json.extend_from_slice(fields);
    let body: T =
        serde_json::from_slice(&json).map_err(|e| StatementError::Body { kind: T::TYPE, reason: reason(&e) })?;
    if encode(&body)? == bytes { Ok(body) } else { Err(StatementError::NotCanonical { kind: T::TYPE }) }
}

/// What serde says, without the values that it quotes: those are the attacker's words.
fn reason(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "a field is missing, unknown, doubled or out of range",
        serde_json::error::Category::Eof => "it ends too early",
        _ => "it is not JSON",
    };
    format!("{kind} (column {})", error.column())
}

/// A statement with the signature that was checked or just made. There is no way to hold one unchecked.
#[derive(Clone)]
pub struct Signed<T> {
    body: T,
    bytes: Vec<u8>,
    signature: String,
}

impl<T: Statement> Signed<T> {
    /// Makes the canonical bytes of `body` and signs them.
    ///
    /// # Errors
    /// A body too long, or that JSON cannot carry.
    pub fn sign(body: T, key: &SigningKey) -> Result<Self, StatementError> {
        let bytes = encode(&body)?;
        let signature = sign_detached(T::TYPE, &bytes, key)?;
        Ok(Self { body, bytes, signature })
    }

    /// Checks that `bytes` are a statement of this kind in canonical form and that `signature` is `key`'s over
    /// exactly them.
    ///
    /// # Errors
    /// Everything else.
    pub fn verify(bytes: &[u8], signature: &str, key: &PublicKey) -> Result<Self, StatementError> {
        verify_detached(T::TYPE, bytes, signature, key)?;
        let body = decode(bytes)?;
        Ok(Self { body, bytes: bytes.to_vec(), signature: signature.to_owned() })
    }

    /// For statements that carry their own key: the key is taken from the parsed body, then everything is checked.
    pub(crate) fn verify_with(
        bytes: &[u8],
        signature: &str,
        key: impl FnOnce(&T) -> PublicKey,
    ) -> Result<Self, StatementError> {
        let body: T = decode(bytes)?;
        verify_detached(T::TYPE, bytes, signature, &key(&body))?;
        Ok(Self { body, bytes: bytes.to_vec(), signature: signature.to_owned() })
    }
}

impl<T> Signed<T> {
    /// What was said.
    #[must_use]
    pub fn body(&self) -> &T {
        &self.body
    }

    /// The exact bytes that were signed.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The armored SSHSIG.
    #[must_use]
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// SHA-256 of the statement's bytes, never of the armor.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest::of(&self.bytes)
    }

    /// Statement and signature as two texts, unchecked, for transport.
    #[must_use]
    pub fn detached(&self) -> Detached {
        Detached { statement: String::from_utf8_lossy(&self.bytes).into_owned(), signature: self.signature.clone() }
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signed").field(&self.body).finish()
    }
}

/// A statement and its signature as they travel, not yet checked: nothing but `verify` reads the statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detached {
    /// The statement's exact text, with its final line feed.
    pub statement: String,
    /// The armored SSHSIG.
    pub signature: String,
}

impl Detached {
    /// One text that people can mail: the statement's line, then the armor.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}{}", self.statement, self.signature)
    }

    /// Splits a text made by [`Detached::to_text`]; the line feed at its end may be missing or be more, as copying
    /// does that.
    ///
    /// # Errors
    /// [`SignatureError::Armor`] if there is no signature behind the first line.
    pub fn from_text(text: &str) -> Result<Self, SignatureError> {
        let text = text.trim_start_matches('\u{feff}').trim();
        let (statement, signature) = text.split_once('\n').ok_or(SignatureError::Armor)?;
        Ok(Self {
            statement: format!("{}\n", statement.trim_end_matches('\r')),
            signature: format!("{}\n", signature.replace("\r\n", "\n")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        number: u64,
        text: Option<String>,
    }
    impl Statement for Sample {
        const TYPE: &'static str = "pouch.sample.v1";
    }

    fn key() -> SigningKey {
        SigningKey::from_seed(&[3; 32])
    }

    fn resign(bytes: &[u8]) -> Result<Signed<Sample>, StatementError> {
        let signature = sign_detached(Sample::TYPE, bytes, &key()).unwrap();
        Signed::verify(bytes, &signature, &key().public())
    }

    #[test]
    fn the_form_is_fixed() {
        let signed = Signed::sign(Sample { number: 1, text: None }, &key()).unwrap();
        assert_eq!(signed.bytes(), b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"text\":null}\n");
        let text = signed.detached().to_text();
        assert_eq!(
            Detached::from_text(&format!("\u{feff}{}\r\n\n", text.replace('\n', "\r\n"))).unwrap(),
            signed.detached()
        );
    }

    #[test]
    fn both_sides_of_the_limit() {
        let sample = |len: usize| Sample { number: 1, text: Some("x".repeat(len)) };
        let around = Signed::sign(sample(0), &key()).unwrap().bytes().len();
        let longest = Signed::sign(sample(MAX_STATEMENT - around), &key()).unwrap();
        assert_eq!(longest.bytes().len(), MAX_STATEMENT);
        assert!(resign(longest.bytes()).is_ok());
        for more in [1, 100] {
            let error = Signed::sign(sample(MAX_STATEMENT - around + more), &key()).unwrap_err();
            assert_eq!(error, StatementError::TooLong(MAX_STATEMENT + more));
        }
        let one_more = [longest.bytes(), b"\n"].concat();
        assert_eq!(resign(&one_more).unwrap_err(), StatementError::TooLong(MAX_STATEMENT + 1));
    }

    // attacks.md 27: same meaning in other bytes, doubled keys, unknown field or version: refused even when signed.
    #[test]
    fn attack_27_one_meaning_one_spelling() {
        let refused: [&[u8]; 11] = [
            b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"text\":null}",
            b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"text\":null}\n\n",
            b"{\"type\":\"pouch.sample.v1\", \"number\":1,\"text\":null}\n",
            b"{\"type\":\"pouch.sample.v1\",\"text\":null,\"number\":1}\n",
            b"{\"type\":\"pouch.sample.v1\",\"number\":1}\n",
            b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"number\":1,\"text\":null}\n",
            b"{\"type\":\"pouch.sample.v1\",\"number\":1.0,\"text\":null}\n",
            b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"text\":\"\\u0061\"}\n",
            b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"text\":null,\"more\":2}\n",
            b"{\"type\":\"pouch.sample.v2\",\"number\":1,\"text\":null}\n",
            b"{\"number\":1,\"text\":null,\"type\":\"pouch.sample.v1\"}\n",
        ];
        for bytes in refused {
            assert!(resign(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(resign(b"{\"type\":\"pouch.sample.v1\",\"number\":1,\"text\":\"a\"}\n").is_ok());
    }

    // attacks.md 18: every flipped bit of a signed statement is refused.
    #[test]
    fn attack_18_any_flipped_bit_of_a_statement_is_refused() {
        let signed = Signed::sign(Sample { number: 1, text: Some("x".into()) }, &key()).unwrap();
        for bit in 0..signed.bytes().len() * 8 {
            let mut bytes = signed.bytes().to_vec();
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
            assert!(Signed::<Sample>::verify(&bytes, signed.signature(), &key().public()).is_err(), "bit {bit}");
        }
    }

    // attacks.md 11: a cap before anything is parsed.
    #[test]
    fn attack_11_huge_statement() {
        let bytes = vec![b' '; MAX_STATEMENT + 1];
        assert!(matches!(resign(&bytes), Err(StatementError::TooLong(_))));
    }

    // attacks.md 9: what an attacker wrote does not come back in the error.
    #[test]
    fn attack_9_errors_do_not_quote_the_statement() {
        let bytes = b"{\"type\":\"pouch.sample.v1\",\"\\u001b[2Jevil\":1,\"number\":1,\"text\":null}\n";
        let error = resign(bytes).unwrap_err().to_string();
        assert!(!error.contains("evil"), "{error}");
    }
}
