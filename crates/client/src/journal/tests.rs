#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use std::fs;

fn journal(records: usize) -> (tempfile::TempDir, Journal, age::Identity) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path())).unwrap();
    home.create().unwrap();
    let identity = age::Identity::generate();
    let id = Journal::create(&home).unwrap();
    let journal = Journal::new(home, identity.recipient(), id);
    for i in 0..records {
        let event = Event { detail: Some(format!("event {i}")), ..Event::new(Action::Sent, Ended::Done) };
        journal.append(&event).unwrap();
    }
    (folder, journal, identity)
}

fn lines(journal: &Journal) -> Vec<String> {
    fs::read_to_string(journal.records()).unwrap().lines().map(str::to_owned).collect()
}

fn store(journal: &Journal, lines: &[String]) {
    let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
    fs::write(journal.records(), text).unwrap();
}

#[test]
fn appended_verified_and_read() {
    let (_folder, journal, identity) = journal(5);
    let report = journal.verify().unwrap();
    assert!(report.is_sound());
    assert_eq!(report.size, 5);
    let events = journal.events(&[&identity]).unwrap();
    let details: Vec<_> = events.iter().map(|e| e.detail.clone().unwrap()).collect();
    assert_eq!(details, (0..5).map(|i| format!("event {i}")).collect::<Vec<_>>());
    assert!(!fs::read_to_string(journal.records()).unwrap().contains("event"), "sealed at rest");
    assert!(journal.events(&[&age::Identity::generate()]).is_err());
}

// attacks.md 58: edits, deletions and reordering are detected; a cut tail and a rewritten whole are told apart.
#[test]
fn attack_58_a_journal_that_was_touched_is_not_sound() {
    let (_folder, journal, _) = journal(6);
    let good = lines(&journal);
    let check = |lines: &[String]| {
        store(&journal, lines);
        let report = journal.verify().unwrap();
        assert!(!report.is_sound());
        report
    };
    let mut edited = good.clone();
    if let Some(line) = edited.get_mut(2) {
        let flipped = if line.contains("\"commitment\":\"a") { "b" } else { "a" };
        let at = line.find("\"commitment\":\"").unwrap() + 14;
        line.replace_range(at..=at, flipped);
    }
    let report = check(&edited);
    assert!(matches!(report.comparison, Comparison::Altered { .. }), "{:?}", report.comparison);
    let mut deleted = good.clone();
    deleted.remove(2);
    check(&deleted);
    let mut swapped = good.clone();
    swapped.swap(1, 2);
    check(&swapped);
    let (cut, _) = good.split_at(4);
    assert!(matches!(check(cut).comparison, Comparison::Truncated { .. }));
    assert!(matches!(journal.append(&Event::new(Action::Sent, Ended::Done)), Err(JournalError::Broken(_))));
    store(&journal, &good);
    assert!(journal.verify().unwrap().is_sound());
}

#[test]
fn a_crash_between_record_and_head_is_mended() {
    let (_folder, journal, identity) = journal(3);
    let head = fs::read(journal.home.state(HEAD)).unwrap();
    journal.append(&Event::new(Action::Sent, Ended::Done)).unwrap();
    fs::write(journal.home.state(HEAD), head).unwrap();
    let mut torn = fs::read(journal.records()).unwrap();
    torn.extend_from_slice(b"{\"seq\":4,\"comm");
    fs::write(journal.records(), torn).unwrap();
    journal.append(&Event::new(Action::Sent, Ended::Done)).unwrap();
    assert!(journal.verify().unwrap().is_sound());
    assert_eq!(journal.events(&[&identity]).unwrap().len(), 5);
}

#[test]
fn attack_58_a_missing_or_foreign_head_is_noticed_and_never_replaced() {
    let (_folder, journal, _) = journal(2);
    let (_other_folder, other, _) = super::tests::journal(2);
    let refused = |journal: &Journal| {
        assert!(matches!(journal.verify(), Err(JournalError::Broken(_))));
        assert!(matches!(journal.append(&Event::new(Action::Sent, Ended::Done)), Err(JournalError::Broken(_))));
    };
    fs::copy(other.home.state(HEAD), journal.home.state(HEAD)).unwrap();
    fs::copy(other.records(), journal.records()).unwrap();
    refused(&journal);
    fs::remove_file(journal.home.state(HEAD)).unwrap();
    refused(&journal);
    fs::remove_file(journal.records()).unwrap();
    refused(&journal);
}

#[test]
fn half_a_record_is_no_tampering() {
    let (_folder, journal, identity) = journal(2);
    let mut torn = fs::read(journal.records()).unwrap();
    torn.extend_from_slice(b"{\"seq\":2,\"comm");
    fs::write(journal.records(), torn).unwrap();
    let report = journal.verify().unwrap();
    assert!(report.is_sound() && report.torn, "{}", report.finding());
    assert_eq!(journal.events(&[&identity]).unwrap().len(), 2);
}

#[test]
fn a_failure_keeps_what_it_was_about() {
    let about = Event { detail: Some("to new words".to_owned()), ..Event::new(Action::CardRotated, Ended::Done) };
    assert_eq!(about.clone().ended::<(), &str>(&Ok(())).detail.as_deref(), Some("to new words"));
    let failed = about.ended::<(), &str>(&Err("refused"));
    assert_eq!((failed.outcome, failed.detail.as_deref()), (Ended::Failed, Some("to new words: refused")));
    assert_eq!(Event::new(Action::Sent, Ended::Done).failed("why").detail.as_deref(), Some("why"));
}
