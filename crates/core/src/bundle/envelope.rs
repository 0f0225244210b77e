//! Envelopes and sealed receipts: the small objects that carry a signed statement to one person.

use pouch_statement::{
    BundleId, Delegated, Delegation, DelegationError, Detached, Fingerprint, MAX_STATEMENT, PublicKey, RandomError,
    Receipt, Sha256Digest, Signed, Statement, StatementError, Timestamp,
};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::manifest::{Manifest, ManifestError};
use super::objects::{self, ObjectError};
use crate::age::{self, HeaderError, Identity, KeyError, KeyKind, Recipient, open_sole, seal_part};

/// The most bytes of a sealed envelope or sealed receipt.
pub const MAX_ENVELOPE: u64 = 256 << 10;
/// How far a manifest's date may lie in the future before the clocks are called wrong, in seconds.
pub const CLOCK_TOLERANCE: u64 = 300;

const ENVELOPE_OBJECTS: [&str; 3] = ["manifest", "manifest.sig", "bundle.key"];
/// Of one that somebody sends in another's name.
const DELEGATED_OBJECTS: [&str; 5] = ["delegation", "delegation.sig", "manifest", "manifest.sig", "bundle.key"];
const RECEIPT_OBJECTS: [&str; 3] = ["receipt", "receipt.sig", "salt"];
const COMMITMENT_DOMAIN: &[u8] = b"pouch.receipt.commitment.v1\n";

