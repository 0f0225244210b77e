//! Asking: passphrases, links and secrets, on a terminal or from where the caller says. Never from arguments or variables.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use pouch_client::identity::IdentityError;
use pouch_core::age::Passphrase;
use zeroize::Zeroizing;

use crate::args::Global;
use crate::run::Failure;
use crate::signals;

/// The longest secret that is read as one line, in bytes.
const MAX_LINE: usize = 4 << 10;
/// The longest secret of a pipeline.
const MAX_PIPELINE: usize = 1 << 20;

/// How often a read of standard input that waits looks whether a signal came.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Standard input as the data of a transfer. A read that waits for input ends soon after a signal: the thread that reads
/// cannot be stopped otherwise, and an interrupted command waits for it.
pub(crate) struct Input;

impl io::Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let stdin = rustix::stdio::stdin();
        loop {
            if signals::came() {
                return Err(io::Error::other("interrupted"));
            }
            // What poll cannot judge is read: files are always ready, and errors come out of the reading.
            match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&LOOK)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) | Err(_) => {}
            }
            match rustix::io::read(stdin, &mut *into) {
                // Somebody else made it so; it is to be waited for all the same.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// How many words a passphrase has that is made here; as many as with age.
const WORDS: usize = 10;

/// Where the passphrase comes from.
pub(crate) struct Asker<'a>(pub(crate) &'a Global);

fn refuse(text: impl Into<String>) -> IdentityError {
    IdentityError::NoPassphrase(text.into())
}

