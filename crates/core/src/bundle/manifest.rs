//! The manifest: the sender's signed statement about one bundle for one recipient.

use pouch_statement::{
    BundleId, Fingerprint, Note, Sha256Digest, Signed, SigningKey, Statement, StatementError, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::index::{ContentKind, MAX_INDEX};
use super::layout::{Layout, LayoutError};
use super::padding::padded;
use crate::age::sealed_len;

/// What a bundle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Data for somebody to work with.
    Dataset,
    /// A password, token or key.
    Credential,
    /// The result of somebody's work.
    Deliverable,
    /// What happened and what was found.
    Incident,
    /// Nothing but a request for files, to be sent by a certain time.
    Request,
}

/// Why a manifest contradicts itself.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Not a statement of its type, or the signature is not good.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It ends before it begins.
    #[error("the manifest expires before it was made")]
    Validity,
    /// Sequence or revision zero, or a previous digest that does not go with the sequence.
    #[error("the manifest's place in the sequence contradicts itself")]
    Sequence,
    /// Sizes that do not follow from each other.
    #[error("the sizes in the manifest do not fit each other: {what}")]
    Sizes {
        /// Which ones.
        what: &'static str,
    },
    /// A request without a time or with content, or a time or a request that is answered where there is none.
    #[error("the manifest's request contradicts itself")]
    Request,
    /// More content than a bundle can hold.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

/// The sizes and digests that a manifest signs; sealing gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What the parts hold.
    pub content: ContentKind,
    /// Lengths of content, padding and parts.
    pub layout: Layout,
    /// Bytes of the plain index before padding.
    pub index_size: u64,
    /// Digest of the plain index before padding.
    pub index_sha256: Sha256Digest,
    /// Bytes of the sealed index.
    pub sealed_index_size: u64,
    /// Digest of the sealed index.
    pub sealed_index_sha256: Sha256Digest,
}

/// What only the sender knows about a bundle for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The bundle.
    pub bundle: BundleId,
    /// What it is for.
    pub kind: Kind,
    /// Who signs.
    pub sender: Fingerprint,
    /// Whom it is for, and nobody else.
    pub recipient: Fingerprint,
    /// From 1, one more with each bundle from this sender to this recipient.
    pub sequence: u64,
    /// Digest of the manifest with the sequence number before.
    pub previous: Option<Sha256Digest>,
    /// From 1, raised when the bundle is sealed again or extended.
    pub revision: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// The sender's remark.
    pub note: Option<Note>,
    /// Of a request: by when files are to be sent.
    pub due: Option<Timestamp>,
    /// The request that this answers.
    pub answers: Option<BundleId>,
}

/// The statement (docs/format.md, "Manifest").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The bundle.
    pub bundle: BundleId,
    /// What it is for.
    pub kind: Kind,
    /// Who signs.
    pub sender: Fingerprint,
    /// Whom it is for, and nobody else.
    pub recipient: Fingerprint,
    /// From 1, one more with each bundle from this sender to this recipient.
    pub sequence: u64,
    /// Digest of the manifest with the sequence number before; `null` with 1.
    pub previous: Option<Sha256Digest>,
    /// From 1, raised when the bundle is sealed again or extended.
    pub revision: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// The sender's remark.
    pub note: Option<Note>,
    /// Of a request: by when files are to be sent; otherwise `null`.
    pub due: Option<Timestamp>,
    /// The request that this answers.
    pub answers: Option<BundleId>,
    /// What the parts hold.
    pub content: ContentKind,
    /// Bytes of the content before padding.
    pub content_size: u64,
    /// Bytes of the content with its padding.
    pub padded_size: u64,
    /// Number of parts.
    pub parts: u32,
    /// Bytes of the plain index before padding.
    pub index_size: u64,
    /// Digest of the plain index before padding.
    pub index_sha256: Sha256Digest,
    /// Bytes of the sealed index as it is carried.
    pub sealed_index_size: u64,
    /// Digest of the sealed index as it is carried.
    pub sealed_index_sha256: Sha256Digest,
}

impl Statement for Manifest {
    const TYPE: &'static str = "pouch.manifest.v1";
}

impl Manifest {
    /// What sealing gave and what the sender adds.
    #[must_use]
    pub fn new(terms: Terms, summary: &Summary) -> Self {
        let Terms { bundle, kind, sender, recipient, sequence, previous, .. } = terms;
        let Terms { revision, created, expires, note, due, answers, .. } = terms;
        Self {
            bundle,
            kind,
            sender,
            recipient,
            sequence,
            previous,
            revision,
            created,
            expires,
            note,
            due,
            answers,
            content: summary.content,
            content_size: summary.layout.content_size(),
            padded_size: summary.layout.padded_size(),
            parts: summary.layout.parts(),
            index_size: summary.index_size,
            index_sha256: summary.index_sha256,
            sealed_index_size: summary.sealed_index_size,
            sealed_index_sha256: summary.sealed_index_sha256,
        }
    }

    /// Checks that the manifest does not contradict itself, and signs it.
    ///
    /// # Errors
    /// Whatever a recipient would refuse.
    pub fn sign(self, key: &SigningKey) -> Result<Signed<Self>, ManifestError> {
        self.check()?;
        Ok(Signed::sign(self, key)?)
    }

    /// The lengths that the manifest signs; all of them follow from the content's.
    ///
    /// # Errors
    /// More content than a bundle can hold.
    pub fn layout(&self) -> Result<Layout, LayoutError> {
        Layout::of(self.content_size)
    }

    /// The rules between members, which a signature does not vouch for.
    pub(super) fn check(&self) -> Result<(), ManifestError> {
        if self.expires <= self.created {
            return Err(ManifestError::Validity);
        }
        if self.sequence == 0 || self.revision == 0 || (self.sequence == 1) != self.previous.is_none() {
            return Err(ManifestError::Sequence);
        }
        if (self.kind == Kind::Request) != self.due.is_some()
            || self.due.is_some_and(|due| {
                (self.revision == 1 && due <= self.created) || self.content_size != 0 || self.answers.is_some()
            })
        {
            return Err(ManifestError::Request);
        }
        let layout = self.layout()?;
        if (layout.padded_size(), layout.parts()) != (self.padded_size, self.parts) {
            return Err(ManifestError::Sizes { what: "content, padding and parts" });
        }
        if self.index_size > MAX_INDEX {
            return Err(ManifestError::Sizes { what: "the index is larger than any" });
        }
        if padded(self.index_size).and_then(sealed_len) != Some(self.sealed_index_size) {
            return Err(ManifestError::Sizes { what: "the index, plain and sealed" });
        }
        Ok(())
    }
}
