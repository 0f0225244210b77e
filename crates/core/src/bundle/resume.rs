//! What stays of a bundle whose receiving was cut off, and what of it still holds when the same is received again.
//!
//! The staging folder then has a name that follows from what is received, and in it stands a file of the same name, the
//! record: a head, and a line for each stretch whose content was verified and written. No bundle carries such a name. The
//! record proves nothing. A file that lies in one stretch counts if its bytes have the digest in the signed index. Of a
//! file that lies in several, a stretch counts if the bytes give the tree values that were noted when they were verified,
//! and all of them together the digest in the index. So nothing has to be durable before the end: what a crash took away,
//! or somebody changed, is fetched again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use pouch_statement::{Blake3Digest, BundleId, Sha256Digest, Timestamp};

use super::chosen::Chosen;
use super::index::{EntryKind, Index};
use super::layout::MAX_PARTS;
use super::os::Folder;
use super::plan::Piece as Place;
use super::spread::{Piece, PieceHasher, Spread};
use super::stage::{Here, apply};

/// How a record begins.
const TYPE: &str = "pouch.staging.v1";
/// The longest head, in bytes: type, digest, time.
const MAX_HEAD: u64 = 128;
/// The longest line: number, digest.
const MAX_LINE: u64 = 80;
/// The longest record that is read, in bytes: a line for each frame of the largest bundle, each twice.
const MAX_RECORD: u64 = 64 * MAX_PARTS as u64 * MAX_LINE;
/// Bytes read at once.
const STEP: usize = 256 << 10;
/// Threads that look at what is there.
const THREADS: usize = 4;

