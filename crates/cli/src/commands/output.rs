//! Where encrypt and decrypt write: standard output and devices as it comes, a file that appears when it is complete, or
//! a terminal that shows only text.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use pouch_core::age;
use pouch_statement::{BundleId, hazardous};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::commands::input::{append, is_dash, widen};
use crate::run::Failure;
use crate::signals;

/// How many symbolic links are followed to a file, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The most that is held back for a terminal, in bytes.
const MAX_HELD: usize = 16 << 20;

/// A destination.
pub(crate) enum Output {
    /// Standard output, as it comes.
    Stdout,
    /// Standard output is a terminal, which gets the whole at once.
    Screen {
        /// Only text is shown.
        text: bool,
    },
    /// A device, a FIFO or a descriptor: written as it comes, never replaced.
    InPlace(PathBuf),
    /// A file, published by a rename.
    File(PathBuf),
}

/// What writes. The whole must be written before it returns `Ok`.
pub(crate) type Sink<'a> = &'a mut (dyn Write + Send);

impl Output {
    /// Nothing and `-` are standard output. A file that is there must be ours to write, though it is not written.
    pub(crate) fn new(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| !is_dash(path)) else { return Ok(Self::Stdout) };
        let cannot = |e: io::Error| Failure::other(format_args!("cannot write {}: {e}", path.display()));
        let (found, linked) = resolve(path).map_err(cannot)?;
        if is_descriptor(&found) {
            let own = format!("/proc/{}/fd/1", std::process::id());
            return Ok(if found == Path::new(&own) { Self::Stdout } else { Self::InPlace(found) });
        }
        let Ok(data) = fs::metadata(&found) else { return Ok(Self::File(found)) };
        let kind = data.file_type();
        if kind.is_dir() {
            return Err(Failure::usage(format!("{} is a folder", path.display()), "name a file in it"));
        } else if kind.is_file() {
            refuse_planted(&found, data.uid()).map_err(cannot)?;
            File::options().write(true).open(&found).map_err(cannot)?;
            return Ok(Self::File(found));
        } else if linked {
            let what = if kind.is_fifo() { "a FIFO" } else { "a device" };
            let text = format!("{} is a link to {what}", path.display());
            return Err(Failure::usage(text, "name it directly, if that is what you mean"));
        }
        Ok(Self::InPlace(found))
    }

    /// What a terminal is written to by itself only text, and only when the rest is there; also when it is `typed` on it.
    /// A person who wrote `-o -` has it as it comes.
    pub(crate) fn on_screen(self, named: bool, typed: bool) -> Self {
        if self.is_terminal() && (!named || typed) { Self::Screen { text: !named } } else { self }
    }

    /// Refuses a file that is read in the same run: `used` are those that are named for something.
    pub(crate) fn distinct_from(&self, used: &[&Path]) -> Result<(), Failure> {
        let Self::File(path) = self else { return Ok(()) };
        let Ok(mine) = fs::metadata(path) else { return Ok(()) };
        let same =
            |other: &&&Path| fs::metadata(other).is_ok_and(|data| (data.dev(), data.ino()) == (mine.dev(), mine.ino()));
        match used.iter().filter(|path| !is_dash(path)).find(same) {
            None => Ok(()),
            Some(other) => {
                let text = format!("input and output file are the same: {}", other.display());
                Err(Failure::usage(text, "name another file with -o"))
            }
        }
    }

    /// Whether a person would see the bytes.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout | Self::Screen { .. }) && io::IsTerminal::is_terminal(&io::stdout())
    }

    /// Has `work` write. A file appears only when `work` succeeded; whatever ends it before, even a kill, leaves nothing.
    pub(crate) fn write(&self, work: impl FnOnce(Sink<'_>) -> Result<(), age::Error>) -> Result<(), Unwritten> {
        match self {
            Self::Stdout => Ok(work(&mut stdout()?)?),
            Self::Screen { text } => {
                let mut held = Held(Zeroizing::new(Vec::new()));
                work(&mut held)?;
                if *text && !is_text(&held.0) {
                    return Err(Unwritten::Binary);
                }
                Ok(stdout()?.write_all(&held.0)?)
            }
            Self::InPlace(path) => {
                // What a descriptor leads to may be a file, and what stands in that stays.
                let append = fs::metadata(path)?.is_file();
                Ok(work(&mut File::options().write(true).append(append).open(path)?)?)
            }
            Self::File(path) => {
                let mut new = NewFile::create(path)?;
                work(&mut new.file)?;
                new.file.sync_all()?;
                Ok(new.publish(path)?)
            }
        }
    }
}

/// Why nothing, or not all, was written.
pub(crate) enum Unwritten {
    /// The work failed.
    Work(age::Error),
    /// A terminal would have got something else than text.
    Binary,
}

impl<E: Into<age::Error>> From<E> for Unwritten {
    fn from(error: E) -> Self {
        Self::Work(error.into())
    }
}

