use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use pouch_client::contacts::Verified;
use pouch_client::identity::Identity;
use pouch_client::inbox;
use pouch_client::receive::{self, Order, Placed, Ready, ReceiptState, Source, Taken, Target};
use pouch_client::{Error, Party, Watch as _};
use pouch_core::bundle::{Entry, EntryKind, Kind};
use pouch_statement::Name;
use serde_json::json;
use zeroize::Zeroizing;

use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{count, iso, many, parse_span, short, size};

/// How many names are shown before the rest is only counted.
const NAMES_SHOWN: usize = 10;
/// The longest string of an environment on Linux, in bytes: `NAME=VALUE` and a NUL (execve(2), `MAX_ARG_STRLEN`).
const MAX_VARIABLE: u64 = 128 << 10;

/// Fetch, verify and unpack a bundle
///
/// Without ID, what waits if it is only one. Everything lands in a fresh folder, named by the id unless -o says
/// otherwise, and only once all of it is verified; nothing is ever overwritten. The sender gets a signed receipt, unless
/// the bundle came as a file, or --only took some of it: then it waits as before.
#[derive(Args)]
pub(crate) struct Receive {
    /// A bundle's id or the beginning of it, or a .pouch file
    #[arg(value_name = "ID|FILE")]
    what: Option<String>,
    /// Into this folder, which must not exist
    #[arg(short, long, value_name = "DIR", conflicts_with_all = ["stdout", "env", "list"])]
    out: Option<PathBuf>,
    /// Take only this file, or this folder with all beneath it, and fetch no more than what holds it; sends no receipt
    #[arg(long, value_name = "PATH", conflicts_with_all = ["list", "env"])]
    only: Vec<String>,
    /// Write the one file in the bundle to standard output; beyond 32 MiB, only the exit code tells if it is whole
    #[arg(long, conflicts_with_all = ["env", "list"])]
    stdout: bool,
    /// Show what is in it and fetch nothing more; for the relay and the sender, the envelope is fetched
    #[arg(long, conflicts_with = "env")]
    list: bool,
    /// Wait for the next bundle
    #[arg(long, conflicts_with = "what")]
    next: bool,
    /// Only if it is from this contact
    #[arg(long, value_name = "NAME")]
    from: Option<Name>,
    /// With --next: wait at most so long, like 15m or 8h
    #[arg(long, value_name = "TIME", value_parser = parse_span, requires = "next")]
    timeout: Option<u64>,
    /// Put the one file in the bundle into this variable of CMD and run CMD
    #[arg(long, value_name = "NAME", requires = "command", value_parser = variable)]
    env: Option<String>,
    /// What to run with --env
    #[arg(last = true, value_name = "CMD", requires = "env")]
    command: Vec<String>,
}

/// Checks that a command can be run, as `execvp` would look for it.
fn find_program(program: &str) -> Outcome {
    let runs = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    let found = if program.contains('/') {
        runs(Path::new(program))
    } else {
        std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|p| runs(&p.join(program))))
    };
    if found {
        Ok(())
    } else {
        Err(Failure::other(format_args!("there is no command {program} to run; nothing was fetched")))
    }
}

/// An entry as a row: size and path, or a folder's path with a slash.
fn row(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Folder => format!("{:>10}  {}/", "", entry.path),
        EntryKind::File { size: bytes, .. } => format!("{:>10}  {}", size(bytes), entry.path),
    }
}

/// Reads the name of a variable for a secret.
pub(super) fn variable(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if !letters || text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a variable's name has letters, digits and _, and begins with no digit".into());
    }
    let taken = ["PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS"].contains(&text)
        || text.starts_with("LD_")
        || text.starts_with("DYLD_")
        || text.starts_with("POUCH_");
    if taken { Err("this variable steers the program itself; choose another name".into()) } else { Ok(text.to_owned()) }
}

impl Receive {
    pub(crate) fn wraps_a_child(&self) -> bool {
        self.env.is_some()
    }

    pub(crate) fn run(self, context: &Context) -> Outcome {
        // Not left to the parser, which does not look at what comes from the config file.
        if self.env.is_some() == self.command.is_empty() {
            return Err(Failure::usage("--env and a command go together", "pouch receive ID --env NAME -- COMMAND"));
        }
        // Before the secret is fetched, and perhaps burnt: a receipt must not be followed by "no such command".
        if let Some(program) = self.command.first() {
            find_program(program)?;
        }
        let party = context.party()?;
        let secret = context.run(self.receive(context, &party))?;
        match (secret, &self.env) {
            (Some(secret), Some(variable)) => Err(self.become_child(variable, &secret)),
            _ => Ok(()),
        }
    }

    /// A path has a slash or a dot in it; an id has neither.
    fn file(&self) -> Option<PathBuf> {
        self.what.as_deref().filter(|w| w.contains(['/', '.'])).map(PathBuf::from)
    }

