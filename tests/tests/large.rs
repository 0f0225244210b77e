//! Size: one large file in bounded memory, and many small ones. At full size with `POUCH_LARGE`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use pouch_tests::{Pair, large, noise, skip, snapshot, text};

/// The most memory of each process, whatever the size of what it moves, in KiB.
const MOST: u64 = 100 << 10;
const LONG: Duration = Duration::from_secs(1800);

fn make_file(path: &Path, bytes: u64) {
    const STEP: u64 = 1 << 20;
    let mut file = File::create(path).unwrap();
    for at in (0..bytes).step_by(STEP as usize) {
        let block = noise(&at.to_string(), STEP.min(bytes - at) as usize);
        file.write_all(&block).unwrap();
    }
}

fn make_folder(path: &Path, files: u32) {
    for number in 0..files {
        let folder = path.join(format!("{:03}/{:02}", number % 251, number % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{number}.dat")), noise(&number.to_string(), 4096)).unwrap();
    }
}

/// Sends and receives; gives the most memory that each of the three processes had, in KiB.
fn exchange(path: &Path, pair: &Pair) -> [(&'static str, u64); 3] {
    let begun = Instant::now();
    let sent = pair.ada.pouch(["send", text(path), "--to", "bo", "-q"]).limit(LONG).end().ok();
    let sending = begun.elapsed();
    let into = pair.bo.fresh();
    let received = pair.bo.pouch(["receive", &sent.word(), "-o", text(&into)]).limit(LONG).end().ok();
    let peaks = [("send", sent.peak), ("receive", received.peak), ("relay", pair.relay.process().peak())];
    let times = format!("sent in {sending:.1?}, received in {:.1?}; KiB: {peaks:?}\n", begun.elapsed() - sending);
    drop(std::io::stderr().write_all(times.as_bytes()));
    if path.is_dir() {
        assert_eq!(snapshot(&into), snapshot(path));
    } else {
        assert_eq!(snapshot(&into), snapshot(path.parent().unwrap()));
    }
    assert!(peaks.iter().all(|(_, peak)| *peak > 0));
    peaks
}

/// One file in a folder of its own.
fn one_file(pair: &Pair, bytes: u64) -> std::path::PathBuf {
    let folder = pair.ada.desk().join("large");
    fs::create_dir(&folder).unwrap();
    make_file(&folder.join("file"), bytes);
    folder.join("file")
}

#[test]
fn a_file_of_64_mib() {
    let pair = Pair::new();
    let file = one_file(&pair, 64 << 20);
    exchange(&file, &pair);
}

#[test]
fn two_thousand_files() {
    let pair = Pair::new();
    let folder = pair.ada.desk().join("many");
    make_folder(&folder, 2_000);
    exchange(&folder, &pair);
}

#[test]
fn a_file_of_4_gib_in_100_mib_of_memory() {
    if !large() {
        return skip("it takes twelve gigabytes of disk; set POUCH_LARGE");
    }
    let pair = Pair::new();
    let file = one_file(&pair, 4 << 30);
    for (who, peak) in exchange(&file, &pair) {
        assert!(peak < MOST, "{who} had {peak} KiB at once");
    }
}

#[test]
fn fifty_thousand_files() {
    if !large() {
        return skip("it takes a while; set POUCH_LARGE");
    }
    let pair = Pair::new();
    let folder = pair.ada.desk().join("many");
    make_folder(&folder, 50_000);
    for (who, peak) in exchange(&folder, &pair) {
        assert!(peak < MOST, "{who} had {peak} KiB at once");
    }
}
