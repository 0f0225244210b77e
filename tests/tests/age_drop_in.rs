//! `encrypt` and `decrypt` where the command line of age is expected: where keys come from, what may be written over,
//! what a terminal shows. What differs from age stands in docs/age.md.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use pouch_core::age::Identity;
use pouch_tests::{Party, Ran, Run, have, noise, text};
use tempfile::TempDir;

/// Somebody without a pouch identity, who has a key file and a file to encrypt.
struct Desk {
    party: Party,
    key: PathBuf,
    recipient: String,
    plain: PathBuf,
    _folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let party = Party::new(folder.path(), "ada");
        let (key, recipient) = key_file(&party, "key.txt");
        let plain = party.file("plain", "plain\n");
        Self { party, key, recipient, plain, _folder: folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.party.desk().join(name)
    }

    /// The plain file, encrypted for the desk's key.
    fn sealed(&self) -> PathBuf {
        let sealed = self.path("sealed.age");
        self.run(&["encrypt", "-r", &self.recipient, "-o", text(&sealed), text(&self.plain)]).ok();
        sealed
    }

    #[track_caller]
    fn run(&self, words: &[&str]) -> Ran {
        self.party.run(words)
    }

    #[track_caller]
    fn opens(&self, sealed: &Path) {
        assert_eq!(self.run(&["decrypt", "-i", text(&self.key), text(sealed)]).ok().out, b"plain\n");
    }

    /// Runs a line of shell, in which `$pouch` is the program, on a terminal where this is typed.
    #[track_caller]
    fn on_terminal(&self, line: &str, typed: &str) -> Ran {
        assert!(!line.contains('\''));
        let script = format!("export pouch=\"$0\"; exec script -qec '{line}' /dev/null #");
        self.party.pouch([""; 0]).behind(&script).env("TERM", "xterm-256color").input(typed).end()
    }
}

/// A new identity in a file, and its recipient.
fn key_file(party: &Party, name: &str) -> (PathBuf, String) {
    let identity = Identity::generate();
    let path = party.file(name, format!("# a comment\n\n{}\n", *identity.expose_secret_string()));
    (path, identity.recipient().to_string())
}

#[test]
fn nothing_appears_where_something_failed() {
    let desk = Desk::new();
    let (wrong, _) = key_file(&desk.party, "wrong.txt");
    let sealed = desk.sealed();
    let whole = fs::read(&sealed).unwrap();
    let cut = desk.party.file("cut.age", &whole[..whole.len() - 1]);
    let out = desk.path("out");
    let (key, recipient, missing) = (text(&desk.key), desk.recipient.as_str(), "missing");
    let failures: [(&[&str], i32); 8] = [
        (&["decrypt", "-i", text(&wrong), text(&sealed)], 1),
        (&["decrypt", text(&sealed)], 1),
        (&["decrypt", "-i", missing, text(&sealed)], 1),
        (&["decrypt", "-i", key, missing], 1),
        (&["decrypt", "-i", key, text(&cut)], 1),
        (&["encrypt", "-r", recipient, missing], 1),
        (&["encrypt", "-r", "BAD", text(&desk.plain)], 2),
        (&["encrypt", "-p", missing], 1),
    ];
    for (words, code) in failures {
        let words = [words, &["-o", text(&out)]].concat();
        desk.run(&words).ends(code);
        assert!(!out.exists(), "{words:?}");
        fs::write(&out, "before").unwrap();
        desk.run(&words).ends(code);
        assert_eq!(fs::read(&out).unwrap(), b"before", "{words:?}");
        fs::remove_file(&out).unwrap();
    }
    let before = desk.party.lying_around();
    desk.run(&["decrypt", "-i", key, "-o", "no folder/out", text(&sealed)]).fails(1, "no folder/out");
    desk.run(&["decrypt", "-i", key, "-o", text(&desk.party.temporary()), text(&sealed)]).fails(2, "is a folder");
    assert_eq!(desk.party.lying_around(), before);
    // What is empty is there all the same.
    let empty = desk.party.file("empty", "");
    desk.run(&["encrypt", "-r", recipient, "-o", text(&out), text(&empty)]).ok();
    let opened = desk.path("opened");
    desk.run(&["decrypt", "-i", key, "-o", text(&opened), text(&out)]).ok();
    assert_eq!(fs::read(&opened).unwrap(), b"");
}

