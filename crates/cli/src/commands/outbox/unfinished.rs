//! Sends that came to no end: shown, gone on with, forgotten.

use std::sync::Arc;

use clap::Args;
use pouch_client::clock::now;
use pouch_client::outbox::{self, Progress, Sent};
use pouch_client::transfer::{self, Standing};
use pouch_client::{Class, Party, Watch, send};
use pouch_statement::Name;
use serde_json::json;

use crate::commands::send::known;
use crate::commands::send::report::{Report, Sends, interruptible};
use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome as Done, printing};
use crate::show::{local, short};

/// Go on with a send that was interrupted
///
/// What the relay has is not sent again. If the files have changed since, it begins anew. What `send - --spool` kept is sent in
/// a new bundle where the old one is over, or is for keys that were replaced.
#[derive(Args)]
pub(super) struct Resume {
    /// Which
    #[arg(value_name = "ID")]
    id: String,
    /// Send what `send - --spool` kept to these instead; several times, or with commas, for several
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    to: Vec<Name>,
}

/// Forget a send that was interrupted: what the relay has of it, and what is kept here to go on with it
#[derive(Args)]
pub(super) struct Forget {
    /// Which
    #[arg(value_name = "ID")]
    id: String,
}

impl Resume {
    pub(super) fn run(&self, context: &Context) -> Done {
        let party = context.party()?;
        let sent = outbox::find(&party, &self.id)?;
        let identity = context.unlock(&party)?;
        known(&party, &self.to)?;
        let to = Some(self.to.clone()).filter(|to| !to.is_empty());
        let request = send::resumed(&party, &identity, &sent, to)?;
        let compression = request.compressed();
        let bar = Bar::new(context.show);
        let delivery = interruptible(context, &party, &bar, Sends::Begun, async {
            let api = context.relay(&party).await?;
            Ok(send::send(&party, &api, &identity, request, Arc::clone(&bar) as Arc<dyn Watch>).await?)
        })?;
        Report { delivery: &delivery, compression, file: None, variable: "NAME" }.print(context)
    }
}

impl Forget {
    pub(super) fn run(&self, context: &Context) -> Done {
        let party = context.party()?;
        let sent = outbox::find(&party, &self.id)?;
        let told = context.run(async {
            let api = match context.relay(&party).await {
                Ok(api) => Some(api),
                Err(Failure::Client(error)) if error.class() == Class::Unreachable => None,
                Err(failure) => return Err(failure),
            };
            Ok(outbox::forget(&party, api.as_ref(), sent.bundle).await?)
        })?;
        if !told {
            context.show.warn("the relay could not be told; it forgets what was not finished within a day");
        }
        context.show.object(&json!({ "type": "forgotten", "bundle": sent.bundle })).map_err(printing)?;
        context.show.essence(sent.bundle).map_err(printing)?;
        context.show.line(format_args!("{} is forgotten", short(sent.bundle))).map_err(printing)
    }
}

/// The word for where a bundle stands, and of one that was interrupted how much is done, in hundredths.
pub(super) fn progress(party: &Party, sent: &Sent) -> Result<(serde_json::Value, Option<u8>), Failure> {
    if sent.progress == Progress::Sending {
        match transfer::standing(party, sent.bundle)? {
            Standing::Running => {}
            Standing::Interrupted { percent } => return Ok(("interrupted".into(), percent)),
            Standing::Lost => return Ok(("lost".into(), None)),
        }
    }
    Ok((serde_json::to_value(sent.progress).map_err(Failure::other)?, None))
}

/// What is said of a bundle that is over and was not delivered, if what was piped in is kept.
pub(super) fn kept(party: &Party, sent: &Sent) -> Result<Option<String>, Failure> {
    let id = short(sent.bundle);
    let kept = transfer::keeps(party, sent.bundle)?;
    Ok(kept
        .then(|| format!("not delivered; `pouch outbox resume {id}` sends what was kept, `outbox forget` removes it")))
}

/// What is said of a bundle that is not delivered yet.
pub(super) fn told(party: &Party, sent: &Sent) -> Result<String, Failure> {
    let id = short(sent.bundle);
    Ok(match transfer::standing(party, sent.bundle)? {
        Standing::Running => "being sent".to_owned(),
        Standing::Interrupted { .. } if sent.expires <= now() => kept(party, sent)?.unwrap_or("expired".to_owned()),
        Standing::Interrupted { percent } => {
            let done = percent.map(|percent| format!(" at {percent} %")).unwrap_or_default();
            format!("interrupted{done}; `pouch outbox resume {id}` goes on, until {}", local(sent.expires))
        }
        Standing::Lost => format!("interrupted, and cannot be resumed; `pouch outbox forget {id}` clears it away"),
    })
}
