//! What is said of a bundle: before it is fetched, instead of fetching it, and when it is there.

use pouch_client::backup::SEQUENCE_STEP;
use pouch_client::contacts::Verified;
use pouch_client::receive::{Order, Placed, Ready, ReceiptState, Taken};
use pouch_core::bundle::{Entry, EntryKind, Kind};
use serde_json::json;

use super::{Done, Receive};
use crate::run::{Context, Outcome, printing};
use crate::show::{count, iso, local, many, short, size};

/// How many names are shown before the rest is only counted.
const NAMES_SHOWN: usize = 10;

/// An entry as a row: size and path, or a folder's path with a slash.
fn row(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Folder => format!("{:>10}  {}/", "", entry.path),
        EntryKind::File { size: bytes, .. } => format!("{:>10}  {}", size(bytes), entry.path),
    }
}

impl Receive {
    /// Who it is from and what is in it, before any of it is fetched.
    pub(super) fn introduce(&self, context: &Context, ready: &Ready) -> Outcome {
        let manifest = ready.opening.manifest().body();
        let from = &ready.from;
        if ready.again {
            context.show.warn("you have received this bundle before");
        }
        match ready.order {
            Order::Next => {}
            Order::Gap { missing } if missing >= SEQUENCE_STEP => context.show.warn(format_args!(
                "{from} sends from another home, made of a backup: whether something before this has not come cannot be told",
            )),
            Order::Gap { missing } => context.show.warn(format_args!(
                "{} from {from} before this one {} not come: withheld, expired, or still on the way",
                many(missing, "bundle"),
                if missing == 1 { "has" } else { "have" },
            )),
            Order::Earlier => context.show.warn(format_args!("{from} sent this before one that you already have")),
            Order::Fork => {
                context
                    .show
                    .warn(format_args!("{from} signed another bundle in the place of the last one that you have"));
            }
        }
        if from.contact.verified == Verified::No {
            let from = &from.contact.name;
            context.show.warn(format_args!("the card of {from} was never verified; run `pouch contact verify {from}`"));
        }
        if self.list || manifest.kind == Kind::Request {
            return Ok(());
        }
        let (files, bytes) = ready.opening.files();
        context.show.remark(format_args!("from {from}: {}, {}", many(files, "file"), size(bytes)));
        if let Some(note) = &manifest.note {
            context.show.remark(format_args!("note: {note}"));
        }
        let entries = ready.opening.entries();
        for entry in entries.iter().take(NAMES_SHOWN) {
            context.show.remark(format_args!("  {}", row(entry)));
        }
        if entries.len() > NAMES_SHOWN {
            context.show.remark(format_args!("  and {} more", count((entries.len() - NAMES_SHOWN) as u64)));
        }
        Ok(())
    }

    pub(super) fn show_list(&self, context: &Context, ready: &Ready) -> Outcome {
        let manifest = ready.opening.manifest().body();
        context
            .show
            .object(&json!({
                "type": "contents",
                "bundle": manifest.bundle,
                "from": ready.from.contact.name,
                "pipeline": ready.from.pipeline(),
                "kind": manifest.kind,
                "compression": ready.opening.index().compression(),
                "created": iso(manifest.created),
                "expires": iso(manifest.expires),
                "note": manifest.note,
                "due": manifest.due.map(iso),
                "answers": manifest.answers,
            }))
            .map_err(printing)?;
        if let (Some(due), note) = (manifest.due, &manifest.note) {
            let what = note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
            let line = format_args!("{} asks for files by {}{what}", ready.from, local(due));
            return context.show.line(line).map_err(printing);
        }
        for entry in ready.opening.entries() {
            let kind = if entry.kind == EntryKind::Folder { "folder" } else { "file" };
            let object = json!({ "type": "entry", "path": entry.path.as_str(), "kind": kind, "size": entry.size() });
            context.show.object(&object).map_err(printing)?;
            context.show.essence(&entry.path).map_err(printing)?;
            context.show.line(row(entry)).map_err(printing)?;
        }
        Ok(())
    }

    /// What was received. Standard output is left alone where it carries the content or belongs to a child.
    pub(super) fn report(&self, context: &Context, done: &Done, taken: &Taken) -> Outcome {
        let (from, Taken { files, size: bytes, resumed, .. }) = (&done.from, taken);
        let folder = match &taken.placed {
            Placed::Folder(path) => Some(path),
            _ => None,
        };
        let (word, text) = match taken.receipt {
            ReceiptState::Sent => ("sent", "; receipt sent"),
            ReceiptState::Kept => ("kept", "; the receipt goes with the next command that reaches the relay"),
            ReceiptState::Before => ("before", "; received before, and the receipt went then"),
            ReceiptState::Carried => ("none", ""),
            ReceiptState::Partial => ("partial", "; no receipt, for it is not all of the bundle"),
        };
        if let Some((request, mine)) = taken.answers {
            match mine {
                true => context.show.remark(format_args!("this answers your request {}", short(request))),
                false => context
                    .show
                    .warn(format_args!("{from} says that this answers request {request}, which is none of yours")),
            }
        }
        let place = folder.map(|f| format!(", in {}", f.display())).unwrap_or_default();
        let here = if *resumed > 0 { format!(" ({} came before)", size(*resumed)) } else { String::new() };
        let line = format!("{} from {from}, {}{here}, verified{place}{text}", many(*files, "file"), size(*bytes));
        if self.stdout || self.wraps_a_child() {
            context.show.remark(line);
            return Ok(());
        }
        context
            .show
            .object(&json!({
                "type": "received",
                "bundle": done.bundle,
                "from": from.contact.name,
                "pipeline": from.pipeline(),
                "files": files,
                "size": bytes,
                "resumed": resumed,
                "folder": folder,
                "receipt": word,
                "answers": taken.answers.map(|(request, _)| request),
            }))
            .map_err(printing)?;
        if let Some(folder) = folder {
            context.show.essence(folder.display()).map_err(printing)?;
        }
        context.show.line(line).map_err(printing)
    }
}
