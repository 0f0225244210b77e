use std::path::{Path, PathBuf};

use clap::Args;
use pouch_client::Watch as _;
use pouch_core::age::{self, ArmorWriter, Identity, Recipient, Sealer, Workers, encrypt_stream};

use crate::commands::input::{Input, Source, Stdin, Watched};
use crate::commands::keyfile;
use crate::commands::output::{Output, Sink};
use crate::commands::threads::Threads;
use crate::commands::verdict::failure;
use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome};

/// Encrypt one file like age: for recipients or with a passphrase
///
/// The flags are those of `age -e`. No signature and no receipt: who made the file cannot be told from it. `pouch send`
/// does that.
#[derive(Args)]
pub(crate) struct Encrypt {
    /// The file to encrypt; standard input if not given, or -
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
    /// For this recipient: age1…, age1pq1… or "ssh-ed25519 …"; can be repeated
    #[arg(short, long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
    /// For the recipients in this file, one a line; - is standard input; can be repeated
    #[arg(short = 'R', long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// For the recipients of the identities in this file, or of a private key of SSH; either may have a passphrase; - is
    /// standard input; can be repeated
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// For this contact; can be repeated
    #[arg(long, value_name = "NAME")]
    to: Vec<pouch_statement::Name>,
    /// With a passphrase; if none is typed, ten words are made and shown
    #[arg(short, long, conflicts_with_all = ["recipient", "recipients_file", "identity", "to"])]
    passphrase: bool,
    /// As text (PEM)
    #[arg(short, long)]
    armor: bool,
    /// Write to this file, which appears, or is replaced, when it is complete; - is standard output, a terminal or not
    #[arg(short, long, value_name = "OUTPUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
}

impl Encrypt {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        if !self.passphrase && self.names_nobody() {
            return Err(Failure::usage("nobody to encrypt for", "name them with -r, -R, -i or --to, or use -p"));
        }
        let stdin = Stdin::default();
        let input = Input::open(self.input.as_deref(), &stdin)?;
        let output = self.destination(&input)?;
        let recipients = self.recipients(context, &stdin)?;
        let passphrase = if self.passphrase { Some(context.asker().sealing_passphrase()?) } else { None };
        let sealer: Sealer<'_> = match &passphrase {
            Some(passphrase) => passphrase.into(),
            None => recipients.as_slice().into(),
        };
        let bar = if output.is_terminal() || input.typed { Bar::hidden(context.show) } else { Bar::new(context.show) };
        bar.stage("encrypting", input.length);
        let workers = Workers::new(self.threads.count()).telling(&input.unwanted);
        let source = Watched::new(input.source, bar.as_ref());
        let written = output.write(|out| self.seal(sealer, source, out, workers));
        bar.done();
        written.map_err(failure)
    }

    fn names_nobody(&self) -> bool {
        self.recipient.is_empty() && self.recipients_file.is_empty() && self.identity.is_empty() && self.to.is_empty()
    }

    fn destination(&self, input: &Input) -> Result<Output, Failure> {
        let output = Output::new(self.output.as_deref())?;
        let used = self.input.iter().chain(&self.recipients_file).chain(&self.identity);
        output.distinct_from(&used.map(PathBuf::as_path).collect::<Vec<&Path>>())?;
        if output.is_terminal() && !self.armor && self.output.is_none() {
            return Err(Failure::usage(
                "refusing to write binary to the terminal",
                "use -a for text, -o FILE, or -o - to have it anyway",
            ));
        }
        // On a terminal the file comes after what is typed, not into it.
        Ok(if input.typed { output.on_screen(self.output.is_some(), true) } else { output })
    }

    fn seal(
        &self,
        sealer: Sealer<'_>,
        input: Watched<'_, Source>,
        out: Sink<'_>,
        workers: Workers<'_>,
    ) -> Result<(), age::Error> {
        if self.armor {
            let mut armor = ArmorWriter::new(out);
            encrypt_stream(sealer, input, &mut armor, workers)?;
            armor.finish()?;
        } else {
            encrypt_stream(sealer, input, out, workers)?;
        }
        Ok(())
    }

    fn recipients(&self, context: &Context, stdin: &Stdin) -> Result<Vec<Recipient>, Failure> {
        // Not parsed by clap, which would repeat what was typed: that may be a secret key (attacks.md 34).
        let parse = |text: &String| {
            text.parse().map_err(|e: age::KeyError| {
                Failure::usage(
                    format!("a recipient cannot be read: {e}"),
                    "a recipient begins with age1, or with ssh-ed25519 and stands in quotes",
                )
            })
        };
        let mut all = self.recipient.iter().map(parse).collect::<Result<Vec<Recipient>, _>>()?;
        for path in &self.recipients_file {
            all.extend(keyfile::recipients(path, stdin)?);
        }
        for path in &self.identity {
            let identities = keyfile::identities(path, stdin)?.open(&context.asker())?;
            all.extend(identities.iter().map(Identity::recipient));
        }
        if !self.to.is_empty() {
            let book = context.party()?.contacts()?;
            for name in &self.to {
                let recipient = book.named(name)?.card().age_recipient.as_str().parse();
                all.push(recipient.map_err(|e: age::KeyError| Failure::other(e))?);
            }
        }
        keyfile::warn_of_duplicates(context.show, "recipient", self.recipient.iter().cloned());
        keyfile::warn_of_duplicates(context.show, "recipients file", keyfile::names(&self.recipients_file));
        keyfile::warn_of_duplicates(context.show, "identity file", keyfile::names(&self.identity));
        Ok(all)
    }
}
