//! What a process makes beside a destination is hidden, private and claimed; what a killed one left is cleared away by the
//! next that works there.
//!
//! A claim is a lock on the open file or folder (flock(2)), which ends with the process, however it ends. Whatever is not
//! surely a leftover of this user stays: another name, owner or mode, claimed by somebody, or in a folder in which others
//! could have given it that name.

use std::io;
use std::os::fd::AsFd;

use pouch_statement::{BundleId, RandomError, Timestamp};
use rustix::fs::FileType;

use super::os::{self, Claim, Folder, PRIVATE_FILE, PRIVATE_FOLDER};
use super::resume;

/// Before an id, the name of what is not published.
const PREFIX: &str = ".pouch-";
/// Leftovers that one command clears away, so that none takes long over it.
const MOST: usize = 64;
/// How often a name is made that another process clears away before it is claimed.
const TRIES: usize = 8;

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum MakeError {
    /// No random bytes for the name.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes something private in `parent` under a name that nobody guesses, and claims it for as long as it is open.
pub(super) fn make<T: AsFd>(create: impl Fn(&str) -> io::Result<T>, parent: &Folder) -> Result<(String, T), MakeError> {
    for _ in 0..TRIES {
        let name = name_of(BundleId::random()?);
        let made = create(&name)?;
        // Between the two another process may have taken it for a leftover; then it is gone, or about to be.
        if os::claim(&made) != Claim::Taken && stands(parent, &name, &made) {
            return Ok((name, made));
        }
    }
    Err(io::Error::other("what is made here is taken away at once").into())
}

/// Makes a private folder with this name in `parent`, or takes up one of this user's that is there, and claims it. `None`
/// where that cannot be: another process has it, or it may not be this user's.
pub(super) fn take_up(parent: &Folder, name: &str) -> io::Result<Option<Folder>> {
    if !is_only_ours(parent) {
        return Ok(None);
    }
    for _ in 0..TRIES {
        let folder = match parent.create_folder(name) {
            Ok(made) => made,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match find(parent, name)? {
                Some(found) => found,
                None => return Ok(None),
            },
            Err(error) => return Err(error),
        };
        match os::claim(&folder) {
            Claim::Held if stands(parent, name, &folder) => {
                folder.set_mode(PRIVATE_FOLDER)?;
                return Ok(Some(folder));
            }
            // Cleared away by another process just now.
            Claim::Held => {}
            Claim::Taken => return Ok(None),
            Claim::Unknown => {
                let _ = parent.remove_empty(name);
                return Ok(None);
            }
        }
    }
    Ok(None)
}

/// A folder of this user's, if it is there.
pub(super) fn find(parent: &Folder, name: &str) -> io::Result<Option<Folder>> {
    let is_ours = |seen: &os::Seen| seen.kind == FileType::Directory && seen.owner == os::me();
    match parent.stat(name, false) {
        Ok(seen) if is_ours(&seen) => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let open = parent.open_any(name)?;
    Ok(is_ours(&os::seen(&open)?).then(|| Folder::from(open)))
}

/// Clears away a folder of this user's that nobody has.
pub(super) fn discard(parent: &Folder, name: &str) -> io::Result<()> {
    let Some(folder) = find(parent, name)? else { return Ok(()) };
    if !is_only_ours(parent) || os::claim(&folder) != Claim::Held || !stands(parent, name, &folder) {
        return Ok(());
    }
    folder.clear_all()?;
    parent.remove_empty(name)
}

/// The name of what has this id.
pub(super) fn name_of(id: BundleId) -> String {
    format!("{PREFIX}{id}")
}

/// Whether `name` stands for what is open.
fn stands(parent: &Folder, name: &str, open: impl AsFd) -> bool {
    matches!((parent.stat(name, false), os::seen(open)), (Ok(there), Ok(ours)) if there.node == ours.node)
}

/// Whether something of this name may be cleared away. No bundle carries such a name, so that nobody can send what the
/// recipient's next command would take for a leftover.
pub(super) fn is_private_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|id| id.parse::<BundleId>().is_ok())
}

/// Whether nobody else may rename in a folder: they could have given our private name to something else of this user's.
fn is_only_ours(folder: &Folder) -> bool {
    let Ok(around) = folder.seen() else { return false };
    let trusted = around.owner == os::me() || around.owner == 0;
    trusted && (around.mode & 0o022 == 0 || around.mode & 0o1000 != 0)
}

