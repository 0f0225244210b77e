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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_request_is_strict_and_the_answer_may_grow() {
        let detached = || json!({ "statement": "{}", "signature": "x" });
        let mailbox = "0".repeat(26);
        let mut request = json!({ "card": detached(), "device": detached(), "recipients": [mailbox], "expires": 1 });
        serde_json::from_value::<NewPipeline>(request.clone()).unwrap();
        request["more"] = 1.into();
        serde_json::from_value::<NewPipeline>(request).unwrap_err();
        let one = json!({
            "mailbox": mailbox, "name": "nightly", "created": 1, "expires": 2, "revoked": null,
            "recipients": [mailbox], "more": 1,
        });
        serde_json::from_value::<Pipelines>(json!({ "pipelines": [one], "more": 1 })).unwrap();
    }
}
