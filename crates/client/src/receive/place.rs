//! Where verified content goes, and the way there: parts from a source through threads that open, check and write them.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pouch_core::bundle::{Chosen, InMemory, Keep, OpenError, Opening, Receiver, Released, Sink, SinkError, Staging};
use pouch_statement::BundleId;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::source::{Source, Wanted};
use crate::clock::now;
use crate::error::{Class, Error, Result};
use crate::send::threads;
use crate::watch::Watch;

/// Where verified content goes.
pub enum Target {
    /// A folder that does not exist yet.
    Folder(PathBuf),
    /// A writer, for a bundle of one file.
    Writer(Box<dyn std::io::Write + Send>),
    /// Memory, for a credential on its way into a variable: no NUL byte.
    Memory,
}

/// Where it went.
#[derive(Debug)]
pub enum Placed {
    /// Into this folder.
    Folder(PathBuf),
    /// Into the writer.
    Written,
    /// Here.
    Memory(Zeroizing<Vec<u8>>),
}

/// Takes what is chosen of a bundle to where it goes; tells also how many bytes of it were there before.
pub(super) async fn place(
    source: &mut Source<'_>,
    opening: Opening,
    (only, chosen): (&[String], Chosen),
    target: Target,
    watch: &dyn Watch,
) -> Result<(Placed, u64)> {
    match target {
        Target::Folder(folder) => {
            let manifest = opening.manifest().body();
            let (bundle, index, expires) = (manifest.bundle, manifest.sealed_index_sha256, manifest.expires);
            let keep = Keep { bundle, index, paths: only.to_vec(), expires, now: now() };
            let placed = place_in_folder(source, opening, chosen, &folder, &keep, watch).await;
            // What cannot be gone on with, or is not what was signed, does not stay. Another place that was mistyped is none of
            // that.
            if let Err(error) = &placed
                && !matches!(error.class(), Class::Unreachable | Class::Full | Class::Refused)
            {
                forget(&folder, bundle, only);
            }
            placed
        }
        Target::Writer(to) => {
            drive(source, opening, chosen, Released::new(to), watch).await?;
            Ok((Placed::Written, 0))
        }
        Target::Memory => {
            let (secret, _) = drive(source, opening, chosen, InMemory::new(), watch).await?;
            // Before a receipt says that it arrived: it would not reach the program.
            if secret.contains(&0) { Err(Error::NulByte) } else { Ok((Placed::Memory(secret), 0)) }
        }
    }
}

async fn place_in_folder(
    source: &mut Source<'_>,
    opening: Opening,
    chosen: Chosen,
    folder: &Path,
    keep: &Keep,
    watch: &dyn Watch,
) -> Result<(Placed, u64)> {
    let stage = |error| OpenError::Sink(SinkError::Stage(error));
    let staging = Staging::resumable(folder, keep).map_err(stage)?;
    if staging.goes_on() {
        watch.stage("checking what came before", None);
    }
    let (staged, had) = drive(source, opening, chosen, staging, watch).await?;
    Ok((Placed::Folder(staged.publish().map_err(stage)?), had))
}

/// Where a receive of this bundle, or of these paths of it, into this folder would go on; `None` if nothing is kept.
#[must_use]
pub fn kept(folder: &Path, bundle: BundleId, only: &[String]) -> Option<PathBuf> {
    Staging::kept(folder, bundle, only)
}

/// Lets go what was kept for that, unless another process is at it. What cannot be cleared away stays: it is in nobody's
/// way.
pub fn forget(folder: &Path, bundle: BundleId, only: &[String]) {
    let _ = Staging::discard(folder, bundle, only);
}

/// Feeds the parts that are needed to worker threads that open, check and write them; tells also how many bytes were there
/// before.
async fn drive<S>(
    source: &mut Source<'_>,
    opening: Opening,
    chosen: Chosen,
    sink: S,
    watch: &dyn Watch,
) -> Result<(S::Done, u64)>
where
    S: Sink + Send + 'static,
    S::Done: Send + 'static,
{
    let begun = tokio::task::spawn_blocking(move || opening.receive_chosen(chosen, sink)).await;
    let receiver = begun.map_err(|_| Error::Worker)??;
    let (wanted, had) = (wanted(&receiver), receiver.had());
    watch.stage("receiving", Some(wanted.iter().map(|(_, _, size)| size).sum()));
    let (parts, mut queue) = mpsc::channel::<(u32, Bytes)>(1);
    let worker = tokio::task::spawn_blocking(move || -> std::result::Result<Option<S::Done>, OpenError> {
        receiver.accept_all(threads(), |wanted, sealed: &mut Bytes| {
            // Free what was opened before waiting for more.
            *sealed = Bytes::new();
            match queue.blocking_recv() {
                Some((found, _)) if found != wanted => Err(OpenError::PartOrder { found, wanted }),
                Some((_, part)) => {
                    *sealed = part;
                    Ok(true)
                }
                None => Ok(false),
            }
        })?;
        // The channel closes early when the transfer was given up; the sink cleans up when it is dropped.
        if receiver.missing().is_empty() { receiver.finish().map(Some) } else { Ok(None) }
    });
    let fed = source.feed(&wanted, &parts, watch).await;
    drop(parts);
    // What the worker found wrong is the reason, not that it stopped listening.
    let done = worker.await.map_err(|_| Error::Worker)??;
    fed?;
    done.map(|done| (done, had)).ok_or(Error::Worker)
}

/// The parts that have to come.
fn wanted<S: Sink>(receiver: &Receiver<S>) -> Vec<Wanted> {
    let part = |number| receiver.opening().part_spec(number).map(|spec| (number, spec.sealed_size, spec.size));
    receiver.missing().into_iter().filter_map(part).collect()
}

impl fmt::Display for Placed {
    /// For the journal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => {
                let whole = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                write!(f, "into {}", whole.display())
            }
            Self::Written => f.write_str("to standard output"),
            Self::Memory(_) => f.write_str("into memory"),
        }
    }
}
