//! A send under way: what it takes to go on with it after an interruption. One file each, begun before the first part leaves
//! and removed at the end (docs/format.md, "Transfer").
//!
//! Its first line holds, signed by and sealed to myself, what is sent and how, with the bundle key and the key of the digests:
//! nobody else can give me a bundle key to seal to. Each part that the relay acknowledged adds a line. No part's line is
//! waited for until it is durable, only the first one where it leads to a kept stream, and the last: what a crash takes away is
//! sealed and sent again, with a fresh file key. So does a file that was restored from a backup, or copied.

mod standing;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_core::age;
use pouch_core::bundle::{Compression, Content, DigestKey, Kept, KeptPart, MAX_PARTS};
use pouch_protocol::Commit;
use pouch_statement::{Blake3Digest, BundleId, Fingerprint, MailboxId, StatementError, sign_detached};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};
use crate::home::{self, Home};
use crate::identity::Identity;
use crate::party::Party;
use crate::send::{Once, Purpose};
use crate::spool::Spool;

pub(crate) use self::standing::{Held, discard, hold, leave, list, put_away, spool_of, spools};
pub use self::standing::{Standing, keeps, standing};

use self::standing::remove_spool;

const FOLDER: &str = "transfers";
/// The longest line. The last one holds an envelope for each of at most 100 recipients.
const MAX_LINE: u64 = 64 << 20;
/// Hexadecimal characters of a digest, and the space behind it.
const CHECK_LEN: usize = 65;
/// Namespace of my signature of the secrets.
const NAMESPACE: &str = "pouch.transfer.v1";

/// What can be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Files.
    Files(Files),
    /// A stream that is kept.
    Spool(Spool),
}

/// Where files are, and how they are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Absolute, as bytes: a path need not be text.
    pub paths: Vec<Vec<u8>>,
    /// Links were followed.
    pub dereference: bool,
    /// What is neither file nor folder was left out.
    pub skip_special: bool,
}

/// What is sent, how and to whom: the same again goes on with what was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    pub(crate) source: Source,
    pub(crate) compression: Option<Compression>,
    pub(crate) purpose: Purpose,
    /// For how many seconds it may be fetched, from its beginning on.
    pub(crate) lifetime: u64,
    pub(crate) burn: bool,
    /// In ascending order.
    pub(crate) to: Vec<Fingerprint>,
    /// The key under which it is to be delivered once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) once: Option<Once>,
}

impl Plan {
    /// Whether it is the same but for its recipients.
    pub(crate) fn differs_only_in_recipients(&self, other: &Self) -> bool {
        self.to != other.to && Self { to: other.to.clone(), ..self.clone() } == *other
    }

    /// Whether it is the same for the same people, some of whom have other keys now: `is_now` tells of a fingerprint of then
    /// whose it is.
    pub(crate) fn is_for_former_keys(&self, now: &Self, is_now: impl Fn(&Fingerprint) -> Option<Fingerprint>) -> bool {
        let Some(mut to) = self.to.iter().map(is_now).collect::<Option<Vec<_>>>() else { return false };
        to.sort_unstable_by_key(|fingerprint| *fingerprint.as_bytes());
        self.to != now.to && Self { to, ..self.clone() } == *now
    }

    /// The digest under `key` of what tells this content from another one that is read in the same way; `None` if it is of
    /// another kind.
    fn list(&self, content: &Content, key: &DigestKey) -> Option<Blake3Digest> {
        match (&self.source, content) {
            (Source::Files(_), Content::Tree(scan)) => Some(scan.digest(key)),
            (Source::Spool(spool), Content::Stream { .. }) => Some(key.digest(spool.digest().as_bytes())),
            _ => None,
        }
    }
}

/// What only I may read of a transfer.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(crate) struct Secrets {
    /// Signed with the rest, so that what was signed for one bundle is of no use for another.
    #[zeroize(skip)]
    bundle: BundleId,
    bundle_key: String,
    digest_key: [u8; 32],
    #[zeroize(skip)]
    pub(crate) plan: Plan,
    /// Keyed digest of the list of files, or of what tells the stream from others.
    #[zeroize(skip)]
    list: Blake3Digest,
}

impl Secrets {
    /// With fresh keys.
    pub(crate) fn new(bundle: BundleId, plan: Plan, content: &Content) -> Result<Self> {
        let key = DigestKey::from_bytes(pouch_statement::random()?);
        let list = plan.list(content, &key).ok_or(Error::Worker)?;
        let bundle_key = age::Identity::generate_x25519().expose_secret_string().to_string();
        Ok(Self { bundle, bundle_key, digest_key: *key.expose_bytes(), plan, list })
    }

    /// Whether this is what is sent, as far as a look tells.
    pub(crate) fn is_of(&self, content: &Content) -> bool {
        self.plan.list(content, &self.digests()) == Some(self.list)
    }

    pub(crate) fn digests(&self) -> DigestKey {
        DigestKey::from_bytes(self.digest_key)
    }

