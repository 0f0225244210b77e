//! Asking: passphrases, links and secrets, on a terminal or from where the caller says. Never from arguments or variables.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _};
use std::process::{Command, Stdio};

use pouch_client::identity::IdentityError;
use pouch_core::age::Passphrase;
use zeroize::Zeroizing;

use crate::args::Global;

/// The longest secret that is read as one line, in bytes.
const MAX_LINE: u64 = 64 << 10;

/// Where the passphrase comes from.
pub(crate) struct Asker<'a>(pub(crate) &'a Global);

fn refuse(text: impl Into<String>) -> IdentityError {
    IdentityError::NoPassphrase(text.into())
}

fn first_line(from: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    BufReader::new(from.take(MAX_LINE)).read_line(&mut line)?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}

impl Asker<'_> {
    fn from_elsewhere(&self) -> Option<io::Result<Zeroizing<String>>> {
        let global = self.0;
        if let Some(path) = &global.passphrase_file {
            return Some(File::open(path).and_then(first_line));
        }
        if let Some(fd) = global.passphrase_fd {
            return Some(File::open(format!("/proc/self/fd/{fd}")).and_then(first_line));
        }
        global.passphrase_command.as_deref().map(from_command)
    }

    /// The passphrase of an identity that exists.
    pub(crate) fn passphrase(&self) -> Result<Passphrase, IdentityError> {
        let line = match self.from_elsewhere() {
            Some(line) => line.map_err(|e| refuse(format!("cannot read the passphrase: {e}")))?,
            None if can_prompt() => hidden("passphrase: ").map_err(|e| refuse(e.to_string()))?,
            None => return Err(refuse("a passphrase is needed, and there is no terminal to ask on")),
        };
        if line.is_empty() { Err(refuse("the passphrase is empty")) } else { Ok(Passphrase::new(line)) }
    }

    /// A passphrase for an identity that is being made; asked twice on a terminal.
    pub(crate) fn new_passphrase(&self) -> Result<Passphrase, IdentityError> {
        let line = match self.from_elsewhere() {
            Some(line) => line.map_err(|e| refuse(format!("cannot read the passphrase: {e}")))?,
            None if can_prompt() => {
                let first = hidden("passphrase (new): ").map_err(|e| refuse(e.to_string()))?;
                let second = hidden("once more: ").map_err(|e| refuse(e.to_string()))?;
                if *first != *second {
                    return Err(refuse("the two passphrases differ"));
                }
                first
            }
            None => return Err(refuse("a passphrase is needed, and there is no terminal to ask on")),
        };
        if line.is_empty() { Err(refuse("an empty passphrase protects nothing")) } else { Ok(Passphrase::new(line)) }
    }
}

fn from_command(command: &str) -> io::Result<Zeroizing<String>> {
    let mut child = Command::new("sh").arg("-c").arg(command).stdin(Stdio::inherit()).stdout(Stdio::piped()).spawn()?;
    let line = match child.stdout.take() {
        Some(out) => first_line(out),
        None => Err(io::Error::other("no output")),
    };
    let status = child.wait()?;
    if status.success() { line } else { Err(io::Error::other(format!("the command ended with {status}"))) }
}

/// Whether there is a terminal to ask on. Standard input may be data: prompts use the terminal itself.
pub(crate) fn can_prompt() -> bool {
    io::stderr().is_terminal() && File::open("/dev/tty").is_ok()
}

/// Asks on the terminal without showing what is typed.
pub(crate) fn hidden(question: &str) -> io::Result<Zeroizing<String>> {
    rpassword::prompt_password(question).map(Zeroizing::new)
}

/// A secret of one line: asked on a terminal if standard input is one, otherwise the first line of standard input.
pub(crate) fn secret_line(question: &str) -> io::Result<Zeroizing<String>> {
    if io::stdin().is_terminal() && can_prompt() { hidden(question) } else { first_line(io::stdin().lock()) }
}

/// A secret of any bytes from standard input, or a line from the terminal.
pub(crate) fn secret_bytes(question: &str, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    if io::stdin().is_terminal() && can_prompt() {
        return hidden(question).map(|line| Zeroizing::new(line.as_bytes().to_vec()));
    }
    // Filled in place, so that no copy of the secret stays behind in memory that grew.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    io::stdin().lock().take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::other(format!("a secret has at most {limit} bytes; send larger things as files")));
    }
    Ok(bytes)
}

/// Asks on the terminal, showing what is typed.
pub(crate) fn visible(question: &str) -> io::Result<String> {
    use std::io::Write as _;
    let mut tty = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    tty.write_all(question.as_bytes())?;
    let mut line = String::new();
    BufReader::new(tty.take(MAX_LINE)).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
