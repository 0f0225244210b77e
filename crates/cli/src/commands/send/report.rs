//! What is said of a send: that it is delivered, how to go on with it, the receipts.

use std::path::Path;

use pouch_client::outbox::Sent;
use pouch_client::send::Delivery;
use pouch_client::transfer::{self, Standing};
use pouch_client::{Class, Party};
use pouch_core::bundle::{Compression, Kind};
use pouch_statement::Outcome;
use serde_json::json;

use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome as Done, printing};
use crate::show::{iso, joined, local, many, short, size};

/// A bundle that was sent.
pub(crate) struct Report<'a> {
    pub(crate) delivery: &'a Delivery,
    /// How what was sent now is compressed.
    pub(crate) compression: Option<Compression>,
    /// The `.pouch` file, if it is in one.
    pub(crate) file: Option<&'a Path>,
    /// What a recipient of a credential could call it.
    pub(crate) variable: &'a str,
}

impl Report<'_> {
    pub(crate) fn print(&self, context: &Context) -> Done {
        let Self { delivery: Delivery { sent, again }, compression, file, variable } = *self;
        let compression = compression.filter(|_| !again);
        let to: Vec<_> = sent.recipients.iter().map(|recipient| &recipient.name).collect();
        context
            .show
            .object(&json!({
                "type": "sent",
                "bundle": sent.bundle,
                "to": to,
                "size": sent.size,
                "files": sent.files,
                "compression": compression,
                "expires": iso(sent.expires),
                "file": file,
                "again": again,
            }))
            .map_err(printing)?;
        context.show.essence(sent.bundle).map_err(printing)?;
        if *again {
            let text = format!("delivered before under this key, {}, as {}", local(sent.created), short(sent.bundle));
            return context.show.line(format_args!("{text}; nothing was sent now")).map_err(printing);
        }
        let command = match file {
            Some(file) => format!("pouch receive {}", file.file_name().unwrap_or_default().to_string_lossy()),
            None if sent.kind == Kind::Credential => {
                format!("pouch receive {} --env {variable} -- COMMAND", short(sent.bundle))
            }
            None => format!("pouch receive {}", short(sent.bundle)),
        };
        let runs = if to.len() == 1 { "runs" } else { "run" };
        context
            .show
            .line(format_args!(
                "sealed {}, {}, until {}; {} {runs}: {command}",
                size(sent.size),
                many(sent.files, "file"),
                local(sent.expires),
                joined(&to),
            ))
            .map_err(printing)
    }
}

/// What is sent, for what is said when it ends early.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    /// What the same command sends again.
    Files,
    /// A stream that could be kept, and whether it is.
    Stream(bool),
    /// What was begun before and is called by its id, or has no content.
    Begun,
}

/// Runs a send. If it ends early and something is kept to go on with, says how; if there cannot be, says that.
pub(crate) fn interruptible<T>(
    context: &Context,
    party: &Party,
    bar: &Bar,
    sends: Sends,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    context.run(work).map_err(|failure| match (bar.begun(), &failure) {
        (Some(bundle), _) if matches!(transfer::standing(party, bundle), Ok(Standing::Interrupted { .. })) => {
            let id = short(bundle);
            let again = if sends == Sends::Files { ", or the same command again," } else { "" };
            failure.with_hint(format!("`pouch outbox resume {id}`{again} goes on from there"))
        }
        (_, Failure::Client(error)) if matches!(error.class(), Class::Interrupted | Class::Unreachable) => {
            match sends {
                Sends::Stream(true) => {
                    failure.with_hint("it was not read to its end, so nothing of it is kept".to_owned())
                }
                Sends::Stream(false) => failure.with_hint(
                    "standard input cannot be read again, so this cannot go on: send it from a file, or with --spool"
                        .to_owned(),
                ),
                Sends::Files | Sends::Begun => failure,
            }
        }
        _ => failure,
    })
}

/// The receipts that came.
pub(crate) fn receipts(context: &Context, sent: &Sent) -> Done {
    for recipient in &sent.recipients {
        let Some(verdict) = sent.verdict(recipient) else { continue };
        context
            .show
            .object(&json!({
                "type": "receipt",
                "bundle": sent.bundle,
                "from": recipient.name,
                "outcome": verdict.outcome,
                "stage": verdict.stage,
                "time": iso(verdict.created),
            }))
            .map_err(printing)?;
        match verdict.outcome {
            Outcome::Verified => context
                .show
                .line(format_args!("{} has received and verified it, {}", recipient.name, local(verdict.created)))
                .map_err(printing)?,
            Outcome::Failed => {
                return Err(Failure::Told {
                    code: 4,
                    text: format!(
                        "{} could not verify bundle {}: it failed{}",
                        recipient.name,
                        short(sent.bundle),
                        crate::commands::outbox::at(verdict.stage)
                    ),
                    hint: Some("send it again; if that fails too, the relay's disk is not to be trusted".into()),
                    kind: None,
                });
            }
        }
    }
    Ok(())
}
