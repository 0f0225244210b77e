use clap::{Args, Subcommand};
use pouch_client::clock::now;
use pouch_client::pipeline;
use pouch_protocol::PipelineStatus;
use pouch_statement::Name;
use serde_json::json;

use crate::run::{Context, Outcome, printing};
use crate::show::{iso, joined, local, parse_span};

/// Identities for jobs that keep nothing: they send in my name, to whom I say, until I say
#[derive(Args)]
pub(crate) struct Pipeline {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    New(New),
    List(List),
    Revoke(Revoke),
}

/// Make one, and print the secret that its job runs with
///
/// The secret is one line, shown once. A job gives it with --pipeline-file, --pipeline-fd or --pipeline-command to `send` (not
/// --out), `outbox` without a verb and `log` (not --relay), and needs no home then. What it sends
/// counts as mine at those recipients, and at nobody else's.
#[derive(Args)]
struct New {
    /// What it is called, by the recipients too
    #[arg(value_name = "NAME")]
    name: Name,
    /// To whom it may send; several times, or with commas, for several recipients
    #[arg(long, value_name = "NAME", required = true, value_delimiter = ',')]
    to: Vec<Name>,
    /// How long it works: 8h, 30d, 12w; 90 days at most
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = parse_span)]
    until: u64,
}

/// List my pipelines, as the relay has them
#[derive(Args)]
struct List {}

/// Have the relay refuse one from now on; what it has sent stays
#[derive(Args)]
struct Revoke {
    /// Which
    #[arg(value_name = "NAME")]
    name: Name,
}

impl Pipeline {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::New(verb) => verb.run(context),
            Verb::List(_) => list(context),
            Verb::Revoke(verb) => revoke(&verb.name, context),
        }
    }
}

impl New {
    fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        let identity = context.unlock(&party)?;
        let network = context.network()?;
        let (line, expires) = context.run(async {
            let api = context.relay(&party).await?;
            Ok(pipeline::make(&party, &api, &identity, (&self.name, &self.to, self.until), &network).await?)
        })?;
        let (name, to) = (&self.name, &self.to);
        context
            .show
            .object(
                &json!({ "type": "pipeline-made", "name": name, "to": to, "expires": iso(expires), "secret": *line }),
            )
            .map_err(printing)?;
        context
            .show
            .line(format_args!(
                "the secret of {name}, which sends to {} until {}:\n\n{}\n",
                joined(to),
                local(expires),
                *line
            ))
            .map_err(printing)?;
        context.show.essence(&*line).map_err(printing)
    }
}

fn list(context: &Context) -> Outcome {
    let party = context.party()?;
    let (pipelines, book) = context.run(async {
        let api = context.relay(&party).await?;
        Ok((pipeline::list(&api).await?, party.contacts()?))
    })?;
    if pipelines.is_empty() {
        context.show.remark("there is no pipeline");
    }
    for one in &pipelines {
        let PipelineStatus { name, created, expires, revoked, recipients, mailbox } = one;
        let known = |to| book.by_mailbox(to).map_or_else(|| "?".to_owned(), |contact| contact.name.to_string());
        let to: Vec<_> = recipients.iter().map(known).collect();
        context
            .show
            .object(&json!({
                "type": "pipeline",
                "name": name,
                "mailbox": mailbox,
                "to": to,
                "created": iso(*created),
                "expires": iso(*expires),
                "revoked": revoked.map(iso),
            }))
            .map_err(printing)?;
        context.show.essence(name).map_err(printing)?;
        let state = match revoked {
            Some(when) => format!("revoked {}", local(*when)),
            None if *expires <= now() => format!("over since {}", local(*expires)),
            None => format!("until {}", local(*expires)),
        };
        context.show.line(format_args!("{name:<16} to {:<20} {state}", joined(&to))).map_err(printing)?;
    }
    Ok(())
}

fn revoke(name: &Name, context: &Context) -> Outcome {
    let party = context.party()?;
    let found = context.run(async {
        let api = context.relay(&party).await?;
        Ok(pipeline::revoke(&party, &api, name).await?)
    })?;
    context
        .show
        .object(&json!({ "type": "pipeline-revoked", "name": name, "mailbox": found.mailbox }))
        .map_err(printing)?;
    context.show.essence(name).map_err(printing)?;
    context.show.line(format_args!("{name} is revoked; what it has sent stays")).map_err(printing)
}