/// What is being received, for a staging folder that stays when it is cut off.
#[derive(Clone, Debug)]
pub struct Keep {
    /// The bundle.
    pub bundle: BundleId,
    /// Digest of its sealed index: another content is begun anew.
    pub index: Sha256Digest,
    /// The paths that are chosen of it; none for all.
    pub paths: Vec<String>,
    /// From when on nobody can go on with it.
    pub expires: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// The id in the name of the staging folder of this bundle, or of these paths of it.
pub(super) fn folder_id(bundle: BundleId, paths: &[String]) -> BundleId {
    let mut text = format!("{TYPE}\n{bundle}\n");
    for path in paths {
        text.push_str(&format!("{}\n{path}\n", path.len()));
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(Sha256Digest::of(text.as_bytes()).as_bytes()) {
        *to = *from;
    }
    BundleId::from_bytes(id)
}

/// The record of a staging folder, open to be continued.
pub(super) struct Record {
    file: Mutex<File>,
    /// It was there before.
    found: bool,
    /// What it noted before: stretches, each with the commitment to its pieces.
    noted: HashMap<usize, Blake3Digest>,
    /// Whether it notes anything now.
    notes: AtomicBool,
}

impl Record {
    /// Begins one, or goes on with the one that is there if it is of the same content. Otherwise the folder is empty then.
    pub(super) fn open(folder: &Folder, name: &str, keep: &Keep) -> std::io::Result<Self> {
        let head = format!("{TYPE} {} {}\n", keep.index, keep.expires.unix());
        if let Some((text, file)) = read(folder, name)
            && let Some((found, lines)) = text.split_once('\n')
            && parse_head(found).is_some_and(|(index, _)| index == keep.index)
        {
            // A line that a crash cut off is no line.
            let whole = text.rfind('\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)?;
            let noted = lines.split_inclusive('\n').filter_map(parse_line).collect();
            return Ok(Self::of(file, true, noted));
        }
        folder.clear_all()?;
        let mut file = folder.create_appending(name)?;
        file.write_all(head.as_bytes())?;
        Ok(Self::of(file, false, HashMap::new()))
    }

    fn of(file: File, found: bool, noted: HashMap<usize, Blake3Digest>) -> Self {
        let notes = AtomicBool::new(!noted.is_empty());
        Self { file: Mutex::new(file), found, noted, notes }
    }

    /// Whether it was there before, and files beside it.
    pub(super) fn was_there(&self) -> bool {
        self.found
    }

    /// Whether it notes anything that is worth keeping.
    pub(super) fn is_worth_it(&self) -> bool {
        self.notes.load(Ordering::Relaxed)
    }

    /// Notes that a stretch is verified and written.
    pub(super) fn note(&self, stretch: u32, pieces: &Blake3Digest) -> std::io::Result<()> {
        let line = format!("{stretch} {pieces}\n");
        self.notes.store(true, Ordering::Relaxed);
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
    }
}

/// When what is kept in a staging folder is of no use any more; `None` if nothing is kept there.
pub(super) fn expires(folder: &Folder, name: &str) -> Option<Timestamp> {
    let mut head = String::new();
    let file = folder.open_file(name, false).ok()?;
    file.take(MAX_HEAD).read_to_string(&mut head).ok()?;
    parse_head(head.split_once('\n')?.0).map(|(_, expires)| expires)
}

fn read(folder: &Folder, name: &str) -> Option<(String, File)> {
    let file = folder.open_appending(name).ok()?;
    let mut text = String::new();
    (&file).take(MAX_RECORD).read_to_string(&mut text).ok()?;
    Some((text, file))
}

fn parse_head(head: &str) -> Option<(Sha256Digest, Timestamp)> {
    let (index, expires) = head.strip_prefix(TYPE)?.strip_prefix(' ')?.split_once(' ')?;
    Some((index.parse().ok()?, Timestamp::from_unix(expires.parse().ok()?).ok()?))
}

fn parse_line(line: &str) -> Option<(usize, Blake3Digest)> {
    let (number, digest) = line.strip_suffix('\n')?.split_once(' ')?;
    Some((number.parse().ok()?, digest.parse().ok()?))
}

/// What a sink has of a bundle before anything comes: nothing, unless it was cut off before.
#[derive(Default)]
pub struct Had {
    /// By stretch; none at all if there is nothing.
    stretches: Vec<bool>,
    /// Of files that are not complete: the file, and what those stretches have of it.
    pieces: Vec<(usize, Piece)>,
    /// Files that are there, complete or not.
    files: BTreeSet<usize>,
    /// Bytes of files.
    bytes: u64,
}

impl Had {
    /// Whether stretch `number` is there.
    pub(super) fn has(&self, number: usize) -> bool {
        self.stretches.get(number).copied().unwrap_or(false)
    }

    /// The files of which there is anything.
    pub(super) fn take_files(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.files)
    }

    /// Bytes of files that are there.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The files that are there in part, with what is there joined.
    pub(super) fn spreads(&mut self, index: &Index) -> HashMap<usize, Spread> {
        let mut spreads = HashMap::new();
        for (number, piece) in std::mem::take(&mut self.pieces) {
            let size = index.entries().get(number).map_or(0, |entry| entry.size());
            // Some of it is missing, so that this is no digest yet.
            let _ = spreads.entry(number).or_insert_with(|| Spread::new(size)).add(piece);
        }
        spreads
    }
}

/// What is there of one stretch.
struct Found {
    pieces: Vec<(usize, Piece)>,
    whole: Vec<usize>,
    bytes: u64,
}

/// Holds what the record notes against the index, on several threads.
pub(super) fn look(root: &Folder, record: &Record, index: &Index, chosen: &Chosen, umask: u32) -> Had {
    let needed = chosen.stretches(index);
    let mut noted: Vec<_> = record.noted.iter().filter(|(n, _)| needed.get(**n) == Some(&true)).collect();
    noted.sort_unstable_by_key(|(number, _)| **number);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        let mut here = Here::default();
        while let Some((number, pieces)) = noted.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(stretch) = look_at(root, &mut here, **number, pieces, index, chosen, umask) {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(**number, stretch);
            }
        }
    };
    thread::scope(|scope| {
        // Where the system grants fewer threads, those that are there do the work.
        for _ in 1..THREADS {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    judge(root, found.into_inner().unwrap_or_else(PoisonError::into_inner), index, umask)
}

/// Reads what is there of a stretch; `None` if that is not what was noted, or not what the index says.
fn look_at(
    root: &Folder,
    here: &mut Here,
    number: usize,
    noted: &Blake3Digest,
    index: &Index,
    chosen: &Chosen,
    umask: u32,
) -> Option<Found> {
    let place = index.stretch(number)?;
    let mut walk = index.plan().walk(place.start, place.end);
    let size = |number: usize| match index.entries().get(number)?.kind {
        EntryKind::Folder => None,
        EntryKind::File { size, .. } => Some(size),
    };
    let mut found = Found { pieces: Vec::new(), whole: Vec::new(), bytes: 0 };
    let mut commitment = blake3::Hasher::new();
    while let Some(place) = walk.next(if walk.left() == 0 { 0 } else { usize::MAX }, size) {
        let Place::Body { entry: number, from, till, .. } = place else { continue };
        if !chosen.has(number) {
            continue;
        }
        let entry = index.entries().get(number)?;
        let EntryKind::File { size, executable, blake3 } = entry.kind else { return None };
        let file = here.folder(root, &entry.path).ok()?.open_file(entry.path.name(), false).ok()?;
        let data = file.metadata().ok().filter(|data| data.is_file() && data.nlink() == 1)?;
        found.bytes += till - from;
        if (from, till) == (0, size) {
            let mut hasher = blake3::Hasher::new();
            each(&file, from, till, |bytes| {
                hasher.update(bytes);
            })?;
            if data.len() != size || Blake3Digest::from_bytes(*hasher.finalize().as_bytes()) != blake3 {
                return None;
            }
            apply(&file, entry.mtime, executable, umask).ok()?;
            found.whole.push(number);
        } else {
            let mut hasher = PieceHasher::new(size, from, till);
            each(&file, from, till, |bytes| hasher.update(bytes))?;
            let piece = hasher.finish();
            piece.commit(number, &blake3, &mut commitment);
            found.pieces.push((number, piece));
        }
    }
    (Blake3Digest::from_bytes(*commitment.finalize().as_bytes()) == *noted).then_some(found)
}

/// Reads the bytes `from..till` of a file; `None` if it has fewer.
fn each(file: &File, mut from: u64, till: u64, mut take: impl FnMut(&[u8])) -> Option<()> {
    let mut room = vec![0; STEP.min(usize::try_from(till - from).unwrap_or(usize::MAX))];
    while from < till {
        let step = usize::try_from(till - from).unwrap_or(usize::MAX).min(room.len());
        let now = room.get_mut(..step)?;
        file.read_exact_at(now, from).ok()?;
        take(now);
        from += step as u64;
    }
    Some(())
}

/// Takes out what does not give the digest of its file, and says what remains.
fn judge(root: &Folder, mut found: BTreeMap<usize, Found>, index: &Index, umask: u32) -> Had {
    let mut shared: BTreeMap<usize, Vec<&Piece>> = BTreeMap::new();
    for (number, piece) in found.values().flat_map(|stretch| &stretch.pieces) {
        shared.entry(*number).or_default().push(piece);
    }
    let is_complete = |number: usize, found: &BTreeMap<usize, Found>| {
        index.holding(number).all(|stretch| found.contains_key(&stretch))
    };
    // Noted as it is, and still not the file: whoever can write here wrote both.
    let wrong: BTreeSet<usize> = shared
        .iter()
        .filter(|(number, pieces)| is_complete(**number, &found) && !is_right(root, **number, pieces, index, umask))
        .flat_map(|(number, _)| index.holding(*number))
        .collect();
    found.retain(|stretch, _| !wrong.contains(stretch));
    let mut had = Had { stretches: vec![false; index.stretches()], ..Had::default() };
    for stretch in found.keys() {
        if let Some(place) = had.stretches.get_mut(*stretch) {
            *place = true;
        }
    }
    let complete: BTreeSet<usize> = found
        .values()
        .flat_map(|stretch| &stretch.pieces)
        .map(|(number, _)| *number)
        .filter(|number| is_complete(*number, &found))
        .collect();
    for stretch in found.into_values() {
        had.bytes += stretch.bytes;
        had.files.extend(stretch.whole);
        for (number, piece) in stretch.pieces {
            had.files.insert(number);
            if !complete.contains(&number) {
                had.pieces.push((number, piece));
            }
        }
    }
    had
}

/// Whether all pieces of a file give its digest.
fn is_right(root: &Folder, number: usize, pieces: &[&Piece], index: &Index, umask: u32) -> bool {
    let Some(entry) = index.entries().get(number) else { return false };
    let EntryKind::File { size, executable, blake3 } = entry.kind else { return false };
    let mut spread = Spread::new(size);
    let digest = pieces.iter().fold(None, |_, piece| spread.add((*piece).clone()));
    let finish = || {
        let file = Here::default().folder(root, &entry.path)?.open_file(entry.path.name(), false)?;
        let same = file.metadata()?.len() == size;
        apply(&file, entry.mtime, executable, umask).map(|()| same)
    };
    digest == Some(blake3) && finish().unwrap_or(false)
}
