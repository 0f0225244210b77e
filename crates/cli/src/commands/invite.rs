use clap::Args;
use pouch_client::invite;
use pouch_statement::Name;
use serde_json::json;

use crate::run::{Context, Outcome, printing};
use crate::show::{iso, span};

/// Make a one-time link for somebody
///
/// Give it to them over a channel that you trust to reach only them. Their card is verified and pinned under NAME by
/// the next command of yours that reaches the relay.
#[derive(Args)]
pub(crate) struct Invite {
    /// Your name for them
    #[arg(value_name = "NAME")]
    name: Name,
}

impl Invite {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        let (link, expires) = context.run(async {
            let api = context.relay(&party).await?;
            Ok(invite::invite(&party, &api, &self.name).await?)
        })?;
        let text = link.expose_text();
        let left = span(expires.since(pouch_client::clock::now()) + 1);
        context
            .show
            .object(&json!({ "type": "invited", "name": self.name, "link": *text, "expires": iso(expires) }))
            .map_err(printing)?;
        context
            .show
            .line(format_args!(
                "message for {}: install pouch, run `pouch join`, and paste this link (once, {left}):\n\n{}\n",
                self.name, *text
            ))
            .map_err(printing)?;
        context.show.essence(&*text).map_err(printing)
    }
}
