mod reseal;
mod unfinished;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use clap::{Args, Subcommand};
use pouch_client::api::ApiError;
use pouch_client::identity::{Identity, IdentityError};
use pouch_client::outbox::{self, Progress, Sent};
use pouch_client::requests::Standing;
use pouch_client::transport::TransportError;
use pouch_client::{Class, Error, Party};
use pouch_protocol::{BundleState, BundleStatus, DeliveryState};
use pouch_statement::{BundleId, Name, Outcome, Stage};
use serde_json::json;

use self::reseal::Reseal;
use self::unfinished::{Forget, Resume};
use super::request;
use crate::pipeline;
use crate::run::{Context, Failure, Outcome as Done, printing};
use crate::show::{iso, joined, local, many, parse_span, short, size};

/// How many bundles one listing asks the relay about.
const ASKED: usize = 20;

/// Show what I sent, and the receipts
///
/// Without ID: all bundles, with new receipts fetched and verified for the 20 newest that have no good one. If the relay cannot
/// be reached, what is known here is shown. What is wrong with a receipt is told after the list.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Outbox {
    /// One bundle, and where it stands on the relay; all if not given
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    Revoke(Revoke),
    Extend(Extend),
    Add(Add),
    Reseal(Reseal),
    Resume(Resume),
    Forget(Forget),
}

/// Let a bundle be fetched for longer, or end it earlier
///
/// Each recipient who has not received it gets a new signed manifest with the new end. The content stays as it is. Whoever is
/// revoked, or may not be sent to for another reason, is left out of an earlier end, with a warning; while there is such a
/// one, a later end is refused.
#[derive(Args)]
struct Extend {
    /// Which
    #[arg(value_name = "ID")]
    id: String,
    /// How long it may be fetched from now on: 90s, 15m, 8h, 7d, 2w
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    until: u64,
}

/// Deliver a bundle to one recipient more, without sending the content again
#[derive(Args)]
struct Add {
    /// Which
    #[arg(value_name = "ID")]
    id: String,
    /// To whom
    #[arg(long, value_name = "NAME")]
    to: Name,
}

/// Withdraw a bundle: the relay deletes it; what was fetched before cannot be called back
#[derive(Args)]
struct Revoke {
    /// Which
    #[arg(value_name = "ID")]
    id: String,
}

impl Outbox {
    /// Whether it shows and changes nothing.
    pub(crate) fn shows(&self) -> bool {
        self.verb.is_none()
    }

    pub(crate) fn run(self, context: &Context) -> Done {
        match (self.verb, self.id) {
            (Some(Verb::Revoke(verb)), _) => revoke(&verb.id, context),
            (Some(Verb::Extend(verb)), _) => verb.run(context),
            (Some(Verb::Add(verb)), _) => verb.run(context),
            (Some(Verb::Reseal(verb)), _) => verb.run(context),
            (Some(Verb::Resume(verb)), _) => verb.run(context),
            (Some(Verb::Forget(verb)), _) => verb.run(context),
            (None, id) => {
                let party = context.party()?;
                let shown = match id {
                    Some(id) => one(&party, &id, context),
                    None => all(&party, context),
                };
                pipeline::keep(context, &party, shown)
            }
        }
    }
}

fn all(party: &Party, context: &Context) -> Done {
    let mut list = outbox::list(party)?;
    outbox::forget_keys(party, &mut list)?;
    if list.is_empty() {
        context.show.remark("nothing was sent yet");
    }
    let mut statuses = BTreeMap::new();
    // What is wrong with a receipt is told after the listing, which shows what is known all the same.
    let verdict = match news(context, party, &mut list, &mut statuses) {
        Err(Failure::Client(error)) if error.class() == Class::Unreachable => {
            context.show.warn(format_args!("no new receipts were fetched: {error}"));
            Ok(())
        }
        Err(Failure::Client(Error::Identity(IdentityError::NoPassphrase(_)))) => {
            context.show.warn("a receipt came; opening it needs the passphrase");
            Ok(())
        }
        other => other,
    };
    for sent in &list {
        object(context, party, sent, statuses.get(&sent.bundle))?;
        context.show.essence(sent.bundle).map_err(printing)?;
        let to: Vec<_> = sent.recipients.iter().map(|r| &r.name).collect();
        context
            .show
            .line(format_args!(
                "{}  to {:<16} {:>10}  {}  {}",
                short(sent.bundle),
                joined(&to),
                size(sent.size),
                local(sent.created),
                state(party, sent)?,
            ))
            .map_err(printing)?;
    }
    verdict
}

