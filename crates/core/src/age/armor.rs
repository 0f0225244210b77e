//! The armor (C2SP age, "ASCII armor"): a whole age file as lines of text.
//!
//! Reader and writer are our own. The `age` crate's reader keeps a line of any length and copies binary files
//! 48 bytes at a time; its writer breaks lines at the wrong place after a flush.

use std::io::{self, BufRead, Read, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::error::{Error, Result};

const BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const END: &[u8] = b"-----END AGE ENCRYPTED FILE-----";
/// Characters on every line of the body but the last (RFC 7468, section 3).
const COLUMNS: usize = 64;
/// Bytes of the file in such a line.
const LINE_LEN: usize = COLUMNS / 4 * 3;
/// Most bytes of white space before and after the armor.
const MAX_WHITESPACE: usize = 1024;
/// Bytes that the writer collects before it encodes them: whole lines.
const COLLECTED_LEN: usize = LINE_LEN * 256;

/// How an age file is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Binary,
    /// As text, between two marker lines.
    Armor,
}

/// What is wrong with an armor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArmorError {
    /// The first line is another.
    #[error("the first line of the armor is not that of an age file")]
    Begin,
    /// A line is not 64 characters of canonical base64, or a shorter one is not the last.
    #[error("body line {line} of the armor is not canonical")]
    Line {
        /// Number of the line, from 1 for the one after the marker.
        line: u64,
    },
    /// The input ends before the last line.
    #[error("the armor is cut short")]
    CutShort,
    /// Something that is not white space, or too much of that, before or after.
    #[error("something else stands around the armor")]
    Around,
}

/// Whether the first line of an armor stands somewhere in `bytes`.
pub(super) fn begins_in(bytes: &[u8]) -> bool {
    bytes.windows(BEGIN.len()).any(|window| window == BEGIN)
}

/// Reads the file inside an armor.
///
/// Lines may end in LF or CRLF, and up to a KiB of white space may stand around; everything else is strict,
/// so that one file has one armor. The end of the file is reported only when nothing follows the armor.
pub struct ArmorReader<R> {
    input: R,
    state: State,
    /// Number of the line that is read.
    line: u64,
    text: Vec<u8>,
    plain: [u8; LINE_LEN],
    pos: usize,
    len: usize,
}

#[derive(Clone, Copy)]
enum State {
    Begin,
    Body,
    /// The last line of the body was read.
    End,
    Done,
    Failed(ArmorError),
}

impl<R: BufRead> ArmorReader<R> {
    /// Reads from `input`, and nothing before the first read.
    pub fn new(input: R) -> Self {
        let text = Vec::with_capacity(COLUMNS + 2);
        Self { input, state: State::Begin, line: 0, text, plain: [0; LINE_LEN], pos: 0, len: 0 }
    }

