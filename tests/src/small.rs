//! A disk that is soon full.

use std::fs;
use std::path::PathBuf;

use crate::{Run, text};

/// A file system of a few megabytes; gone when it is dropped.
pub struct Small {
    /// Where it is.
    pub path: PathBuf,
}

impl Small {
    /// Of so many MiB, at a path where nothing is; `None` for whom the machine does not let mount one.
    ///
    /// # Panics
    /// When something is there.
    #[must_use]
    pub fn mount(path: PathBuf, mebibytes: u32) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let options = format!("size={mebibytes}m,mode=700");
        let mount = ["-t", "tmpfs", "-o", &options, "tmpfs", text(&path)];
        (Run::of("mount").args(mount).end().code == 0).then_some(Self { path })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Run::of("umount").args([&self.path]).end();
    }
}
