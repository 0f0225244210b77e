//! Which transfers there are, how they stand, and how they end: without any key.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use pouch_statement::BundleId;

use super::{CHECK_LEN, FOLDER, First, Line, next_line, path, percent, read_first, take};
use crate::error::{Error, Result};
use crate::home::{self, Home};
use crate::party::Party;
use crate::spool;

/// How a send that is not finished stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody sends it.
    Running,
    /// Nobody does; it can go on.
    Interrupted {
        /// How much of it is done, in hundredths, if the whole is known.
        percent: Option<u8>,
    },
    /// Nobody does, and nothing is left that it could go on with.
    Lost,
}

/// How a send that is not finished stands, without any key.
///
/// # Errors
/// The file system.
pub fn standing(party: &Party, bundle: BundleId) -> Result<Standing> {
    let path = path(&party.home, bundle);
    let _lock = party.home.lock()?;
    let Some(file) = take(&path)? else {
        let there = path.try_exists().map_err(Error::file("look at", &path))?;
        return Ok(if there { Standing::Running } else { Standing::Lost });
    };
    let mut reader = BufReader::new(&file);
    let Some((First { total, spool, sealed: Some(_) }, _)) =
        read_first(&mut reader).map_err(Error::file("read", &path))?
    else {
        return Ok(Standing::Lost);
    };
    if spool.is_some_and(|spool| !spool::is_there(&party.home, spool)) {
        return Ok(Standing::Lost);
    }
    let mut parts = BTreeMap::new();
    while let Some(line) = next_line(&mut reader).map_err(Error::file("read", &path))? {
        let Some((_, text)) = line.split_at_checked(CHECK_LEN) else { break };
        if let Ok(Line::Part(part)) = serde_json::from_slice(text) {
            parts.insert(part.part, part.covers);
        }
    }
    Ok(Standing::Interrupted { percent: percent(parts.values().sum(), total) })
}

/// The bundles of which there is a transfer.
pub(crate) fn list(party: &Party) -> Result<Vec<BundleId>> {
    Ok(home::bundles(&party.home.state(FOLDER), "")?)
}

/// Removes what is left of a send that nobody goes on with, unless somebody sends it.
pub(crate) fn discard(party: &Party, bundle: BundleId) -> Result<()> {
    end(party, bundle, Spooled::Removed)
}

/// As [`discard`], but not if what was piped in is kept with it: that stays until it is delivered, in whatever bundle, or
/// given up.
pub(crate) fn put_away(party: &Party, bundle: BundleId) -> Result<()> {
    end(party, bundle, Spooled::Stays)
}

/// As [`discard`], but for what was piped in, which another transfer may have.
pub(crate) fn leave(party: &Party, bundle: BundleId) -> Result<()> {
    end(party, bundle, Spooled::Left)
}

/// What becomes of what was piped in.
#[derive(PartialEq, Eq)]
enum Spooled {
    /// It stays, and its transfer with it.
    Stays,
    /// It stays, for another transfer.
    Left,
    /// It goes, unless another transfer has it.
    Removed,
}

/// A transfer that nobody sends, nor can while this is there.
pub(crate) struct Held {
    path: PathBuf,
    /// Locked; there may be none.
    file: Option<File>,
}

/// Keeps others from sending it; `None` if somebody does.
pub(crate) fn hold(party: &Party, bundle: BundleId) -> Result<Option<Held>> {
    let path = path(&party.home, bundle);
    let _lock = party.home.lock()?;
    let file = take(&path)?;
    let is_sent = file.is_none() && path.try_exists().map_err(Error::file("look at", &path))?;
    Ok((!is_sent).then_some(Held { path, file }))
}

impl Held {
    /// As [`discard`].
    pub(crate) fn discard(self, party: &Party) -> Result<()> {
        let _lock = party.home.lock()?;
        self.file.map_or(Ok(()), |file| end_locked(party, &self.path, &file, Spooled::Removed))
    }
}

/// Removes one that nobody sends.
fn end(party: &Party, bundle: BundleId, spooled: Spooled) -> Result<()> {
    let path = path(&party.home, bundle);
    let _lock = party.home.lock()?;
    let Some(file) = take(&path)? else { return Ok(()) };
    end_locked(party, &path, &file, spooled)
}

fn end_locked(party: &Party, path: &Path, file: &File, spooled: Spooled) -> Result<()> {
    let spool = spool_in(file).map_err(Error::file("read", path))?;
    match spool {
        Some(_) if spooled == Spooled::Stays => Ok(()),
        Some(spool) if spooled == Spooled::Removed => {
            home::remove(path)?;
            remove_spool(&party.home, spool)
        }
        _ => Ok(home::remove(path)?),
    }
}

/// Removes a spool whose transfer is gone, unless another one has it: that of a send that began anew and was killed there. The
/// caller holds the home's lock.
pub(super) fn remove_spool(home: &Home, spool: BundleId) -> Result<()> {
    match spools(home)? {
        Some(had) if !had.contains(&spool) => spool::remove(home, spool),
        _ => Ok(()),
    }
}

fn spool_in(file: &File) -> io::Result<Option<BundleId>> {
    Ok(read_first(&mut BufReader::new(file))?.and_then(|(first, _)| first.spool))
}

/// Whether what was piped in is kept for this one.
///
/// # Errors
/// The file system.
pub fn keeps(party: &Party, bundle: BundleId) -> Result<bool> {
    Ok(spool_of(party, bundle)?.is_some_and(|spool| spool::is_there(&party.home, spool)))
}

/// The kept stream that a transfer has, whoever sends it.
pub(crate) fn spool_of(party: &Party, bundle: BundleId) -> Result<Option<BundleId>> {
    let path = path(&party.home, bundle);
    let Some(file) = home::open(&path, OpenOptions::new().read(true))? else { return Ok(None) };
    spool_in(&file).map_err(Error::file("read", &path))
}

/// The kept streams that transfers have; `None` if that cannot be said of one, for its first line is torn. The caller holds the
/// home's lock.
pub(crate) fn spools(home: &Home) -> Result<Option<BTreeSet<BundleId>>> {
    let mut spools = BTreeSet::new();
    for bundle in home::bundles(&home.state(FOLDER), "")? {
        let path = path(home, bundle);
        // Where there is none it ended this moment.
        let Some(file) = home::open(&path, OpenOptions::new().read(true))? else { continue };
        let Some((first, _)) = read_first(&mut BufReader::new(&file)).map_err(Error::file("read", &path))? else {
            return Ok(None);
        };
        spools.extend(first.spool);
    }
    Ok(Some(spools))
}
