mod revoke;
mod rotate;

use std::io::Read as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pouch_client::clock::now;
use pouch_client::contacts::{self, AddressBook, ContactError, Verified};
use pouch_client::journal::{Action, Ended, Event};
use pouch_client::{Error, Party};
use pouch_statement::{AgeRecipient, Detached, Name, SignedCard};
use serde_json::json;

use self::revoke::Revoke;
use self::rotate::Rotate;
use crate::commands::card::strength;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{iso, local};

/// The longest card file that is read, in bytes.
const MAX_CARD: u64 = 128 << 10;

/// The address book: whom I know, and how I know that it is them
#[derive(Args)]
pub(crate) struct Contact {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Add(Add),
    List(List),
    Show(Show),
    Verify(Verify),
    Rotate(Rotate),
    Revoke(Revoke),
    Remove(Remove),
}

/// Pin the card in a file, or on standard input with -
#[derive(Args)]
struct Add {
    /// The file that `pouch card` wrote at theirs
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Your name for them, if not the one on the card
    #[arg(long, value_name = "NAME")]
    name: Option<Name>,
    /// The twelve words that they told you: verified if these are the card's, refused otherwise
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
}

/// List contacts
#[derive(Args)]
struct List {}

/// Show one contact in full
#[derive(Args)]
struct Show {
    /// Who
    name: Name,
}

/// Compare the twelve words with somebody, on another channel than pouch
#[derive(Args)]
struct Verify {
    /// Who
    name: Name,
    /// The words that they told you; asked for on a terminal if not given
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
}

/// Forget a contact
#[derive(Args)]
struct Remove {
    /// Who
    name: Name,
}

impl Contact {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        match self.verb {
            Verb::Add(verb) => add(verb, &party, context),
            Verb::List(_) => list(&party, context),
            Verb::Show(verb) => show(&verb.name, &party, context),
            Verb::Verify(verb) => verify(verb, &party, context),
            Verb::Rotate(verb) => verb.run(&party, context),
            Verb::Revoke(verb) => verb.run(&party, context),
            Verb::Remove(verb) => remove(&verb.name, &party, context),
        }
    }
}

/// The text of a card or of rotations; `-` is standard input.
fn read_text(file: &PathBuf) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_CARD).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(MAX_CARD).read_to_string(&mut text))
    };
    read.map_err(|e| Error::File(format!("cannot read {}", file.display()), e))?;
    if text.contains(crate::show::SECRET_KEY) {
        return Err(Failure::usage(
            "this holds a secret key and is nobody's card",
            "`pouch card` at theirs writes a card",
        ));
    }
    Ok(text)
}

fn read_card(file: &PathBuf) -> Result<SignedCard, Failure> {
    let text = read_text(file)?;
    let detached = Detached::from_text(&text).map_err(|e| Error::Statement(e.into()))?;
    Ok(SignedCard::verify(&detached).map_err(Error::Card)?)
}

/// Compares words that a person was told; a mismatch is a hard stop.
fn matches(card: &SignedCard, words: &str) -> Result<(), Failure> {
    let same = card.fingerprint().matches_words(words);
    match same {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Told {
            code: 4,
            text: "the words are another card's: this card is not theirs".into(),
            hint: Some("do not use it; get the card again from them, over another channel".into()),
            kind: None,
        }),
        Err(e) => Err(Failure::usage(e.to_string(), "a slip? all twelve, in order, as they read them to you")),
    }
}

fn add(verb: Add, party: &Party, context: &Context) -> Outcome {
    let card = read_card(&verb.file)?;
    card.check_valid_at(now()).map_err(Error::Card)?;
    let verified = match &verb.words {
        Some(words) => matches(&card, words).map(|()| Verified::Words)?,
        None => Verified::No,
    };
    let name = verb.name.unwrap_or_else(|| card.card().name.clone());
    warn_of_alike(context, party, &name)?;
    let contact = contacts::Contact::new(name, card, verified, now());
    party.pin(contact.clone())?;
    print(&contact, context)?;
    if verified == Verified::No {
        to_be_verified(context, &contact);
    }
    Ok(())
}

fn to_be_verified(context: &Context, contact: &contacts::Contact) {
    context.show.remark(format_args!(
        "not verified yet: compare the words with them, then run `pouch contact verify {}`",
        contact.name
    ));
}

/// Warns if a new name can be taken for that of somebody else (attacks.md 36).
pub(super) fn warn_of_alike(context: &Context, party: &Party, name: &Name) -> Outcome {
    if let Some(other) = party.contacts()?.alike(name) {
        let hint = "before you send, compare the words: `pouch contact show NAME`";
        context.show.warn(format_args!("{name} looks like {other}, who is somebody else; {hint}"));
    }
    Ok(())
}

