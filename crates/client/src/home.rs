//! Where a party keeps its state: folders, private files written whole or not at all, and the lock.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcetera::BaseStrategy as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the local state; before 0.1.0 another one is refused, not migrated.
const STATE_VERSION: &str = "1";
/// How long a command waits for another one's short step.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long a send waits for another one to commit.
const SENDING_PATIENCE: Duration = Duration::from_secs(300);
/// The longest state file that is read, in bytes.
const MAX_STATE_FILE: u64 = 64 << 20;

/// What can be wrong with local state.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// No place for it.
    #[error("no home folder; set POUCH_HOME to the folder that pouch may use")]
    NoHome,
    /// Of another version.
    #[error("the state in {path} is of version {found}, this pouch has version {STATE_VERSION}")]
    Version {
        /// The folder.
        path: PathBuf,
        /// What it says of itself.
        found: String,
    },
    /// An operation failed.
    #[error("{doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file of ours that cannot be read.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
    /// Others could put their own keys and contacts there.
    #[error("{path} can be written by others; run chmod 700 on it")]
    Exposed {
        /// The folder.
        path: PathBuf,
    },
    /// Another pouch keeps the lock.
    #[error("another pouch is using {path}; try again when it is done")]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Something that must not be overwritten is there.
    #[error("{path} exists already")]
    Exists {
        /// What is there.
        path: PathBuf,
    },
}

/// The folders of one party: one for keys and contacts, one for what grows.
#[derive(Clone, Debug)]
pub struct Home {
    config: PathBuf,
    state: PathBuf,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    move |source| HomeError::Io { doing, path, source }
}

impl Home {
    /// `POUCH_HOME` if it is given: everything in that folder. Otherwise the XDG folders of the user.
    ///
    /// # Errors
    /// No home folder, state of another version, or folders that cannot be made.
    pub fn open(pouch_home: Option<&Path>) -> Result<Self, HomeError> {
        let home = match pouch_home {
            Some(folder) => {
                let folder = std::path::absolute(folder).map_err(failed("cannot use", folder))?;
                Self { config: folder.clone(), state: folder }
            }
            None => {
                let xdg = etcetera::choose_base_strategy().map_err(|_| HomeError::NoHome)?;
                let state = xdg.state_dir().ok_or(HomeError::NoHome)?;
                Self { config: xdg.config_dir().join("pouch"), state: state.join("pouch") }
            }
        };
        for folder in [&home.config, &home.state] {
            check_private(folder)?;
        }
        home.check_version()?;
        Ok(home)
    }

    fn check_version(&self) -> Result<(), HomeError> {
        let path = self.config.join("version");
        match fs::read_to_string(&path) {
            Ok(text) if text.trim() == STATE_VERSION => Ok(()),
            Ok(text) => {
                let found: String = text.trim().chars().filter(char::is_ascii_graphic).take(16).collect();
                Err(HomeError::Version { path: self.config.clone(), found })
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("cannot read", &path)(e)),
        }
    }

