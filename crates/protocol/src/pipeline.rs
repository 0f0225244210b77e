//! Messages about pipelines: accounts that send in another account's name.

use pouch_statement::{Detached, MailboxId, Name, Timestamp};

use crate::members::{answers, requests};

requests! {
    /// `POST /v1/pipelines`: an account that sends in my name.
    struct NewPipeline {
        /// Its card: of an identity of its own.
        card: Detached,
        /// That identity's word for its device key.
        device: Detached,
        /// The mailboxes that it may send to.
        recipients: Vec<MailboxId>,
        /// When it ends.
        expires: Timestamp,
    }
}

answers! {
    /// One of `GET /v1/pipelines`.
    struct PipelineStatus {
        /// Its mailbox.
        mailbox: MailboxId,
        /// The name on its card.
        name: Name,
        /// When it was made.
        created: Timestamp,
        /// When it ends.
        expires: Timestamp,
        /// Since when its requests are refused.
        revoked: Option<Timestamp>,
        /// The mailboxes that it may send to, in ascending order.
        recipients: Vec<MailboxId>,
    }

    /// `GET /v1/pipelines`.
    struct Pipelines {
        /// Mine, oldest first; those that are over or revoked, too.
        pipelines: Vec<PipelineStatus>,
    }
}
