//! What may have been meant by a path that a bundle does not have.

use pouch_core::bundle::{Entry, EntryPath, Index};

/// How many are named.
const MOST: usize = 5;
/// How alike two names must be, from 0 to 1.
const ALIKE: f64 = 0.7;

/// The entries whose paths are nearest, the best first: the same name elsewhere, or one that differs in little.
pub(super) fn near(index: &Index, path: &str) -> Vec<EntryPath> {
    let path = path.trim_matches('/');
    let name = path.rsplit('/').next().unwrap_or(path).to_lowercase();
    let likeness = |entry: &Entry| {
        let names = strsim::normalized_levenshtein(&entry.path.name().to_lowercase(), &name);
        // Of two entries with names that are equally near, the one in the folder that was typed. Whole paths are long, so
        // only those of the few.
        (names >= ALIKE).then(|| names + strsim::normalized_levenshtein(entry.path.as_str(), path) / 8.0)
    };
    let mut near: Vec<(f64, &EntryPath)> = Vec::new();
    for entry in index.entries() {
        if let Some(found) = likeness(entry) {
            let place = near.partition_point(|(better, _)| *better >= found);
            near.insert(place, (found, &entry.path));
            near.truncate(MOST);
        }
    }
    near.into_iter().map(|(_, path)| path.clone()).collect()
}
