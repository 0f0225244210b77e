//! One recipient of a bundle of mine: what was addressed to them, with which keys, and what they said.

use pouch_statement::{
    BundleId, Detached, Fingerprint, MailboxId, Name, PublicKey, Receipt, Sha256Digest, SignatureError, Signed,
    StatementError,
};
use serde::{Deserialize, Serialize};

use crate::contacts::Contact;

/// One recipient of a bundle of mine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    /// My name for them at the time.
    pub name: Name,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
    /// The key that their receipt must be signed with.
    pub signing_key: PublicKey,
    /// Their mailbox.
    pub mailbox: MailboxId,
    /// Sequence number of their manifest.
    pub sequence: Option<u64>,
    /// Digest of their manifest.
    pub manifest_sha256: Option<Sha256Digest>,
    /// Digests of the manifests before, from the first revision on: a receipt may name any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Sha256Digest>,
    /// Fingerprints and keys that they had when it was addressed to them before, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<FormerKey>,
    /// It is addressed to their new key, and the envelope may not be on the relay yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) resealing: bool,
    /// When it was withdrawn, the relay had a receipt of theirs that was not fetched.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unfetched: bool,
    /// Their receipt, verified before it was stored.
    pub receipt: Option<Detached>,
    /// Of a request: the first bundle from them that answers it, received and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<BundleId>,
}

/// A key that a recipient had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerKey {
    /// Their fingerprint then.
    pub fingerprint: Fingerprint,
    /// The key that a receipt for what was addressed to it must be signed with.
    pub signing_key: PublicKey,
}

impl Recipient {
    /// This contact, to whom nothing is addressed yet.
    pub(crate) fn new(contact: &Contact) -> Self {
        Self {
            name: contact.name.clone(),
            fingerprint: contact.fingerprint(),
            signing_key: contact.card().signing_key,
            mailbox: contact.card().mailbox,
            sequence: None,
            manifest_sha256: None,
            earlier: Vec::new(),
            former: Vec::new(),
            resealing: false,
            unfetched: false,
            receipt: None,
            answer: None,
        }
    }

    /// Fingerprints that it was addressed to, with their keys, the newest first.
    fn keys(&self) -> impl Iterator<Item = FormerKey> {
        let present = FormerKey { fingerprint: self.fingerprint, signing_key: self.signing_key };
        std::iter::once(present).chain(self.former.iter().rev().copied())
    }

    /// A receipt that the key signed which it names as its recipient's.
    pub(super) fn check(&self, receipt: &Detached) -> std::result::Result<Signed<Receipt>, StatementError> {
        let mut first = None;
        for FormerKey { fingerprint, signing_key } in self.keys() {
            match Signed::<Receipt>::verify(receipt.statement.as_bytes(), &receipt.signature, &signing_key) {
                Ok(signed) if signed.body().recipient == fingerprint => return Ok(signed),
                Ok(_) => {}
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(StatementError::Signature(SignatureError::Key)))
    }

    /// The manifest that the next one to this recipient follows: the first revision, whatever they have.
    pub(super) fn first_manifest(&self) -> Option<Sha256Digest> {
        self.earlier.first().copied().or(self.manifest_sha256)
    }

    /// Whether a receipt may be about this manifest.
    pub(super) fn was_sent(&self, manifest: &Sha256Digest) -> bool {
        self.manifest_sha256.as_ref() == Some(manifest) || self.earlier.contains(manifest)
    }
}
