//! Programs that get what was received: one in whose environment a secret goes, and handlers of whole bundles.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::Command;

use super::Done;
use crate::run::{Failure, Outcome};

/// Checks that a command can be run, as `execvp` would look for it.
pub(super) fn find_program(program: &str) -> Outcome {
    let runs = |path: &Path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file();
    let found = if program.contains('/') {
        runs(Path::new(program))
    } else {
        std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|p| runs(&p.join(program))))
    };
    if found {
        Ok(())
    } else {
        Err(Failure::other(format_args!("there is no command {program} to run; nothing was fetched")))
    }
}

/// Reads the name of a variable for a secret.
pub(crate) fn variable(text: &str) -> Result<String, String> {
    let letters = text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    if !letters || text.is_empty() || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("a variable's name has letters, digits and _, and begins with no digit".into());
    }
    let taken = ["PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS"].contains(&text)
        || text.starts_with("LD_")
        || text.starts_with("DYLD_")
        || text.starts_with("POUCH_");
    if taken { Err("this variable steers the program itself; choose another name".into()) } else { Ok(text.to_owned()) }
}

/// Becomes the child, with the secret in its environment and nowhere else. Comes back only if that fails.
pub(super) fn become_child(command: &[String], variable: &str, secret: &[u8]) -> Failure {
    let Some((program, arguments)) = command.split_first() else {
        return Failure::usage("no command given", "pouch receive ID --env NAME -- CMD");
    };
    let value = std::ffi::OsStr::from_bytes(secret);
    let error = Command::new(program).args(arguments).env(variable, value).exec();
    Failure::other(format_args!("cannot run {program}: {error}"))
}

/// Runs a handler for a bundle. What the sender chose goes into variables and never into the command; nor is the folder the
/// one in which it begins, where many a program would look for its own modules and settings first. It gets nothing of what
/// opens the identity, neither the variables nor the descriptor.
pub(super) fn handle(command: &str, folder: &Path, done: &Done, passphrase: Option<u32>) -> Outcome {
    let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let mut child = Command::new("sh");
    let closing = passphrase.filter(|fd| *fd > 2).map(|fd| format!("exec {fd}<&-\n")).unwrap_or_default();
    child.arg("-c").arg(closing + command);
    for name in ["FILE", "COMMAND", "FD"] {
        child.env_remove(format!("POUCH_PASSPHRASE_{name}"));
    }
    child.env("POUCH_BUNDLE", done.bundle.to_string()).env("POUCH_SENDER", done.from.contact.name.to_string());
    child.env("POUCH_PATH", whole);
    let pipeline = done.from.pipeline().map(ToString::to_string);
    for (name, value) in [("POUCH_NOTE", done.note.as_ref().map(ToString::to_string)), ("POUCH_PIPELINE", pipeline)] {
        match value {
            Some(value) => child.env(name, value),
            None => child.env_remove(name),
        };
    }
    let status = child.status().map_err(|error| Failure::other(format_args!("cannot run sh: {error}")))?;
    // As a shell tells of a child that a signal ended.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    if code == 0 { Ok(()) } else { Err(Failure::Code(u8::try_from(code).unwrap_or(u8::MAX))) }
}
