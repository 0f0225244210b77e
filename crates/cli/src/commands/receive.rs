mod child;
mod tell;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use pouch_client::contacts::Verified;
use pouch_client::identity::Identity;
use pouch_client::receive::{self, Placed, Ready, Sender, Source, Target};
use pouch_client::{Class, Error, Party, Watch as _, inbox};
use pouch_core::bundle::Kind;
use pouch_statement::{BundleId, Name, Note};

pub(super) use self::child::variable;
use super::request;
use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome};
use crate::show::{parse_span, short};

/// The longest string of an environment on Linux, in bytes: `NAME=VALUE` and a NUL (execve(2), `MAX_ARG_STRLEN`).
const MAX_VARIABLE: u64 = 128 << 10;

/// Fetch, verify and unpack a bundle
///
/// Without ID, what waits if it is only one. Everything lands in a fresh folder, named by the id unless -o says
/// otherwise, and only once all of it is verified; nothing is ever overwritten. What was cut off goes on with the same
/// command. The sender gets a signed receipt, unless the bundle came as a file, or --only took some of it: then it waits as
/// before.
#[derive(Args)]
pub(crate) struct Receive {
    /// A bundle's id or the beginning of it, or a .pouch file
    #[arg(value_name = "ID|FILE")]
    what: Option<String>,
    /// Into this folder, which must not exist; with --all, into folders in it
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
    /// Take everything that waits, each into its own folder; one that fails does not keep the others
    #[arg(long, conflicts_with_all = ["what", "next", "only", "stdout", "list", "env"])]
    all: bool,
    /// Only if it is from this contact
    #[arg(long, value_name = "NAME")]
    from: Option<Name>,
    /// With --next: wait at most so long, like 15m or 8h
    #[arg(long, value_name = "TIME", value_parser = parse_span, requires = "next")]
    timeout: Option<u64>,
    /// Begin anew, and let go what a receive that was cut off had left
    #[arg(long, conflicts_with_all = ["stdout", "list", "env"])]
    restart: bool,
    /// Run CMD with sh for each bundle, once its folder is there and the receipt is signed; needs --from. What it is
    /// about stands in POUCH_BUNDLE, POUCH_SENDER, POUCH_PIPELINE, POUCH_PATH, POUCH_NOTE
    #[arg(long, value_name = "CMD", conflicts_with_all = ["only", "stdout", "list", "env"])]
    exec: Option<String>,
    /// Put the one file in the bundle into this variable of CMD and run CMD
    #[arg(long, value_name = "NAME", requires = "command", value_parser = variable)]
    env: Option<String>,
    /// What to run with --env
    #[arg(last = true, value_name = "CMD", requires = "env")]
    command: Vec<String>,
}

/// A bundle that was taken.
struct Done {
    bundle: BundleId,
    from: Sender,
    note: Option<Note>,
    placed: Placed,
}

/// Which bundle is on its way to which folder, once that is known.
type Way = RefCell<Option<(BundleId, PathBuf)>>;

impl Receive {
    pub(crate) fn wraps_a_child(&self) -> bool {
        self.env.is_some() || self.exec.is_some()
    }

    pub(crate) fn run(self, context: &Context) -> Outcome {
        // Not left to the parser, which does not look at what comes from the config file.
        if self.env.is_some() == self.command.is_empty() {
            return Err(Failure::usage("--env and a command go together", "pouch receive ID --env NAME -- COMMAND"));
        }
        let less = !self.only.is_empty() || self.stdout || self.list || self.env.is_some();
        if less && (self.all || self.exec.is_some()) {
            return Err(Failure::usage(
                "--all and --exec are about whole bundles in folders",
                "leave out --only, --stdout, --list and --env, also in the config file and the variables",
            ));
        }
        if self.exec.is_some() && self.from.is_none() {
            return Err(Failure::usage(
                "--exec needs --from",
                "a handler works for one contact: --from NAME --exec CMD",
            ));
        }
        // Before the secret is fetched, and perhaps burnt: a receipt must not be followed by "no such command".
        if let Some(program) = self.command.first() {
            child::find_program(program)?;
        }
        let party = context.party()?;
        if let Some(name) = &self.from {
            party.contacts()?.named(name)?;
        }
        if self.all {
            return self.take_all(context, &party);
        }
        let way = Way::default();
        let done = context.run(self.receive(context, &party, &way)).map_err(|failure| self.goes_on(failure, &way))?;
        match (done, &self.env) {
            (Some(Done { placed: Placed::Memory(secret), .. }), Some(variable)) => {
                Err(child::become_child(&self.command, variable, &secret))
            }
            (Some(done), _) => self.handle(context, &done),
            (None, _) => Ok(()),
        }
    }

