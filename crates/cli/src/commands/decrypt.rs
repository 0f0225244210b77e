use std::path::PathBuf;

use clap::Args;
use pouch_client::Watch as _;
use pouch_core::age::{self, Identity, Opener, decrypt, parse_identities};

use crate::commands::encrypt::{copy, failure, open_input, read_text, told};
use crate::commands::output::Output;
use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome};

/// Decrypt one age file, armored or not
///
/// Without -i and -p, your own identity is used. Standard output gets plaintext as it is verified, chunk by chunk: the
/// exit status says whether it was all. -o publishes nothing before that.
#[derive(Args)]
pub(crate) struct Decrypt {
    /// The file to decrypt; standard input if not given, or -
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
    /// Use the identities in this file
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// It was encrypted with a passphrase
    #[arg(short, long, conflicts_with = "identity")]
    passphrase: bool,
    /// Write to this file, which appears, or is replaced, when all of it is verified
    #[arg(short, long, value_name = "OUTPUT")]
    output: Option<PathBuf>,
}

impl Decrypt {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let passphrase = if self.passphrase { Some(context.asker().passphrase()?) } else { None };
        let identities = if passphrase.is_some() { Vec::new() } else { self.identities(context)? };
        let opener: Opener<'_> = match &passphrase {
            Some(passphrase) => passphrase.into(),
            None => identities.as_slice().into(),
        };
        let (input, length) = open_input(self.input.as_deref())?;
        let bar = Bar::new(context.show);
        bar.stage("decrypting", length);
        let written = Output::new(self.output.as_deref()).write(|out| {
            let reader = decrypt(opener, std::io::BufReader::with_capacity(1 << 18, input))?;
            let mut out = out;
            copy(reader, &mut out, bar.as_ref())?;
            Ok(())
        });
        bar.done();
        written.map_err(|error| failure(&error))
    }

    fn identities(&self, context: &Context) -> Result<Vec<Identity>, Failure> {
        if self.identity.is_empty() {
            let home = context.home()?;
            if !pouch_client::is_joined(&home) {
                return Err(Failure::usage("no identity to decrypt with", "-i FILE, or -p if it has a passphrase"));
            }
            let party = context.party()?;
            return Ok(vec![context.unlock(&party)?.age]);
        }
        let mut all = Vec::new();
        for path in &self.identity {
            all.extend(parse_identities(&read_text(path)?).map_err(|e: age::Error| told(path, &e))?);
        }
        Ok(all)
    }
}