fn list(party: &Party, context: &Context) -> Outcome {
    if pouch_client::invite::any_pending(party)? {
        context.run(async { context.relay(party).await.map(|_| ()) })?;
    }
    let book = party.contacts()?;
    if book.all().is_empty() {
        context.show.remark("nobody yet; `pouch invite NAME` invites somebody");
    }
    for contact in book.all() {
        object(contact, context)?;
        context.show.essence(&contact.name).map_err(printing)?;
        let line = format!("{:<16} {:<12} {}", contact.name, how(contact), contact.fingerprint().words());
        context.show.line(line).map_err(printing)?;
    }
    Ok(())
}

fn how(contact: &contacts::Contact) -> &'static str {
    match contact.verified {
        _ if contact.revoked.is_some() => "REVOKED",
        Verified::Link => "by link",
        Verified::Words => "by words",
        Verified::No => "NOT VERIFIED",
    }
}

fn show(name: &Name, party: &Party, context: &Context) -> Outcome {
    print(party.contacts()?.named(name)?, context)
}

fn print(contact: &contacts::Contact, context: &Context) -> Outcome {
    object(contact, context)?;
    let card = contact.card();
    context
        .show
        .line(format_args!(
            "{}\n  words     {}\n  verified  {}{}\n  on card   {}, serial {}, until {}\n  relay     {}\n  key       {}\n  age       {}",
            contact.name,
            contact.fingerprint().words(),
            how(contact),
            contact.verified_at.map(|t| format!(", {}", local(t))).unwrap_or_default(),
            card.name,
            card.serial,
            local(card.expires),
            card.relay,
            strength(&card.age_recipient),
            short(&card.age_recipient),
        ))
        .map_err(printing)?;
    context.show.essence(contact.fingerprint()).map_err(printing)
}

/// A hybrid recipient has about two thousand characters, which `--json` and the card have; a line shows the first.
fn short(recipient: &AgeRecipient) -> String {
    let text = recipient.as_str();
    match text.get(..40) {
        Some(first) if recipient.is_post_quantum() => format!("{first}…"),
        _ => text.to_owned(),
    }
}

fn object(contact: &contacts::Contact, context: &Context) -> Outcome {
    context
        .show
        .object(&json!({
            "type": "contact",
            "name": contact.name,
            "fingerprint": contact.fingerprint(),
            "words": contact.fingerprint().words(),
            "verified": contact.verified,
            "verified_at": contact.verified_at.map(iso),
            "added": iso(contact.added),
            "card_name": contact.card().name,
            "serial": contact.card().serial,
            "expires": iso(contact.card().expires),
            "relay": contact.card().relay,
            "age_recipient": contact.card().age_recipient,
            "post_quantum": contact.card().age_recipient.is_post_quantum(),
            "signing_key": contact.card().signing_key,
            "former": contact.former.iter().map(|f| f.card.fingerprint()).collect::<Vec<_>>(),
            "revoked": contact.revoked.map(iso),
        }))
        .map_err(printing)
}

fn verify(verb: Verify, party: &Party, context: &Context) -> Outcome {
    let contact = party.contacts()?.named(&verb.name)?.clone();
    let event = |outcome| Event::new(Action::ContactVerified, outcome).with_peer(&contact.name, contact.fingerprint());
    let checked = match &verb.words {
        Some(words) => matches(&contact.card, words),
        None => ask(&contact.name, &contact.card, "give the words that they told you: --words \"…\""),
    };
    if let Err(failure) = checked {
        party.journal().append(&event(Ended::Failed))?;
        return Err(failure);
    }
    AddressBook::change(&party.home, |book| {
        // What was compared is the card, not the name: it may have another card by now.
        let known = book.by_fingerprint_mut(&contact.fingerprint());
        let same = known.filter(|known| known.fingerprint() == contact.fingerprint());
        let contact = same.ok_or_else(|| ContactError::Unknown(verb.name.clone()))?;
        contact.verified = Verified::Words;
        contact.verified_at = Some(now());
        Ok(())
    })?;
    party.journal().append(&event(Ended::Done))?;
    object(party.contacts()?.named(&verb.name)?, context)?;
    context.show.line(format_args!("{} is verified by words", verb.name)).map_err(printing)
}

/// Has the person type what the other side reads out: whoever only confirms what is shown compares nothing.
fn ask(name: &Name, card: &SignedCard, instead: &str) -> Outcome {
    if !crate::prompt::can_prompt() {
        return Err(Failure::usage("no terminal to ask on", instead));
    }
    let question = format!("type the twelve words that {name} reads to you: ");
    let words = crate::prompt::visible(&question).map_err(Failure::other)?;
    matches(card, &words)
}

fn remove(name: &Name, party: &Party, context: &Context) -> Outcome {
    let gone = AddressBook::change(&party.home, |book| book.remove(name))?;
    let event = Event::new(Action::ContactRemoved, Ended::Done).with_peer(&gone.name, gone.fingerprint());
    party.journal().append(&event)?;
    context.show.object(&json!({ "type": "removed", "name": name })).map_err(printing)?;
    context.show.line(format_args!("{name} is forgotten; what was sent stays sent")).map_err(printing)
}
