//! Files that a command makes and that must not be there before.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pouch_client::Error;

use crate::run::{Failure, Outcome};

/// Refuses what is there already.
pub(crate) fn check_new(path: &Path) -> Outcome {
    if path.symlink_metadata().is_ok() { Err(exists(path)) } else { Ok(()) }
}

fn exists(path: &Path) -> Failure {
    Failure::refused(&format!("{} exists already", path.display()), "name another file")
}

/// Writes a file for its owner alone, to stable storage, or leaves none.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Outcome {
    let mut options = OpenOptions::new();
    let mut file = options.create_new(true).write(true).mode(0o600).open(path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => failed(path, e),
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        let _ = std::fs::remove_file(path);
        failed(path, e)
    })
}

fn failed(path: &Path, error: std::io::Error) -> Failure {
    Error::File(format!("cannot write {}", path.display()), error).into()
}
