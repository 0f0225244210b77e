use clap::{Args, Subcommand};
use pouch_client::api::Listing;
use pouch_client::journal::{Ended, Event, Report};
use pouch_statement::Escaped;
use serde_json::json;

use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{iso, local, many, short, size};

/// My journal of every transfer and attempt, and the relay's access record
#[derive(Args)]
pub(crate) struct Log {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Show(Show),
    Verify(Verify),
}

/// Show the journal, oldest first; it is sealed, so this asks for the passphrase
#[derive(Args)]
struct Show {
    /// The relay's access record instead: of everybody for its owner, otherwise what concerns me
    #[arg(long)]
    relay: bool,
}

/// Check that no record of the journal was edited, removed or moved; needs no passphrase
#[derive(Args)]
struct Verify {}

impl Log {
    /// Whether it looks at the journal alone, and not at the relay's record.
    pub(crate) fn is_mine(&self) -> bool {
        !matches!(&self.verb, Verb::Show(verb) if verb.relay)
    }

    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Show(verb) if verb.relay => show_access(context),
            Verb::Show(_) => show(context),
            Verb::Verify(_) => verify(context),
        }
    }
}

fn show(context: &Context) -> Outcome {
    let party = context.party()?;
    let identity = context.unlock(&party)?;
    let report = party.journal().verify()?;
    for event in party.journal().events(&identity.opening())? {
        let mut object = serde_json::to_value(&event).map_err(Failure::other)?;
        if let Some(members) = object.as_object_mut() {
            members.insert("type".into(), "event".into());
            members.insert("time".into(), iso(event.time).into());
        }
        context.show.object(&object).map_err(printing)?;
        context.show.line(line(&event)).map_err(printing)?;
    }
    if report.is_sound() { Ok(()) } else { Err(unsound(&report)) }
}

fn unsound(report: &Report) -> Failure {
    Failure::Told {
        code: 4,
        text: format!("the journal is not what it was: {}", report.finding()),
        hint: Some("keep the folder as it is: it is evidence. Whoever else has receipts can show what was done".into()),
        kind: None,
    }
}

fn line(event: &Event) -> String {
    let action = serde_json::to_value(event.action).ok();
    let action = action.as_ref().and_then(|a| a.as_str()).unwrap_or("?").replace('-', " ");
    let mut text = format!("{}  {action}", local(event.time));
    if let Some(bundle) = event.bundle {
        text += &format!("  {}", short(bundle));
    }
    if let Some(peer) = &event.peer {
        text += &format!("  {peer}");
    }
    if let (Some(files), Some(bytes)) = (event.files, event.size) {
        text += &format!("  {}, {}", many(files, "file"), size(bytes));
    }
    if event.outcome == Ended::Failed {
        text += "  FAILED";
    }
    if let Some(detail) = &event.detail {
        text += &format!("  {}", Escaped(detail));
    }
    text
}

fn verify(context: &Context) -> Outcome {
    let party = context.party()?;
    let report = party.journal().verify()?;
    let found = report.finding();
    context
        .show
        .object(&json!({
            "type": "journal",
            "journal": report.journal,
            "records": report.size,
            "root": report.root.to_string(),
            "sound": report.is_sound(),
            "finding": found,
        }))
        .map_err(printing)?;
    if report.is_sound() {
        context.show.line(format_args!("journal {}: {found}", short(report.journal))).map_err(printing)?;
        return context.show.essence(report.root).map_err(printing);
    }
    Err(unsound(&report))
}

fn show_access(context: &Context) -> Outcome {
    let party = context.party()?;
    let Listing { rows: records, cut } = context.run(async {
        let api = context.relay(&party).await?;
        Ok(api.access().await?)
    })?;
    let shown = records.len();
    let book = party.contacts()?;
    for record in records {
        context
            .show
            .object(&json!({
                "type": "access",
                "seq": record.seq,
                "time": iso(record.time),
                "account": record.account,
                "address": record.address,
                "method": record.method,
                "route": record.route,
                "bundle": record.bundle,
                "status": record.status,
                "problem": record.problem,
                "count": record.count,
            }))
            .map_err(printing)?;
        let who = match record.account {
            None => "nobody known".to_owned(),
            Some(mailbox) if mailbox == party.card().card().mailbox => "me".to_owned(),
            Some(mailbox) => book.by_mailbox(&mailbox).map_or_else(|| short(mailbox), |c| c.name.to_string()),
        };
        context
            .show
            .line(format_args!(
                "{}  {:<12} {:<15} {:<6} {} {}  {} {}{}",
                local(record.time),
                who,
                Escaped(&record.address),
                Escaped(&record.method),
                Escaped(&record.route),
                record.bundle.map(short).unwrap_or_default(),
                record.status,
                record.problem.as_deref().map(|p| Escaped(p).to_string()).unwrap_or_default(),
                if record.count > 1 { format!(" ×{}", record.count) } else { String::new() },
            ))
            .map_err(printing)?;
    }
    if cut { context.show.cut(shown, "newest").map_err(printing) } else { Ok(()) }
}
