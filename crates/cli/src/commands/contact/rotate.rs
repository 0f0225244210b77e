use std::path::PathBuf;

use clap::Args;
use pouch_client::contacts::rotation::{self, Offered};
use pouch_client::{Error, Party};
use pouch_statement::{Detached, Name};

use super::{ask, matches, object, read_text, to_be_verified};
use crate::run::{Context, Failure, Outcome, printing};

/// Take new keys of a contact, by the word of the old ones and the new ones
///
/// Whoever has stolen the old keys could have made the new card: compare its words with its owner, on another channel. Without
/// --words a terminal has you type them.
#[derive(Args)]
pub(super) struct Rotate {
    /// Who
    name: Name,
    /// The file that `pouch card rotate --out` wrote at theirs, or - for standard input; without it the relay is asked
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The twelve words of the new card that they told you
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// Take it without asking and without words: it is not verified then, and `contact verify` makes up for that
    #[arg(long)]
    yes: bool,
}

impl Rotate {
    pub(super) fn run(self, party: &Party, context: &Context) -> Outcome {
        let found = self.found(party, context)?;
        let offered = rotation::offered(party, &self.name, &found)?;
        let compared = self.agreed(&offered, context)?;
        let contact = rotation::accept(party, &offered, compared)?;
        object(&contact, context)?;
        context.show.essence(contact.fingerprint()).map_err(printing)?;
        let words = contact.fingerprint().words();
        context.show.line(format_args!("{} has new keys: {words}", contact.name)).map_err(printing)?;
        if compared {
            context.show.remark("`pouch outbox reseal` seals for them what waits for the old ones");
        } else {
            to_be_verified(context, &contact);
        }
        Ok(())
    }

    fn found(&self, party: &Party, context: &Context) -> Result<Vec<Detached>, Failure> {
        if let Some(file) = &self.file {
            let text = read_text(file)?;
            return Ok(rotation::statements(&text).map_err(|e| Error::Statement(e.into()))?);
        }
        let contact = party.contacts()?.named(&self.name)?.clone();
        context.run(async { Ok(rotation::fetch(party, &context.relay(party).await?, &contact).await?) })
    }

    /// Whether the words were compared; an error if they are others, or nobody is there to ask.
    fn agreed(&self, offered: &Offered, context: &Context) -> Result<bool, Failure> {
        match &self.words {
            Some(words) => matches(offered.card(), words)?,
            None if self.yes => {
                context.show.remark(format_args!("{} had: {}", self.name, offered.contact.fingerprint().words()));
                return Ok(false);
            }
            None => ask(&self.name, offered.card(), "give the words that they told you with --words, or --yes")?,
        }
        Ok(true)
    }
}
