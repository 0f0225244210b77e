use std::path::{Path, PathBuf};

use clap::Args;
use pouch_client::Watch as _;
use pouch_core::age::{self, Identity, LockedIdentity, Opener, Passphrase, Workers, decrypt, decrypt_stream};

use crate::commands::input::{Input, Replay, Source, Stdin, Watched};
use crate::commands::keyfile::{self, Identities};
use crate::commands::output::{Output, Unwritten};
use crate::commands::threads::Threads;
use crate::commands::verdict::{failure, wrong_passphrase};
use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome};

/// Decrypt one age file, armored or not
///
/// The flags are those of `age -d`. Without -i, a passphrase is asked for if the file has one, and otherwise your own
/// identity is used. Standard output gets plaintext as it is verified, chunk by chunk: the exit status says whether it
/// was all. -o publishes nothing before that.
#[derive(Args)]
pub(crate) struct Decrypt {
    /// The file to decrypt; standard input if not given, or -
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
    /// Use the identities in this file, or a private key of SSH; either may have a passphrase; - is standard input; can be
    /// repeated
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// It was encrypted with a passphrase
    #[arg(short, long, conflicts_with = "identity")]
    passphrase: bool,
    /// Write to this file, which appears, or is replaced, when all of it is verified; - is standard output, a terminal
    /// or not
    #[arg(short, long, value_name = "OUTPUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

/// What opens the file.
enum Key {
    Identities(Vec<Identity>),
    Passphrase(Passphrase),
}

impl Key {
    fn opener(&self) -> Opener<'_> {
        match self {
            Self::Identities(identities) => identities.as_slice().into(),
            Self::Passphrase(passphrase) => passphrase.into(),
        }
    }
}

impl Decrypt {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let stdin = Stdin::default();
        let input = Input::open(self.input.as_deref(), &stdin)?;
        let (length, typed, unwanted) = (input.length, input.typed, input.unwanted.clone());
        let output = Output::new(self.output.as_deref())?;
        let used = self.input.iter().chain(&self.identity);
        output.distinct_from(&used.map(PathBuf::as_path).collect::<Vec<&Path>>())?;
        let output = output.on_screen(self.output.is_some(), typed);
        let files =
            self.identity.iter().map(|path| keyfile::identities(path, &stdin)).collect::<Result<Vec<_>, _>>()?;
        keyfile::warn_of_duplicates(context.show, "identity file", keyfile::names(&self.identity));
        let mut input = input.replay().map_err(Failure::other)?;
        let key = self.key(context, files, &mut input)?;
        let bar = if output.is_terminal() || typed { Bar::hidden(context.show) } else { Bar::new(context.show) };
        bar.stage("decrypting", length);
        let source = Watched::new(input.into_whole(), bar.as_ref());
        let written = output.write(|out| {
            decrypt_stream(key.opener(), source, out, Workers::new(self.threads.count()).telling(&unwanted))?;
            Ok(())
        });
        bar.done();
        written.map_err(|error| match (&key, error) {
            (Key::Passphrase(_), Unwritten::Work(age::Error::NoMatch)) => wrong_passphrase(),
            (_, error) => failure(error),
        })
    }

    /// Finds out what opens the file. Nobody is asked for a passphrase that cannot help.
    fn key(&self, context: &Context, files: Vec<Identities>, input: &mut Replay<Source>) -> Result<Key, Failure> {
        if self.passphrase {
            return Ok(Key::Passphrase(context.asker().passphrase()?));
        }
        if !files.is_empty() && files.iter().all(|file| matches!(file, Identities::Open(_))) {
            let all = files.into_iter().map(|file| file.open(&context.asker())).collect::<Result<Vec<_>, _>>()?;
            return Ok(Key::Identities(all.into_iter().flatten().collect()));
        }
        // Nobody opens it, but its header is judged.
        match judge(&[], input) {
            Err(age::Error::NoMatch) => {}
            Err(age::Error::PassphraseNeeded) if files.is_empty() => {
                return Ok(Key::Passphrase(context.asker().passphrase()?));
            }
            Err(error) => return Err(failure(error)),
            Ok(()) => return Ok(Key::Identities(Vec::new())),
        }
        if files.is_empty() { own_identity(context) } else { first_that_fits(context, files, input) }
    }
}

/// The identity of whoever joined here.
fn own_identity(context: &Context) -> Result<Key, Failure> {
    if !pouch_client::is_joined(&context.home()?) {
        return Err(failure(age::Error::IdentityNeeded));
    }
    let party = context.party()?;
    Ok(Key::Identities(vec![context.unlock(&party)?.age]))
}

/// The identities of the first file that has one which opens it, in the order in which they are named.
fn first_that_fits(context: &Context, files: Vec<Identities>, input: &mut Replay<Source>) -> Result<Key, Failure> {
    for file in files {
        let locked = match &file {
            Identities::Open(_) => None,
            Identities::Locked { locked, .. } if !may_open(locked, input).map_err(failure)? => continue,
            Identities::Locked { path, .. } => Some(path.clone()),
        };
        let identities = file.open(&context.asker())?;
        match judge(&identities, input) {
            Ok(()) => return Ok(Key::Identities(identities)),
            Err(age::Error::NoMatch) => {}
            Err(error) => return Err(failure(error)),
        }
        // Somebody typed a passphrase for it.
        if let Some(path) = locked {
            context.show.warn(format_args!("none of the identities in {} opens it", path.display()));
        }
    }
    Err(failure(age::Error::NoMatch))
}

/// Whether it is worth a passphrase. The input stands at its start again.
fn may_open(locked: &LockedIdentity, input: &mut Replay<Source>) -> Result<bool, age::Error> {
    let may = locked.may_open(&mut *input);
    input.rewind();
    may
}

/// Whether one of these opens the file, by its header. The input stands at its start again.
fn judge(identities: &[Identity], input: &mut Replay<Source>) -> Result<(), age::Error> {
    let judged = decrypt(identities, &mut *input).map(|_| ());
    input.rewind();
    judged
}