/// Asks the relay about the newest bundles that await a receipt. One passphrase for all of them, and only if one came.
/// What is wrong with one bundle does not keep the receipts of the others away: the first such error is given when all
/// were asked about, the others are warnings (attacks.md 25).
fn news(
    context: &Context,
    party: &Party,
    list: &mut [Sent],
    statuses: &mut BTreeMap<BundleId, BundleStatus>,
) -> Result<(), Failure> {
    let open: Vec<&mut Sent> = list.iter_mut().filter(|sent| outbox::awaits_receipt(sent)).take(ASKED).collect();
    if open.is_empty() {
        return Ok(());
    }
    let identity: RefCell<Option<Rc<Identity>>> = RefCell::default();
    let unlock = || {
        let known = identity.borrow().clone();
        let opened = known.map_or_else(|| context.unlock(party).map(Rc::new), Ok)?;
        Ok(Rc::clone(identity.borrow_mut().insert(opened)))
    };
    context.run(async {
        let api = context.relay(party).await?;
        let mut first: Option<Error> = None;
        for sent in open {
            match outbox::refresh(party, &api, sent, &unlock).await {
                Ok(status) => drop(statuses.insert(sent.bundle, status)),
                // Ended so long ago that the relay has forgotten it.
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) => {
                    let last = !is_of_one_bundle(&error);
                    if first.is_some() {
                        context.show.warn(format_args!("bundle {}: {error}", short(sent.bundle)));
                    }
                    first.get_or_insert(error);
                    if last {
                        break;
                    }
                }
            }
        }
        first.map_or(Ok(()), |error| Err(error.into()))
    })
}

/// Whether asking about the next bundle may go better: it is one receipt or one answer that is not right, neither the way
/// to the relay nor anything of mine.
fn is_of_one_bundle(error: &Error) -> bool {
    let answer = matches!(
        error,
        Error::BadReceipt(..)
            | Error::NeverDelivered(_)
            | Error::Api(
                ApiError::Refused { .. } | ApiError::Protocol { .. } | ApiError::Transport(TransportError::TooLong(_))
            )
    );
    answer && error.class() != Class::Unreachable
}

/// What I know without asking the relay.
fn state(party: &Party, sent: &Sent) -> Result<String, Failure> {
    if sent.progress == Progress::Sent
        && let Some(told) = request::told(sent)
    {
        return Ok(told);
    }
    let verdicts: Vec<_> = sent.recipients.iter().filter_map(|r| sent.verdict(r)).collect();
    if let Some(verdict) = verdicts.first() {
        return Ok(match verdict.outcome {
            Outcome::Verified if sent.progress == Progress::Revoked => {
                format!("revoked; received {} before", local(verdict.created))
            }
            Outcome::Verified => format!("received {}", local(verdict.created)),
            Outcome::Failed => "FAILED at the recipient's".into(),
        });
    }
    Ok(match sent.progress {
        Progress::Sending => return unfinished::told(party, sent),
        Progress::Committing => "not known whether delivered; `pouch outbox ID` finds out".into(),
        Progress::Sent => format!("no receipt seen yet; until {}", local(sent.expires)),
        Progress::Undelivered => {
            unfinished::kept(party, sent)?.unwrap_or("the relay says that it was not delivered".into())
        }
        Progress::Carried => "written to a file".into(),
        Progress::Revoked => "revoked".into(),
    })
}

fn one(party: &Party, id: &str, context: &Context) -> Done {
    let mut sent = outbox::find(party, id)?;
    let status = if sent.progress == Progress::Carried {
        None
    } else {
        let fetched = context.run(async {
            let api = context.relay(party).await?;
            Ok(outbox::refresh(party, &api, &mut sent, || context.unlock(party)).await?)
        })?;
        Some(fetched)
    };
    object(context, party, &sent, status.as_ref())?;
    context.show.essence(sent.bundle).map_err(printing)?;
    let on_relay = status.as_ref().map_or("not on the relay", |s| match s.state {
        BundleState::Pending => "not finished",
        BundleState::Committed => "waiting on the relay",
        BundleState::Expired => "expired",
        BundleState::Burnt => "burnt",
        BundleState::Revoked => "revoked",
        BundleState::TakenDown => "taken down by the relay's owner",
    });
    context
        .show
        .line(format_args!(
            "{}\n  {} in {}, {on_relay}, until {}",
            sent.bundle,
            size(sent.size),
            many(sent.files, "file"),
            local(sent.expires)
        ))
        .map_err(printing)?;
    if let Some(told) = request::told(&sent) {
        context.show.line(format_args!("  a request for files: {told}")).map_err(printing)?;
    }
    if sent.progress == Progress::Committing {
        let hint = format_args!("  all of it is there; `pouch outbox resume {}` delivers it", short(sent.bundle));
        context.show.line(hint).map_err(printing)?;
    }
    if let Some(reason) = status.as_ref().and_then(|s| s.reason.as_ref()) {
        context.show.line(format_args!("  taken down because: {reason}")).map_err(printing)?;
    }
    for recipient in &sent.recipients {
        let delivery = status.as_ref().and_then(|s| s.deliveries.iter().find(|d| d.mailbox == recipient.mailbox));
        let text = match (sent.verdict(recipient), delivery.map(|d| d.state)) {
            (Some(v), _) if v.outcome == Outcome::Verified => {
                format!("received and verified, {}; receipt verified", local(v.created))
            }
            (Some(v), _) => format!("FAILED{}, {}; receipt verified", at(v.stage), local(v.created)),
            (None, Some(DeliveryState::Released)) => "fetched the envelope; no receipt yet".into(),
            (None, _) => "has not fetched it".to_owned(),
        };
        context.show.line(format_args!("  {:<16} {text}", recipient.name)).map_err(printing)?;
        if let Some(answer) = recipient.answer {
            context.show.line(format_args!("  {:<16} answered with {}", "", short(answer))).map_err(printing)?;
        }
    }
    Ok(())
}

