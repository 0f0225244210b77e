use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use pouch_client::Home;
use pouch_client::backup::{self, Backup};
use pouch_core::age::{self, Opener, Passphrase, Recipient, Sealer};
use serde_json::json;
use zeroize::Zeroizing;

use crate::commands::input::Stdin;
use crate::commands::keyfile;
use crate::commands::newfile::{check_new, write_new};
use crate::run::{Context, Failure, Outcome, printing};

/// The longest backup that is read, in bytes.
const MAX_BACKUP: u64 = 64 << 20;

/// Back up who I am and whom I know, and restore it in another home
#[derive(Args)]
pub(crate) struct Identity {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Backup(Save),
    Restore(Restore),
}

/// Write keys and address book into one age file
///
/// It has the passphrase of the identity, or a new one where that has none; with -r it is for those recipients instead. Whoever
/// opens it can be me. It does not hold the device key, the journal, what was sent or open invitations.
#[derive(Args)]
struct Save {
    /// The file, which must not be there
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// For this recipient: age1… or age1pq1…; can be repeated
    #[arg(short, long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
}

/// Be somebody again, in a home where nobody is
///
/// The home gets a journal and a device key of its own, and sequence numbers that no other home of this identity uses. If it is
/// interrupted, the same again goes on.
#[derive(Args)]
struct Restore {
    /// The file that `pouch identity backup` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The identities in this file open it, not a passphrase; can be repeated
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Keep the identity without a passphrase, for machines
    #[arg(long)]
    no_passphrase: bool,
}

impl Identity {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::Backup(verb) => verb.run(context),
            Verb::Restore(verb) => verb.run(context),
        }
    }
}

impl Save {
    fn run(self, context: &Context) -> Outcome {
        check_new(&self.out)?;
        let recipients = self.recipients()?;
        let party = context.party()?;
        let protected = party.is_protected();
        // One passphrase for both: it is known to be right before the file is sealed with it.
        let (identity, passphrase) = match (recipients.is_empty(), protected) {
            (true, true) => {
                let passphrase = context.asker().passphrase()?;
                (party.unlock_with(Some(&passphrase))?, Some(passphrase))
            }
            (true, false) => (context.unlock(&party)?, Some(context.asker().new_passphrase()?)),
            (false, _) => (context.unlock(&party)?, None),
        };
        let plain = Backup::of(&party, &identity)?.to_bytes()?;
        let to: Sealer<'_> = match &passphrase {
            Some(passphrase) => passphrase.into(),
            None => recipients.as_slice().into(),
        };
        let mut writer = age::encrypt(to, Vec::new()).map_err(pouch_client::Error::Age)?;
        let sealed = writer.write_all(&plain).and_then(|()| writer.finish()).map_err(Failure::other)?;
        write_new(&self.out, &sealed)?;
        let file = self.out.display().to_string();
        context.show.object(&json!({ "type": "backup", "file": file, "size": sealed.len() })).map_err(printing)?;
        context.show.essence(&file).map_err(printing)?;
        context
            .show
            .line(format_args!("keys and address book are in {file}; whoever opens it can be you"))
            .map_err(printing)
    }

    fn recipients(&self) -> Result<Vec<Recipient>, Failure> {
        let parse = |text: &String| {
            text.parse().map_err(|e: age::KeyError| Failure::usage(format!("-r: {e}"), "age1… or age1pq1…"))
        };
        self.recipient.iter().map(parse).collect()
    }
}

impl Restore {
    fn run(self, context: &Context) -> Outcome {
        let home = context.home()?;
        let (backup, passphrase) = self.open(context)?;
        let kept = if self.no_passphrase { None } else { passphrase.as_ref() };
        backup::restore(&home, &backup, kept)?;
        let party = context.party()?;
        let identity = party.unlock_with(if party.is_protected() { passphrase.as_ref() } else { None })?;
        let key = context
            .run(async { Ok(backup::enrol(&party, &identity).await?) })
            .map_err(|failure| failure.with_hint(left_over(&home)))?;
        let (name, words) = (backup.name()?, party.fingerprint().words());
        context
            .show
            .object(&json!({
                "type": "identity-restored",
                "name": name,
                "fingerprint": party.fingerprint(),
                "words": words,
                "device": key,
                "contacts": party.contacts()?.all().len(),
            }))
            .map_err(printing)?;
        context.show.essence(party.fingerprint()).map_err(printing)?;
        context.show.line(format_args!("you are {name} here; your words: {words}")).map_err(printing)
    }

    /// The backup, and the passphrase that the identity gets here.
    fn open(&self, context: &Context) -> Result<(Backup, Option<Passphrase>), Failure> {
        let path = &self.file;
        let cannot = |e| pouch_client::Error::File(format!("cannot read {}", path.display()), e);
        let mut sealed = Vec::new();
        std::fs::File::open(path).and_then(|f| f.take(MAX_BACKUP).read_to_end(&mut sealed)).map_err(cannot)?;
        if self.identity.is_empty() {
            let passphrase = context.asker().passphrase_for("passphrase of the backup: ")?;
            let backup = unseal(&sealed, (&passphrase).into())?;
            return Ok((backup, Some(passphrase)));
        }
        let stdin = Stdin::default();
        let mut keys = Vec::new();
        for file in &self.identity {
            keys.extend(keyfile::identities(file, &stdin)?.open(&context.asker())?);
        }
        let backup = unseal(&sealed, keys.as_slice().into())?;
        let passphrase = if self.no_passphrase { None } else { Some(context.asker().new_passphrase()?) };
        Ok((backup, passphrase))
    }
}

fn unseal(sealed: &[u8], with: Opener<'_>) -> Result<Backup, Failure> {
    let locked = || {
        let hint = "is it the right file, and the right passphrase or identity? Nothing was written";
        Failure::refused("the backup does not open, or is damaged", hint)
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    let mut reader = age::decrypt(with, sealed).map_err(|_| locked())?;
    reader.read_to_end(&mut plain).map_err(|_| locked())?;
    Ok(Backup::from_bytes(&plain)?)
}

/// What to do when the home is made and its device key is not enrolled.
fn left_over(home: &Home) -> String {
    let text = if pouch_client::is_joined(home) {
        "the home is there, without a device key that the relay takes: the same again goes on. If your keys were replaced after this backup, it is of no use"
    } else {
        "the same again goes on"
    };
    text.to_owned()
}
