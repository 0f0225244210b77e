//! Folders to send, and what of them must arrive.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What a bundle carries of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Folder { mtime: i64 },
    File { blake3: String, size: u64, executable: bool, mtime: i64 },
    Other,
}

/// Everything beneath a folder, by relative path.
pub type Snapshot = BTreeMap<PathBuf, Node>;

/// Reads a folder as a receiver should have it.
#[must_use]
pub fn snapshot(folder: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    walk(folder, Path::new(""), &mut all);
    all
}

fn walk(folder: &Path, relative: &Path, into: &mut Snapshot) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, relative) = (entry.path(), relative.join(entry.file_name()));
        let data = fs::symlink_metadata(&path).unwrap();
        let mtime = seconds(data.modified().unwrap());
        let node = if data.is_dir() {
            walk(&path, &relative, into);
            Node::Folder { mtime }
        } else if data.is_file() {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&path).unwrap()).unwrap();
            let executable = data.permissions().mode() & 0o100 != 0;
            Node::File { blake3: hasher.finalize().to_hex().to_string(), size: data.len(), executable, mtime }
        } else {
            Node::Other
        };
        into.insert(relative, node);
    }
}

/// Whole seconds, rounded down, as an index has them.
fn seconds(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_secs() as i64,
        Err(before) => {
            let before = before.duration();
            -(before.as_secs() as i64) - i64::from(before.subsec_nanos() > 0)
        }
    }
}

/// Bytes that do not compress and are the same each time.
#[must_use]
pub fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Gives a path a time of last change.
pub fn set_mtime(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// Makes a folder with everything that a bundle can carry: empty files and folders, executable ones, names beyond ASCII,
/// long names, odd times, sizes around the borders of chunks.
pub fn sample_tree(folder: &Path) {
    let day = Duration::from_secs(86_400);
    let epoch = SystemTime::UNIX_EPOCH;
    fs::create_dir_all(folder.join("src/deep/er")).unwrap();
    fs::create_dir_all(folder.join("empty folder")).unwrap();
    fs::create_dir_all(folder.join("данные/空")).unwrap();
    let long = "x".repeat(200);
    let files: [(&str, usize); 12] = [
        ("README", 12),
        ("empty", 0),
        ("src/a.rs", 1),
        ("src/deep/er/chunk", 65_536),
        ("src/deep/er/chunk-1", 65_535),
        ("src/deep/er/chunk+1", 65_537),
        ("src.txt", 511),
        ("данные/空/naïve café.bin", 100_000),
        ("данные/😀", 513),
        ("-rf", 3),
        (".hidden", 7),
        (&long, 1000),
    ];
    for (name, size) in files {
        fs::write(folder.join(name), noise(name, size)).unwrap();
    }
    fs::set_permissions(folder.join("src/a.rs"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(folder.join("README"), fs::Permissions::from_mode(0o600)).unwrap();
    set_mtime(&folder.join("README"), epoch + day * 10_000 + Duration::from_nanos(999_999_999));
    set_mtime(&folder.join("src.txt"), epoch);
    set_mtime(&folder.join("-rf"), epoch - Duration::from_millis(1500));
    set_mtime(&folder.join("empty folder"), epoch + day);
    set_mtime(&folder.join("src/deep"), epoch + day * 2);
}

/// All regular files beneath a folder, sorted.
#[must_use]
pub fn files_beneath(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What goes while it is listed (a socket, a file that a process removes) is not there.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

/// Whether `haystack` holds `needle`.
#[must_use]
pub fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// The files beneath a folder that hold `needle`, in their content or their path.
#[must_use]
pub fn find_bytes(folder: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let hit = |path: &PathBuf| {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        holds(path.as_os_str().as_encoded_bytes(), needle) || (read.is_ok() && holds(&bytes, needle))
    };
    files_beneath(folder).into_iter().filter(hit).collect()
}