/// Standard output without std's buffer, which is flushed at each line end.
fn stdout() -> io::Result<File> {
    let file = io::stdout().as_fd().try_clone_to_owned()?.into();
    widen(&file);
    Ok(file)
}

/// Text that shows what it is: UTF-8 without characters that move the cursor, change directions or are not seen, but for
/// ends of lines and tabs.
fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| {
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let fine = match char {
                '\n' | '\t' => true,
                '\r' => chars.peek() == Some(&'\n'),
                // Picks the coloured form of a sign.
                '\u{fe0f}' => true,
                other => !hazardous(other),
            };
            if !fine {
                return false;
            }
        }
        true
    })
}

/// Memory up to [`MAX_HELD`].
struct Held(Zeroizing<Vec<u8>>);

impl Write for Held {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() > MAX_HELD - self.0.len() {
            return Err(io::Error::other(
                "it is too long to be shown on a terminal; use -o FILE, or -o - to have it anyway",
            ));
        }
        append(&mut self.0, data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a path leads, its folder without links, and whether its last part was one. What is not there may be made.
///
/// Not `canonicalize`, which opens what stands behind /dev/stdout.
fn resolve(path: &Path) -> io::Result<(PathBuf, bool)> {
    let mut path = path.to_owned();
    for followed in 0..=MAX_LINKS {
        let Some(name) = path.file_name() else { return Ok((fs::canonicalize(&path)?, followed > 0)) };
        path = fs::canonicalize(folder_of(&path))?.join(name);
        if is_descriptor(&path) {
            return Ok((path, followed > 0));
        }
        match fs::read_link(&path) {
            Ok(target) => {
                refuse_planted(&path, fs::symlink_metadata(&path)?.uid())?;
                path = folder_of(&path).join(target);
            }
            Err(_) => return Ok((path, followed > 0)),
        }
    }
    Err(Errno::LOOP.into())
}

/// In a folder like /tmp another user may have put a file or a link there, to get what we write or have us replace what
/// is ours. The rule is the kernel's own (fs.protected_regular, fs.protected_symlinks), which it can only apply to what is
/// opened in the usual way, and only where it is switched on.
fn refuse_planted(path: &Path, owner: u32) -> io::Result<()> {
    let folder = fs::metadata(folder_of(path))?;
    let shared = folder.mode() & 0o1000 != 0 && folder.mode() & 0o022 != 0;
    let me = rustix::process::geteuid().as_raw();
    if shared && owner != me && owner != folder.uid() {
        return Err(io::Error::other("somebody else put it into a folder that all may write to"));
    }
    Ok(())
}

/// `/proc/N/fd/N`: what /dev/stdout and /dev/fd/N lead to.
fn is_descriptor(path: &Path) -> bool {
    path.starts_with("/proc") && folder_of(path).ends_with("fd")
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A path beside `path` that nothing has.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let random = BundleId::random().map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{random}.tmp"));
    Ok(path.with_file_name(name))
}

/// A file that is being written. Unless it is published, nothing stays of it.
struct NewFile {
    file: File,
    /// Where the file system knows no files without a name.
    name: Option<PathBuf>,
}

impl NewFile {
    /// In the folder of `path`, so that it can be renamed. It has no name and vanishes by itself (`O_TMPFILE`).
    fn create(path: &Path) -> io::Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        match openat(CWD, folder_of(path), OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode) {
            // Its name is given by way of /proc, which not every chroot has.
            Ok(file) if Path::new("/proc/self/fd").exists() => Ok(Self { file: file.into(), name: None }),
            // open(2): the first from file systems without it, the second from kernels.
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR) => Self::named(path),
            Err(error) => Err(error.into()),
        }
    }

    /// With a name, which a signal removes as well.
    fn named(path: &Path) -> io::Result<Self> {
        let name = beside(path)?;
        signals::remove_if_stopped(Some(&name));
        let file = File::create_new(&name).inspect_err(|_| signals::remove_if_stopped(None))?;
        Ok(Self { file, name: Some(name) })
    }

    /// Gives it its name. What has that name is replaced.
    fn publish(mut self, path: &Path) -> io::Result<()> {
        if let Ok(before) = fs::metadata(path) {
            self.take_after(&before)?;
        }
        let folder = File::open(folder_of(path));
        match self.name.take() {
            Some(name) => replace(&name, path)?,
            None => match self.link(path) {
                // A link cannot replace what is there; a rename can. A signal in between would leave the other name.
                Err(Errno::EXIST) => signals::undisturbed(|| {
                    let name = beside(path)?;
                    self.link(&name)?;
                    replace(&name, path)
                })?,
                linked => linked?,
            },
        }
        // It is there: a folder that may not be read, or a file system that syncs none, makes that no failure.
        let _ = folder.and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// As with age, whose -o writes into what is there: a file stays its owner's, and a private one private. What makes a
    /// program run with another's rights is not taken over.
    fn take_after(&self, before: &fs::Metadata) -> io::Result<()> {
        let now = self.file.metadata()?;
        if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
            fchown(&self.file, Some(before.uid()), Some(before.gid()))
                .map_err(|_| io::Error::other("it belongs to another user or group; remove it first"))?;
        }
        self.file.set_permissions(Permissions::from_mode(before.mode() & 0o777))
    }