/// Where a recipient's verification failed.
pub(super) fn at(stage: Option<Stage>) -> String {
    stage.map(|s| format!(" at the {s}")).unwrap_or_default()
}

fn object(context: &Context, party: &Party, sent: &Sent, status: Option<&BundleStatus>) -> Done {
    let (progress, percent) = unfinished::progress(party, sent)?;
    let recipients: Vec<_> = sent
        .recipients
        .iter()
        .map(|r| {
            let verdict = sent.verdict(r);
            let delivery = status.and_then(|s| s.deliveries.iter().find(|d| d.mailbox == r.mailbox));
            json!({
                "name": r.name,
                "fingerprint": r.fingerprint,
                "manifest_sha256": r.manifest_sha256,
                "delivery": delivery.map(|d| d.state),
                "outcome": verdict.as_ref().map(|v| v.outcome),
                "stage": verdict.as_ref().and_then(|v| v.stage),
                "receipt_time": verdict.as_ref().map(|v| iso(v.created)),
                "receipt": r.receipt,
                "request": Standing::of(sent, r),
                "answer": r.answer,
            })
        })
        .collect();
    context
        .show
        .object(&json!({
            "type": "bundle",
            "bundle": sent.bundle,
            "kind": sent.kind,
            "progress": progress,
            "percent": percent,
            "relay": status.map(|s| s.state),
            "reason": status.and_then(|s| s.reason.as_ref()),
            "created": iso(sent.created),
            "expires": iso(sent.expires),
            "due": sent.due.map(iso),
            "size": sent.size,
            "files": sent.files,
            "recipients": recipients,
        }))
        .map_err(printing)
}

impl Extend {
    fn run(self, context: &Context) -> Done {
        let party = context.party()?;
        let mut sent = outbox::find(&party, &self.id)?;
        let identity = context.unlock(&party)?;
        let done = context.run(async {
            let api = context.relay(&party).await?;
            let expires = pouch_client::clock::now().plus(self.until);
            Ok(outbox::extend(&party, &api, &identity, &mut sent, expires).await?)
        })?;
        object(context, &party, &sent, None)?;
        context.show.essence(sent.bundle).map_err(printing)?;
        let (id, until) = (short(sent.bundle), local(sent.expires));
        context
            .show
            .line(format_args!("{id} may be fetched until {until} by {}", joined(&done.to)))
            .map_err(printing)?;
        for (name, why) in &done.left_out {
            context.show.warn(format_args!("{id}: {name} gets no new envelope: {why}"));
        }
        Ok(())
    }
}

impl Add {
    fn run(self, context: &Context) -> Done {
        let party = context.party()?;
        let mut sent = outbox::find(&party, &self.id)?;
        let identity = context.unlock(&party)?;
        context.run(async {
            let api = context.relay(&party).await?;
            Ok(outbox::add(&party, &api, &identity, &mut sent, &self.to).await?)
        })?;
        object(context, &party, &sent, None)?;
        context.show.essence(sent.bundle).map_err(printing)?;
        let (id, to) = (short(sent.bundle), &self.to);
        context.show.line(format_args!("{to} runs: pouch receive {id}")).map_err(printing)
    }
}

fn revoke(id: &str, context: &Context) -> Done {
    let party = context.party()?;
    let mut sent = outbox::find(&party, id)?;
    let had = context.run(async {
        let api = context.relay(&party).await?;
        Ok(outbox::revoke(&party, &api, &mut sent).await?)
    })?;
    object(context, &party, &sent, None)?;
    context.show.line(format_args!("{} is revoked", short(sent.bundle))).map_err(printing)?;
    for name in had {
        context.show.warn(format_args!("{name} had fetched the envelope before; what they have cannot be called back"));
    }
    Ok(())
}