    /// Takes one step; afterwards there are bytes, or the state is another.
    fn step(&mut self) -> Result<()> {
        match self.state {
            State::Begin => {
                if !self.skip_whitespace()? {
                    return Err(ArmorError::Begin.into());
                }
                self.read_line(ArmorError::Begin)?;
                if self.text != BEGIN {
                    return Err(ArmorError::Begin.into());
                }
                self.state = State::Body;
            }
            State::Body | State::End => {
                self.line += 1;
                self.read_line(ArmorError::Line { line: self.line })?;
                if self.text == END {
                    if self.skip_whitespace()? {
                        return Err(ArmorError::Around.into());
                    }
                    self.state = State::Done;
                } else {
                    self.decode_line()?;
                }
            }
            State::Done => {}
            State::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn decode_line(&mut self) -> Result<()> {
        let wrong = ArmorError::Line { line: self.line };
        if matches!(self.state, State::End) || self.text.is_empty() || self.text.len() > COLUMNS {
            return Err(wrong.into());
        }
        self.len = BASE64_STANDARD.decode_slice(&self.text, &mut self.plain).map_err(|_| wrong)?;
        self.pos = 0;
        if self.len < LINE_LEN {
            self.state = State::End;
        }
        Ok(())
    }

    /// Skips white space, and says whether something else follows.
    fn skip_whitespace(&mut self) -> Result<bool> {
        let mut skipped = 0;
        loop {
            let available = fill(&mut self.input)?;
            let white = available.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let end = available.is_empty();
            let other = white < available.len();
            self.input.consume(white);
            skipped += white;
            if skipped > MAX_WHITESPACE {
                return Err(ArmorError::Around.into());
            }
            if end || other {
                return Ok(other);
            }
        }
    }

    /// Reads a line into `text`, without its end. Only the last one of the input may lack that.
    fn read_line(&mut self, too_long: ArmorError) -> Result<()> {
        self.text.clear();
        loop {
            let available = fill(&mut self.input)?;
            if available.is_empty() {
                return if self.text == END { Ok(()) } else { Err(ArmorError::CutShort.into()) };
            }
            let newline = available.iter().take(COLUMNS + 2).position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or(available.len());
            // A carriage return may stand beside the columns.
            if self.text.len() + taken > COLUMNS + 1 {
                return Err(too_long.into());
            }
            self.text.extend_from_slice(available.get(..taken).unwrap_or_default());
            self.input.consume(taken + usize::from(newline.is_some()));
            if newline.is_some() {
                if self.text.ends_with(b"\r") {
                    self.text.pop();
                }
                return Ok(());
            }
        }
    }
}

fn fill(input: &mut impl BufRead) -> Result<&[u8]> {
    // Asked twice, for the borrow of an early return would last for the whole loop.
    loop {
        match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    Ok(input.fill_buf()?)
}

impl<R: BufRead> BufRead for ArmorReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.pos == self.len && !matches!(self.state, State::Done) {
            self.step().inspect_err(|error| {
                if let Error::ArmorFailure(error) = error {
                    self.state = State::Failed(*error);
                }
            })?;
        }
        Ok(self.plain.get(self.pos..self.len).unwrap_or_default())
    }

    fn consume(&mut self, amount: usize) {
        self.pos = (self.pos + amount).min(self.len);
    }
}

impl<R: BufRead> Read for ArmorReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let read = available.read(out)?;
        self.consume(read);
        Ok(read)
    }
}

/// Writes an age file as text: give it to [`encrypt`](super::encrypt) as the output.
///
/// [`finish`](Self::finish) writes the last lines, after the [`EncryptWriter`](super::EncryptWriter) is
/// finished; without it the armor is refused.
pub struct ArmorWriter<W: Write> {
    output: W,
    collected: Vec<u8>,
    text: Vec<u8>,
    broken: bool,
}

impl<W: Write> ArmorWriter<W> {
    /// Writes to `output`, nothing yet.
    pub fn new(output: W) -> Self {
        let mut text = Vec::with_capacity(COLLECTED_LEN / LINE_LEN * (COLUMNS + 1) + 2 * BEGIN.len());
        text.extend_from_slice(BEGIN);
        text.push(b'\n');
        Self { output, collected: Vec::with_capacity(COLLECTED_LEN), text, broken: false }
    }

    /// Writes what is left and the last line, flushes the output and gives it back.
    ///
    /// # Errors
    ///
    /// Whatever the output says, or an earlier failure.
    pub fn finish(mut self) -> io::Result<W> {
        self.usable()?;
        self.encode_collected()?;
        self.text.extend_from_slice(END);
        self.text.push(b'\n');
        self.write_text()?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn usable(&self) -> Result<()> {
        if self.broken { Err(Error::Broken) } else { Ok(()) }
    }

    fn encode_collected(&mut self) -> Result<()> {
        let mut line = [0; COLUMNS];
        for bytes in self.collected.chunks(LINE_LEN) {
            let len = BASE64_STANDARD.encode_slice(bytes, &mut line).map_err(|_| Error::Library)?;
            self.text.extend_from_slice(line.get(..len).unwrap_or_default());
            self.text.push(b'\n');
        }
        self.collected.clear();
        Ok(())
    }

    fn write_text(&mut self) -> Result<()> {
        self.broken = true;
        self.output.write_all(&self.text)?;
        self.text.clear();
        self.broken = false;
        Ok(())
    }
}

impl<W: Write> Write for ArmorWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.usable()?;
        let taken = data.len().min(COLLECTED_LEN - self.collected.len());
        self.collected.extend_from_slice(data.get(..taken).unwrap_or_default());
        // Only full lines are encoded here, so that a short one is the last.
        if self.collected.len() == COLLECTED_LEN {
            self.encode_collected()?;
            self.write_text()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.usable()?;
        self.output.flush()
    }
}

#[cfg(test)]
mod tests;
