//! Where a party keeps its state: folders, private files written whole or not at all, and the lock.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcetera::BaseStrategy as _;
use pouch_statement::BundleId;
use rustix::fs::OFlags;
use rustix::process::geteuid;
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
    /// Whoever it belongs to could change it, whatever its permissions say now.
    #[error("{path} belongs to another user, of id {owner}; run chown on it, or use a home of your own")]
    Foreign {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A pipe, socket, device or folder in the place of a file.
    #[error("{path} is not a file")]
    NotAFile {
        /// What is there.
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
        let Some(bytes) = read(&self.config.join("version"))? else { return Ok(()) };
        let text = String::from_utf8_lossy(&bytes);
        if text.trim() == STATE_VERSION {
            return Ok(());
        }
        let found: String = text.trim().chars().filter(char::is_ascii_graphic).take(16).collect();
        Err(HomeError::Version { path: self.config.clone(), found })
    }

    /// The file that holds the user's own settings, as text; `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, is no file, or belongs to somebody else.
    pub fn settings(&self) -> Result<Option<String>, HomeError> {
        let path = self.config("config.toml");
        let Some(bytes) = read(&path)? else { return Ok(None) };
        String::from_utf8(bytes).map(Some).map_err(|_| HomeError::Damaged { path, reason: "not UTF-8".into() })
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
        Ok(data) => check_owner(folder, &data),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("cannot look at", folder)(e)),
    }
}

/// Refuses what belongs to neither me nor root: its owner can write to it at any time.
fn check_owner(path: &Path, data: &Metadata) -> Result<(), HomeError> {
    let owner = data.uid();
    if is_trusted(owner, geteuid().as_raw()) {
        Ok(())
    } else {
        Err(HomeError::Foreign { path: path.to_owned(), owner })
    }
}

fn is_trusted(owner: u32, me: u32) -> bool {
    owner == me || owner == 0
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
    let random = BundleId::random().map_err(|e| failed("cannot write", path)(io::Error::other(e)))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{random}.tmp"));
    Ok(path.with_file_name(name))
}

/// Reads a file of the state; `None` if it is not there. It must be a file, mine or root's. Never waits for whoever has
/// the other end of a pipe.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, HomeError> {
    let Some(file) = open(path, OpenOptions::new().read(true))? else { return Ok(None) };
    check_owner(path, &file.metadata().map_err(failed("cannot look at", path))?)?;
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

/// Opens a file, if it is there. A pipe or socket in its place is an error, and not waited for.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> Result<Option<File>, HomeError> {
    let not_a_file = || HomeError::NotAFile { path: path.to_owned() };
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = match options.custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A socket.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => return Err(not_a_file()),
        Err(e) => return Err(failed("cannot open", path)(e)),
    };
    let is_file = file.metadata().map_err(failed("cannot look at", path))?.is_file();
    if is_file { Ok(Some(file)) } else { Err(not_a_file()) }
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), HomeError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("cannot remove", path)(e)),
        _ => Ok(()),
    }
}

/// The bundles of which this folder has a file with this ending; none where there is no folder. Whatever else lies there, as
/// what a kill left of [`write_private`], is passed over.
pub(crate) fn bundles(folder: &Path, ending: &str) -> Result<Vec<BundleId>, HomeError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("cannot list", folder)(e)),
    };
    let mut bundles = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("cannot list", folder))?;
        // What is no file is not mine: opened, a pipe that somebody planted would be waited for.
        match entry.file_type() {
            Ok(kind) if kind.is_file() => {}
            // It ended this moment.
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("cannot list", folder)(e)),
            _ => continue,
        }
        let name = entry.file_name();
        bundles.extend(name.to_str().and_then(|name| name.strip_suffix(ending)?.parse::<BundleId>().ok()));
    }
    Ok(bundles)
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
    fn what_belongs_to_another_user_is_refused() {
        assert!(is_trusted(1000, 1000) && is_trusted(0, 1000) && is_trusted(0, 0));
        assert!(!is_trusted(1001, 1000) && !is_trusted(1000, 0));
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(Some(folder.path())).unwrap();
        home.create().unwrap();
        let key = home.config("identity");
        write_private(&key, b"x").unwrap();
        // Only root can give something away; for everybody else the rule above is what there is to test.
        if std::os::unix::fs::chown(&key, Some(12345), None).is_err() {
            return;
        }
        assert!(matches!(read(&key), Err(HomeError::Foreign { owner: 12345, .. })));
        fs::remove_file(&key).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(12345), None).unwrap();
        assert!(matches!(Home::open(Some(folder.path())), Err(HomeError::Foreign { owner: 12345, .. })));
    }

    #[test]
    fn a_pipe_or_socket_in_the_place_of_a_file_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (pipe, socket) = (folder.path().join("pipe"), folder.path().join("socket"));
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [&pipe, &socket, &folder.path().to_owned()] {
            assert!(matches!(read(path), Err(HomeError::NotAFile { .. })), "{}", path.display());
        }
    }

    #[test]
    fn what_a_kill_left_beside_a_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = BundleId::random().unwrap();
        let path = folder.path().join(format!("{bundle}.json"));
        assert_eq!(bundles(&folder.path().join("none"), ".json").unwrap(), []);
        write_private(&path, b"1").unwrap();
        fs::write(temporary_name(&path).unwrap(), b"{").unwrap();
        fs::write(folder.path().join("other.json"), b"{").unwrap();
        assert_eq!(bundles(folder.path(), ".json").unwrap(), [bundle]);
        assert_eq!(bundles(folder.path(), "").unwrap(), []);
        assert!(matches!(bundles(&path, ".json"), Err(HomeError::Io { doing: "cannot list", .. })));
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("version"), "7\n").unwrap();
        let error = Home::open(Some(folder.path())).unwrap_err().to_string();
        assert!(error.contains("version 7"), "{error}");
    }
}