    /// Makes the folders, for their owner alone, and marks them with the version.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(&self) -> Result<(), HomeError> {
        private_folder(&self.config)?;
        private_folder(&self.state)?;
        let version = self.config.join("version");
        if version.exists() { Ok(()) } else { write_private(&version, format!("{STATE_VERSION}\n").as_bytes()) }
    }

    /// A file or folder among keys and contacts.
    #[must_use]
    pub fn config(&self, name: &str) -> PathBuf {
        self.config.join(name)
    }

    /// A file or folder among what grows.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// Waits for the one lock of this state. Held for short steps only, never for a transfer.
    pub(crate) fn lock(&self) -> Result<Lock, HomeError> {
        let begun = Instant::now();
        loop {
            match self.try_lock("lock", begun, LOCK_PATIENCE)? {
                Some(lock) => return Ok(lock),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The turn of one send to number its manifest and commit: held across some requests, while everything else of this
    /// home goes on.
    pub(crate) async fn sending_turn(&self) -> Result<Lock, HomeError> {
        let begun = Instant::now();
        loop {
            match self.try_lock("sending", begun, SENDING_PATIENCE)? {
                Some(turn) => return Ok(turn),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Takes a lock if it is free; an error once `patience` is over.
    fn try_lock(&self, name: &str, begun: Instant, patience: Duration) -> Result<Option<Lock>, HomeError> {
        private_folder(&self.state)?;
        let path = self.state.join(name);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(failed("cannot open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) if begun.elapsed() <= patience => Ok(None),
            Err(TryLockError::WouldBlock) => Err(HomeError::Locked { path: self.state.clone() }),
            Err(TryLockError::Error(e)) => Err(failed("cannot lock", &path)(e)),
        }
    }
}

fn check_private(folder: &Path) -> Result<(), HomeError> {
    match fs::metadata(folder) {
        Ok(data) if data.permissions().mode() & 0o022 != 0 => Err(HomeError::Exposed { path: folder.to_owned() }),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("cannot look at", folder)(e)),
    }
}

/// The lock on the state; released when dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Makes a folder and those above it; the folder itself is for its owner alone.
pub(crate) fn private_folder(path: &Path) -> Result<(), HomeError> {
    if !path.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("cannot make the folder", path))?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("cannot protect", path))?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        File::open(parent).and_then(|p| p.sync_all()).map_err(failed("cannot make durable", parent))?;
    }
    Ok(())
}

/// Writes a file for its owner alone, whole or not at all: temporary name, fsync, rename, fsync of the folder.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = temporary_name(path)?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        failed("cannot write", path)(e)
    })
}

/// Like [`write_private`], but refuses to replace what is there.
pub(crate) fn create_private(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = temporary_name(path)?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A second name, unlike a rename, never replaces.
        fs::hard_link(&temporary, path)?;
        fs::remove_file(&temporary)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary);
        match e.kind() {
            io::ErrorKind::AlreadyExists => HomeError::Exists { path: path.to_owned() },
            _ => failed("cannot write", path)(e),
        }
    })
}

fn temporary_name(path: &Path) -> Result<PathBuf, HomeError> {
    let random = pouch_statement::BundleId::random().map_err(|e| failed("cannot write", path)(io::Error::other(e)))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{random}.tmp"));
    Ok(path.with_file_name(name))
}

/// Reads a file of the state; `None` if it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("cannot open", path)(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_STATE_FILE + 1).read_to_end(&mut bytes).map_err(failed("cannot read", path))?;
    if bytes.len() as u64 > MAX_STATE_FILE {
        return Err(HomeError::Damaged { path: path.to_owned(), reason: "longer than any file of pouch".into() });
    }
    Ok(Some(bytes))
}

/// Reads a JSON file of the state; `None` if it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, HomeError> {
    let Some(bytes) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| HomeError::Damaged { path: path.to_owned(), reason: format!("line {}", e.line()) })
}

/// Writes a JSON file of the state.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), HomeError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|e| HomeError::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    bytes.push(b'\n');
    write_private(path, &bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    // attacks.md 60: private whatever the umask (the suite runs the binary under several).
    #[test]
    fn attack_60_folders_0700_files_0600() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(&folder.path().join("a/b"))).unwrap();
        home.create().unwrap();
        write_private(&home.config("x"), b"1").unwrap();
        write_private(&home.config("x"), b"2").unwrap();
        assert_eq!((mode(&home.config("")), mode(&home.config("x"))), (0o700, 0o600));
        assert_eq!(read(&home.config("x")).unwrap().unwrap(), b"2");
        assert!(matches!(create_private(&home.config("x"), b"3"), Err(HomeError::Exists { .. })));
        assert_eq!(fs::read_dir(home.config("")).unwrap().count(), 2, "no temporary files stay");
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "7\n").unwrap();
        let error = Home::open(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("version 7"), "{error}");
    }
}
