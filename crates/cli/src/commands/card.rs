use clap::Args;
use pouch_statement::AgeRecipient;
use serde_json::json;

use crate::run::{Context, Outcome, printing};
use crate::show::iso;

/// Show my card, to give to others
#[derive(Args)]
pub(crate) struct Card {
    /// Only the twelve words of my fingerprint
    #[arg(long)]
    words: bool,
}

impl Card {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        let card = party.card();
        let words = party.fingerprint().words();
        if self.words {
            context.show.essence(&words).map_err(printing)?;
            context.show.line(&words).map_err(printing)?;
        } else {
            let text = card.detached().to_text();
            context.show.line(text.trim_end()).map_err(printing)?;
            context.show.essence(text.trim_end()).map_err(printing)?;
            context.show.remark(format_args!("your words: {words}"));
            context.show.remark(format_args!("your key: {}", strength(&card.card().age_recipient)));
        }
        context
            .show
            .object(&json!({
                "type": "card",
                "name": card.card().name,
                "fingerprint": party.fingerprint(),
                "words": words,
                "relay": party.relay(),
                "expires": iso(card.card().expires),
                "post_quantum": card.card().age_recipient.is_post_quantum(),
                "card": card.detached(),
            }))
            .map_err(printing)
    }
}

/// What may be said of envelopes to this recipient, in one line.
pub(crate) fn strength(recipient: &AgeRecipient) -> &'static str {
    if recipient.is_post_quantum() {
        "hybrid, for quantum computers too (ML-KEM-768 with X25519)"
    } else {
        "classic (X25519), not for quantum computers"
    }
}
