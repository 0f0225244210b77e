//! The verbs, one file each. The doc comment of a verb is its help.

mod card;
mod completions;
mod contact;
mod decrypt;
#[cfg(feature = "relay")]
mod demo;
mod device;
mod encrypt;
mod identity;
mod inbox;
mod input;
mod invite;
mod join;
mod keyfile;
mod log;
mod newfile;
mod outbox;
mod output;
mod pipeline;
mod receive;
#[cfg(feature = "relay")]
mod relay;
mod request;
mod send;
mod threads;
mod unlock;
mod verdict;

use clap::Subcommand;

use crate::run::{Context, Outcome};

/// What pouch can do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    Join(join::Join),
    Invite(invite::Invite),
    Card(card::Card),
    Contact(contact::Contact),
    Device(device::Device),
    Identity(identity::Identity),
    Unlock(unlock::Unlock),
    Lock(unlock::Lock),
    Send(send::Send),
    Outbox(outbox::Outbox),
    Inbox(inbox::Inbox),
    Pipeline(pipeline::Pipeline),
    Receive(receive::Receive),
    Request(request::Request),
    Encrypt(encrypt::Encrypt),
    Decrypt(decrypt::Decrypt),
    Log(log::Log),
    Completions(completions::Completions),
    Man(completions::Man),
    #[cfg(feature = "relay")]
    Demo(demo::Demo),
    #[cfg(feature = "relay")]
    Relay(relay::Relay),
}

impl Verb {
    /// Whether the exit code belongs to a child process, so that pouch's own failures need a code of their own.
    pub(crate) fn wraps_a_child(&self) -> bool {
        matches!(self, Self::Receive(receive) if receive.wraps_a_child())
    }

    /// Whether a pipeline may do it. All else needs a home.
    pub(crate) fn is_for_pipelines(&self) -> bool {
        match self {
            Self::Send(_) => true,
            Self::Log(log) => log.is_mine(),
            Self::Outbox(outbox) => outbox.shows(),
            _ => false,
        }
    }
}

/// Runs one.
pub(crate) fn run(verb: Verb, context: &Context) -> Outcome {
    match verb {
        Verb::Join(verb) => verb.run(context),
        Verb::Invite(verb) => verb.run(context),
        Verb::Card(verb) => verb.run(context),
        Verb::Contact(verb) => verb.run(context),
        Verb::Device(verb) => verb.run(context),
        Verb::Identity(verb) => verb.run(context),
        Verb::Unlock(verb) => verb.run(context),
        Verb::Lock(verb) => verb.run(context),
        Verb::Send(verb) => verb.run(context),
        Verb::Outbox(verb) => verb.run(context),
        Verb::Inbox(verb) => verb.run(context),
        Verb::Pipeline(verb) => verb.run(context),
        Verb::Receive(verb) => verb.run(context),
        Verb::Request(verb) => verb.run(context),
        Verb::Encrypt(verb) => verb.run(context),
        Verb::Decrypt(verb) => verb.run(context),
        Verb::Log(verb) => verb.run(context),
        Verb::Completions(verb) => verb.run(context),
        Verb::Man(verb) => verb.run(context),
        #[cfg(feature = "relay")]
        Verb::Demo(verb) => verb.run(context),
        #[cfg(feature = "relay")]
        Verb::Relay(verb) => verb.run(context),
    }
}