/// Why an envelope or a sealed receipt was refused. Nothing in it was believed then.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// Over [`MAX_ENVELOPE`].
    #[error("{size} bytes are too long for an envelope or a sealed receipt")]
    TooLong {
        /// Bytes found.
        size: u64,
    },
    /// It does not open with this key, or was damaged.
    #[error("it does not open: {0}")]
    Age(#[from] age::Error),
    /// Sealed to more than one recipient.
    #[error("it is sealed to more than one recipient")]
    Recipients,
    /// What is in it is not laid out as it must be.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Text that is no UTF-8.
    #[error("a statement or signature in it is not UTF-8")]
    NotUtf8,
    /// The bundle key is not one.
    #[error("the bundle key in it is not one: {0}")]
    Key(KeyError),
    /// The bundle key is of another kind than X25519, on whose length the sizes of all parts rest.
    #[error("the bundle key in it is not a classic one")]
    KeyKind,
    /// The salt has another length than 32 bytes.
    #[error("the salt in it has not 32 bytes")]
    Salt,
    /// The statement is not readable, or its signature not good.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// The manifest contradicts itself.
    #[error(transparent)]
    Manifest(ManifestError),
    /// The sender is not the contact, and what is to show that they may send in the contact's name does not.
    #[error(transparent)]
    Delegation(#[from] DelegationError),
    /// The manifest names another recipient: somebody passed on what was sent to them (attacks.md 24).
    #[error("it was made for somebody else")]
    NotForMe,
    /// The manifest is of another bundle than the one asked for.
    #[error("it belongs to the bundle {found}, not to the one asked for")]
    OtherBundle {
        /// The bundle that it names.
        found: BundleId,
    },
    /// The manifest names another sender than the contact.
    #[error("it names another sender")]
    OtherSender,
    /// Made in the future: the sender's clock or ours is wrong.
    #[error("it is dated {ahead} s in the future; compare the clocks")]
    NotYetValid {
        /// Seconds.
        ahead: u64,
    },
    /// After its end.
    #[error("it expired {ago} s ago")]
    Expired {
        /// Seconds.
        ago: u64,
    },
    /// The operating system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Seals a signed manifest and the bundle key for one recipient.
///
/// # Errors
/// A bundle key that is not classic, or if encryption fails.
pub fn seal_envelope(
    manifest: &Signed<Manifest>,
    bundle_key: &Identity,
    to: &Recipient,
) -> Result<Vec<u8>, EnvelopeError> {
    seal_delegated(manifest, bundle_key, None, to)
}

/// [`seal_envelope`], with what shows that the manifest's signer may send in another's name.
///
/// # Errors
/// A bundle key that is not classic, or if encryption fails.
pub fn seal_delegated(
    manifest: &Signed<Manifest>,
    bundle_key: &Identity,
    delegation: Option<&Signed<Delegation>>,
    to: &Recipient,
) -> Result<Vec<u8>, EnvelopeError> {
    if bundle_key.kind() != KeyKind::X25519 {
        return Err(EnvelopeError::KeyKind);
    }
    let mut key = bundle_key.expose_secret_string();
    key.push('\n');
    let mut objects: Vec<(&str, &[u8])> = Vec::with_capacity(DELEGATED_OBJECTS.len());
    if let Some(delegation) = delegation {
        objects.push(("delegation", delegation.bytes()));
        objects.push(("delegation.sig", delegation.signature().as_bytes()));
    }
    objects.push(("manifest", manifest.bytes()));
    objects.push(("manifest.sig", manifest.signature().as_bytes()));
    objects.push(("bundle.key", key.as_bytes()));
    seal_objects(&objects, to)
}

fn seal_objects(objects: &[(&str, &[u8])], to: &Recipient) -> Result<Vec<u8>, EnvelopeError> {
    let size: usize = objects.iter().map(|(_, bytes)| bytes.len() + 1024).sum();
    // Room for the padding too, so that no copy stays behind in memory that was given back.
    let mut plain = Zeroizing::new(Vec::with_capacity(2 * size + 8192));
    for (name, bytes) in objects {
        objects::append(&mut plain, name, bytes);
    }
    objects::close_padded(&mut plain);
    let mut sealed = Vec::new();
    seal_part(to, &plain, &mut sealed)?;
    Ok(sealed)
}

fn open_object(sealed: &[u8], identity: &Identity) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let size = sealed.len() as u64;
    if size > MAX_ENVELOPE {
        return Err(EnvelopeError::TooLong { size });
    }
    let mut plain = Zeroizing::new(Vec::new());
    // One stanza, and that of my own kind: neither somebody else, nor a weaker way in (attacks.md 30).
    match open_sole(identity, sealed, &mut plain) {
        Ok(()) => Ok(plain),
        Err(age::Error::HeaderFailure(HeaderError::NotSole)) => Err(EnvelopeError::Recipients),
        Err(error) => Err(error.into()),
    }
}

fn text(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    std::str::from_utf8(bytes).map_err(|_| EnvelopeError::NotUtf8)
}

/// An envelope that opened with my key. What it says is anybody's claim until [`OpenedEnvelope::verify`].
pub struct OpenedEnvelope {
    manifest: Vec<u8>,
    signature: String,
    key: Identity,
    claims: Claims,
    delegation: Option<ClaimedDelegation>,
}

/// A delegation as it was found, and by whom it claims to be.
struct ClaimedDelegation {
    statement: Vec<u8>,
    signature: String,
    identity: Fingerprint,
}

impl ClaimedDelegation {
    fn read(statement: &[u8], signature: &[u8]) -> Result<Self, EnvelopeError> {
        #[derive(Deserialize)]
        struct Issuer {
            identity: Fingerprint,
        }
        let Issuer { identity } = claims::<Delegation, _>(statement)?;
        Ok(Self { statement: statement.to_vec(), signature: text(signature)?.to_owned(), identity })
    }
}

/// The members that say whether a manifest is worth verifying, and against whose key. Others are ignored here:
/// verifying reads them all.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
struct Claims {
    bundle: BundleId,
    sender: Fingerprint,
    recipient: Fingerprint,
}

/// Opens an envelope.
///
/// # Errors
/// Too long, not sealed to `identity` alone, damaged, or without a manifest of a known version.
pub fn open_envelope(sealed: &[u8], identity: &Identity) -> Result<OpenedEnvelope, EnvelopeError> {
    let plain = open_object(sealed, identity)?;
    let (delegation, [manifest, signature, key]) = match objects::begins_with(&plain, "delegation") {
        true => {
            let [delegation, by, manifest, signature, key] = objects::read_padded(&plain, DELEGATED_OBJECTS)?;
            (Some(ClaimedDelegation::read(delegation, by)?), [manifest, signature, key])
        }
        false => (None, objects::read_padded(&plain, ENVELOPE_OBJECTS)?),
    };
    let key: Identity = text(key)?.strip_suffix('\n').unwrap_or_default().parse().map_err(EnvelopeError::Key)?;
    if key.kind() != KeyKind::X25519 {
        return Err(EnvelopeError::KeyKind);
    }
    Ok(OpenedEnvelope {
        claims: claims::<Manifest, _>(manifest)?,
        manifest: manifest.to_vec(),
        signature: text(signature)?.to_owned(),
        key,
        delegation,
    })
}

/// Some members of what claims to be a statement of the kind `T`.
fn claims<T: Statement, C: serde::de::DeserializeOwned>(statement: &[u8]) -> Result<C, EnvelopeError> {
    if statement.len() > MAX_STATEMENT {
        return Err(StatementError::TooLong(statement.len()).into());
    }
    let head = format!("{{\"type\":\"{}\",", T::TYPE);
    if !statement.starts_with(head.as_bytes()) {
        return Err(StatementError::Type { wanted: T::TYPE }.into());
    }
    let unreadable = |_| StatementError::Body { kind: T::TYPE, reason: "its addresses cannot be read".into() };
    Ok(serde_json::from_slice(statement).map_err(unreadable)?)
}

/// What the recipient knows from elsewhere, to hold an envelope against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// My own fingerprint.
    pub me: &'a Fingerprint,
    /// The fingerprint of the pinned contact.
    pub sender: &'a Fingerprint,
    /// The signing key of the pinned contact.
    pub sender_key: &'a PublicKey,
    /// The bundle that was asked for; `None` takes any.
    pub bundle: Option<BundleId>,
    /// The time.
    pub now: Timestamp,
}

