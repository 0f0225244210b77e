//! My own append-only record of every transfer and every attempt (docs/format.md, "Journal").
//!
//! Appending and verifying need no passphrase, reading does. A record is durable before the command that
//! it tells of reports success.

mod event;
mod known;

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_core::age;
use pouch_log::{Comparison, Domain, Frontier, Hash, Remembered, compare, event_leaf, leaf_hash};
use pouch_statement::{JournalId, Sha256Digest};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use self::event::{Action, Ended, Event};
use crate::home::{self, Home, HomeError};

const FOLDER: &str = "journal";
const RECORDS: &str = "journal/records";
const HEAD: &str = "journal/head";
/// The longest line of a record: an event is at most a few kilobytes.
const MAX_LINE: usize = 64 << 10;

/// What can go wrong with the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It does not hold what its head says.
    #[error("the journal was tampered with: {0}; run `pouch log verify`")]
    Broken(String),
    /// The file system failed.
    #[error("cannot write the journal: {0}")]
    Io(#[from] io::Error),
    /// State around it.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] pouch_statement::RandomError),
    /// Sealing or opening a record failed.
    #[error("a journal record cannot be sealed or opened: {0}")]
    Age(#[from] age::Error),
    /// An event that cannot be written down; a defect.
    #[error("a journal event cannot be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

/// An attempt under way. It is journaled when it ends, and when it is interrupted (dropped) before that.
pub(crate) struct Attempt<'a> {
    journal: Journal,
    /// One record for each of these.
    open: &'a [Event],
}

impl<'a> Attempt<'a> {
    /// Begins an attempt; `event` is what is known of it now.
    pub(crate) fn begin(journal: Journal, event: &'a Event) -> Self {
        Self::begin_all(journal, std::slice::from_ref(event))
    }

    /// [`Attempt::begin`], for what concerns several people: a record for each.
    pub(crate) fn begin_all(journal: Journal, events: &'a [Event]) -> Self {
        Self { journal, open: events }
    }

    /// Journals how it ended.
    pub(crate) fn conclude(self, event: &Event) -> Result<(), JournalError> {
        self.conclude_all(std::slice::from_ref(event))
    }

    /// Journals how it ended, with a record for each.
    pub(crate) fn conclude_all(mut self, events: &[Event]) -> Result<(), JournalError> {
        self.open = &[];
        events.iter().try_for_each(|event| self.journal.append(event))
    }

    /// Ends without a record: another one follows that says more.
    pub(crate) fn pass(mut self) {
        self.open = &[];
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        for event in self.open {
            let event = event.clone().failed("interrupted");
            // Nobody is left to tell of an error; `log verify` notices a journal that cannot be written.
            let _ = self.journal.append(&event);
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    seq: u64,
    commitment: Sha256Digest,
    sealed: String,
}

impl Record {
    fn leaf(&self, sealed: &[u8]) -> Hash {
        let sealed = Sha256Digest::of(sealed);
        let mut data = [0u8; 64];
        let (commitment, digest) = data.split_at_mut(32);
        commitment.copy_from_slice(self.commitment.as_bytes());
        digest.copy_from_slice(sealed.as_bytes());
        leaf_hash(&data)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    journal: JournalId,
    /// Length of the records file, in bytes, that the tree covers.
    length: u64,
    frontier: String,
}

/// What `log verify` found.
#[derive(Debug)]
pub struct Report {
    /// The journal's id.
    pub journal: JournalId,
    /// Records that the head covers.
    pub size: u64,
    /// The tree's root over them.
    pub root: Hash,
    /// How the records compare with the head.
    pub comparison: Comparison,
    /// Lines that are no records, counted.
    pub unreadable: u64,
    /// Half a record stands at the end, from a command that was cut off; the next one clears it away.
    pub torn: bool,
}

impl Report {
    /// Whether the journal is what it was when the last command ended.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unreadable == 0 && self.comparison.is_sound()
    }

    /// The finding in words.
    #[must_use]
    pub fn finding(&self) -> String {
        let unreadable = match self.unreadable {
            0 => String::new(),
            1 => "; one line is no record".to_owned(),
            some => format!("; {some} lines are no records"),
        };
        let finding = match &self.comparison {
            Comparison::Intact => format!("{} records, intact", self.size),
            Comparison::Extended { by } => {
                format!("{} records, intact; {by} more were written when a command was cut off", self.size)
            }
            Comparison::Truncated { have, want, .. } => format!("truncated: {have} of {want} records are left"),
            Comparison::Altered { want, spans, .. } => {
                let place = |span: &std::ops::Range<u64>| match span.end.saturating_sub(1) {
                    last if last == span.start => last.to_string(),
                    last => format!("{} to {last}", span.start),
                };
                let places: Vec<_> = spans.iter().map(place).collect();
                let places = if places.is_empty() { "somewhere".to_owned() } else { places.join(", ") };
                format!("altered: of {want} records something among those numbered {places} is not what it was")
            }
            Comparison::Rewritten { want, .. } => format!("rewritten: none of the {want} records is what it was"),
        };
        let torn = if self.torn { "; half a record of a command that was cut off stands behind" } else { "" };
        finding + &unreadable + torn
    }
}

/// The journal of one party.
pub struct Journal {
    home: Home,
    to: age::Recipient,
    id: JournalId,
}

impl Journal {
    /// The journal `id` in `home`, whose records are sealed to `to`, the owner's own recipient.
    #[must_use]
    pub fn new(home: Home, to: age::Recipient, id: JournalId) -> Self {
        Self { home, to, id }
    }

    /// Begins an empty journal, or finds the one that an interrupted beginning left. Its head is durable before any
    /// record, so a head that is missing later was taken away.
    pub(crate) fn create(home: &Home) -> Result<JournalId, JournalError> {
        let _lock = home.lock()?;
        home::private_folder(&home.state(FOLDER))?;
        let path = home.state(HEAD);
        if let Some(head) = home::read_json::<Head>(&path)? {
            return Ok(head.journal);
        }
        let journal = JournalId::random()?;
        home::write_json(&path, &Head { journal, length: 0, frontier: Frontier::new().encode() })?;
        Ok(journal)
    }

    fn records(&self) -> PathBuf {
        self.home.state(RECORDS)
    }

    fn head(&self) -> Result<(Head, Frontier), JournalError> {
        let path = self.home.state(HEAD);
        let missing = || JournalError::Broken("its head is missing".into());
        let head = home::read_json::<Head>(&path)?.ok_or_else(missing)?;
        if head.journal != self.id {
            return Err(JournalError::Broken("it is another journal than the one that was begun here".into()));
        }
        let frontier =
            Frontier::decode(&head.frontier).map_err(|e| HomeError::Damaged { path, reason: e.to_string() })?;
        Ok((head, frontier))
    }

    /// Appends a record; it is on stable storage when this returns.
    ///
    /// # Errors
    /// A journal that was tampered with is not continued.
    pub fn append(&self, event: &Event) -> Result<(), JournalError> {
        let _lock = self.home.lock()?;
        let (mut head, mut frontier) = self.head()?;
        let path = self.records();
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
        head.length = recover(&mut file, head.length, &mut frontier)?;

        let event = Zeroizing::new(serde_json::to_vec(&event.bounded())?);
        let salt = pouch_statement::random::<32>()?;
        let commitment = Sha256Digest::from_bytes(event_leaf(Domain::JOURNAL_V1, &salt, &event));
        let mut plain = Zeroizing::new(salt.to_vec());
        plain.extend_from_slice(&event);
        let sealed = age::seal_to_vec(&self.to, &plain)?;
        let record = Record { seq: frontier.size(), commitment, sealed: STANDARD.encode(&sealed) };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        file.seek(SeekFrom::Start(head.length))?;
        file.write_all(&line)?;
        file.sync_all()?;
        if head.length == 0 {
            File::open(self.home.state(FOLDER))?.sync_all()?;
        }
        frontier.append(record.leaf(&sealed));
        head.length += line.len() as u64;
        head.frontier = frontier.encode();
        home::write_json(&self.home.state(HEAD), &head)?;
        Ok(())
    }

    /// Checks the records against the head, without any key.
    ///
    /// # Errors
    /// The file system, or a head that is missing, another journal's, or not readable.
    pub fn verify(&self) -> Result<Report, JournalError> {
        Ok(self.check()?.0)
    }

    /// [`Journal::verify`], and the leaves that the records are.
    fn check(&self) -> Result<(Report, Vec<Hash>), JournalError> {
        let _lock = self.home.lock()?;
        let (head, frontier) = self.head()?;
        let mut leaves = Vec::new();
        let mut unreadable = 0;
        let torn = self.each(head.length, |record, sealed| match (record, sealed) {
            (Some(record), Some(sealed)) if record.seq == leaves.len() as u64 => {
                leaves.push(record.leaf(&sealed));
                Ok(())
            }
            _ => {
                // A leaf that fits nothing keeps the ones behind it in their places.
                leaves.push(leaf_hash(b"unreadable"));
                unreadable += 1;
                Ok(())
            }
        })?;
        let size = frontier.size();
        let root = frontier.root();
        let comparison = compare(&leaves, &Remembered::from(frontier));
        Ok((Report { journal: head.journal, size, root, comparison, unreadable, torn }, leaves))
    }

    /// Opens all records with the owner's keys, of now and before, oldest first.
    ///
    /// # Errors
    /// A record that does not open or is not what its commitment says.
    pub fn events(&self, keys: &[&age::Identity]) -> Result<Vec<Event>, JournalError> {
        let _lock = self.home.lock()?;
        let (head, _) = self.head()?;
        let mut events = Vec::new();
        self.each(head.length, |record, sealed| {
            let broken = || JournalError::Broken(format!("record {} is not readable", events.len()));
            let (record, sealed) = (record.ok_or_else(broken)?, sealed.ok_or_else(broken)?);
            let mut plain = Zeroizing::new(Vec::new());
            // Most are of the present key, which comes first.
            if !keys.iter().any(|key| age::open_part(key, &sealed, &mut plain).is_ok()) {
                return Err(broken());
            }
            let (salt, event) = plain.split_first_chunk::<32>().ok_or_else(broken)?;
            if event_leaf(Domain::JOURNAL_V1, salt, event) != *record.commitment.as_bytes() {
                return Err(broken());
            }
            let event = serde_json::from_slice(event).map_err(|_| broken())?;
            events.push(event);
            Ok(())
        })?;
        Ok(events)
    }

    /// Gives each line to `take`; `true` if behind what the head covers there is half a line, from a command that was cut
    /// off in the middle of writing it.
    fn each(
        &self,
        covered: u64,
        mut take: impl FnMut(Option<Record>, Option<Vec<u8>>) -> Result<(), JournalError>,
    ) -> Result<bool, JournalError> {
        let file = match File::open(self.records()) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        let (mut reader, mut at, mut line) = (BufReader::new(file), 0, Vec::new());
        while reader.read_until(b'\n', &mut line)? > 0 {
            let Some(text) = line.strip_suffix(b"\n") else {
                if at >= covered {
                    return Ok(true);
                }
                take(None, None)?;
                break;
            };
            let (record, sealed) = read_line(text);
            take(record, sealed)?;
            at += line.len() as u64;
            line.clear();
        }
        Ok(false)
    }
}

fn read_line(line: &[u8]) -> (Option<Record>, Option<Vec<u8>>) {
    let record: Option<Record> = if line.len() <= MAX_LINE { serde_json::from_slice(line).ok() } else { None };
    // One spelling: what is stored must be exactly what would be written.
    let record = record.filter(|r| serde_json::to_vec(r).is_ok_and(|again| again == line));
    let sealed = record.as_ref().and_then(|r| STANDARD.decode(&r.sealed).ok());
    (record, sealed)
}

/// Brings file and head together after a crash between the two: a whole line behind the head is taken in, half a
/// line (never reported as done) is cut off. A file shorter than the head is damage. Gives the length to go on from.
fn recover(file: &mut File, length: u64, frontier: &mut Frontier) -> Result<u64, JournalError> {
    let found = file.seek(SeekFrom::End(0))?;
    if found < length {
        return Err(JournalError::Broken(format!("{} bytes are missing at its end", length - found)));
    }
    if found == length {
        return Ok(length);
    }
    file.seek(SeekFrom::Start(length))?;
    let mut end = length;
    let mut reader = BufReader::new(&mut *file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let Some(text) = line.strip_suffix(b"\n") else { break };
        let (Some(record), Some(sealed)) = read_line(text) else {
            return Err(JournalError::Broken("something foreign was appended".into()));
        };
        if record.seq != frontier.size() {
            return Err(JournalError::Broken(format!("record {} is out of place", record.seq)));
        }
        if end > length {
            // Each command brings file and head together before it writes: there is one record between them at most.
            return Err(JournalError::Broken("more was appended than one command can have left".into()));
        }
        frontier.append(record.leaf(&sealed));
        end += line.len() as u64;
        line.clear();
    }
    drop(reader);
    file.set_len(end)?;
    Ok(end)
}

#[cfg(test)]
mod tests;