#[test]
fn what_is_there_is_replaced_when_the_new_one_is_whole() {
    let desk = Desk::new();
    let sealed = desk.sealed();
    let out = desk.party.file("out", "before");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o600)).unwrap();
    symlink("out", desk.path("link")).unwrap();
    symlink("new", desk.path("ahead")).unwrap();
    for (name, target) in [("out", "out"), ("link", "out"), ("ahead", "new")] {
        desk.run(&["decrypt", "-i", text(&desk.key), "-o", name, text(&sealed)]).ok();
        assert_eq!(fs::read(desk.path(target)).unwrap(), b"plain\n", "{name}");
        assert_eq!(fs::symlink_metadata(desk.path(name)).unwrap().is_symlink(), name != target, "the link stays one");
    }
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
    let names = ["ahead", "key.txt", "link", "new", "out", "plain", "sealed.age"];
    assert_eq!(desk.party.lying_around(), names, "and nothing else");
}

#[test]
fn what_is_read_is_not_written_over() {
    let desk = Desk::new();
    let sealed = desk.sealed();
    symlink("plain", desk.path("link")).unwrap();
    fs::hard_link(&desk.plain, desk.path("hard")).unwrap();
    let list = desk.party.file("list.txt", format!("{}\n", desk.recipient));
    let (key, recipient) = (text(&desk.key), desk.recipient.as_str());
    for out in ["plain", "./plain", "../ada.desk/plain", "link", "hard"] {
        let ran = desk.run(&["encrypt", "-r", recipient, "-o", out, "plain"]);
        ran.fails(2, "input and output file are the same");
    }
    desk.run(&["encrypt", "-R", text(&list), "-o", "list.txt", "plain"]).fails(2, "are the same");
    desk.run(&["encrypt", "-i", key, "-o", "key.txt", "plain"]).fails(2, "are the same");
    desk.run(&["decrypt", "-i", key, "-o", "key.txt", text(&sealed)]).fails(2, "are the same");
    desk.run(&["decrypt", "-i", key, "-o", "sealed.age", text(&sealed)]).fails(2, "are the same");
    assert_eq!(fs::read(&desk.plain).unwrap(), b"plain\n");
    desk.opens(&sealed);
}

#[test]
fn devices_and_pipes_are_written_and_stay() {
    let desk = Desk::new();
    let sealed = desk.sealed();
    let decrypt = ["decrypt", "-i", text(&desk.key), text(&sealed), "-o"];
    let to = |out: &'static str| [&decrypt[..], &[out]].concat();
    desk.run(&to("/dev/null")).ok();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    assert_eq!(desk.run(&to("/dev/stdout")).ok().out, b"plain\n");
    assert_eq!(desk.run(&to("-")).ok().out, b"plain\n");
    // A shell's own redirections are neither emptied nor replaced.
    let log = desk.party.file("log", "first\n");
    for (out, redirection) in [("/dev/stdout", ">>log"), ("/dev/fd/3", "3>>log"), ("/proc/self/fd/4", "4>>log")] {
        let line = format!("exec {redirection};");
        desk.party.pouch(to(out)).behind(&line).end().ok();
    }
    assert_eq!(fs::read(&log).unwrap(), b"first\nplain\nplain\nplain\n");
    // A FIFO gets it as it comes.
    Run::of("mkfifo").args([desk.path("fifo")]).end().ok();
    let reader = Run::of("cat").args([desk.path("fifo")]).start();
    desk.run(&to("fifo")).ok();
    assert_eq!(reader.end().ok().out, b"plain\n");
    // What is named is a link, and what would be written is something else.
    symlink("/dev/null", desk.path("null")).unwrap();
    symlink("fifo", desk.path("pipe")).unwrap();
    desk.run(&to("null")).fails(2, "is a link to a device");
    desk.run(&to("pipe")).fails(2, "is a link to a FIFO");
}

