mod rotate;

use clap::{Args, Subcommand};
use pouch_client::Party;
use pouch_client::contacts::rotation::texts;
use pouch_statement::AgeRecipient;
use serde_json::json;

use crate::run::{Context, Outcome, printing};
use crate::show::iso;

use self::rotate::Rotate;

/// Show my card, to give to others
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Card {
    /// Only the twelve words of my fingerprint
    #[arg(long)]
    words: bool,
    /// My rotations instead: the word of my old keys for the new ones, for `pouch contact rotate`
    #[arg(long, conflicts_with = "words")]
    rotation: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    Rotate(Rotate),
}

impl Card {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        if let Some(Verb::Rotate(verb)) = self.verb {
            return verb.run(context);
        }
        let party = context.party()?;
        if self.rotation {
            return rotations(&party, context);
        }
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

fn rotations(party: &Party, context: &Context) -> Outcome {
    let all = pouch_client::rotate::all(party)?;
    if all.is_empty() {
        context.show.remark("your keys are the first ones; `pouch card rotate` makes new ones");
    }
    for rotation in &all {
        context.show.object(&json!({ "type": "rotation", "rotation": rotation })).map_err(printing)?;
    }
    let text = texts(&all);
    context.show.line(text.trim_end()).map_err(printing)?;
    context.show.essence(text.trim_end()).map_err(printing)
}

/// What may be said of envelopes to this recipient, in one line.
pub(crate) fn strength(recipient: &AgeRecipient) -> &'static str {
    if recipient.is_post_quantum() {
        "hybrid, for quantum computers too (ML-KEM-768 with X25519)"
    } else {
        "classic (X25519), not for quantum computers"
    }
}
