//! What a record of the journal tells.

use pouch_statement::{BundleId, Fingerprint, Name, Sha256Digest, Stage, Timestamp};
use serde::{Deserialize, Serialize};

/// The longest detail, in bytes: the rest is cut off, so that a record always fits its line.
const MAX_DETAIL: usize = 2048;

/// What was done or tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Became somebody on a relay.
    Joined,
    /// Made a link for somebody.
    Invited,
    /// Withdrew a link before it was used.
    InvitationWithdrawn,
    /// Pinned a contact.
    ContactPinned,
    /// Compared a contact's words.
    ContactVerified,
    /// Removed a contact.
    ContactRemoved,
    /// Sent a bundle.
    Sent,
    /// Learnt later whether a bundle was delivered.
    Settled,
    /// Looked into a bundle without taking it.
    Opened,
    /// Received a bundle.
    Received,
    /// Received some files of a bundle.
    Extracted,
    /// Sent a receipt.
    ReceiptSent,
    /// Got and verified a receipt.
    ReceiptReceived,
    /// Withdrew a bundle.
    Revoked,
    /// Gave up a send that was interrupted.
    Forgotten,
    /// Gave a bundle another end.
    Extended,
    /// Addressed a bundle to one recipient more.
    RecipientAdded,
    /// Addressed a bundle to a recipient's new keys.
    Resealed,
    /// Took new keys in place of mine.
    CardRotated,
    /// Pinned a contact's new keys in place of the old ones.
    ContactRotated,
    /// Sends a contact nothing and takes nothing from them any more.
    ContactRevoked,
    /// Was made of a backup.
    Restored,
    /// Had the relay take a new device key of mine.
    DeviceEnrolled,
    /// Had the relay refuse a device key of mine from then on.
    DeviceRevoked,
    /// Let a pipeline send in my name.
    PipelineMade,
    /// Had the relay refuse a pipeline of mine from then on.
    PipelineRevoked,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// Done.
    Done,
    /// Refused or failed; `detail` says why.
    Failed,
}

/// One record's content. Absent members are not written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// What.
    pub action: Action,
    /// How it ended.
    pub outcome: Ended,
    /// My name for the other side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Name>,
    /// The other side's fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// The pipeline that sent it in the other side's name, or that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Name>,
    /// The bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleId>,
    /// Digest of the statement that this is about: manifest, receipt or card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_sha256: Option<Sha256Digest>,
    /// Digest of the sealed index: names the ciphertext, so it says nothing about a short secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_index_sha256: Option<Sha256Digest>,
    /// Bytes of content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Where verification failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Anything else worth knowing: the error, the place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Event {
    /// An event of now with nothing but the action and its end.
    #[must_use]
    pub fn new(action: Action, outcome: Ended) -> Self {
        Self {
            time: crate::clock::now(),
            action,
            outcome,
            peer: None,
            fingerprint: None,
            pipeline: None,
            bundle: None,
            statement_sha256: None,
            sealed_index_sha256: None,
            size: None,
            files: None,
            stage: None,
            detail: None,
        }
    }

    /// Failed, and why: behind what its detail says already.
    pub(crate) fn failed(self, why: impl ToString) -> Self {
        let why = why.to_string();
        let detail = self.detail.map_or_else(|| why.clone(), |about| format!("{about}: {why}"));
        Self { outcome: Ended::Failed, detail: Some(detail), ..self }
    }

    /// As it is if `result` is none of an error, and otherwise failed.
    pub(crate) fn ended<T, E: ToString>(self, result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => self,
            Err(error) => self.failed(error.to_string()),
        }
    }

    /// With its detail cut to what a record holds.
    pub(super) fn bounded(&self) -> Self {
        let cut = |text: &String| {
            let end = (0..=MAX_DETAIL.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.get(..end).unwrap_or_default().to_owned()
        };
        Self { detail: self.detail.as_ref().map(cut), ..self.clone() }
    }

    /// With the other side.
    #[must_use]
    pub fn with_peer(mut self, name: &Name, fingerprint: Fingerprint) -> Self {
        self.peer = Some(name.clone());
        self.fingerprint = Some(fingerprint);
        self
    }
}
