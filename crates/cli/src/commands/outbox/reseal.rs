use clap::Args;
use pouch_client::Party;
use pouch_client::outbox::{self, Progress, Sent};

use super::object;
use crate::run::{Context, Outcome as Done, printing};
use crate::show::short;

/// Seal what waits for a contact's old key for the new one, without sending the content again
///
/// Each recipient whose keys changed (`pouch contact rotate`) and who has not received it gets a new signed manifest.
#[derive(Args)]
pub(super) struct Reseal {
    /// Which; all that need it if not given
    #[arg(value_name = "ID")]
    id: Option<String>,
}

impl Reseal {
    pub(super) fn run(self, context: &Context) -> Done {
        let party = context.party()?;
        let mut which = match &self.id {
            Some(id) => vec![outbox::find(&party, id)?],
            None => outbox::list(&party)?,
        };
        if self.id.is_none() {
            let book = party.contacts()?;
            which.retain(|sent| sent.progress == Progress::Sent && outbox::needs_reseal(&book, sent));
        }
        if which.is_empty() {
            context.show.remark("nothing waits for a key that was replaced");
            return Ok(());
        }
        let identity = context.unlock(&party)?;
        context.run(async {
            let api = context.relay(&party).await?;
            for sent in &mut which {
                let names = outbox::reseal(&party, &api, &identity, sent).await?;
                tell(context, &party, sent, &names)?;
            }
            Ok(())
        })
    }
}

fn tell(context: &Context, party: &Party, sent: &Sent, names: &[pouch_statement::Name]) -> Done {
    let id = short(sent.bundle);
    if names.is_empty() {
        context.show.remark(format_args!("{id}: nobody who waits for it has new keys"));
        return Ok(());
    }
    object(context, party, sent, None)?;
    context.show.essence(sent.bundle).map_err(printing)?;
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    context.show.line(format_args!("{id} is sealed for the new keys of {}", names.join(", "))).map_err(printing)
}
