//! Programs that a machine may not have, and runs that are too large for every day.

use pouch_services::missing;

/// Whether these programs are there. If not, says what is skipped; with `POUCH_REQUIRE_TOOLS` (CI) that is a failure.
#[must_use]
pub fn have(tools: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let lacking = tools.iter().find(|tool| !std::env::split_paths(&path).any(|folder| folder.join(tool).is_file()));
    if let Some(tool) = lacking {
        missing(&format!("{tool} is not installed"));
    }
    lacking.is_none()
}

/// Whether gigabytes may be moved: `POUCH_LARGE`.
#[must_use]
pub fn large() -> bool {
    std::env::var_os("POUCH_LARGE").is_some()
}

/// The folder that a variable names. If it names none, says that `what` is missing.
#[must_use]
pub fn folder(variable: &str, what: &str) -> Option<std::path::PathBuf> {
    let folder = std::env::var_os(variable).filter(|folder| !folder.is_empty());
    if folder.is_none() {
        missing(&format!("{variable} names no {what}"));
    }
    folder.map(Into::into)
}

/// The folder with `age` 1.3 or newer, which knows hybrid keys: `POUCH_GO_AGE`. If it names none, says what is skipped.
#[must_use]
pub fn go_age() -> Option<std::path::PathBuf> {
    folder("POUCH_GO_AGE", "folder with age 1.3 or newer")
}
