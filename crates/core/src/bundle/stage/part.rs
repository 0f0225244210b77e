//! What takes the files of one part or frame into the private folder.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pouch_statement::Blake3Digest;

use super::Staging;
use super::error::{StageError, entry_error};
use crate::bundle::index::{Entry, EntryKind};
use crate::bundle::os::{self, Folder};
use crate::bundle::path::EntryPath;
use crate::bundle::sink::{SinkError, SinkPart};

/// The folder that a thread wrote to last, so that its path is walked once for all that is in it.
#[derive(Default)]
pub(in crate::bundle) struct Here(Option<(String, Folder)>);

impl Here {
    /// Goes on in the folder at `path`, which is open.
    pub(super) fn enter(&mut self, path: &EntryPath, folder: Folder) {
        self.0 = Some((path.as_str().to_owned(), folder));
    }

    /// The open folder that `path` stands in.
    pub(in crate::bundle) fn folder<'a>(&'a mut self, root: &'a Folder, path: &EntryPath) -> io::Result<&'a Folder> {
        let Some(parent) = path.parent() else { return Ok(root) };
        let here = match self.0.take() {
            Some(here) if here.0 == parent => here,
            _ => (parent.to_owned(), root.descend(parent)?),
        };
        Ok(&self.0.insert(here).1)
    }
}

/// A part on its way into the private folder.
pub struct StagingPart<'a> {
    staging: &'a Staging,
    number: u32,
    here: Here,
    file: Option<Written>,
}

impl<'a> StagingPart<'a> {
    /// Of part or frame `number`.
    pub(super) fn new(staging: &'a Staging, number: u32) -> Self {
        Self { staging, number, here: Here::default(), file: None }
    }
}

/// The file that is being written.
enum Written {
    /// By this part alone.
    Whole(File),
    /// By several parts, one at a time: the system lets only one write to a file, and those who waited for it there would
    /// wait busily, on cores that have better things to do.
    Shared(Arc<Mutex<File>>),
}

fn lock(file: &Mutex<File>) -> MutexGuard<'_, File> {
    // It is only written at places that are named each time, so a thread that panicked left nothing behind in it.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The permissions of a file, without what the umask takes away.
fn mode(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}

impl StagingPart<'_> {
    fn create(&mut self, entry: &Entry, make: impl Fn(&Folder, &str) -> io::Result<File>) -> Result<File, StageError> {
        let folder = self.here.folder(&self.staging.root, &entry.path);
        folder.and_then(|folder| make(folder, entry.path.name())).map_err(|error| entry_error(entry, error))
    }
}

impl SinkPart for StagingPart<'_> {
    fn begin_file(&mut self, number: usize, entry: &Entry, share: Range<u64>) -> Result<(), SinkError> {
        if share.end - share.start == entry.size() {
            // With its permissions from the start, which saves a call for each: the private folder keeps others out. Less the
            // umask also here, for where the folder has a default ACL the system does not look at it (acl(5)).
            let EntryKind::File { executable, .. } = entry.kind else { return Ok(()) };
            let mode = mode(executable) & !self.staging.umask;
            let file = self.create(entry, |folder, name| folder.create_new(name, mode))?;
            self.file = Some(Written::Whole(file));
            return Ok(());
        }
        // The first part that comes makes it, the others find it open: its name is not looked up again.
        let mut shared = self.staging.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match shared.get(&number) {
            Some(file) => file.clone(),
            None => {
                let file = if self.staging.had.contains(&number) {
                    let size = entry.size();
                    self.create(entry, move |folder, name| {
                        let file = folder.open_writing(name)?;
                        if file.metadata()?.len() > size {
                            file.set_len(size)?;
                        }
                        Ok(file)
                    })?
                } else {
                    self.create(entry, Folder::create_file)?
                };
                let file = Arc::new(Mutex::new(file));
                shared.insert(number, file.clone());
                file
            }
        };
        self.file = Some(Written::Shared(file));
        Ok(())
    }

    fn bytes(&mut self, at: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let written = match &self.file {
            Some(Written::Whole(file)) => file.write_all_at(bytes, at),
            Some(Written::Shared(file)) => lock(file).write_all_at(bytes, at),
            None => return Err(StageError::Replaced.into()),
        };
        Ok(written.map_err(self.staging.io("write into"))?)
    }

    fn end_file(&mut self, number: usize, entry: &Entry) -> Result<(), SinkError> {
        let EntryKind::File { executable, .. } = entry.kind else { return Ok(()) };
        let Some(file) = self.file.take() else { return Ok(()) };
        // Now, while the handle is open.
        let set = match &file {
            Written::Whole(file) => os::set_file_time(file, entry.mtime),
            Written::Shared(file) => {
                self.staging.shared.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                apply(&lock(file), entry.mtime, executable, self.staging.umask)
            }
        };
        Ok(set.map_err(|error| entry_error(entry, error))?)
    }

    fn done(self, pieces: &Blake3Digest) -> Result<(), SinkError> {
        match &self.staging.record {
            Some(record) => Ok(record.note(self.number, pieces).map_err(self.staging.io("write into"))?),
            None => Ok(()),
        }
    }
}

/// Gives a complete file its permissions and its time.
pub(in crate::bundle) fn apply(file: &File, mtime: i64, executable: bool, umask: u32) -> io::Result<()> {
    os::set_file_mode(file, mode(executable) & !umask)?;
    os::set_file_time(file, mtime)
}