#[test]
fn standard_input_serves_once() {
    let desk = Desk::new();
    let sealed = desk.sealed();
    let list = format!("# us\n{}\n", desk.recipient);
    let out = desk.path("out.age");
    let run = |words: &[&str], input: &[u8]| desk.party.pouch(words).input(input).end();
    run(&["encrypt", "-R", "-", "-o", "out.age", "plain"], list.as_bytes()).ok();
    desk.opens(&out);
    let key = fs::read(&desk.key).unwrap();
    run(&["encrypt", "-i", "-", "-o", "out.age", "plain"], &key).ok();
    desk.opens(&out);
    assert_eq!(run(&["decrypt", "-i", "-", text(&sealed)], &key).ok().out, b"plain\n");
    let sealed = run(&["encrypt", "-r", &desk.recipient, "-"], b"plain\n").ok().out;
    assert_eq!(run(&["decrypt", "-i", text(&desk.key), "-"], &sealed).ok().out, b"plain\n");
    for words in [
        &["encrypt", "-R", "-"][..],
        &["encrypt", "-R", "-", "-i", "-", "plain"],
        &["decrypt", "-i", "-", "-"],
        &["decrypt", "-i", "-", "-i", "-", "sealed.age"],
    ] {
        let input = if words.contains(&"-R") { list.as_bytes() } else { &key };
        run(words, input).fails(2, "standard input is used for several things");
    }
}

#[test]
fn identity_files_with_a_passphrase() {
    let desk = Desk::new();
    let (other, others) = key_file(&desk.party, "other.txt");
    let good = desk.party.file("good", "correct horse\n");
    let bad = desk.party.file("bad", "correct cow\n");
    let asked = ["--passphrase-file", text(&good)];
    for (name, armor) in [("key.age", None), ("key.asc", Some("-a"))] {
        let words = [&["encrypt", "-p", "-o", name, "key.txt"], &asked[..]].concat();
        desk.run(&[words, armor.into_iter().collect()].concat()).ok();
        // As recipients and as identities.
        let words = [&["encrypt", "-i", name, "-o", "sealed.age", "plain"], &asked[..]].concat();
        desk.run(&words).ok();
        desk.opens(&desk.path("sealed.age"));
        let decrypt = ["decrypt", "-i", name, "sealed.age"];
        assert_eq!(desk.run(&[&decrypt[..], &asked].concat()).ok().out, b"plain\n");
        desk.run(&[&decrypt[..], &["--passphrase-file", text(&bad)]].concat()).fails(1, "is wrong");
        desk.run(&decrypt).fails(2, "no terminal to ask on");
    }
    // Nobody is asked where it cannot help: another file comes first and fits, or nothing can.
    let words = ["decrypt", "-i", "key.txt", "-i", "key.age", "sealed.age"];
    assert_eq!(desk.run(&words).ok().out, b"plain\n");
    desk.party.file("garbage", "age-encryption.org/v1\n");
    let ran = desk.run(&["decrypt", "-i", "key.age", "garbage", "--json"]).ends(1);
    assert_eq!(ran.error()["kind"], "header failure");
    // One that does not fit is passed over with a warning.
    desk.run(&["encrypt", "-r", &others, "-o", "others.age", "plain"]).ok();
    let words = [&["decrypt", "-i", "key.age", "-i", text(&other), "others.age"], &asked[..]].concat();
    let ran = desk.run(&words).ok().says("none of the identities in key.age opens it");
    assert_eq!(ran.out, b"plain\n");
    let ran = desk.run(&[&["decrypt", "-i", "key.age", "others.age", "--json"], &asked[..]].concat()).ends(1);
    assert_eq!(ran.error()["kind"], "no match");
    // Sealed for a recipient, it is no identity file.
    desk.run(&["encrypt", "-r", &others, "-o", "no-key.age", "key.txt"]).ok();
    let words = [&["decrypt", "-i", "no-key.age", "sealed.age"], &asked[..]].concat();
    desk.run(&words).fails(1, "not with a passphrase");
}

