pub(super) mod report;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pouch_client::clock::now;
use pouch_client::outbox::{self, Sent};
use pouch_client::requests::{self, Standing};
use pouch_client::send::{self, Delivery, Once, OnceKey, Purpose, Request};
use pouch_client::transfer::Source;
use pouch_client::{Party, Watch, invite};
use pouch_core::bundle::{
    Compression, Content, EntryPath, ItemKind, Kind, MAX_IN_MEMORY, Scan, ScanOptions, SealError,
};
use pouch_statement::{BundleId, Name, Note};
use serde_json::json;

use crate::pipeline;
use crate::progress::Bar;
use crate::prompt::{Input, secret_bytes};
use crate::run::{Context, Failure, Outcome as Done, printing};
use crate::show::{joined, local, many, parse_span, size};

use self::report::{Report, Sends};

/// How many names are shown before the rest is only counted.
const NAMES_SHOWN: usize = 10;

/// Seal files for somebody and deliver them
///
/// PATH can be files and folders, or - for standard input as one stream. The content of one folder stands at the top of
/// the bundle; otherwise each path stands under its own name.
///
/// A send of files that was interrupted goes on with the same command: what the relay has is not sent again. If the files have
/// changed since, it begins anew. `outbox` shows what is interrupted.
#[derive(Args)]
pub(crate) struct Send {
    /// Files, folders, or - for standard input
    #[arg(value_name = "PATH", required_unless_present = "secret", conflicts_with = "secret")]
    paths: Vec<PathBuf>,
    /// To whom; several times, or with commas, for several recipients
    #[arg(long, value_name = "NAME", required_unless_present = "request", value_delimiter = ',')]
    to: Vec<Name>,
    /// Answer this request: to whoever asked, as a deliverable
    #[arg(long, value_name = "ID", conflicts_with_all = ["to", "secret"])]
    request: Option<String>,
    /// Send a credential of this name; its value is prompted for, or read from standard input, every byte of it
    #[arg(long, value_name = "NAME")]
    secret: Option<EntryPath>,
    /// How long it may be fetched: 90s, 15m, 8h, 7d, 2w
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_span)]
    until: u64,
    /// A remark for the recipient, sealed and signed with it
    #[arg(long, value_name = "TEXT")]
    note: Option<Note>,
    /// What it is; dataset if not said. What --secret sends is a credential
    #[arg(long, value_name = "KIND", value_enum)]
    kind: Option<KindArg>,
    /// Compress the content, but never a credential: the relay can tell from the size how well it compresses
    #[arg(long, value_name = "HOW", value_enum, default_value_t = CompressArg::None)]
    compress: CompressArg,
    /// Delete it on the relay once it is received, or a day after it was first fetched
    #[arg(long)]
    burn: bool,
    /// Deliver once under this key, as that of a job's run: again for the same recipients it prints the bundle from before
    #[arg(long, value_name = "KEY", conflicts_with = "out")]
    once: Option<OnceKey>,
    /// Do not return before this has come
    #[arg(long, value_name = "WHAT", value_enum)]
    wait: Option<WaitArg>,
    /// With --wait: how long at most
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_span, requires = "wait")]
    timeout: u64,
    /// Write a .pouch file instead, to be carried by anyone
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wait", "burn"])]
    out: Option<PathBuf>,
    /// List what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Keep what is piped in, sealed, until it is delivered, so that a send of it goes on after an interruption: with `outbox
    /// resume`. Files need no keeping; with --out and for a pipeline nothing is kept
    #[arg(long)]
    spool: bool,
    /// What standard input is called at the recipient's
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    name: EntryPath,
    /// Follow symbolic links and send what they lead to
    #[arg(long)]
    dereference: bool,
    /// Leave out links, pipes, sockets and devices instead of refusing them
    #[arg(long)]
    skip_special: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum KindArg {
    /// Data to work with
    Dataset,
    /// A password, token or key
    Credential,
    /// The result of somebody's work
    Deliverable,
    /// What happened and what was found
    Incident,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Dataset => Self::Dataset,
            KindArg::Credential => Self::Credential,
            KindArg::Deliverable => Self::Deliverable,
            KindArg::Incident => Self::Incident,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressArg {
    /// As it is
    None,
    /// Zstandard, on all cores
    Zstd,
}

impl From<CompressArg> for Option<Compression> {
    fn from(how: CompressArg) -> Self {
        match how {
            CompressArg::None => None,
            CompressArg::Zstd => Some(Compression::Zstd),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WaitArg {
    /// The recipient's signed receipt
    Receipt,
}

impl Send {
    pub(crate) fn run(self, context: &Context) -> Done {
        if self.out.is_some() && context.is_pipeline() {
            return Err(Failure::usage("a pipeline sends through its relay alone", "leave out --out"));
        }
        let party = context.party()?;
        let sent = self.send(context, &party);
        pipeline::keep(context, &party, sent)
    }

    fn send(mut self, context: &Context, party: &Party) -> Done {
        let answers = self.answers(context, party)?;
        known(party, &self.to)?;
        if self.dry_run {
            return self.dry_run(context);
        }
        let scan = self.scan(context)?;
        let identity = context.unlock(party)?;
        let source = match &scan {
            Some(_) => Some(Source::new(&self.paths, self.scan_options()).map_err(Failure::other)?),
            None => None,
        };
        let content = self.content(context, scan)?;
        let request = Request {
            content,
            source,
            spool: self.keeps(context) == Some(true),
            compression: self.compress.into(),
            to: self.to.clone(),
            purpose: Purpose { kind: self.kind(), note: self.note.clone(), due: None, answers },
            lifetime: self.until,
            burn: self.burn,
            resume: None,
            readdressed: false,
            once: self.once.as_ref().map(|key| Once::new(&identity, key)),
        };
        let compression = request.compressed();
        let bar = Bar::new(context.show);
        if let Some(out) = &self.out {
            let sent =
                context.run(async { Ok(send::send_to_file(party, &identity, request, out, bar.as_ref()).await?) })?;
            return self.report(context, Delivery { sent, again: false }, compression).map(drop);
        }
        let delivery = report::interruptible(context, party, &bar, self.sends(context), async {
            let api = match context.relay(party).await {
                Ok(api) => api,
                Err(failure) => {
                    send::never_begun(party, &self.to, &failure.to_string())?;
                    return Err(failure);
                }
            };
            Ok(send::send(party, &api, &identity, request, Arc::clone(&bar) as Arc<dyn Watch>).await?)
        })?;
        let mut sent = self.report(context, delivery, compression)?;
        if self.wait == Some(WaitArg::Receipt) {
            context.show.remark("waiting for the receipt");
            let identity = std::cell::RefCell::new(Some(identity));
            let unlock = || identity.borrow_mut().take().map_or_else(|| context.unlock(party), Ok);
            let timeout = Duration::from_secs(self.timeout);
            context.run(async { Ok(outbox::wait_receipt(party, &party.api()?, &mut sent, unlock, timeout).await?) })?;
            report::receipts(context, &sent)?;
        }
        Ok(())
    }

    /// The request that this answers; it goes to whoever asked.
    fn answers(&mut self, context: &Context, party: &Party) -> Result<Option<BundleId>, Failure> {
        let Some(typed) = &self.request else { return Ok(None) };
        let asked = requests::find(party, typed)?;
        let book = party.contacts()?;
        let from = book.by_fingerprint(&asked.from).ok_or(pouch_client::Error::UnknownSender)?;
        match asked.standing() {
            Standing::Open => {}
            Standing::Late => context.show.warn(format_args!("this was asked for by {}", local(asked.due))),
            Standing::Done => context.show.warn("this request is answered already; this is one answer more"),
        }
        self.to = vec![from.name.clone()];
        Ok(Some(asked.bundle))
    }

    fn kind(&self) -> Kind {
        match (&self.secret, self.kind) {
            // Whatever a variable or the config file says.
            (Some(_), _) => Kind::Credential,
            (None, Some(kind)) => kind.into(),
            (None, None) if self.request.is_some() => Kind::Deliverable,
            (None, None) => Kind::Dataset,
        }
    }

    fn is_stdin(&self) -> bool {
        matches!(self.paths.as_slice(), [one] if one.as_os_str() == "-")
    }

    fn sends(&self, context: &Context) -> Sends {
        self.keeps(context).map_or(Sends::Files, Sends::Stream)
    }

    /// Whether standard input is kept, where it could be.
    fn keeps(&self, context: &Context) -> Option<bool> {
        (self.is_stdin() && self.out.is_none() && !context.is_pipeline()).then_some(self.spool)
    }

    fn scan_options(&self) -> ScanOptions {
        ScanOptions { dereference: self.dereference, skip_special: self.skip_special }
    }

    fn scan(&self, context: &Context) -> Result<Option<Scan>, Failure> {
        if self.secret.is_some() || self.is_stdin() {
            return Ok(None);
        }
        let scan = Scan::new(&self.paths, self.scan_options()).map_err(SealError::from)?;
        let skipped = scan.skipped().len();
        if skipped > 0 && scan.items().len() == 0 {
            return Err(Failure::usage(
                format!(
                    "nothing is left to send: {} left out, links, pipes, sockets or devices",
                    many(skipped as u64, "path")
                ),
                "a pipe's content can be sent as a stream: pouch send - < PIPE; --dereference follows links",
            ));
        }
        if skipped > 0 {
            context
                .show
                .warn(format_args!("{} left out: links, pipes, sockets or devices", many(skipped as u64, "path")));
        }
        let hazards = scan.hazards();
        for hazard in hazards.iter().take(NAMES_SHOWN) {
            context.show.warn(hazard);
        }
        if hazards.len() > NAMES_SHOWN {
            context.show.warn(format_args!("and {} more like these", hazards.len() - NAMES_SHOWN));
        }
        Ok(Some(scan))
    }

    fn content(&self, context: &Context, scan: Option<Scan>) -> Result<Content, Failure> {
        let mtime = i64::try_from(now().unix()).unwrap_or(0);
        match (scan, &self.secret) {
            (Some(scan), _) => Ok(Content::Tree(scan)),
            (None, Some(name)) => {
                let value =
                    secret_bytes(&format!("value of {name}: "), MAX_IN_MEMORY as usize).map_err(Failure::other)?;
                if value.ends_with(b"\n") {
                    context
                        .show
                        .warn("the secret ends with a line feed, which is sent with it; printf '%s' writes none");
                }
                if value.is_empty() {
                    return Err(Failure::usage("the secret is empty", "type it at the prompt, or pipe it in"));
                }
                Ok(Content::Stream { name: name.clone(), mtime, reader: Box::new(Secret { value, at: 0 }) })
            }
            (None, None) => {
                if self.keeps(context) == Some(false) {
                    context.show.remark("standard input cannot be read again if this is interrupted; --spool keeps it");
                }
                Ok(Content::Stream { name: self.name.clone(), mtime, reader: Box::new(Input) })
            }
        }
    }

    fn dry_run(&self, context: &Context) -> Done {
        let Some(scan) = self.scan(context)? else {
            return context.show.line("one stream from standard input").map_err(printing);
        };
        for item in scan.items() {
            let (bytes, kind) = match item.kind {
                ItemKind::Folder => (0, "folder"),
                ItemKind::File { size, .. } => (size, "file"),
            };
            let path = item.path.as_str();
            context
                .show
                .object(&json!({ "type": "entry", "path": path, "kind": kind, "size": bytes }))
                .map_err(printing)?;
            context.show.line(format_args!("{:>10}  {}", size(bytes), item.path)).map_err(printing)?;
        }
        let count = scan.items().len() as u64;
        context.show.remark(format_args!(
            "{} in {} would be sent to {}",
            size(scan.bytes()),
            many(count, "item"),
            joined(&self.to)
        ));
        Ok(())
    }

    /// What is said of it.
    fn report(&self, context: &Context, delivery: Delivery, compression: Option<Compression>) -> Result<Sent, Failure> {
        let variable = self.variable();
        Report { delivery: &delivery, compression, file: self.out.as_deref(), variable: &variable }.print(context)?;
        Ok(delivery.sent)
    }

    /// A variable that the recipient could name: the secret's name, if it can be one.
    fn variable(&self) -> String {
        let name = self.secret.as_ref().map(|s| s.as_str().to_owned()).unwrap_or_default();
        if super::receive::variable(&name).is_ok() { name } else { "NAME".to_owned() }
    }
}

/// Who is not there should not cost a passphrase or a prompt for a secret. Somebody may be there in a moment, as long as an
/// invitation is open.
pub(super) fn known(party: &Party, names: &[Name]) -> Result<(), Failure> {
    let contacts = party.contacts()?;
    for name in names {
        if let Err(error) = contacts.named(name)
            && !invite::any_pending(party)?
        {
            return Err(error.into());
        }
    }
    Ok(())
}

/// A secret that is read once and wiped when the reading is over.
struct Secret {
    value: zeroize::Zeroizing<Vec<u8>>,
    at: usize,
}

impl io::Read for Secret {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = self.value.get(self.at..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