    pub(crate) fn bundle_key(&self) -> Result<age::Identity> {
        self.bundle_key.parse().map_err(|_| Error::Worker)
    }

    /// Signed, then sealed to myself; base64. What is sealed is one line of JSON and the signature's armor.
    fn seal(&self, party: &Party, identity: &Identity) -> Result<String> {
        let mut text = Zeroizing::new(serde_json::to_vec(self).map_err(crate::api::ApiError::Encode)?);
        let armor = sign_detached(NAMESPACE, &text, &identity.signing).map_err(StatementError::from)?;
        text.push(b'\n');
        text.extend_from_slice(armor.as_bytes());
        Ok(STANDARD.encode(age::seal_to_vec(party.recipient(), &text)?))
    }

    /// As [`Self::seal`] made it with this identity, whichever its keys were then, for this bundle; `None` of anything else.
    fn unseal(sealed: &str, identity: &Identity, bundle: BundleId) -> Option<Self> {
        let sealed = STANDARD.decode(sealed).ok()?;
        let mut text = Zeroizing::new(Vec::new());
        identity.open_part(&sealed, &mut text).ok()?;
        let end = text.iter().position(|byte| *byte == b'\n')?;
        let (json, armor) = (text.get(..end)?, std::str::from_utf8(text.get(end + 1..)?).ok()?);
        if !identity.has_signed(NAMESPACE, json, armor) {
            return None;
        }
        serde_json::from_slice::<Self>(json).ok().filter(|secrets| secrets.bundle == bundle)
    }
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    /// Bytes that all parts will cover, if that is known.
    total: Option<u64>,
    /// The kept stream that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spool: Option<BundleId>,
    /// [`Secrets`], sealed to my own recipient; base64. Without it nothing can go on: the source was a stream that is not kept, or a
    /// pipeline sends.
    sealed: Option<String>,
}

/// A part that the relay acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) part: u32,
    pub(crate) sealed_size: u64,
    pub(crate) sealed_blake3: Blake3Digest,
    /// Keyed digest of its content.
    pub(crate) content: Blake3Digest,
    /// Bytes of content that it stands for.
    pub(crate) covers: u64,
}

/// What remains to be said when all parts and the index are there: the same, however often it is said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Last {
    pub(crate) commit: Commit,
    pub(crate) envelopes: Vec<Envelope>,
}

/// One recipient's envelope.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Envelope {
    pub(crate) mailbox: MailboxId,
    /// Base64.
    pub(crate) sealed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Part(Part),
    Last(Last),
}

/// The file of a transfer. Whoever has it is the one that sends.
pub(crate) struct Transfer {
    path: PathBuf,
    /// Locked.
    file: File,
    total: Option<u64>,
    /// `None` of a stream that is not kept, and of a pipeline's send.
    pub(crate) secrets: Option<Secrets>,
    pub(crate) parts: BTreeMap<u32, Part>,
    pub(crate) last: Option<Last>,
}

fn path(home: &Home, bundle: BundleId) -> PathBuf {
    home.state(FOLDER).join(bundle.to_string())
}

impl Transfer {
    /// Begins the file. It is durable only where it is what leads to a kept stream: if another one is lost, the send starts
    /// over.
    pub(crate) fn create(
        party: &Party,
        identity: &Identity,
        bundle: BundleId,
        total: Option<u64>,
        secrets: Option<Secrets>,
    ) -> Result<Self> {
        let folder = party.home.state(FOLDER);
        home::private_folder(&folder)?;
        let sealed = secrets.as_ref().map(|secrets| secrets.seal(party, identity)).transpose()?;
        let spool = secrets.as_ref().and_then(|secrets| secrets.plan.source.spool()).map(|spool| spool.id);
        let mut line = serde_json::to_vec(&First { total, spool, sealed }).map_err(crate::api::ApiError::Encode)?;
        line.push(b'\n');
        let path = path(&party.home, bundle);
        // Nobody finds it before it is locked and has its first line.
        let _lock = party.home.lock()?;
        let mut file = OpenOptions::new().create_new(true).append(true).read(true).mode(0o600).open(&path);
        let made = file.as_mut().map_err(|error| io::Error::from(error.kind())).and_then(|file| {
            file.lock()?;
            file.write_all(&line)
        });
        if made.is_err() {
            // Nothing is left that cannot be read: it would keep what others have kept.
            let _ = std::fs::remove_file(&path);
        }
        made.map_err(Error::file("write", &path))?;
        let file = file.map_err(Error::file("write", &path))?;
        if spool.is_some() {
            file.sync_data().and_then(|()| File::open(&folder)?.sync_all()).map_err(Error::file("write", &path))?;
        }
        Ok(Self { path, file, total, secrets, parts: BTreeMap::new(), last: None })
    }

