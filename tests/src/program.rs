//! The binary under test: the one beside the tests, built if it is missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The workspace's folder.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The `pouch` of the profile that the tests were built with.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let me = std::env::current_exe().unwrap();
        // target/PROFILE/deps/TEST, or target/PROFILE/pouch-benches
        let folder = me.parent().unwrap();
        let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
        let program = folder.join("pouch");
        if !is_fresh(&program) {
            build(folder);
        }
        assert!(program.is_file(), "{} was not built", program.display());
        program
    })
}

fn is_fresh(program: &Path) -> bool {
    let Ok(built) = std::fs::metadata(program).and_then(|data| data.modified()) else { return false };
    newest(&workspace().join("crates")) <= built
}

/// When any Rust source or manifest beneath `folder` was last changed.
fn newest(folder: &Path) -> SystemTime {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let time = match entry.file_type() {
            Ok(kind) if kind.is_dir() && entry.file_name() != "tests" => newest_of(&path),
            Ok(kind) if kind.is_file() && is_source(&path) => entry.metadata().and_then(|d| d.modified()).ok(),
            _ => None,
        };
        newest = newest.max(time.unwrap_or(SystemTime::UNIX_EPOCH));
    }
    newest
}

fn newest_of(folder: &Path) -> Option<SystemTime> {
    Some(newest(folder))
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs" || e == "toml")
}

fn build(folder: &Path) {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "-p", "pouch", "--target-dir"]).arg(folder.parent().unwrap()).current_dir(workspace());
    let profile = folder.file_name().unwrap().to_str().unwrap();
    if profile != "debug" {
        command.args(["--profile", profile]);
    }
    assert!(command.status().unwrap().success(), "cargo build -p pouch failed");
}
