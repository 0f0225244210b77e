use clap::Args;
use pouch_client::outbox::{self, Progress, Readdressed, Sent};
use pouch_client::{Class, Error, Party};

use super::object;
use crate::run::{Context, Outcome as Done, printing};
use crate::show::{joined, short};

/// Seal what waits for a contact's old key for the new one, without sending the content again
///
/// Each recipient whose keys changed (`pouch contact rotate`) and who has not received it gets a new signed manifest. Without
/// ID, one bundle that fails does not keep the others, unless the relay cannot be reached; the first failure decides on the
/// exit code.
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
        let mut failed = None;
        context.run(async {
            let api = context.relay(&party).await?;
            let several = which.len() > 1;
            for sent in &mut which {
                let errors: Vec<Error> = match outbox::reseal(&party, &api, &identity, sent).await {
                    Ok(done) => {
                        tell(context, &party, sent, &done)?;
                        done.left_out.into_iter().map(|(_, why)| why).collect()
                    }
                    Err(error) => vec![error],
                };
                // The others would fare no better.
                let is_away = errors.iter().any(|error| error.class() == Class::Unreachable);
                for error in errors {
                    if several {
                        context.show.warn(format_args!("bundle {}: {error}", short(sent.bundle)));
                    }
                    failed.get_or_insert(error);
                }
                if is_away {
                    break;
                }
            }
            Ok(())
        })?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn tell(context: &Context, party: &Party, sent: &Sent, done: &Readdressed) -> Done {
    let id = short(sent.bundle);
    if done.to.is_empty() {
        context.show.remark(format_args!("{id}: nobody who waits for it has new keys"));
        return Ok(());
    }
    object(context, party, sent, None)?;
    context.show.essence(sent.bundle).map_err(printing)?;
    context.show.line(format_args!("{id} is sealed for the new keys of {}", joined(&done.to))).map_err(printing)
}
