use std::io::{self, IsTerminal as _, Read, Write};
use std::path::PathBuf;

use clap::Args;
use pouch_core::age::{self, ArmorWriter, Passphrase, Recipient, Sealer, encrypt, parse_identities, parse_recipients};

use crate::commands::output::Output;
use crate::exit;
use crate::progress::Bar;
use crate::run::{Context, Failure, Outcome};
use pouch_client::Watch as _;

/// The longest recipient or identity file that is read, in bytes.
pub(crate) const MAX_KEY_FILE: u64 = 16 << 20;
/// How a secret key begins, in any case.
pub(crate) const SECRET_KEY: &str = "AGE-SECRET-KEY-";
/// How much is read at once.
const BUFFER: usize = 1 << 20;

/// Encrypt one file like age: for recipients or with a passphrase
///
/// No signature and no receipt: who made the file cannot be told from it. `pouch send` does that.
#[derive(Args)]
pub(crate) struct Encrypt {
    /// The file to encrypt; standard input if not given, or -
    #[arg(value_name = "INPUT")]
    input: Option<PathBuf>,
    /// For this recipient: age1…
    #[arg(short, long, value_name = "RECIPIENT")]
    recipient: Vec<String>,
    /// For the recipients in this file, one a line
    #[arg(short = 'R', long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// For the recipients of the identities in this file
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// For this contact
    #[arg(long, value_name = "NAME")]
    to: Vec<pouch_statement::Name>,
    /// With a passphrase
    #[arg(short, long, conflicts_with_all = ["recipient", "recipients_file", "identity", "to"])]
    passphrase: bool,
    /// As text (PEM)
    #[arg(short, long)]
    armor: bool,
    /// Write to this file, which appears, or is replaced, when it is complete
    #[arg(short, long, value_name = "OUTPUT")]
    output: Option<PathBuf>,
}

impl Encrypt {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        let recipients = self.recipients(context)?;
        let passphrase: Option<Passphrase> =
            if self.passphrase { Some(context.asker().new_passphrase()?) } else { None };
        if recipients.is_empty() && passphrase.is_none() {
            return Err(Failure::usage("nobody to encrypt for", "name them with -r, -R, -i or --to, or use -p"));
        }
        let output = Output::new(self.output.as_deref());
        if output.is_terminal() && !self.armor && self.output.as_deref().is_none_or(|o| o.as_os_str() != "-") {
            return Err(Failure::usage("refusing to write binary to the terminal", "use -a for text, or -o FILE"));
        }
        let (input, length) = open_input(self.input.as_deref())?;
        let sealer: Sealer<'_> = match &passphrase {
            Some(passphrase) => passphrase.into(),
            None => recipients.as_slice().into(),
        };
        let bar = Bar::new(context.show);
        bar.stage("encrypting", length);
        let written = output.write(|out| {
            if self.armor {
                let mut writer = encrypt(sealer, ArmorWriter::new(out))?;
                copy(input, &mut writer, bar.as_ref())?;
                writer.finish()?.finish()?;
            } else {
                let mut writer = encrypt(sealer, out)?;
                copy(input, &mut writer, bar.as_ref())?;
                writer.finish()?;
            }
            Ok(())
        });
        bar.done();
        written.map_err(|error| failure(&error))
    }

    fn recipients(&self, context: &Context) -> Result<Vec<Recipient>, Failure> {
        // Not parsed by clap, which would repeat what was typed: that may be a secret key (attacks.md 34).
        let parse = |text: &String| {
            text.parse().map_err(|e: age::KeyError| {
                Failure::usage(format!("a recipient cannot be read: {e}"), "a recipient begins with age1")
            })
        };
        let mut all = self.recipient.iter().map(parse).collect::<Result<Vec<Recipient>, _>>()?;
        for path in &self.recipients_file {
            all.extend(parse_recipients(&read_text(path)?).map_err(|e| told(path, &e))?);
        }
        for path in &self.identity {
            let identities = parse_identities(&read_text(path)?).map_err(|e| told(path, &e))?;
            all.extend(identities.iter().map(age::Identity::recipient));
        }
        if !self.to.is_empty() {
            let book = context.party()?.contacts()?;
            for name in &self.to {
                let recipient = book.named(name)?.card().age_recipient.as_str().parse();
                all.push(recipient.map_err(|e: age::KeyError| Failure::other(e))?);
            }
        }
        Ok(all)
    }
}

/// Fails with 1 like age, and names the kind of failure with `--json` in the words of the age test vectors.
pub(crate) fn failure(error: &age::Error) -> Failure {
    if let age::Error::Io(io) = error
        && io.kind() == io::ErrorKind::BrokenPipe
    {
        return Failure::Code(exit::OTHER);
    }
    let hint = match error {
        age::Error::PassphraseNeeded => Some("it was encrypted with a passphrase: use -p".to_owned()),
        age::Error::NoMatch => Some("it was encrypted for somebody else; -i names other identities".to_owned()),
        _ => None,
    };
    Failure::Told { code: exit::OTHER, text: error.to_string(), hint, kind: Some(error.kind().to_string()) }
}

/// An error about a key file, by its name; the file's content is never quoted.
pub(crate) fn told(path: &std::path::Path, error: &age::Error) -> Failure {
    Failure::usage(format!("{}: {error}", path.display()), "one key a line; lines that begin with # are comments")
}

/// Reads a file of keys.
pub(crate) fn read_text(path: &std::path::Path) -> Result<zeroize::Zeroizing<String>, Failure> {
    if path.to_string_lossy().to_ascii_uppercase().starts_with(SECRET_KEY) {
        return Err(Failure::usage(
            "a secret key stands where the name of a file belongs",
            "write it to a file of its own",
        ));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text))
        .map_err(|e| Failure::other(format_args!("cannot read {}: {e}", path.display())))?;
    Ok(text)
}

/// The input, and its length if it has one.
pub(crate) fn open_input(path: Option<&std::path::Path>) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    match path.filter(|p| p.as_os_str() != "-") {
        None => Ok((Box::new(io::stdin()), None)),
        Some(path) => {
            let cannot = |e: io::Error| Failure::other(format_args!("cannot read {}: {e}", path.display()));
            let file = std::fs::File::open(path).map_err(cannot)?;
            let data = file.metadata().map_err(cannot)?;
            if data.is_dir() {
                return Err(Failure::usage(
                    format!("{} is a folder", path.display()),
                    "`pouch send` takes folders; here, pipe a tar of it",
                ));
            }
            Ok((Box::new(file), data.is_file().then_some(data.len())))
        }
    }
}

/// Copies everything, telling the bar. The buffer is wiped at the end: it held plaintext.
pub(crate) fn copy(mut from: impl Read, to: &mut impl Write, bar: &Bar) -> io::Result<()> {
    let mut buffer = zeroize::Zeroizing::new(vec![0u8; BUFFER]);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        to.write_all(buffer.get(..count).unwrap_or_default())?;
        bar.advance(count as u64);
    }
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}
