//! What the owner of a relay sees of its accounts, and does to them and to bundles.

use clap::Args;
use pouch_client::Class;
use pouch_client::api::{ApiError, Listing, RelayApi};
use pouch_protocol::Account;
use pouch_statement::{BundleId, Note, matches_prefix};
use serde_json::{Value, json};

use crate::commands::invite::RoleArg;
use crate::exit;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{iso, local, short, size};

/// List the accounts of the relay that I own
#[derive(Args)]
pub(super) struct Accounts {}

/// Refuse all requests of an account on the relay that I own, until it is restored
///
/// What others send to it waits in its mailbox. What it sent before can still be received.
#[derive(Args)]
pub(super) struct Suspend {
    #[command(flatten)]
    whose: Whose,
}

/// Take the requests of a suspended account again
#[derive(Args)]
pub(super) struct Restore {
    #[command(flatten)]
    whose: Whose,
}

/// Say what an account may do on the relay that I own
#[derive(Args)]
pub(super) struct Role {
    #[command(flatten)]
    whose: Whose,
    /// From now on
    #[arg(value_name = "ROLE", value_enum)]
    role: RoleArg,
}

/// End a bundle on the relay that I own, at once and for all
///
/// Sender and recipients are told the reason. What somebody has fetched before cannot be called back.
#[derive(Args)]
pub(super) struct Takedown {
    /// The bundle's whole id, as `pouch log show --relay --json` has it
    #[arg(value_name = "BUNDLE")]
    bundle: BundleId,
    /// What sender and recipients are told
    #[arg(long, value_name = "TEXT")]
    reason: Note,
}

// Not a doc comment: that would become the help of the commands that it is part of.
#[derive(Args)]
struct Whose {
    /// The name on its card, or its mailbox or the beginning of it; `pouch relay accounts` lists both
    #[arg(value_name = "NAME|MAILBOX")]
    account: String,
}

impl Suspend {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let account = self.whose.change(context, async |api, account| api.suspend(account.mailbox).await)?;
        told(context, "suspended", &account, json!({}), "is suspended")
    }
}

impl Restore {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let account = self.whose.change(context, async |api, account| api.restore(account.mailbox).await)?;
        told(context, "restored", &account, json!({}), "is restored")
    }
}

impl Role {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let role = self.role.into();
        let account = self.whose.change(context, async |api, account| api.set_role(account.mailbox, role).await)?;
        told(context, "role", &account, json!({ "role": role }), &format!("is a {} from now on", role.word()))
    }
}

/// Says what was done to an account.
fn told(context: &Context, kind: &str, account: &Account, more: Value, what: &str) -> Outcome {
    let mut object = json!({ "type": kind, "mailbox": account.mailbox, "name": account.name });
    if let (Some(members), Value::Object(more)) = (object.as_object_mut(), more) {
        members.extend(more);
    }
    context.show.object(&object).map_err(printing)?;
    context.show.essence(account.mailbox).map_err(printing)?;
    context.show.line(format_args!("{}  {} {what}", short(account.mailbox), account.name)).map_err(printing)
}

impl Whose {
    /// The account that is meant: by its whole name, or else by its mailbox.
    fn find(&self, accounts: &Listing<Account>) -> Result<Account, Failure> {
        let named = |account: &&Account| account.name.as_str() == self.account;
        let held = |account: &&Account| matches_prefix(&account.mailbox.to_string(), &self.account);
        let mut found: Vec<&Account> = accounts.rows.iter().filter(named).collect();
        if found.is_empty() {
            found = accounts.rows.iter().filter(held).collect();
        }
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(Failure::Told {
                code: exit::code(Class::NotFound),
                text: format!("there is no account {}", self.account),
                hint: Some("`pouch relay accounts` lists them".into()),
                kind: None,
            }),
            several => {
                let mailboxes: Vec<_> = several.iter().map(|account| account.mailbox.to_string()).collect();
                Err(Failure::usage(
                    format!("{} may be any of {}", self.account, mailboxes.join(", ")),
                    "name one by its mailbox",
                ))
            }
        }
    }

    /// Does something to it; the account as it was before.
    fn change(
        &self,
        context: &Context,
        act: impl AsyncFnOnce(&RelayApi, &Account) -> Result<(), ApiError>,
    ) -> Result<Account, Failure> {
        let party = context.party()?;
        context.run(async {
            let api = context.relay(&party).await?;
            let account = self.find(&api.accounts().await?)?;
            act(&api, &account).await?;
            Ok(account)
        })
    }
}

impl Takedown {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let Self { bundle, reason } = self;
        if reason.as_str().is_empty() {
            return Err(Failure::usage("a takedown needs a reason", "--reason is what sender and recipients are told"));
        }
        let party = context.party()?;
        let takedown = pouch_protocol::Takedown { reason };
        context.run(async { Ok(context.relay(&party).await?.take_down(bundle, &takedown).await?) })?;
        context
            .show
            .object(&json!({ "type": "taken-down", "bundle": bundle, "reason": takedown.reason }))
            .map_err(printing)?;
        context.show.essence(bundle).map_err(printing)?;
        context.show.line(format_args!("{bundle} is taken down: {}", takedown.reason)).map_err(printing)
    }
}

impl Accounts {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        let Listing { rows: accounts, cut } = context.run(async {
            let api = context.relay(&party).await?;
            Ok(api.accounts().await?)
        })?;
        let shown = accounts.len();
        for account in accounts {
            context
                .show
                .object(&json!({
                    "type": "account",
                    "mailbox": account.mailbox,
                    "name": account.name,
                    "role": account.role,
                    "created": iso(account.created),
                    "used": account.used,
                    "quota": account.quota,
                    "bundles": account.bundles,
                    "suspended": account.suspended.map(iso),
                }))
                .map_err(printing)?;
            context.show.essence(account.mailbox).map_err(printing)?;
            let role = account.role.word();
            context
                .show
                .line(format_args!(
                    "{}  {:<16} {role:<10} since {}  {} of {} in {} bundles{}",
                    short(account.mailbox),
                    account.name,
                    local(account.created),
                    size(account.used),
                    size(account.quota),
                    account.bundles,
                    account.suspended.map(|since| format!("  suspended since {}", local(since))).unwrap_or_default(),
                ))
                .map_err(printing)?;
        }
        if cut { context.show.cut(shown, "oldest").map_err(printing) } else { Ok(()) }
    }
}
