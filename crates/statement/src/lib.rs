//! Who is who, and who said what: the identifiers, keys, cards and signed statements of pouch.
//!
//! Nothing in this crate can encrypt or decrypt, so the relay may link it. A [`Signed`] statement is
//! exact UTF-8 bytes and a detached SSHSIG signature over them; its digest is the digest of those
//! bytes, never of the armor.
//!
//! ```
//! use pouch_statement::{Device, Fingerprint, Signed, SigningKey, Timestamp};
//!
//! let key = SigningKey::generate()?;
//! let device = SigningKey::generate()?;
//! let statement = Signed::sign(
//!     Device {
//!         identity: Fingerprint::of("age1example", &key.public()),
//!         device_key: device.public(),
//!         created: Timestamp::from_unix(1_700_000_000)?,
//!     },
//!     &key,
//! )?;
//! let again = Signed::<Device>::verify(statement.bytes(), statement.signature(), &key.public())?;
//! assert_eq!(again.digest(), statement.digest());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Format: docs/format.md, sections "Statements", "Card", "Device", "Delegation", "Receipt", "Rotation".

#[macro_use]
mod spelled;

mod card;
mod delegation;
mod device;
mod digest;
mod fingerprint;
mod id;
mod key;
mod origin;
mod receipt;
mod rotation;
mod signed;
mod sshsig;
mod text;
mod time;

pub use card::{AgeRecipient, Card, CardError, SignedCard};
pub use delegation::{Delegated, Delegation, DelegationError, MAX_DELEGATED, MAX_DELEGATION};
pub use device::Device;
pub use digest::{Blake3Digest, DigestError, Sha256Digest};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use id::{BundleId, IdError, JournalId, LinkId, MailboxId, matches_prefix};
pub use key::{KeyError, PublicKey, SigningKey};
pub use origin::{OriginError, RelayOrigin};
pub use receipt::{Outcome, Receipt, Stage};
pub use rotation::{Rotation, RotationClaim, RotationError, SignedRotation};
pub use signed::{Detached, MAX_STATEMENT, Signed, Statement, StatementError};
pub use sshsig::{SignatureError, sign_detached, verify_detached};
pub use text::{Escaped, Name, Note, TextError, hazardous};
pub use time::{TimeError, Timestamp};

/// The operating system's random source failed; nothing secure can be done without it.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct RandomError(String);

/// Fills a fresh array from the operating system's random source.
///
/// # Errors
/// When the operating system has no random bytes to give.
pub fn random<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| RandomError(e.to_string()))?;
    Ok(bytes)
}