    /// Each that waits, one after the other. The first failure decides on the exit code.
    fn take_all(&self, context: &Context, party: &Party) -> Outcome {
        let ids = context.run(async {
            let api = context.relay(party).await?;
            Ok(inbox::all(party, &api, self.from.as_ref()).await?)
        })?;
        let identity = context.unlock(party)?;
        if let Some(out) = self.out.as_ref().filter(|out| !out.is_dir()) {
            std::fs::create_dir(out).map_err(|e| Error::File(format!("cannot make {}", out.display()), e))?;
        }
        let mut first = None;
        for id in ids {
            let way = Way::default();
            let taken = context.run(async {
                // Of its own: connections belong to the runtime that made them.
                let api = party.api()?;
                self.take(context, party, &identity, Source::Relay(&api, id), &way).await
            });
            // By a signal to pouch, that is, and not by what a handler ended with.
            let interrupted = taken.as_ref().is_err_and(Failure::is_interruption);
            let handled = taken.map_err(|failure| self.goes_on(failure, &way)).and_then(|done| match done {
                Some(done) => self.handle(context, &done),
                None => Ok(()),
            });
            if let Err(failure) = handled {
                let code = failure.report(context.show, self.wraps_a_child());
                first = first.or(Some(code));
                if interrupted {
                    break;
                }
            }
        }
        first.map_or(Ok(()), |code| Err(Failure::Code(code)))
    }

    fn handle(&self, context: &Context, done: &Done) -> Outcome {
        match (&self.exec, &done.placed) {
            (Some(command), Placed::Folder(folder)) => {
                child::handle(command, folder, done, context.global.passphrase_fd)
            }
            _ => Ok(()),
        }
    }

    /// Adds how to go on, where something is kept for that.
    fn goes_on(&self, failure: Failure, way: &Way) -> Failure {
        let Failure::Client(error) = failure else { return failure };
        let way = way.borrow();
        let kept = way.as_ref().and_then(|(bundle, folder)| receive::kept(folder, *bundle, &self.only));
        match kept.filter(|_| matches!(error.class(), Class::Interrupted | Class::Unreachable | Class::Full)) {
            Some(path) => {
                let text = "what came is kept in";
                let hint = format!("{text} {}; the same command goes on, --restart begins anew", path.display());
                Failure::hinted(&error, hint)
            }
            None => Failure::Client(error),
        }
    }

    /// A path has a slash or a dot in it; an id has neither.
    fn file(&self) -> Option<PathBuf> {
        self.what.as_deref().filter(|w| w.contains(['/', '.'])).map(PathBuf::from)
    }

    /// Where a bundle goes that goes into a folder.
    fn folder(&self, bundle: BundleId) -> PathBuf {
        match &self.out {
            Some(out) if self.all => out.join(short(bundle)),
            Some(out) => out.clone(),
            None => Path::new(".").join(short(bundle)),
        }
    }