/// Clears away what killed processes of this user left in a folder, but for what can be gone on with until some time after
/// `now`, or at all if that is not known. What cannot be cleared stays: it is in nobody's way.
pub(super) fn clear(folder: &Folder, now: Option<Timestamp>) {
    if !is_only_ours(folder) {
        return;
    }
    for name in folder.names_like(MOST, is_private_name).unwrap_or_default() {
        let _ = clear_one(folder, &name, now);
    }
}

fn clear_one(folder: &Folder, name: &str, now: Option<Timestamp>) -> io::Result<()> {
    let is_leftover = |seen: &os::Seen| {
        let form = match seen.kind {
            FileType::Directory => seen.mode == PRIVATE_FOLDER,
            FileType::RegularFile => seen.mode == PRIVATE_FILE && seen.links == 1,
            _ => false,
        };
        form && seen.owner == os::me()
    };
    if !is_leftover(&folder.stat(name, false)?) {
        return Ok(());
    }
    let open = folder.open_any(name)?;
    let seen = os::seen(&open)?;
    // Looked at again with the claim: what was published or cleared meanwhile stands under this name no more.
    if !is_leftover(&seen) || os::claim(&open) != Claim::Held || !stands(folder, name, &open) {
        return Ok(());
    }
    if seen.kind == FileType::RegularFile {
        return folder.remove_file(name);
    }
    // By the handle, and no links followed; the claim is held until the name is gone.
    let leftover = Folder::from(open);
    if resume::expires(&leftover, name).is_some_and(|expires| now.is_none_or(|now| now < expires)) {
        return Ok(());
    }
    leftover.clear_all()?;
    folder.remove_empty(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    fn folder(path: &Path, mode: u32) {
        fs::create_dir(path).unwrap();
        fs::write(path.join("received"), "x").unwrap();
        fs::create_dir(path.join("sub")).unwrap();
        symlink("/", path.join("sub/link")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn file(path: &Path, mode: u32) {
        fs::write(path, "x").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn name() -> String {
        format!("{PREFIX}{}", BundleId::random().unwrap())
    }

    // attacks.md 63: what a kill left goes with the next command; nothing else ever does.
    #[test]
    fn attack_63_only_unclaimed_leftovers_of_ours_are_cleared() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        let (stale, part) = (name(), name());
        folder(&at(&stale), 0o700);
        file(&at(&part), 0o600);
        // In use by a live process, here another handle.
        let parent = Folder::open(home.path()).unwrap();
        let (used, _used) = make(|name| parent.create_folder(name), &parent).unwrap();
        let (written, _written) = make(|name| parent.create_file(name), &parent).unwrap();
        // Of another form: mode, name, kind, a second name.
        let mut kept = vec![used, written];
        for (name, mode) in [(name(), 0o755), (".pouch-x".into(), 0o700), (".pouch".into(), 0o700)] {
            folder(&at(&name), mode);
            kept.push(name);
        }
        let (open, linked, link) = (name(), name(), name());
        file(&at(&open), 0o644);
        file(&at(&linked), 0o600);
        fs::hard_link(at(&linked), at("second name")).unwrap();
        symlink("kept", at(&link)).unwrap();
        kept.extend([open, linked, link, "second name".into()]);
        let left = || {
            let mut names: Vec<_> =
                fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        kept.sort();
        clear(&parent, None);
        assert_eq!(left(), kept);
        assert!(Path::new("/").exists());
    }

    #[test]
    fn nothing_is_cleared_where_others_may_rename() {
        let home = tempfile::tempdir().unwrap();
        let stale = home.path().join(name());
        folder(&stale, 0o700);
        let parent = Folder::open(home.path()).unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
        clear(&parent, None);
        assert!(stale.exists());
        // With the sticky bit they may not.
        fs::set_permissions(home.path(), Permissions::from_mode(0o1777)).unwrap();
        clear(&parent, None);
        assert!(!stale.exists());
    }

    #[test]
    fn what_belongs_to_another_user_stays() {
        let home = tempfile::tempdir().unwrap();
        let theirs = home.path().join(name());
        folder(&theirs, 0o700);
        // Only root can give something away.
        if std::os::unix::fs::chown(&theirs, Some(12345), None).is_err() {
            return;
        }
        let parent = Folder::open(home.path()).unwrap();
        clear(&parent, None);
        assert!(theirs.exists());
        std::os::unix::fs::chown(home.path(), Some(12345), None).unwrap();
        let ours = home.path().join(name());
        folder(&ours, 0o700);
        clear(&parent, None);
        assert!(ours.exists());
    }
}
