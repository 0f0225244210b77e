use clap::Args;
use pouch_client::Party;
use pouch_client::contacts::revoke;
use pouch_statement::{BundleId, Name};
use serde_json::json;

use crate::run::{Context, Outcome, printing};
use crate::show::{joined, short};

/// Deal with somebody no more: withdraw what they have not fetched, send them nothing, take nothing from them
///
/// What they have fetched cannot be called back. They stay in the list, so that no rotation brings them back; `pouch contact
/// remove` forgets them.
#[derive(Args)]
pub(super) struct Revoke {
    /// Who
    name: Name,
}

impl Revoke {
    pub(super) fn run(self, party: &Party, context: &Context) -> Outcome {
        // Before anything else: it holds also where the relay cannot be reached.
        let withdrawn = context.run(async {
            revoke::mark(party, &self.name).await?;
            let api = context.relay(party).await?;
            Ok(revoke::withdraw(party, &api, &self.name).await?)
        })?;
        context
            .show
            .object(&json!({
                "type": "contact-revoked",
                "name": self.name,
                "withdrawn": withdrawn.in_time,
                "fetched": withdrawn.too_late,
                "shared": withdrawn.shared,
                "kept": withdrawn.kept,
                "pipelines": withdrawn.pipelines,
            }))
            .map_err(printing)?;
        let name = &self.name;
        context
            .show
            .line(format_args!("{name} is revoked: nothing is sent to them or taken from them"))
            .map_err(printing)?;
        let ids = |list: &[BundleId]| joined(&list.iter().map(|id| short(*id)).collect::<Vec<_>>());
        if !withdrawn.in_time.is_empty() {
            context.show.line(format_args!("withdrawn: {}", ids(&withdrawn.in_time))).map_err(printing)?;
        }
        if !withdrawn.too_late.is_empty() {
            let ids = ids(&withdrawn.too_late);
            context.show.warn(format_args!(
                "{name} had fetched the envelope of {ids} before; what they have cannot be called back"
            ));
        }
        for pipeline in &withdrawn.pipelines {
            context.show.warn(format_args!(
                "pipeline {pipeline} sent to {name} and is revoked; what it sent stays until it is over. \
                 `pouch pipeline new` makes one for its other recipients"
            ));
        }
        for id in &withdrawn.kept {
            let id = short(*id);
            context.show.warn(format_args!(
                "{id} was for others, too, and nobody has it; `pouch outbox resume {id} --to NAME` sends them what was kept"
            ));
        }
        for id in &withdrawn.shared {
            let id = short(*id);
            context.show.warn(format_args!(
                "{id} was sent to others, too, who still wait for it, and stays; `pouch outbox revoke {id}` withdraws it from all"
            ));
        }
        Ok(())
    }
}
