//! `unlock` and `lock`: an identity that is kept open for a time, by a process that nobody else can ask.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::time::Duration;

use pouch_tests::{Pair, Party, holds, text, until};

const PASSPHRASE: &str = "correct horse battery staple";

/// Somebody with a passphrase whom Ada knows, and the file it is in.
fn protected(pair: &Pair) -> (Party, String) {
    let cy = pair.stranger("cy");
    let file = text(&cy.file("passphrase", PASSPHRASE)).to_owned();
    let join = ["join", "--name", "cy", "--passphrase-file", &file];
    cy.pouch(join).input(pair.ada.invite("cy")).end().ok();
    pair.ada.run(&["contact", "list"]).ok().says("cy joined and is pinned");
    (cy, file)
}

/// The processes that keep an identity of this home.
fn agents(party: &Party) -> Vec<u32> {
    let home = party.home();
    let is_agent = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        holds(&words, b"--serve") && holds(&words, text(&home).as_bytes())
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(is_agent).collect()
}

#[test]
fn unlocked_once_no_command_asks_until_it_is_locked() {
    let pair = Pair::new();
    let (cy, file) = protected(&pair);
    let asks = || cy.run(&["log", "show"]).fails(2, "a passphrase is needed");
    asks();
    cy.run(&["lock"]).ok().says("nothing was unlocked");
    cy.run(&["unlock"]).fails(2, "a passphrase is needed");
    let wrong = cy.file("wrong", "incorrect horse");
    cy.run(&["unlock", "--passphrase-file", text(&wrong)]).fails(5, "does not open the identity");
    cy.run(&["unlock", "--for", "8d", "--passphrase-file", &file]).fails(2, "7d at most");
    assert!(agents(&cy).is_empty());

    let unlocked = cy.run(&["unlock", "--for", "10m", "--passphrase-file", &file, "--json"]).ok();
    assert!(unlocked.object("unlocked")["until"].as_str().unwrap().ends_with('Z'));
    // Sending, receiving, reading the journal and receipts.
    let id = cy.send(&[text(&cy.file("f", "from cy")), "--to", "ada"]);
    assert_eq!(fs::read(pair.ada.receive(&id).join("f")).unwrap(), b"from cy");
    cy.run(&["outbox", &id]).ok().says("received and verified");
    let id = pair.ada.send(&[text(&pair.ada.file("g", "from ada")), "--to", "cy"]);
    assert_eq!(fs::read(cy.receive(&id).join("g")).unwrap(), b"from ada");
    assert!(!cy.events().is_empty());
    // Nobody else comes near it, and nothing of it is on the disk or among the words of the process.
    let folder = cy.home().join("agent");
    let socket = fs::metadata(folder.join("socket")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(
        (socket.permissions().mode() & 0o777, fs::metadata(&folder).unwrap().permissions().mode() & 0o777),
        (0o600, 0o700)
    );
    let [agent] = agents(&cy)[..] else { panic!("not one agent") };
    for what in ["cmdline", "environ"] {
        let bytes = fs::read(format!("/proc/{agent}/{what}")).unwrap();
        assert!(!holds(&bytes, PASSPHRASE.as_bytes()) && !holds(&bytes, b"AGE-SECRET-KEY"), "{what}");
    }
    assert!(pouch_tests::find_bytes(&cy.home(), b"AGE-SECRET-KEY").is_empty());

    // A second one takes its place; a wrong passphrase does not.
    cy.run(&["unlock", "--passphrase-file", text(&wrong)]).ends(5);
    assert_eq!(agents(&cy), [agent]);
    cy.run(&["unlock", "--for", "10m", "--passphrase-file", &file]).ok().says("unlocked until");
    until("the first one is gone", Duration::from_secs(10), || (agents(&cy).len() == 1).then_some(()));
    assert_ne!(agents(&cy), [agent]);
    cy.run(&["lock"]).ok().says("locked");
    until("all are gone", Duration::from_secs(10), || agents(&cy).is_empty().then_some(()));
    assert!(!folder.join("socket").exists());
    asks();
}

#[test]
fn forgotten_on_time() {
    let pair = Pair::new();
    let (cy, file) = protected(&pair);
    cy.run(&["unlock", "--for", "4s", "--passphrase-file", &file]).ok();
    cy.run(&["log", "show"]).ok();
    until("it forgets", Duration::from_secs(20), || agents(&cy).is_empty().then_some(()));
    cy.run(&["log", "show"]).fails(2, "a passphrase is needed");
    // Killed, it leaves a socket that nobody answers; the next one takes its place.
    cy.run(&["unlock", "--for", "10m", "--passphrase-file", &file]).ok();
    let [agent] = agents(&cy)[..] else { panic!("not one agent") };
    let agent = rustix::process::Pid::from_raw(i32::try_from(agent).unwrap()).unwrap();
    rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
    until("it is gone", Duration::from_secs(10), || agents(&cy).is_empty().then_some(()));
    cy.run(&["log", "show"]).fails(2, "a passphrase is needed");
    cy.run(&["unlock", "--for", "10m", "--passphrase-file", &file]).ok();
    cy.run(&["log", "show"]).ok();
    cy.run(&["lock"]).ok().says("locked");
}

#[test]
fn without_a_passphrase_there_is_nothing_to_unlock() {
    let pair = Pair::new();
    pair.bo.run(&["unlock"]).fails(2, "no passphrase");
    pair.stranger("nobody").run(&["unlock"]).fails(2, "nobody has joined");
    assert!(!pair.bo.home().join("agent").exists());
    // What is no identity is not kept, by whomever it is given.
    pair.bo.pouch(["unlock", "--serve", "--for", "5s"]).input("not an identity").end().fails(9, "not the text");
}
