use clap::Args;
use pouch_client::join;
use pouch_protocol::{AccountRole, Link};
use pouch_statement::Name;
use serde_json::json;

use crate::commands::card::strength;
use crate::prompt::secret_line;
use crate::run::{Context, Failure, Outcome, printing};

/// Paste a one-time link and be somebody on its relay
///
/// The link is asked for on the terminal, or read as one line from standard input: it is a secret and has no place in
/// arguments. Whoever made it is pinned at once.
#[derive(Args)]
pub(crate) struct Join {
    /// What others see on your card; your user name if not given
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// Taken only to refuse it without repeating it
    #[arg(hide = true)]
    link: Option<std::ffi::OsString>,
    /// Keep the identity without a passphrase, for machines
    #[arg(long)]
    no_passphrase: bool,
    /// Make a classic key, for tools that know no hybrid ones (age before 1.3)
    ///
    /// Whoever keeps what is sealed for it today may open it with a quantum computer later.
    #[arg(long)]
    classic: bool,
}

impl Join {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        if self.link.is_some() {
            return Err(Failure::usage(
                "a link is a secret and has no place in arguments, where other users and histories see it",
                "run `pouch join` and paste it, or pipe it in; this one is used up only when somebody joins with it",
            ));
        }
        let home = context.home()?;
        // Before anything is asked for: a link that is pasted into the wrong home is not spent.
        if pouch_client::is_joined(&home) {
            return Err(pouch_client::Error::AlreadyJoined.into());
        }
        let name = match self.name {
            Some(name) => name,
            None => {
                let user = std::env::var("USER").unwrap_or_default();
                user.parse().map_err(|_| Failure::usage("no name given", "say who you are: --name NAME"))?
            }
        };
        let link: Link = secret_line("paste the link: ").map_err(Failure::other)?.parse()?;
        let passphrase = if self.no_passphrase || join::resumes(&home, &link) {
            None
        } else {
            Some(context.asker().new_passphrase()?)
        };
        let new = join::NewIdentity { passphrase: passphrase.as_ref(), classic: self.classic };
        let network = context.network()?;
        let joined = context.run(async { Ok(join::join(&home, &link, &name, new, &network).await?) })?;
        let role = match joined.role {
            AccountRole::Owner => "owner of this relay",
            AccountRole::Member => "a member of this relay",
            // No link makes one.
            AccountRole::Pipeline => "a pipeline on this relay",
            AccountRole::Contractor => {
                "a contractor on this relay: you receive, and send to who invited you or sent to you"
            }
        };
        let words = joined.card.fingerprint().words();
        context
            .show
            .object(&json!({
                "type": "joined",
                "name": joined.card.card().name,
                "fingerprint": joined.card.fingerprint(),
                "words": words,
                "relay": joined.card.card().relay,
                "role": joined.role,
                "post_quantum": joined.card.card().age_recipient.is_post_quantum(),
                "inviter": joined.inviter.as_ref().map(|c| json!({ "name": c.name, "fingerprint": c.fingerprint() })),
            }))
            .map_err(printing)?;
        context.show.line(format_args!("you are {}, {role}", joined.card.card().name)).map_err(printing)?;
        context.show.line(format_args!("your words: {words}")).map_err(printing)?;
        let recipient = &joined.card.card().age_recipient;
        context.show.line(format_args!("your key: {}", strength(recipient))).map_err(printing)?;
        if let Some(inviter) = joined.inviter {
            let words = inviter.fingerprint().words();
            context.show.line(format_args!("{} pinned: {words}", inviter.name)).map_err(printing)?;
        }
        context.show.essence(joined.card.fingerprint()).map_err(printing)
    }
}
