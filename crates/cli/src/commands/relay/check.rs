//! `pouch relay check`.

use clap::Args;
use pouch_relay::{CheckOptions, Finding, check};
use serde_json::json;

use super::{Data, state};
use crate::exit;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{local, size};

/// Verify the ledger against the stored objects, both ways
#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    data: Data,
    /// Repair what can be: counters, objects that nothing refers to; mark bundles of which something is lost
    #[arg(long)]
    repair: bool,
    /// Read all objects whole and compare their digests
    #[arg(long)]
    deep: bool,
    /// Take the blobs that `blobs` names for this relay's, though they are not known to be
    ///
    /// For when the relay's own blobs are lost, and no other relay uses these: what the ledger does not know of them is
    /// deleted, and what it knows and is not among them is lost.
    #[arg(long, conflicts_with = "repair")]
    adopt_store: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Outcome {
        let config = self.data.load(context)?.config;
        let options = CheckOptions { repair: self.repair, deep: self.deep, adopt_store: self.adopt_store };
        let mut printed = Ok(());
        let mut tell = |finding: &Finding, repaired: bool| {
            if printed.is_ok() {
                printed = show_finding(context, finding, repaired);
            }
        };
        let checked = context.run(async { check(&config, options, &mut tell).await.map_err(state) })?;
        printed.map_err(printing)?;
        let left = checked.found - checked.repaired;
        context
            .show
            .object(&json!({
                "type": "check",
                "objects": checked.objects,
                "blobs": checked.blobs,
                "kept": checked.kept,
                "found": checked.found,
                "repaired": checked.repaired,
            }))
            .map_err(printing)?;
        context
            .show
            .line(format_args!(
                "{} objects, {} blobs ({} kept for backups): {} findings, {} repaired",
                checked.objects, checked.blobs, checked.kept, checked.found, checked.repaired
            ))
            .map_err(printing)?;
        context.show.essence(left).map_err(printing)?;
        if left == 0 {
            return Ok(());
        }
        let hint = match (self.repair, self.deep) {
            (true, true) => "what is lost is lost: its senders have to send it again",
            (true, false) => "--repair --deep unmarks what is whole again; what is lost has to be sent again",
            (false, _) => "--repair repairs what can be",
        };
        Err(Failure::Told {
            code: exit::STATE,
            text: format!("ledger and blobs do not agree: {left} findings are left"),
            hint: Some(hint.into()),
            kind: None,
        })
    }
}

fn show_finding(context: &Context, finding: &Finding, repaired: bool) -> std::io::Result<()> {
    let (word, bundle, text) = match finding {
        Finding::Sum { of, counter, says, must } => {
            ("sum", None, format!("{of}: {counter} is {says}, its rows give {must}"))
        }
        Finding::Lost { bundle, part: Some(part), what } => {
            ("lost", Some(bundle), format!("{bundle}: part {part}: {what}"))
        }
        Finding::Lost { bundle, part: None, what } => ("lost", Some(bundle), format!("{bundle}: index: {what}")),
        Finding::Unused(count) => ("unused", None, format!("{count} stored blobs of no object")),
        Finding::Orphan { length, since } => {
            ("orphan", None, format!("a blob of {} since {} that no row names", size(*length), local(*since)))
        }
        Finding::Damaged(bundle) => ("damaged", Some(bundle), format!("{bundle}: marked as damaged, and whole")),
    };
    context.show.object(&json!({
        "type": "finding", "finding": word, "bundle": bundle, "detail": text, "repaired": repaired,
    }))?;
    context.show.line(format_args!("{word}: {text}{}", if repaired { " (repaired)" } else { "" }))
}