    /// The transfer of a bundle with all that is known of it; `None` if there is none that can go on, or somebody sends it.
    pub(crate) fn open(party: &Party, identity: &Identity, bundle: BundleId) -> Result<Option<Self>> {
        let path = path(&party.home, bundle);
        let _lock = party.home.lock()?;
        let Some(file) = take(&path)? else { return Ok(None) };
        let mut reader = BufReader::new(&file);
        let Some((first, mut length)) = read_first(&mut reader).map_err(Error::file("read", &path))? else {
            return Ok(None);
        };
        let Some(secrets) = first.sealed.and_then(|sealed| Secrets::unseal(&sealed, identity, bundle)) else {
            return Ok(None);
        };
        let (mut parts, mut last) = (BTreeMap::new(), None);
        let key = secrets.digests();
        while let Some(line) = next_line(&mut reader).map_err(Error::file("read", &path))? {
            match checked(&line, &key) {
                Some(Line::Part(part)) if part.part < MAX_PARTS => drop(parts.insert(part.part, part)),
                Some(Line::Last(found)) => last = Some(found),
                // Torn, or of a write that never got to the disk: what follows is not to be relied on.
                _ => break,
            }
            length += line.len() as u64;
        }
        file.set_len(length).map_err(Error::file("mend", &path))?;
        Ok(Some(Self { path, file, total: first.total, secrets: Some(secrets), parts, last }))
    }

    fn append(&mut self, line: &Line) -> Result<()> {
        let Some(secrets) = &self.secrets else { return Ok(()) };
        let text = serde_json::to_string(line).map_err(crate::api::ApiError::Encode)?;
        let check = secrets.digests().digest(text.as_bytes());
        // One write, so that a kill leaves a line or none.
        let line = format!("{check} {text}\n");
        self.file.write_all(line.as_bytes()).map_err(Error::file("write", &self.path))
    }

    /// The relay has acknowledged a part.
    pub(crate) fn note(&mut self, part: Part) -> Result<()> {
        self.append(&Line::Part(part))?;
        self.parts.insert(part.part, part);
        Ok(())
    }

    /// All is there; this is what remains to be said.
    pub(crate) fn conclude(&mut self, last: Last) -> Result<()> {
        let line = Line::Last(last);
        self.append(&line)?;
        // Before the outbox says that it is committing: what it was numbered with must not get lost alone, nor what tells that
        // there is something to settle.
        let folder = || File::open(self.path.parent().unwrap_or(&self.path))?.sync_all();
        self.file.sync_data().and_then(|()| folder()).map_err(Error::file("write", &self.path))?;
        if let Line::Last(last) = line {
            self.last = Some(last);
        }
        Ok(())
    }

    /// What need not be sealed again.
    pub(crate) fn kept(&self) -> Option<Kept> {
        let mut kept = Kept::new(self.secrets.as_ref()?.digests());
        for (number, part) in &self.parts {
            let Part { content, sealed_size, sealed_blake3, .. } = *part;
            kept.insert(*number, KeptPart { content, sealed_size, sealed_blake3 });
        }
        Some(kept)
    }

    /// How much is done, in hundredths, if the whole is known.
    pub(crate) fn percent(&self) -> Option<u8> {
        percent(self.parts.values().map(|part| part.covers).sum(), self.total)
    }

    /// What was piped in is kept with it.
    pub(crate) fn spool(&self) -> Option<&Spool> {
        self.secrets.as_ref()?.plan.source.spool()
    }

    /// It is over.
    pub(crate) fn remove(self, home: &Home) -> Result<()> {
        let spool = self.spool().map(|spool| spool.id);
        let _lock = home.lock()?;
        self.leave()?;
        spool.map_or(Ok(()), |spool| remove_spool(home, spool))
    }

    /// It is over; what it sends is sent by another.
    pub(crate) fn leave(self) -> Result<()> {
        Ok(home::remove(&self.path)?)
    }
}

fn percent(done: u64, total: Option<u64>) -> Option<u8> {
    let total = total.filter(|total| *total > 0)?;
    u8::try_from(u128::from(done) * 100 / u128::from(total)).ok().map(|percent| percent.min(100))
}

/// Opens and locks the file, if it is there and nobody else has it.
pub(crate) fn take(path: &Path) -> Result<Option<File>> {
    let Some(file) = home::open(path, OpenOptions::new().append(true).read(true))? else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(Error::file("lock", path)(e)),
    }
}

fn read_first(reader: &mut BufReader<&File>) -> io::Result<Option<(First, u64)>> {
    reader.seek(SeekFrom::Start(0))?;
    let Some(line) = next_line(reader)? else { return Ok(None) };
    Ok(serde_json::from_slice(&line).ok().map(|first| (first, line.len() as u64)))
}

/// The next line with its end; `None` where there is no whole one.
fn next_line(reader: &mut BufReader<&File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.take(MAX_LINE).read_until(b'\n', &mut line)?;
    Ok(line.ends_with(b"\n").then_some(line))
}

/// A line, if it is what was written.
fn checked(line: &[u8], key: &DigestKey) -> Option<Line> {
    let (check, text) = line.strip_suffix(b"\n")?.split_at_checked(CHECK_LEN)?;
    let expected = format!("{} ", key.digest(text));
    if expected.as_bytes() == check { serde_json::from_slice(text).ok() } else { None }
}