    fn link(&self, name: &Path) -> Result<(), Errno> {
        linkat(CWD, format!("/proc/self/fd/{}", self.file.as_raw_fd()), CWD, name, AtFlags::SYMLINK_FOLLOW)
    }
}

/// Renames `name`, or removes it.
fn replace(name: &Path, path: &Path) -> io::Result<()> {
    fs::rename(name, path).inspect_err(|_| drop(fs::remove_file(name)))
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            let _ = fs::remove_file(name);
        }
        signals::remove_if_stopped(None);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_new_file_with_and_without_a_name_is_published_or_gone() {
        for make in [NewFile::create, NewFile::named] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("out");
            let write = |content: &[u8]| {
                let mut new = make(&path).unwrap();
                new.file.write_all(content).unwrap();
                new
            };
            drop(write(b"never seen"));
            assert_eq!(names(folder.path()), Vec::<String>::new());
            for content in [b"first", b"other"] {
                write(content).publish(&path).unwrap();
                assert_eq!(
                    (names(folder.path()), fs::read(&path).unwrap()),
                    (vec!["out".to_owned()], content.to_vec())
                );
            }
            drop(write(b"never seen"));
            assert_eq!((names(folder.path()), fs::read(&path).unwrap()), (vec!["out".to_owned()], b"other".to_vec()));
        }
    }

    // attacks.md 10: what is written does not run with the rights of whoever wrote it, nor change hands.
    #[test]
    fn attack_10_what_is_replaced_hands_on_its_owner_and_no_more_than_permissions() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x");
        fs::write(&path, "old").unwrap();
        let other = rustix::process::geteuid().is_root();
        if other {
            std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
        }
        let owner = fs::metadata(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o6750)).unwrap();
        let mut new = NewFile::create(&path).unwrap();
        new.file.write_all(b"new").unwrap();
        new.publish(&path).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.mode() & 0o7777, 0o750);
        assert_eq!((after.uid(), after.gid()), (owner.uid(), owner.gid()));
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    // attacks.md 4: nobody else's file is replaced, and nobody else's link followed, where anybody may put them.
    #[test]
    fn attack_4_what_others_planted_in_a_shared_folder_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let shared = home.path().join("shared");
        fs::create_dir(&shared).unwrap();
        let (file, link, mine) = (shared.join("file"), shared.join("link"), home.path().join("mine"));
        fs::write(&file, "x").unwrap();
        fs::write(&mine, "x").unwrap();
        std::os::unix::fs::symlink(&mine, &link).unwrap();
        for path in [&file, &link] {
            std::os::unix::fs::lchown(path, Some(65_534), Some(65_534)).unwrap();
        }
        for (mode, refused) in [(0o1777, true), (0o755, false)] {
            fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
            for path in [&file, &link] {
                assert_eq!(Output::new(Some(path)).is_err(), refused, "{path:?} {mode:o}");
            }
        }
    }

    #[test]
    fn links_lead_to_what_is_replaced_and_descriptors_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        std::os::unix::fs::symlink("b", root.join("a")).unwrap();
        std::os::unix::fs::symlink(root.join("c"), root.join("b")).unwrap();
        std::os::unix::fs::symlink("round", root.join("round")).unwrap();
        assert_eq!(resolve(&root.join("a")).unwrap(), (root.join("c"), true));
        assert_eq!(resolve(&root.join("c")).unwrap(), (root.join("c"), false));
        assert!(resolve(&root.join("round")).is_err());
        for (path, descriptor) in
            [("/dev/stdout", true), ("/dev/fd/7", true), ("/dev/null", false), ("/proc/fd", false)]
        {
            assert_eq!(is_descriptor(&resolve(Path::new(path)).unwrap().0), descriptor, "{path}");
        }
    }

    #[test]
    fn only_text_is_shown() {
        for text in ["", "two\r\n\tlines\n", "häßlich ✓ ☺\u{fe0f}"] {
            assert!(is_text(text.as_bytes()), "{text:?}");
        }
        for binary in
            [&b"\0"[..], b"\x1b[2J", b"\x7f", b"\xff", "\u{9b}2J".as_bytes(), b"evil\rgood", "a\u{202e}b".as_bytes()]
        {
            assert!(!is_text(binary), "{binary:?}");
        }
        let mut held = Held(Zeroizing::new(vec![b' '; MAX_HELD - 1]));
        assert!(held.write_all(b"x").is_ok() && held.write_all(b"x").is_err());
    }
}
