//! Receipts: the recipient's word on what became of a bundle.

use serde::{Deserialize, Serialize};

use crate::{BundleId, Fingerprint, Sha256Digest, Statement, Timestamp};

/// How opening a bundle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Opened, every byte verified, and published at the recipient's.
    Verified,
    /// Not what the sender's manifest says, at the stage named beside.
    Failed,
}

/// Where verification failed. Before the manifest verified there is nobody to sign a receipt to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The sealed index: missing, wrong digest, not readable, or its rules broken.
    Index,
    /// A sealed part: missing, wrong length or digest, or not openable.
    Part,
    /// The content: a header, a file's digest, or the padding is not what the index says.
    Content,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Index => "index",
            Self::Part => "part",
            Self::Content => "content",
        })
    }
}

/// What the recipient signs after opening a bundle (docs/format.md, "Receipt").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The bundle.
    pub bundle: BundleId,
    /// SHA-256 of the manifest's statement bytes.
    pub manifest_sha256: Sha256Digest,
    /// Who sent it.
    pub sender: Fingerprint,
    /// Who signs this.
    pub recipient: Fingerprint,
    /// How it ended.
    pub outcome: Outcome,
    /// Where it failed; `null` with [`Outcome::Verified`].
    pub stage: Option<Stage>,
    /// When the recipient signed.
    pub created: Timestamp,
}

impl Statement for Receipt {
    const TYPE: &'static str = "pouch.receipt.v1";
}