/// The first line, read byte by byte: nothing behind it is taken, and no buffer keeps a copy of a secret.
fn first_line(from: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>, limit: usize) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::with_capacity(limit));
    let mut byte = Zeroizing::new([0u8; 1]);
    loop {
        match from(byte.as_mut()) {
            Ok(0) => break,
            Ok(_) if *byte == [b'\n'] => break,
            Ok(_) if line.len() == limit => return Err(io::Error::other("the line is too long")),
            Ok(_) => line.extend_from_slice(byte.as_ref()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    let text = std::str::from_utf8(&line).map_err(|_| io::Error::other("not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn line_of(mut from: impl io::Read, limit: usize) -> io::Result<Zeroizing<String>> {
    first_line(&mut |byte| from.read(byte), limit)
}

/// A secret's line from where the caller said, if anywhere.
fn line_from(
    file: Option<&Path>,
    fd: Option<u32>,
    command: Option<&str>,
    limit: usize,
) -> Option<io::Result<Zeroizing<String>>> {
    let open = |path: &Path| File::open(path).and_then(|file| line_of(file, limit));
    match (file, fd) {
        (Some(path), _) => Some(open(path)),
        (None, Some(fd)) => Some(open(Path::new(&format!("/proc/self/fd/{fd}")))),
        (None, None) => command.map(|command| from_command(command, limit)),
    }
}

/// The secret of the pipeline that the caller names, if one is.
pub(crate) fn pipeline(global: &Global) -> Option<io::Result<Zeroizing<String>>> {
    let Global { pipeline_file, pipeline_fd, pipeline_command, .. } = global;
    line_from(pipeline_file.as_deref(), *pipeline_fd, pipeline_command.as_deref(), MAX_PIPELINE)
}

impl Asker<'_> {
    fn elsewhere(&self) -> Option<io::Result<Zeroizing<String>>> {
        let Global { passphrase_file, passphrase_fd, passphrase_command, .. } = self.0;
        line_from(passphrase_file.as_deref(), *passphrase_fd, passphrase_command.as_deref(), MAX_LINE)
    }

    /// The line from where the caller said, or what `prompt` gets from a person.
    fn line(
        &self,
        prompt: impl FnOnce() -> Result<Zeroizing<String>, IdentityError>,
    ) -> Result<Zeroizing<String>, IdentityError> {
        match self.elsewhere() {
            Some(line) => line.map_err(|e| refuse(format!("cannot read the passphrase: {e}"))),
            None if can_prompt() => prompt(),
            None => Err(refuse("a passphrase is needed, and there is no terminal to ask on")),
        }
    }

    /// The passphrase of an identity that exists.
    pub(crate) fn passphrase(&self) -> Result<Passphrase, IdentityError> {
        self.passphrase_for("passphrase: ")
    }

    /// A passphrase that exists, with a question that says for what.
    pub(crate) fn passphrase_for(&self, question: &str) -> Result<Passphrase, IdentityError> {
        let line = self.line(|| hidden(question).map_err(|e| refuse(e.to_string())))?;
        if line.is_empty() { Err(refuse("the passphrase is empty")) } else { Ok(Passphrase::new(line)) }
    }

    /// A passphrase for an identity that is being made; asked twice on a terminal.
    pub(crate) fn new_passphrase(&self) -> Result<Passphrase, IdentityError> {
        let line = self.line(|| once_more(hidden("passphrase (new): ").map_err(|e| refuse(e.to_string()))?))?;
        if line.is_empty() { Err(refuse("an empty passphrase protects nothing")) } else { Ok(Passphrase::new(line)) }
    }

    /// A passphrase for a file; asked twice on a terminal, and made up if nothing is typed there.
    pub(crate) fn sealing_passphrase(&self) -> Result<Passphrase, IdentityError> {
        let line = self.line(|| {
            let first = hidden("passphrase (empty: one is made): ").map_err(|e| refuse(e.to_string()))?;
            if !first.is_empty() {
                return once_more(first);
            }
            let made = random_words().map_err(|e| refuse(e.to_string()))?;
            // To the terminal alone: standard error may be kept somewhere.
            let mut tty = File::options().write(true).open("/dev/tty").map_err(|e| refuse(e.to_string()))?;
            let told = Zeroizing::new(format!("the passphrase is: {}\n", *made));
            tty.write_all(told.as_bytes()).map_err(|e| refuse(e.to_string()))?;
            Ok(made)
        })?;
        if line.is_empty() { Err(refuse("an empty passphrase protects nothing")) } else { Ok(Passphrase::new(line)) }
    }
}

/// What was typed, if it is typed again.
fn once_more(first: Zeroizing<String>) -> Result<Zeroizing<String>, IdentityError> {
    let second = hidden("once more: ").map_err(|e| refuse(e.to_string()))?;
    if *first == *second { Ok(first) } else { Err(refuse("the two passphrases differ")) }
}

/// [`WORDS`] words of the BIP-39 English list, which has 2^11: 110 bits.
fn random_words() -> io::Result<Zeroizing<String>> {
    let list = bip39::Language::English.word_list();
    // The longest word has eight letters, so that the text never moves in memory.
    let mut text = Zeroizing::new(String::with_capacity(WORDS * 9));
    let mut random = Zeroizing::new([0; WORDS * 2]);
    getrandom::fill(random.as_mut()).map_err(|e| io::Error::other(e.to_string()))?;
    for two in random.as_chunks::<2>().0 {
        let number = usize::from(u16::from_le_bytes(*two)) % list.len();
        if !text.is_empty() {
            text.push('-');
        }
        text.push_str(list.get(number).copied().unwrap_or_default());
    }
    Ok(text)
}

fn from_command(command: &str, limit: usize) -> io::Result<Zeroizing<String>> {
    let mut child = Command::new("sh").arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let line = match child.stdout.take() {
        Some(out) => line_of(out, limit),
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
    signals::at_prompt(|| rpassword::prompt_password(question)).map(Zeroizing::new)
}

/// A secret of one line: asked on a terminal if standard input is one, otherwise the first line of standard input.
pub(crate) fn secret_line(question: &str) -> io::Result<Zeroizing<String>> {
    if io::stdin().is_terminal() && can_prompt() {
        return hidden(question);
    }
    first_line(&mut |byte| Ok(rustix::io::read(rustix::stdio::stdin(), byte)?), MAX_LINE)
}

/// A secret of any bytes from standard input, or a line from the terminal.
pub(crate) fn secret_bytes(question: &str, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    if io::stdin().is_terminal() && can_prompt() {
        return hidden(question).map(|line| Zeroizing::new(line.as_bytes().to_vec()));
    }
    // Filled in place, so that no copy of the secret stays behind in memory that grew.
    let mut bytes = Zeroizing::new(vec![0u8; limit + 1]);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match rustix::io::read(rustix::stdio::stdin(), room) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    if length > limit {
        return Err(io::Error::other(format!("a secret has at most {limit} bytes; send larger things as files")));
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Asks on the terminal, showing what is typed.
pub(crate) fn visible(question: &str) -> io::Result<String> {
    let mut tty = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    tty.write_all(question.as_bytes())?;
    let line = signals::at_prompt(|| line_of(&mut tty, MAX_LINE))?;
    Ok(line.trim().to_owned())
}

/// Asks for a yes on the terminal; without one, refuses with a hint.
pub(crate) fn agree(question: &str, instead: &str) -> Result<(), Failure> {
    if !can_prompt() {
        return Err(Failure::usage("there is no terminal to ask on", instead));
    }
    match visible(question).map_err(Failure::other)?.as_str() {
        "yes" => Ok(()),
        _ => Err(Failure::refused("nothing was changed", "only yes is a yes")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn made_passphrases_are_ten_words_and_never_the_same() {
        let list = bip39::Language::English.word_list();
        // What makes the remainder fair.
        assert_eq!(list.len(), 1 << 11);
        let made = random_words().unwrap();
        assert!(made.split('-').count() == WORDS && made.split('-').all(|word| list.contains(&word)));
        assert_ne!(*made, *random_words().unwrap());
    }
}
