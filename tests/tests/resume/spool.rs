//! What is piped in with `--spool`: it goes on like files, and nothing of it stays.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use pouch_client::Party;
use pouch_core::age;
use pouch_statement::BundleId;
use pouch_tests::{LIMIT, files_beneath, holds, noise, until};
use rustix::process::Signal;

use super::deadly::{Deadly, PART};

const WORDS: [&str; 7] = ["send", "-", "--spool", "--name", "dump", "--to", "bo"];

/// Ada, whose pipe gives what takes three parts.
fn piped() -> (Deadly, Vec<u8>) {
    let mut deadly = Deadly::new();
    let input = noise("piped", 2 * PART + 4321);
    deadly.input.clone_from(&input);
    (deadly, input)
}

fn spools(deadly: &Deadly) -> Vec<PathBuf> {
    files_beneath(&deadly.world.party("ada").home().join("spools"))
}

fn interrupted(deadly: &Deadly) -> String {
    deadly.standing("interrupted")["bundle"].as_str().unwrap().to_owned()
}

#[track_caller]
fn arrives(deadly: &Deadly, id: &str, input: &[u8]) {
    let (ran, fresh) = deadly.world.receive(id);
    ran.ok();
    assert!(std::fs::read(fresh.path.join("dump")).unwrap() == input);
    assert_eq!(spools(deadly), Vec::<PathBuf>::new());
    deadly.nothing_is_left();
}

#[test]
fn what_is_kept_goes_on_and_then_goes() {
    let (deadly, input) = piped();
    for compress in ["none", "zstd"] {
        let mut parts = deadly.killed_after_parts(&[&WORDS[..], &["--compress", compress]].concat(), 2);
        let [spool] = spools(&deadly).try_into().unwrap();
        let kept = std::fs::read(&spool).unwrap();
        assert!(kept.starts_with(b"age-encryption.org/v1\n") && !holds(&kept, &input[PART..PART + 32]));
        assert_eq!(std::fs::metadata(&spool).unwrap().permissions().mode() & 0o777, 0o600);
        let id = interrupted(&deadly);
        let percent = deadly.standing("interrupted")["percent"].as_u64().unwrap();
        assert!((1..=99).contains(&percent), "{percent}");
        deadly.world.run("ada", &["outbox", "resume", &id]).ok().says("going on with bundle");
        parts.extend(deadly.parts());
        parts.sort_unstable();
        assert_eq!(parts, [0, 1, 2], "none was sent twice");
        arrives(&deadly, &id, &input);
    }
    deadly.check_keys();
}

#[test]
fn what_the_relay_has_lost_is_sent_anew_from_what_is_kept() {
    let (deadly, input) = piped();
    deadly.killed_after_parts(&WORDS, 1);
    let id = interrupted(&deadly);
    let (party, _) = deadly.world.party("ada").client();
    delete(&party, id.parse().unwrap());
    let ran = deadly.world.run("ada", &["outbox", "resume", "-q", &id]).ok();
    assert_ne!(ran.word(), id);
    arrives(&deadly, &ran.word(), &input);
    // Given up, it goes, too.
    deadly.killed_after_parts(&WORDS, 1);
    deadly.world.run("ada", &["outbox", "forget", &interrupted(&deadly)]).ok();
    assert_eq!(spools(&deadly), Vec::<PathBuf>::new());
}

fn delete(party: &Party, bundle: BundleId) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { party.api().unwrap().delete_bundle(bundle).await.unwrap() });
}

// Whoever can write into the home cannot have something else sent in the name of what was piped in.
#[test]
fn something_else_in_its_place_is_not_delivered() {
    let (deadly, input) = piped();
    let ada = deadly.world.party("ada").client().1.age;
    for other in [noise("another", input.len()), input[..input.len() - 1].to_vec(), [&input[..], b"!"].concat()] {
        deadly.killed_after_parts(&WORDS, 1);
        let id = interrupted(&deadly);
        std::fs::write(&spools(&deadly)[0], age::seal_to_vec(&ada.recipient(), &other).unwrap()).unwrap();
        let ran = deadly.world.run("ada", &["outbox", "resume", &id]).ends(1);
        assert!(ran.err.contains("what was kept of it is not what was piped in"), "{ran}");
        assert_eq!(deadly.world.run("bo", &["inbox", "-q"]).ok().out, b"");
        deadly.nothing_is_left();
        assert_eq!(spools(&deadly), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_a_kill_leaves_within_the_pipe_goes_with_the_next() {
    let (deadly, input) = piped();
    for (signal, code) in [(Signal::KILL, -9), (Signal::INT, 130)] {
        let mut running = deadly.world.pouch("ada", &WORDS).holding_input().start();
        running.stdin.as_mut().unwrap().write_all(&input[..PART]).unwrap();
        let begun = || spools(&deadly).iter().any(|spool| spool.metadata().unwrap().len() > 0).then_some(());
        until("something is kept", LIMIT, begun);
        let stdin = running.stdin.take();
        running.signal(signal);
        running.end().ends(code);
        drop(stdin);
        assert_eq!(spools(&deadly).len(), usize::from(signal == Signal::KILL));
        let id = deadly.world.pouch("ada", &[&WORDS[..], &["-q"]].concat()).input(input.clone()).end().ok().word();
        arrives(&deadly, &id, &input);
    }
}

#[test]
fn what_need_not_be_kept_is_not() {
    let (deadly, _) = piped();
    let file = deadly.world.party("ada").file("file", "content");
    let words = ["send", pouch_tests::text(&file), "--spool", "--to", "bo"];
    deadly.world.run("ada", &words).fails(2, "files need no --spool");
    let piped = deadly.world.pouch("ada", &["send", "-", "--to", "bo"]).input("content").end().ok();
    assert!(piped.err.contains("--spool keeps it"), "{piped}");
    assert_eq!(spools(&deadly), Vec::<PathBuf>::new());
}
