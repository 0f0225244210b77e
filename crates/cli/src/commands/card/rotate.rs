use std::path::PathBuf;

use clap::Args;
use pouch_client::contacts::rotation::texts;
use pouch_client::rotate;
use serde_json::json;

use crate::commands::card::strength;
use crate::commands::newfile::{check_new, write_new};
use crate::prompt;
use crate::run::{Context, Failure, Outcome, printing};

/// Make new keys in place of mine, by the word of both
///
/// The relay takes requests of this home alone from then on: other homes of mine are restored from a new backup. Contacts take
/// the new card with `pouch contact rotate`, from the relay or from the file, after they have compared the words. What was
/// sealed for the old key still opens, with the same passphrase. If it is interrupted, the same again goes on.
#[derive(Args)]
pub(super) struct Rotate {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// Write the rotation to this file, for contacts that are not on the relay
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Make a classic key, for tools that know no hybrid ones; not in place of a hybrid one
    #[arg(long)]
    classic: bool,
}

impl Rotate {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        if self.classic && party.card().card().age_recipient.is_post_quantum() {
            return Err(Failure::usage("a hybrid key is never replaced by a classic one", "leave --classic out"));
        }
        if let Some(out) = &self.out {
            check_new(out)?;
        }
        if !self.yes && !rotate::is_begun(&party) {
            let question = "new keys in place of yours: each contact has to take them. Type yes: ";
            prompt::agree(question, "give --yes")?;
        }
        let passphrase = if party.is_protected() { Some(context.asker().passphrase()?) } else { None };
        let done = context.run(async { Ok(rotate::rotate(&party, passphrase.as_ref(), self.classic).await?) })?;
        let party = context.party()?;
        let all = rotate::all(&party)?;
        let words = done.card.fingerprint().words();
        let card = done.card.card();
        context
            .show
            .object(&json!({
                "type": "card-rotated",
                "fingerprint": done.card.fingerprint(),
                "words": words,
                "previous": done.previous,
                "serial": card.serial,
                "post_quantum": card.age_recipient.is_post_quantum(),
                "rotation": all.last(),
            }))
            .map_err(printing)?;
        context.show.essence(&words).map_err(printing)?;
        context.show.line(format_args!("your words are now: {words}")).map_err(printing)?;
        context.show.line(format_args!("your key: {}", strength(&card.age_recipient))).map_err(printing)?;
        context
            .show
            .remark("contacts run `pouch contact rotate` with their name for you, and compare the words with you");
        match &self.out {
            Some(out) => write_new(out, texts(&all).as_bytes()),
            None => Ok(()),
        }
    }
}
