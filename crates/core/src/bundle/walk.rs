//! The walk through a source: folders are listed by several threads, in any order.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::fs::FileType;

use super::archive::ItemKind;
use super::index::MAX_ENTRIES;
use super::os::{Folder, Seen};
use super::path::EntryPath;
use super::source::{Found, Root, ScanOptions, SourceError, io_at};

/// Threads that list at most; more only wait for each other.
const MAX_THREADS: usize = 8;
/// Folders that one thread lists before others are started: most sources are done by then.
const ALONE: usize = 16;

/// A folder still to be listed.
struct Open {
    root: usize,
    /// `None` for the root itself.
    path: Option<EntryPath>,
    /// Nodes of the folders around it, to notice a loop of links.
    around: Vec<(u64, u64)>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) found: Vec<Found>,
    pub(super) skipped: Vec<PathBuf>,
    open: Vec<Open>,
}

impl Listed {
    fn join(&mut self, mut other: Self) {
        self.found.append(&mut other.found);
        self.skipped.append(&mut other.skipped);
        self.open.append(&mut other.open);
    }
}

/// A walk that begins at some paths and goes down into every folder.
pub(super) struct Walk {
    options: ScanOptions,
    roots: Vec<Root>,
    listed: Listed,
    /// Entries of all threads together.
    count: AtomicU64,
}

/// Folders that wait, and threads that may find more.
#[derive(Default)]
struct Queue {
    open: Vec<Open>,
    busy: usize,
    stopped: bool,
}

impl Walk {
    pub(super) fn new(options: ScanOptions) -> Self {
        Self { options, roots: Vec::new(), listed: Listed::default(), count: AtomicU64::new(0) }
    }

    pub(super) fn is_folder(&self, path: &Path) -> Result<bool, SourceError> {
        let seen = Seen::path(path, self.options.dereference).map_err(io_at(path))?;
        Ok(seen.kind == FileType::Directory)
    }

    pub(super) fn add_content_of(&mut self, path: &Path) -> Result<(), SourceError> {
        let folder = Folder::open(path).map_err(io_at(path))?;
        self.roots.push(Root { folder, shown: path.to_owned() });
        self.listed.open.push(Open { root: 0, path: None, around: Vec::new() });
        Ok(())
    }

    pub(super) fn add_named(&mut self, path: &Path) -> Result<(), SourceError> {
        let name = path.file_name().ok_or_else(|| SourceError::NoName { path: path.to_owned() })?;
        let name = name.to_str().ok_or_else(|| SourceError::NotUtf8 { path: path.to_owned() })?;
        let entry = name.parse().map_err(|reason| SourceError::Path { path: path.to_owned(), reason })?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let shown = path.parent().map(Path::to_owned).unwrap_or_default();
        // Arguments mostly stand side by side: one handle for each folder, not for each argument.
        let root = match self.roots.iter().position(|root| root.shown == shown) {
            Some(root) => root,
            None => {
                let folder = Folder::open(parent).map_err(io_at(parent))?;
                self.roots.push(Root { folder, shown });
                self.roots.len() - 1
            }
        };
        let folder = &self.roots.get(root).ok_or(SourceError::Nothing)?.folder;
        let seen = folder.stat(name, self.options.dereference).map_err(io_at(path))?;
        let mut listed = std::mem::take(&mut self.listed);
        self.add(&mut listed, root, entry, seen, &[])?;
        self.listed = listed;
        Ok(())
    }

    /// Lists all folders, on several threads if there are many.
    pub(super) fn run(mut self) -> Result<(Vec<Root>, Listed), SourceError> {
        let mut all = std::mem::take(&mut self.listed);
        for _ in 0..ALONE {
            let Some(open) = all.open.pop() else { break };
            self.list(&open, &mut all)?;
        }
        if !all.open.is_empty() {
            let open = std::mem::take(&mut all.open);
            let (queue, wake) = (Mutex::new(Queue { open, ..Queue::default() }), Condvar::new());
            let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
            let lists = thread::scope(|scope| {
                // Where the system grants fewer threads, those that are there list all.
                let spawn = |_| thread::Builder::new().spawn_scoped(scope, || self.work(&queue, &wake)).ok();
                let others: Vec<_> = (1..threads).filter_map(spawn).collect();
                let mine = self.work(&queue, &wake);
                let mut lists = vec![mine];
                for other in others {
                    lists.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
                }
                lists
            });
            for listed in lists {
                all.join(listed?);
            }
        }
        Ok((self.roots, all))
    }

