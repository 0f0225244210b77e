use clap::{Args, Subcommand, ValueEnum};
use pouch_client::invite;
use pouch_protocol::AccountRole;
use pouch_statement::Name;
use serde_json::json;

use crate::run::{Context, Outcome, printing};
use crate::show::{iso, local, short, span};

/// Make a one-time link for somebody
///
/// Give it to them over a channel that you trust to reach only them. Their card is verified and pinned under NAME by
/// the next command of yours that reaches the relay.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Invite {
    /// Your name for them
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<Name>,
    /// What they may do on the relay
    #[arg(long, value_name = "ROLE", value_enum, default_value_t = RoleArg::Contractor)]
    role: RoleArg,
    /// List my links that are open, or were used and not yet looked after
    #[arg(long, conflicts_with = "name")]
    list: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    Withdraw(Withdraw),
}

/// Make an invitation's link good for nothing, before it is used
#[derive(Args)]
struct Withdraw {
    /// Who was invited
    #[arg(value_name = "NAME")]
    name: Name,
}

/// The roles that can be given to somebody.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum RoleArg {
    /// Receives, and sends to who invited them or has sent to them
    Contractor,
    /// Sends to everybody, and invites contractors; only the relay's owner invites members
    Member,
}

impl From<RoleArg> for AccountRole {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Contractor => Self::Contractor,
            RoleArg::Member => Self::Member,
        }
    }
}

impl Invite {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match (self.verb, self.name) {
            (Some(Verb::Withdraw(verb)), _) => withdraw(&verb.name, context),
            (None, Some(name)) => invite(&name, self.role.into(), context),
            (None, None) => list(context),
        }
    }
}

fn invite(name: &Name, role: AccountRole, context: &Context) -> Outcome {
    let party = context.party()?;
    super::contact::warn_of_alike(context, &party, name)?;
    let (link, expires) = context.run(async {
        let api = context.relay(&party).await?;
        Ok(invite::invite(&party, &api, name, role).await?)
    })?;
    let text = link.expose_text();
    let left = span(expires.since(pouch_client::clock::now()) + 1);
    context
        .show
        .object(&json!({ "type": "invited", "name": name, "role": role, "link": *text, "expires": iso(expires) }))
        .map_err(printing)?;
    context
        .show
        .line(format_args!(
            "message for {name}: install pouch, run `pouch join`, and paste this link (once, {left}):\n\n{}\n",
            *text
        ))
        .map_err(printing)?;
    context.show.essence(&*text).map_err(printing)
}

fn list(context: &Context) -> Outcome {
    let party = context.party()?;
    let invitations = context.run(async {
        let api = context.relay(&party).await?;
        Ok(invite::list(&party, &api).await?)
    })?;
    if invitations.is_empty() {
        context.show.remark("there is no open invitation");
    }
    for invitation in invitations {
        let status = &invitation.status;
        let used = status.joiner.is_some();
        context
            .show
            .object(&json!({
                "type": "invitation",
                "link": status.link,
                "name": invitation.name,
                "role": status.role,
                "created": iso(status.created),
                "expires": iso(status.expires),
                "used": used,
            }))
            .map_err(printing)?;
        context.show.essence(status.link).map_err(printing)?;
        let name = invitation.name.as_ref().map_or("(not of this home)", Name::as_str);
        let state = if used { "used".to_owned() } else { format!("open until {}", local(status.expires)) };
        let (link, role) = (short(status.link), status.role.word());
        context.show.line(format_args!("{link}  {name:<20} {role:<10} {state}")).map_err(printing)?;
    }
    Ok(())
}

fn withdraw(name: &Name, context: &Context) -> Outcome {
    let party = context.party()?;
    context.run(async {
        let api = context.relay(&party).await?;
        Ok(invite::withdraw(&party, &api, name).await?)
    })?;
    context.show.object(&json!({ "type": "withdrawn", "name": name })).map_err(printing)?;
    context.show.essence(name).map_err(printing)?;
    context.show.line(format_args!("the link for {name} is good for nothing any more")).map_err(printing)
}
