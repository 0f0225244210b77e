//! `unlock` and `lock`: an identity that is kept open for a time, by a process that nobody else can ask.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use pouch_tests::{Pair, Party, holds, skip, text, until};
use rustix::process::{Pid, Signal, Uid, kill_process};

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

#[track_caller]
fn only_agent(party: &Party) -> u32 {
    let [agent] = agents(party)[..] else { panic!("not one agent") };
    agent
}

#[track_caller]
fn gone(party: &Party) {
    until("no agent is left", Duration::from_secs(10), || agents(party).is_empty().then_some(()));
}

fn signal(agent: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(agent).unwrap()).unwrap(), signal).unwrap();
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
    let agent = only_agent(&cy);
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
    gone(&cy);
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
    signal(only_agent(&cy), Signal::KILL);
    gone(&cy);
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

#[test]
fn lock_does_not_say_what_it_does_not_know() {
    let pair = Pair::new();
    let (cy, file) = protected(&pair);
    let unlock = || cy.run(&["unlock", "--for", "10m", "--passphrase-file", &file]).ok();
    unlock();
    let stopped = only_agent(&cy);
    signal(stopped, Signal::STOP);
    cy.run(&["lock"]).fails(9, "the agent does not answer, and may still keep the identity");
    // Told so while it was stopped, it obeys when it goes on.
    signal(stopped, Signal::CONT);
    gone(&cy);
    cy.run(&["lock"]).ok().says("nothing was unlocked");

    // One that does not answer is replaced, and ends when it goes on; the new one is not disturbed.
    unlock();
    let stopped = only_agent(&cy);
    signal(stopped, Signal::STOP);
    unlock();
    signal(stopped, Signal::CONT);
    until("the stopped one is gone", Duration::from_secs(10), || (agents(&cy).len() == 1).then_some(()));
    assert_ne!(only_agent(&cy), stopped);
    cy.run(&["lock"]).ok().says("locked");
    gone(&cy);
}

#[test]
fn no_agent_is_left_that_lock_does_not_reach() {
    let pair = Pair::new();
    let (cy, file) = protected(&pair);
    let unlock = ["unlock", "--for", "10m", "--passphrase-file", &file];
    // One turn after the other.
    let turn = {
        cy.run(&unlock).ok();
        fs::File::open(cy.home().join("agent").join("starting")).unwrap()
    };
    let first = only_agent(&cy);
    turn.lock().unwrap();
    let mut waits = cy.pouch(unlock).start();
    thread::sleep(Duration::from_secs(4));
    assert!(waits.is_running() && agents(&cy) == [first]);
    drop(turn);
    waits.end().ok();
    let all: Vec<_> = (0..4).map(|_| cy.pouch(unlock).start()).collect();
    for one in all {
        one.end().ok();
    }
    only_agent(&cy);
    cy.run(&["lock"]).ok().says("locked");
    gone(&cy);

    // Nor when its socket is gone, or the home is.
    let socket = cy.home().join("agent").join("socket");
    cy.run(&unlock).ok();
    fs::remove_file(&socket).unwrap();
    gone(&cy);
    cy.run(&unlock).ok();
    fs::rename(&socket, socket.with_file_name("moved")).unwrap();
    fs::write(&socket, "x").unwrap();
    gone(&cy);
    assert_eq!(fs::read(&socket).unwrap(), b"x");
    fs::remove_file(&socket).unwrap();
    cy.run(&unlock).ok();
    let elsewhere = pair.root().join("elsewhere");
    fs::rename(cy.home(), &elsewhere).unwrap();
    gone(&cy);
}

#[test]
fn the_agent_has_nothing_of_whoever_called() {
    let pair = Pair::new();
    let (cy, file) = protected(&pair);
    let theirs = cy.file("theirs", "");
    let run = cy.pouch(["unlock", "--for", "10m", "--passphrase-file", &file]);
    let run = run.env("THEIR_TOKEN", "of nobody else").env("THEIRS", &theirs);
    // sh may know no number of two digits, bash does; where it is, it closes them.
    let many = "exec 3<\"$THEIRS\" 4<\"$THEIRS\" 9<\"$THEIRS\"; exec bash -c 'exec 10<\"$THEIRS\" 42<\"$THEIRS\"; exec \"$0\" \"$@\"'";
    let few = "exec 3<\"$THEIRS\" 4<\"$THEIRS\" 9<\"$THEIRS\"; exec";
    run.behind(if fs::exists("/bin/bash").unwrap() { many } else { few }).end().ok();
    let agent = only_agent(&cy);
    let open = fs::read_dir(format!("/proc/{agent}/fd")).unwrap();
    let open: Vec<_> = open.map(|fd| fs::read_link(fd.unwrap().path()).unwrap()).collect();
    assert!(open.len() >= 4, "three pipes and the socket: {open:?}");
    let is_own = |to: &std::path::PathBuf| text(to).starts_with("pipe:") || text(to).starts_with("socket:");
    assert!(open.iter().all(is_own), "{open:?}");
    let environment = fs::read(format!("/proc/{agent}/environ")).unwrap();
    assert!(holds(&environment, b"HOME=") && !holds(&environment, b"THEIR"));
    assert!(!holds(&environment, b"TMPDIR="));
    cy.run(&["lock"]).ok().says("locked");
    gone(&cy);
}

// Were the folder open to all, another user would still get no answer.
#[test]
fn another_user_is_not_answered() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root asks as another user");
    }
    let pair = Pair::new();
    let (cy, file) = protected(&pair);
    cy.run(&["unlock", "--for", "10m", "--passphrase-file", &file]).ok();
    let socket = cy.home().join("agent").join("socket");
    for path in socket.ancestors().take_while(|path| path.starts_with(pair.root())) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let answered = move || {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = stream.write_all(b"pouch.agent.v1 identity\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        !answer.is_empty()
    };
    assert!(answered());
    let theirs = thread::spawn(move || {
        // Of this thread alone.
        let nobody = Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        answered()
    });
    assert!(!theirs.join().unwrap());
    fs::set_permissions(cy.home(), fs::Permissions::from_mode(0o700)).unwrap();
    cy.run(&["lock"]).ok().says("locked");
    gone(&cy);
}
