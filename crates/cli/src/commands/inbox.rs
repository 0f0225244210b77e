use std::time::Duration;

use clap::Args;
use pouch_client::api::Listing;
use pouch_client::{inbox, requests};
use serde_json::json;

use super::request;
use crate::run::{Context, Outcome, printing};
use crate::show::{iso, local, parse_span, short, size};

/// Show what waits for me, and what I am asked for
///
/// Asks for no passphrase. Who sent a bundle and how large it is are the relay's word until it is received.
#[derive(Args)]
pub(crate) struct Inbox {
    /// Wait until something is there; at most so long, like 15m or 8h, if a time is given
    #[arg(long, value_name = "TIME", value_parser = parse_span, num_args = 0..=1)]
    wait: Option<Option<u64>>,
}

impl Inbox {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        let (Listing { rows: waiting, cut }, asked) = context.run(async {
            let api = context.relay(&party).await?;
            let listing = match self.wait {
                None => inbox::waiting(&party, &api).await?,
                Some(limit) => inbox::wait(&party, &api, limit.map(Duration::from_secs)).await?,
            };
            Ok((listing, requests::asked(&party, &api).await?))
        })?;
        let shown = waiting.len();
        if waiting.is_empty() && asked.is_empty() {
            context.show.remark("nothing is waiting");
        }
        for one in waiting {
            let item = &one.item;
            let from = one.from.as_ref().map_or_else(|| "somebody unknown".to_owned(), ToString::to_string);
            context
                .show
                .object(&json!({
                    "type": "waiting",
                    "bundle": item.bundle,
                    "from": one.from,
                    "size": item.size,
                    "state": item.state,
                    "revision": item.revision,
                    "committed": iso(item.committed),
                    "expires": iso(item.expires),
                }))
                .map_err(printing)?;
            context.show.essence(item.bundle).map_err(printing)?;
            context
                .show
                .line(format_args!(
                    "{}  from {from:<16} {:>10}  sent {}, until {}",
                    short(item.bundle),
                    size(item.size),
                    local(item.committed),
                    local(item.expires),
                ))
                .map_err(printing)?;
        }
        request::list(context, &party, &asked)?;
        if cut { context.show.cut(shown, "oldest").map_err(printing) } else { Ok(()) }
    }
}