impl OpenedEnvelope {
    /// Who the sender claims to be, or in whose name they claim to send: for looking up the contact, for nothing else.
    #[must_use]
    pub fn claimed_sender(&self) -> Fingerprint {
        self.delegation.as_ref().map_or(self.claims.sender, |delegation| delegation.identity)
    }

    /// Whom it claims to be for: for finding the one among my own fingerprints, for nothing else.
    #[must_use]
    pub fn claimed_recipient(&self) -> Fingerprint {
        self.claims.recipient
    }

    /// Which bundle it claims to be: for a message, for nothing else.
    #[must_use]
    pub fn claimed_bundle(&self) -> BundleId {
        self.claims.bundle
    }

    /// The manifest as it was found, unverified: evidence.
    #[must_use]
    pub fn detached(&self) -> Detached {
        let statement = String::from_utf8_lossy(&self.manifest).into_owned();
        Detached { statement, signature: self.signature.clone() }
    }

    /// Verifies in the order of docs/format.md, "Opening": recipient, bundle, sender, signature, rules, time. With a
    /// delegation, that it is by the contact first, and that it covers the manifest last.
    ///
    /// # Errors
    /// Each step has its own.
    pub fn verify(self, expected: &Expected<'_>) -> Result<Verified, EnvelopeError> {
        let Some(ClaimedDelegation { statement, signature, .. }) = &self.delegation else {
            let manifest = self.verify_manifest(expected)?;
            return Ok(Verified { manifest, key: self.key, delegation: None });
        };
        let delegation = Signed::<Delegation>::verify(statement, signature, expected.sender_key)?;
        let (delegate, key) = (delegation.body().delegate(), delegation.body().signing_key);
        // Whom the manifest is from is told by what the contact signed, and by nothing else.
        let by_delegate = Expected { sender: &delegate, sender_key: &key, ..*expected };
        let manifest = self.verify_manifest(&by_delegate)?;
        let Manifest { sender, recipient, created, expires, .. } = *manifest.body();
        let delegated = Delegated { sender, recipient, created, expires };
        delegation.body().covers(expected.sender, &delegated, expected.now, CLOCK_TOLERANCE)?;
        Ok(Verified { manifest, key: self.key, delegation: Some(delegation) })
    }

    fn verify_manifest(&self, expected: &Expected<'_>) -> Result<Signed<Manifest>, EnvelopeError> {
        addressed(&self.claims, expected)?;
        let manifest = Signed::<Manifest>::verify(&self.manifest, &self.signature, expected.sender_key)?;
        let Manifest { bundle, sender, recipient, created, expires, .. } = *manifest.body();
        // The claims were read leniently; what counts is what was signed.
        addressed(&Claims { bundle, sender, recipient }, expected)?;
        manifest.body().check().map_err(EnvelopeError::Manifest)?;
        let ahead = created.since(expected.now);
        if ahead > CLOCK_TOLERANCE {
            return Err(EnvelopeError::NotYetValid { ahead });
        }
        if expected.now >= expires {
            return Err(EnvelopeError::Expired { ago: expected.now.since(expires) });
        }
        Ok(manifest)
    }
}