#[test]
fn private_keys_of_ssh() {
    if !have(&["age", "ssh-keygen"]) {
        return;
    }
    let desk = Desk::new();
    let good = desk.party.file("good", "correct horse\n");
    let bad = desk.party.file("bad", "correct cow\n");
    for (name, phrase) in [("open", ""), ("locked", "correct horse")] {
        let make = ["-q", "-t", "ed25519", "-C", "ada at work", "-N", phrase, "-f", name];
        Run::of("ssh-keygen").args(make).dir(&desk.party.desk()).end().ok();
        let line = fs::read_to_string(desk.path(&format!("{name}.pub"))).unwrap();
        for words in [&["-r", line.trim()][..], &["-R", &format!("{name}.pub")], &["-i", name]] {
            let asked = ["--passphrase-file", text(&good)];
            desk.run(&[&["encrypt", "-o", "out.age", "plain"], words, &asked].concat()).ok();
            let words = [&["decrypt", "-i", name, "out.age"], &asked[..]].concat();
            assert_eq!(desk.run(&words).ok().out, b"plain\n", "{name} {words:?}");
            if phrase.is_empty() {
                let age = Run::of("age").args(["-d", "-i", name, "out.age"]).dir(&desk.party.desk());
                assert_eq!(age.end().ok().out, b"plain\n");
            }
        }
    }
    desk.run(&["decrypt", "-i", "locked", "out.age", "--passphrase-file", text(&bad)]).fails(1, "locked is wrong");
    let ran = desk.run(&["decrypt", "-i", "open", "out.age", "--json"]).ends(1);
    assert_eq!(ran.error()["kind"], "no match");
    desk.run(&["encrypt", "-R", "open", "plain"]).fails(2, "secret key");
    // The file says that it is not for this key, so nobody is asked.
    desk.sealed();
    let ran = desk.run(&["decrypt", "-i", "locked", "sealed.age", "--json"]).ends(1);
    assert_eq!(ran.error()["kind"], "no match", "{ran}");
}

#[test]
fn passphrases_are_recognised() {
    let desk = Desk::new();
    let good = desk.party.file("good", "correct horse\n");
    let bad = desk.party.file("bad", "correct cow\n");
    let asked = ["--passphrase-file", text(&good)];
    desk.run(&[&["encrypt", "-p", "-a", "-o", "out.age", "plain"], &asked[..]].concat()).ok();
    assert_eq!(desk.run(&[&["decrypt", "out.age"], &asked[..]].concat()).ok().out, b"plain\n");
    let no_match = |words: &[&str], saying: &str| {
        let ran = desk.run(&[words, &["--json"]].concat()).ends(1);
        assert_eq!(ran.error()["kind"], "no match", "{ran}");
        ran.says(saying);
    };
    no_match(&["decrypt", "out.age", "--passphrase-file", text(&bad)], "the passphrase is wrong");
    no_match(&["decrypt", "-i", "key.txt", "out.age"], "sealed with a passphrase");
    desk.run(&["decrypt", "out.age"]).fails(2, "no terminal to ask on");
    // It has none, so nobody is asked, and there is no identity.
    desk.sealed();
    no_match(&["decrypt", "sealed.age"], "-i");
    no_match(&[&["decrypt", "-p", "sealed.age"], &asked[..]].concat(), "sealed for recipients");
}

#[test]
fn called_wrongly() {
    let desk = Desk::new();
    let (key, recipient) = (text(&desk.key), desk.recipient.as_str());
    for words in [
        &["encrypt", "-p", "-r", recipient][..],
        &["encrypt", "-p", "-i", key],
        &["encrypt", "-p", "-R", key],
        &["encrypt", "plain"],
        &["encrypt", "-r", recipient, "plain", "plain"],
        &["encrypt", "-r", recipient, "--threads", "0", "plain"],
        &["encrypt", "-r", recipient, "."],
        &["decrypt", "-a", "plain"],
        &["decrypt", "-r", recipient, "plain"],
        &["decrypt", "-p", "-i", key, "plain"],
    ] {
        let ran = desk.run(words).ends(2);
        assert!(ran.out.is_empty(), "{ran}");
    }
    // What is named twice is probably a mistake, and no error.
    let ran = desk.run(&["encrypt", "-r", recipient, "-r", recipient, "-R", "list.txt", "-o", "out", "plain"]);
    ran.fails(1, "list.txt");
    let ran = desk.run(&["encrypt", "-r", recipient, "-i", key, "-r", recipient, "-i", key, "-o", "out", "plain"]).ok();
    ran.says(&format!("recipient {recipient} is named 2 times")).says("identity file");
    let ran = desk.run(&["encrypt", "-r", recipient, "-i", key, "-o", "out", "plain"]).ok();
    assert_eq!((ran.text().as_str(), ran.err.as_str()), ("", ""));
}

#[test]
fn any_number_of_threads() {
    let desk = Desk::new();
    let plain = noise("plain", 3 << 20);
    let large = desk.party.file("large", &plain);
    for threads in ["1", "2", "7"] {
        let run = |words: &[&str]| desk.party.pouch(words).env("POUCH_ENCRYPT_THREADS", threads).end().ok().out;
        let sealed = desk.party.file("large.age", run(&["encrypt", "-r", &desk.recipient, text(&large)]));
        let words = ["decrypt", "--threads", threads, "-i", text(&desk.key), text(&sealed)];
        assert!(desk.run(&words).ok().out == plain, "{threads}");
    }
}

