use std::sync::Arc;

use clap::Args;
use pouch_client::outbox::Sent;
use pouch_client::requests::{self, Asked, Standing};
use pouch_client::{Party, Watch};
use pouch_core::bundle::Manifest;
use pouch_statement::{Name, Note, Timestamp};
use serde_json::json;

use super::send::report::{Sends, interruptible};
use crate::progress::Bar;
use crate::run::{Context, Outcome as Done, printing};
use crate::show::{iso, joined, local, parse_span, short};

/// Ask somebody for files
///
/// It stands in their `inbox` once they have received it, until they answer it with `send --request ID`, and for up to two
/// weeks after its time. `outbox` shows what is open, late and done; `outbox revoke` takes a request back.
#[derive(Args)]
pub(crate) struct Request {
    /// From whom; several times, or with commas, to ask several people
    #[arg(long, value_name = "NAME", required = true, value_delimiter = ',')]
    from: Vec<Name>,
    /// What is asked for, sealed and signed
    #[arg(long, value_name = "TEXT")]
    note: Note,
    /// By when, from now: 8h, 7d, 2w
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_span)]
    until: u64,
}

impl Request {
    pub(crate) fn run(self, context: &Context) -> Done {
        let party = context.party()?;
        super::send::known(&party, &self.from)?;
        let identity = context.unlock(&party)?;
        let bar = Bar::new(context.show);
        let watch = Arc::clone(&bar) as Arc<dyn Watch>;
        let sent = interruptible(context, &party, &bar, Sends::Begun, async {
            let api = context.relay(&party).await?;
            let what = (self.note.clone(), self.until);
            Ok(requests::ask(&party, &api, &identity, self.from.clone(), what, watch).await?)
        })?;
        report(context, &sent, &self.from)
    }
}

fn report(context: &Context, sent: &Sent, from: &[Name]) -> Done {
    let Some(due) = sent.due else { return Ok(()) };
    let object = json!({
        "type": "requested",
        "bundle": sent.bundle,
        "from": from,
        "due": iso(due),
        "expires": iso(sent.expires),
    });
    context.show.object(&object).map_err(printing)?;
    context.show.essence(sent.bundle).map_err(printing)?;
    let (id, whom, due) = (short(sent.bundle), joined(from), local(due));
    context
        .show
        .line(format_args!("asked {whom} for files by {due}; the answer: pouch send PATH --request {id}"))
        .map_err(printing)
}

/// One that was received just now.
pub(super) fn received(context: &Context, from: &Name, manifest: &Manifest) -> Done {
    let Manifest { bundle, due: Some(due), ref note, .. } = *manifest else { return Ok(()) };
    let asked = Row { bundle, from: Some(from), due, note: note.as_ref(), state: "open" };
    asked.object(context)?;
    context.show.line(format_args!("{from} asks for files by {}", local(due))).map_err(printing)?;
    if let Some(note) = note {
        context.show.line(format_args!("  {note}")).map_err(printing)?;
    }
    context.show.line(format_args!("  answer with: pouch send PATH --request {}", short(bundle))).map_err(printing)
}

/// Those that are not answered. What they ask for is told where that needs no passphrase.
pub(super) fn list(context: &Context, party: &Party, open: &[(Asked, bool)]) -> Done {
    if open.is_empty() {
        return Ok(());
    }
    let quiet = || Err(pouch_client::identity::IdentityError::NoPassphrase(String::new()));
    let identity = party.unlock(quiet).ok();
    let book = party.contacts()?;
    for (asked, withdrawn) in open {
        let note = identity.as_ref().and_then(|identity| asked.note(identity));
        let from = book.by_fingerprint(&asked.from).map(|contact| &contact.name);
        let (state, when) = match (withdrawn, asked.standing()) {
            (true, _) => ("withdrawn", "withdrawn, the relay says".to_owned()),
            (false, Standing::Late) => ("late", format!("LATE since {}", local(asked.due))),
            (false, _) => ("open", format!("by {}", local(asked.due))),
        };
        Row { bundle: asked.bundle, from, due: asked.due, note: note.as_ref(), state }.object(context)?;
        let from = from.map_or_else(|| "somebody unknown".to_owned(), ToString::to_string);
        let what = note.map(|note| format!(": {note}")).unwrap_or_default();
        let id = short(asked.bundle);
        context.show.line(format_args!("{id}  {from} asks for files {when}{what}")).map_err(printing)?;
    }
    Ok(())
}

/// A request as JSON has it.
struct Row<'a> {
    bundle: pouch_statement::BundleId,
    from: Option<&'a Name>,
    due: Timestamp,
    note: Option<&'a Note>,
    state: &'static str,
}

impl Row<'_> {
    fn object(&self, context: &Context) -> Done {
        let Self { bundle, from, due, note, state } = self;
        let object = json!({ "type": "request", "bundle": bundle, "from": from, "due": iso(*due), "note": note, "state": state });
        context.show.object(&object).map_err(printing)
    }
}

/// How a request of mine stands, in words.
pub(super) fn told(sent: &Sent) -> Option<String> {
    let due = sent.due?;
    let done = sent.recipients.iter().filter(|r| r.answer.is_some()).count();
    let of = sent.recipients.len();
    let state =
        match Standing::of(sent, sent.recipients.iter().find(|r| r.answer.is_none()).or(sent.recipients.first())?)? {
            Standing::Done => "answered".to_owned(),
            Standing::Open => format!("asked for by {}", local(due)),
            Standing::Late => format!("asked for, LATE since {}", local(due)),
        };
    Some(if done > 0 && done < of { format!("{state}; {done} of {of} answered") } else { state })
}