    /// Lists folders until none waits and nobody can find another.
    fn work(&self, queue: &Mutex<Queue>, wake: &Condvar) -> Result<Listed, SourceError> {
        let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Listed::default();
        let mut waiting = lock();
        loop {
            if waiting.stopped {
                return Ok(all);
            }
            let Some(open) = waiting.open.pop() else {
                if waiting.busy == 0 {
                    wake.notify_all();
                    return Ok(all);
                }
                waiting = wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.busy += 1;
            drop(waiting);
            // Counted back also if this panics, or the others would wait for ever.
            let turn = Turn { queue, wake };
            let listed = self.list(&open, &mut all);
            std::mem::forget(turn);
            waiting = lock();
            waiting.busy -= 1;
            waiting.open.append(&mut all.open);
            waiting.stopped |= listed.is_err();
            wake.notify_all();
            listed?;
        }
    }

    /// Lists one folder and queues the folders in it.
    fn list(&self, open: &Open, out: &mut Listed) -> Result<(), SourceError> {
        let root = self.roots.get(open.root).ok_or(SourceError::Nothing)?;
        let place = open.path.as_ref().map_or_else(|| root.shown.clone(), |p| root.shown.join(p.as_str()));
        let below;
        let folder = match &open.path {
            None => &root.folder,
            Some(path) => {
                let opened = if self.options.dereference {
                    root.folder.follow(path.as_str())
                } else {
                    root.folder.descend(path.as_str())
                };
                below = opened.map_err(io_at(&place))?;
                &below
            }
        };
        let mut around = Vec::new();
        if self.options.dereference {
            let node = folder.seen().map_err(io_at(&place))?.node;
            if open.around.contains(&node) {
                return Err(SourceError::Loop { path: place });
            }
            around.clone_from(&open.around);
            around.push(node);
        }
        let mut listed = Vec::new();
        for name in folder.names().map_err(io_at(&place))? {
            let name = String::from_utf8(name).map_err(|e| SourceError::NotUtf8 {
                path: place.join(String::from_utf8_lossy(e.as_bytes()).as_ref()),
            })?;
            let path = match &open.path {
                Some(parent) => parent.join(&name),
                None => name.parse(),
            };
            let path = path.map_err(|reason| SourceError::Path { path: place.join(&name), reason })?;
            let seen = folder.stat(&name, self.options.dereference);
            let seen = seen.map_err(|error| io_at(&place.join(&name))(error))?;
            listed.push((path, seen));
        }
        listed.sort_by(|(a, _): &(EntryPath, Seen), (b, _)| a.cmp(b));
        for (path, seen) in listed {
            self.add(out, open.root, path, seen, &around)?;
        }
        Ok(())
    }

    fn add(
        &self,
        out: &mut Listed,
        root: usize,
        path: EntryPath,
        seen: Seen,
        around: &[(u64, u64)],
    ) -> Result<(), SourceError> {
        let kind = match special(seen.kind) {
            None if seen.kind == FileType::Directory => {
                out.open.push(Open { root, path: Some(path.clone()), around: around.to_vec() });
                ItemKind::Folder
            }
            None => ItemKind::File { size: seen.size, executable: seen.mode & 0o100 != 0 },
            Some(what) => {
                let place = self.roots.get(root).map(|r| r.shown.join(path.as_str())).unwrap_or_default();
                if !self.options.skip_special {
                    return Err(SourceError::Special { path: place, what });
                }
                out.skipped.push(place);
                return Ok(());
            }
        };
        if self.count.fetch_add(1, Ordering::Relaxed) >= MAX_ENTRIES {
            return Err(SourceError::TooMany);
        }
        out.found.push(Found { path, kind, seen, root });
        Ok(())
    }
}

/// A thread that lists a folder, should it panic.
struct Turn<'a> {
    queue: &'a Mutex<Queue>,
    wake: &'a Condvar,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue: MutexGuard<'_, Queue> = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.stopped = true;
        self.wake.notify_all();
    }
}

/// What a bundle does not carry, by the name people use for it.
fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        FileType::RegularFile | FileType::Directory => None,
        FileType::Symlink => Some("symbolic link"),
        FileType::Fifo => Some("named pipe"),
        FileType::Socket => Some("socket"),
        _ => Some("device"),
    }
}