#[test]
fn a_passphrase_on_a_terminal() {
    if !have(&["script"]) {
        return;
    }
    let desk = Desk::new();
    desk.on_terminal("$pouch encrypt -p -o out.age plain", "correct horse\ncorrect horse\n").ok();
    desk.on_terminal("$pouch decrypt out.age", "correct horse\n").ok().says("plain");
    desk.on_terminal("$pouch decrypt out.age", "correct cow\n").ends(1).says("the passphrase is wrong");
    let ran = desk.on_terminal("$pouch encrypt -p -o differ.age plain", "one\nother\n");
    ran.ends(2).says("differ");
    assert!(!desk.path("differ.age").exists());
    // If nothing is typed, one is made, and shown on the terminal alone.
    let ran = desk.on_terminal("$pouch encrypt -p -o made.age plain 2>err", "\n");
    ran.ends(2);
    let ran = desk.on_terminal("$pouch encrypt -p -o made.age plain", "\n").ok();
    let made = ran.text().split("the passphrase is: ").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    assert_eq!(made.split('-').count(), 10, "{ran}");
    let made = desk.party.file("made", made);
    assert_eq!(desk.run(&["decrypt", "made.age", "--passphrase-file", text(&made)]).ok().out, b"plain\n");
}

#[test]
fn a_terminal_is_shown_text_alone() {
    if !have(&["script"]) {
        return;
    }
    let desk = Desk::new();
    let seal = |name: &str, plain: &[u8]| {
        let plain = desk.party.file("in", plain);
        desk.run(&["encrypt", "-a", "-r", &desk.recipient, "-o", name, text(&plain)]).ok();
    };
    seal("text.age", "häßlich\tbut text\n".as_bytes());
    desk.on_terminal("$pouch decrypt -i key.txt text.age", "").ok().says("häßlich\tbut text");
    for (name, plain) in
        [("escape.age", &b"title \x1b]0;evil\x07 end\n"[..]), ("zero.age", b"evil\0"), ("utf.age", b"evil\xff")]
    {
        seal(name, plain);
        let ran = desk.on_terminal(&format!("$pouch decrypt -i key.txt {name}"), "");
        let ran = ran.ends(1).says("refusing to write binary to the terminal");
        assert!(!ran.text().contains("evil"), "{ran}");
        let ran = desk.on_terminal(&format!("$pouch decrypt -i key.txt -o - {name}"), "").ok();
        assert!(ran.out.windows(4).any(|w| w == b"evil"), "{ran}");
        // Neither a file nor a pipe minds.
        desk.on_terminal(&format!("$pouch decrypt -i key.txt {name} | cat >out"), "").ok();
        assert_eq!(fs::read(desk.path("out")).unwrap(), plain);
    }
    // A file that is cut shows nothing, for it is shown when it is whole.
    let whole = fs::read(desk.path("text.age")).unwrap();
    desk.party.file("cut.age", &whole[..whole.len() - 40]);
    let ran = desk.on_terminal("$pouch decrypt -i key.txt cut.age", "").ends(1);
    assert!(!ran.text().contains("but text"), "{ran}");
    // Pasted, up to the last line of the armor: no end of input has to be typed.
    let pasted = String::from_utf8(whole).unwrap();
    desk.on_terminal("$pouch decrypt -i key.txt", &pasted).ok().says("but text");
}

#[test]
fn progress_is_for_a_terminal_alone() {
    if !have(&["script"]) {
        return;
    }
    let desk = Desk::new();
    let line = |flags: &str, to: &str| {
        format!("(sleep 1; echo x) | $pouch encrypt -r {} {flags} -o out.age {to}", desk.recipient)
    };
    desk.on_terminal(&line("", ""), "").ok().says("encrypting");
    for (flags, to) in [("-q", ""), ("--json", ""), ("", "2>err")] {
        let ran = desk.on_terminal(&line(flags, to), "").ok();
        assert_eq!(ran.text().trim(), "", "{flags} {to}");
    }
    assert_eq!(fs::read(desk.path("err")).unwrap(), b"");
}