fn addressed(claims: &Claims, expected: &Expected<'_>) -> Result<(), EnvelopeError> {
    if claims.recipient != *expected.me {
        return Err(EnvelopeError::NotForMe);
    }
    if expected.bundle.is_some_and(|wanted| wanted != claims.bundle) {
        return Err(EnvelopeError::OtherBundle { found: claims.bundle });
    }
    if claims.sender != *expected.sender { Err(EnvelopeError::OtherSender) } else { Ok(()) }
}

/// A manifest whose signature, recipient, sender and time are good. Only this can open an index.
pub struct Verified {
    pub(super) manifest: Signed<Manifest>,
    pub(super) key: Identity,
    delegation: Option<Signed<Delegation>>,
}

impl Verified {
    /// What shows that the sender may send in the contact's name, if it is not the contact itself.
    #[must_use]
    pub fn delegation(&self) -> Option<&Signed<Delegation>> {
        self.delegation.as_ref()
    }

    /// What the sender signed.
    #[must_use]
    pub fn manifest(&self) -> &Signed<Manifest> {
        &self.manifest
    }

    /// The bundle key, for a recipient who keeps it sealed to resume.
    #[must_use]
    pub fn bundle_key(&self) -> &Identity {
        &self.key
    }
}

/// The commitment to a receipt: the only thing about its content that a relay learns beside the outcome.
#[must_use]
pub fn receipt_commitment(salt: &[u8; 32], receipt: &[u8]) -> Sha256Digest {
    Sha256Digest::of_all(&[COMMITMENT_DOMAIN, salt, receipt])
}

/// Seals a receipt for the sender, with a fresh salt: the age file and the commitment.
///
/// # Errors
/// No random bytes, or encryption fails.
pub fn seal_receipt(receipt: &Signed<Receipt>, to: &Recipient) -> Result<(Vec<u8>, Sha256Digest), EnvelopeError> {
    let salt = pouch_statement::random::<32>()?;
    let [statement, signature, salt_name] = RECEIPT_OBJECTS;
    let objects = [(statement, receipt.bytes()), (signature, receipt.signature().as_bytes()), (salt_name, &salt)];
    Ok((seal_objects(&objects, to)?, receipt_commitment(&salt, receipt.bytes())))
}

/// Opens a sealed receipt: the statement, not verified yet, and the commitment to compare with the relay's.
///
/// # Errors
/// Too long, not sealed to `identity` alone, or damaged.
pub fn open_receipt(sealed: &[u8], identity: &Identity) -> Result<(Detached, Sha256Digest), EnvelopeError> {
    let plain = open_object(sealed, identity)?;
    let [receipt, signature, salt] = objects::read_padded(&plain, RECEIPT_OBJECTS)?;
    let commitment = receipt_commitment(salt.try_into().map_err(|_| EnvelopeError::Salt)?, receipt);
    let detached = Detached { statement: text(receipt)?.to_owned(), signature: text(signature)?.to_owned() };
    Ok((detached, commitment))
}

#[cfg(test)]
mod tests {
    use super::*;

    // attacks.md 11
    #[test]
    fn attack_11_lengths_are_capped_to_the_byte() {
        let me = Identity::generate();
        let mut sealed = vec![0; MAX_ENVELOPE as usize];
        assert!(matches!(open_object(&sealed, &me), Err(EnvelopeError::Age(_))));
        sealed.push(0);
        assert!(matches!(open_object(&sealed, &me), Err(EnvelopeError::TooLong { size }) if size == MAX_ENVELOPE + 1));

        let wrong_type = vec![b'x'; MAX_STATEMENT];
        assert!(matches!(
            claims::<Manifest, Claims>(&wrong_type),
            Err(EnvelopeError::Statement(StatementError::Type { .. }))
        ));
        let long = vec![b'x'; MAX_STATEMENT + 1];
        let refused = claims::<Manifest, Claims>(&long).err();
        assert!(matches!(refused, Some(EnvelopeError::Statement(StatementError::TooLong(n))) if n == long.len()));
    }
}
