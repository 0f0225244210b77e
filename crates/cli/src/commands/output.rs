//! Where encrypt and decrypt write: standard output as it comes, or a file that appears when it is complete.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use pouch_core::age;
use pouch_statement::BundleId;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};

/// A destination.
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// A file, published by a rename.
    File(PathBuf),
}

impl Output {
    /// `-` and nothing are standard output.
    pub(crate) fn new(path: Option<&Path>) -> Self {
        match path {
            Some(path) if path.as_os_str() != "-" => Self::File(path.to_owned()),
            _ => Self::Stdout,
        }
    }

    /// Whether a person would see the bytes.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout) && super::encrypt::stdout_is_terminal()
    }

    /// Has `work` write. A file appears only when `work` succeeded; whatever ends it before, even a kill, leaves nothing.
    pub(crate) fn write(&self, work: impl FnOnce(&mut dyn Write) -> Result<(), age::Error>) -> Result<(), age::Error> {
        match self {
            Self::Stdout => {
                let mut out = io::stdout().lock();
                work(&mut out)?;
                Ok(out.flush()?)
            }
            Self::File(path) if is_special(path) => {
                // A device or pipe is written to, never replaced.
                let mut out = BufWriter::with_capacity(1 << 18, File::options().write(true).open(path)?);
                work(&mut out)?;
                Ok(out.flush()?)
            }
            Self::File(path) => {
                // What a link leads to is replaced, not the link.
                let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
                let mut out = BufWriter::with_capacity(1 << 18, nameless(path)?);
                work(&mut out)?;
                let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.sync_all()?;
                Ok(publish(&file, path)?)
            }
        }
    }
}

fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|data| !data.is_file() && !data.is_dir())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file without a name in the folder of `path`: it vanishes by itself unless it is published (`O_TMPFILE`).
fn nameless(path: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    Ok(openat(CWD, folder_of(path), OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode)?.into())
}

/// Gives the file a name and then the right one: a link cannot replace what is there, a rename can.
fn publish(file: &File, path: &Path) -> io::Result<()> {
    // As with age, whose -o writes into what is there: a private file stays private.
    if let Ok(before) = std::fs::metadata(path) {
        file.set_permissions(before.permissions())?;
    }
    let random = BundleId::random().map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{random}.tmp"));
    let temporary = path.with_file_name(name);
    linkat(CWD, format!("/proc/self/fd/{}", file.as_raw_fd()), CWD, &temporary, AtFlags::SYMLINK_FOLLOW)?;
    if let Err(error) = std::fs::rename(&temporary, path) {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder_of(path))?.sync_all()
}
