//! Messages about pipelines: accounts that send in another account's name.

use pouch_statement::{Detached, MailboxId, Name, Timestamp};
use serde::{Deserialize, Serialize};

/// `POST /v1/pipelines`: an account that sends in my name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPipeline {
    /// Its card: of an identity of its own.
    pub card: Detached,
    /// That identity's word for its device key.
    pub device: Detached,
    /// The mailboxes that it may send to.
    pub recipients: Vec<MailboxId>,
    /// When it ends.
    pub expires: Timestamp,
}

/// One of `GET /v1/pipelines`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineStatus {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// The name on its card.
    pub name: Name,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Since when its requests are refused.
    pub revoked: Option<Timestamp>,
    /// The mailboxes that it may send to, in ascending order.
    pub recipients: Vec<MailboxId>,
}

/// `GET /v1/pipelines`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipelines {
    /// Mine, oldest first; those that are over or revoked, too.
    pub pipelines: Vec<PipelineStatus>,
}