    async fn receive(&self, context: &Context, party: &Party) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if let Some(name) = &self.from {
            party.contacts()?.named(name)?;
        }
        if let Some(path) = self.file() {
            let source = Source::file(&path)?;
            let identity = context.unlock(party)?;
            return self.take(context, party, &identity, source).await;
        }
        let api = context.relay(party).await?;
        let id = if self.next {
            inbox::next(party, &api, self.from.as_ref(), self.timeout.map(Duration::from_secs)).await?
        } else {
            inbox::find(party, &api, self.what.as_deref()).await?
        };
        let identity = context.unlock(party)?;
        self.take(context, party, &identity, Source::Relay(&api, id)).await
    }

    async fn take(
        &self,
        context: &Context,
        party: &Party,
        identity: &Identity,
        mut source: Source<'_>,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let ready = receive::open(party, identity, &mut source, self.from.as_ref()).await?;
        self.introduce(context, &ready)?;
        if self.env.is_some() && ready.from.verified == Verified::No {
            return Err(Error::Unverified(ready.from.name).into());
        }
        if let Some(name) = &self.env
            && ready.opening.files().1 + name.len() as u64 + 2 > MAX_VARIABLE
        {
            return Err(Failure::usage("the secret is too long for a variable", "--stdout writes it to a pipe"));
        }
        if self.list {
            return self.show_list(context, &ready).map(|()| None);
        }
        let bundle = ready.opening.manifest().body().bundle;
        let from = ready.from.name.clone();
        let chosen = ready.choose(&self.only)?;
        if ready.opening.manifest().body().kind == Kind::Credential
            && !self.stdout
            && self.env.is_none()
            && self.out.is_none()
        {
            return Err(Failure::usage(
                "this is a credential, and a folder would keep it on disk in the clear",
                "--env NAME -- COMMAND or --stdout keep it off the disk; -o DIR writes it there all the same",
            ));
        }
        let target = if self.stdout {
            Target::Writer(Box::new(std::io::stdout()))
        } else if self.env.is_some() {
            Target::Memory
        } else {
            Target::Folder(self.out.clone().unwrap_or_else(|| PathBuf::from(format!("./{}", short(bundle)))))
        };
        let bar = Bar::new(context.show);
        let taken = receive::take(party, identity, source, ready, chosen, target, bar.clone()).await;
        bar.done();
        let Taken { placed, receipt, files, size: bytes } = taken?;
        let folder = match &placed {
            Placed::Folder(path) => Some(path.clone()),
            _ => None,
        };
        self.report(
            context,
            &json!({
                "type": "received",
                "bundle": bundle,
                "from": from,
                "files": files,
                "size": bytes,
                "folder": folder,
                "receipt": match receipt {
                    ReceiptState::Sent => "sent",
                    ReceiptState::Kept => "kept",
                    ReceiptState::Before => "before",
                    ReceiptState::Carried => "none",
                    ReceiptState::Partial => "partial",
                },
            }),
            &folder,
        )?;
        let receipt = match receipt {
            ReceiptState::Sent => "; receipt sent",
            ReceiptState::Kept => "; the receipt goes with the next command that reaches the relay",
            ReceiptState::Before => "; received before, and the receipt went then",
            ReceiptState::Carried => "",
            ReceiptState::Partial => "; no receipt, for it is not all of the bundle",
        };
        let place = folder.map(|f| format!(", in {}", f.display())).unwrap_or_default();
        let text = format!("{} from {from}, {}, verified{place}{receipt}", many(files, "file"), size(bytes));
        if self.stdout || self.env.is_some() {
            context.show.remark(text);
        } else {
            context.show.line(text).map_err(printing)?;
        }
        Ok(match placed {
            Placed::Memory(secret) => Some(secret),
            _ => None,
        })
    }

    /// The JSON line, unless standard output carries the content or belongs to the child.
    fn report(&self, context: &Context, object: &serde_json::Value, folder: &Option<PathBuf>) -> Outcome {
        if self.stdout || self.env.is_some() {
            return Ok(());
        }
        context.show.object(object).map_err(printing)?;
        match folder {
            Some(folder) => context.show.essence(folder.display()).map_err(printing),
            None => Ok(()),
        }
    }

    /// Who it is from and what is in it, before any of it is fetched.
    fn introduce(&self, context: &Context, ready: &Ready) -> Outcome {
        let manifest = ready.opening.manifest().body();
        let from = &ready.from.name;
        if ready.again {
            context.show.warn("you have received this bundle before");
        }
        match ready.order {
            Order::Next => {}
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
        if ready.from.verified == Verified::No {
            context.show.warn(format_args!("the card of {from} was never verified; run `pouch contact verify {from}`"));
        }
        if self.list {
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

    fn show_list(&self, context: &Context, ready: &Ready) -> Outcome {
        let manifest = ready.opening.manifest().body();
        context
            .show
            .object(&json!({
                "type": "contents",
                "bundle": manifest.bundle,
                "from": ready.from.name,
                "kind": manifest.kind,
                "compression": ready.opening.index().compression(),
                "created": iso(manifest.created),
                "expires": iso(manifest.expires),
                "note": manifest.note,
            }))
            .map_err(printing)?;
        for entry in ready.opening.entries() {
            let kind = if entry.kind == EntryKind::Folder { "folder" } else { "file" };
            let object = json!({ "type": "entry", "path": entry.path.as_str(), "kind": kind, "size": entry.size() });
            context.show.object(&object).map_err(printing)?;
            context.show.essence(&entry.path).map_err(printing)?;
            context.show.line(row(entry)).map_err(printing)?;
        }
        Ok(())
    }

    /// Becomes the child, with the secret in its environment and nowhere else. Comes back only if that fails.
    fn become_child(&self, variable: &str, secret: &[u8]) -> Failure {
        use std::os::unix::ffi::OsStrExt as _;
        let Some((program, arguments)) = self.command.split_first() else {
            return Failure::usage("no command given", "pouch receive ID --env NAME -- CMD");
        };
        let value = std::ffi::OsStr::from_bytes(secret);
        let error = Command::new(program).args(arguments).env(variable, value).exec();
        Failure::other(format_args!("cannot run {program}: {error}"))
    }
}