    async fn receive(&self, context: &Context, party: &Party, way: &Way) -> Result<Option<Done>, Failure> {
        if let Some(path) = self.file() {
            let source = Source::file(&path)?;
            let identity = context.unlock(party)?;
            return self.take(context, party, &identity, source, way).await;
        }
        let api = context.relay(party).await?;
        if !self.next {
            let id = inbox::find(party, &api, self.what.as_deref()).await?;
            let identity = context.unlock(party)?;
            return self.take(context, party, &identity, Source::Relay(&api, id), way).await;
        }
        let timeout = self.timeout.map(Duration::from_secs);
        loop {
            let id = inbox::next(party, &api, self.from.as_ref(), timeout).await?;
            let identity = context.unlock(party)?;
            let done = self.take(context, party, &identity, Source::Relay(&api, id), way).await?;
            // A request is no bundle that anybody waits for.
            if done.is_some() || self.list {
                return Ok(done);
            }
        }
    }

    /// Takes a request: it has no content, and is kept until it is answered.
    async fn take_request(
        &self,
        context: &Context,
        party: &Party,
        identity: &Identity,
        source: Source<'_>,
        ready: Ready,
    ) -> Result<Option<Done>, Failure> {
        let less = self.stdout || self.env.is_some() || !self.only.is_empty();
        if less && !self.next {
            return Err(Failure::usage("this is a request for files, and holds none", "pouch receive ID shows it"));
        }
        let (from, manifest) = (ready.from.contact.name.clone(), ready.opening.manifest().clone());
        receive::take(party, identity, source, ready, &[], Target::Memory, Bar::new(context.show)).await?;
        request::received(context, &from, manifest.body())?;
        Ok(None)
    }

    async fn take(
        &self,
        context: &Context,
        party: &Party,
        identity: &Identity,
        mut source: Source<'_>,
        way: &Way,
    ) -> Result<Option<Done>, Failure> {
        let (bundle, folder) = (source.bundle(), self.folder(source.bundle()));
        let ready = match receive::open(party, identity, &mut source, self.from.as_ref()).await {
            Ok(ready) => ready,
            Err(error) => {
                // Nobody can go on with it any more. That it is not there is the relay's word for the moment.
                if error.class() == Class::Expired {
                    receive::forget(&folder, bundle, &self.only);
                }
                return Err(error.into());
            }
        };
        self.introduce(context, &ready)?;
        if self.wraps_a_child() && ready.from.contact.verified == Verified::No {
            return Err(Error::Unverified(ready.from.contact.name).into());
        }
        if let Some(name) = &self.env
            && ready.opening.files().1 + name.len() as u64 + 2 > MAX_VARIABLE
        {
            return Err(Failure::usage("the secret is too long for a variable", "--stdout writes it to a pipe"));
        }
        if self.list {
            return self.show_list(context, &ready).map(|()| None);
        }
        if ready.opening.manifest().body().kind == Kind::Request {
            return self.take_request(context, party, identity, source, ready).await;
        }
        let manifest = ready.opening.manifest().body();
        let (from, note) = (ready.from.clone(), manifest.note.clone());
        if manifest.kind == Kind::Credential && !self.stdout && self.env.is_none() && (self.out.is_none() || self.all) {
            let text = "this is a credential, and a folder would keep it on disk in the clear";
            let hint = "--env NAME -- COMMAND or --stdout keep it off the disk; -o DIR writes it there all the same";
            // Whoever takes all that waits did not call it wrongly.
            return Err(match self.all {
                true => Failure::refused(text, hint),
                false => Failure::usage(text, hint),
            });
        }
        let target = if self.stdout {
            Target::Writer(Box::new(std::io::stdout()))
        } else if self.env.is_some() {
            Target::Memory
        } else {
            if self.restart {
                receive::forget(&folder, bundle, &self.only);
            }
            way.replace(Some((bundle, folder.clone())));
            Target::Folder(folder)
        };
        let bar = Bar::new(context.show);
        let taken = receive::take(party, identity, source, ready, &self.only, target, bar.clone()).await;
        bar.done();
        let mut taken = taken?;
        let mut done = Done { bundle, from, note, placed: Placed::Written };
        self.report(context, &done, &taken)?;
        std::mem::swap(&mut done.placed, &mut taken.placed);
        Ok(Some(done))
    }
}
