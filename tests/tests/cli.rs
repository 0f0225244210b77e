//! What scripts and people rely on: ids, JSON, settings, exit codes, contacts, passphrases, and what is never printed.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;

use pouch_tests::{Pair, Ran, have, text};

/// Whether there is anything but text in it.
fn is_plain(ran: &Ran) -> bool {
    !ran.text().chars().chain(ran.err.chars()).any(|c| c.is_control() && c != '\n')
}

#[test]
fn quiet_prints_the_id_alone() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let ran = pair.ada.run(&["send", text(&file), "--to", "bo", "-q"]).ok();
    let id = ran.word();
    assert_eq!((ran.text(), ran.err.as_str()), (format!("{id}\n"), ""));
    assert!(id.len() == 26 && id.bytes().all(|c| b"0123456789abcdefghjkmnpqrstvwxyz".contains(&c)), "{id}");
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), format!("{id}\n"));
    let into = pair.bo.fresh();
    let ran = pair.bo.run(&["receive", &id, "-o", text(&into), "-q"]).ok();
    assert_eq!((ran.word(), ran.err.as_str()), (text(&into).to_owned(), ""));
    assert_eq!(pair.ada.run(&["outbox", "-q"]).ok().text(), format!("{id}\n"));
}

#[test]
fn json_is_one_object_a_line() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let sent = pair.ada.run(&["send", text(&file), "--to", "bo", "--json"]).ok();
    let id = sent.object("sent")["bundle"].as_str().unwrap().to_owned();
    let into = pair.bo.fresh();
    assert_eq!(pair.bo.run(&["inbox", "--json"]).ok().object("waiting")["bundle"], id.as_str());
    let received = pair.bo.run(&["receive", &id, "--json", "-o", text(&into)]).ok();
    assert_eq!((received.object("received")["files"].as_u64(), received.objects().len()), (Some(1), 1));
    let receipt = &pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle")["recipients"][0]["receipt"];
    assert!(receipt["statement"].is_string() && receipt["signature"].is_string());
    assert_eq!(pair.ada.run(&["card", "--json"]).ok().object("card")["name"], "ada");
    assert_eq!(pair.ada.run(&["contact", "list", "--json"]).ok().object("contact")["verified"], "link");
    assert_eq!(pair.ada.run(&["log", "verify", "--json"]).ok().object("journal")["sound"], true);
    assert!(pair.ada.run(&["log", "show", "--json"]).ok().objects().iter().all(|o| o["type"] == "event"));
    assert!(!pair.ada.run(&["log", "show", "--relay", "--json"]).ok().objects().is_empty());
    assert_eq!(pair.ada.run(&["relay", "accounts", "--json"]).ok().objects().len(), 2);
    assert!(pair.ada.run(&["invite", "cy", "--json"]).ok().object("invited")["link"].is_string());
    // Failures are told in JSON as well, apart from what a script reads.
    let failed = pair.ada.run(&["send", text(&file), "--to", "nobody", "--json"]).ends(3);
    assert!(failed.out.is_empty() && failed.error()["message"].as_str().unwrap().contains("nobody"), "{failed}");
}

#[test]
fn a_flag_beats_the_variable_which_beats_the_file() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let config = pair.ada.home().join("config.toml");
    fs::write(&config, "quiet = false\n[send]\nnote = \"from the file\"\nuntil = \"1h\"\nburn = true\n").unwrap();
    let send = ["send", text(&file), "--to", "bo", "-q"];
    let note = |ran: Ran| {
        let id = ran.ok().word();
        let listed = pair.bo.run(&["receive", &id, "--list", "--json"]).ok().object("contents");
        listed["note"].as_str().unwrap().to_owned()
    };
    assert_eq!(note(pair.ada.run(&send)), "from the file");
    assert_eq!(note(pair.ada.pouch(send).env("POUCH_SEND_NOTE", "from the variable").end()), "from the variable");
    let flag = [&send[..], &["--note", "from the flag"]].concat();
    assert_eq!(note(pair.ada.pouch(&flag).env("POUCH_SEND_NOTE", "from the variable").end()), "from the flag");
    // Switches, too: --burn from the file, and off by the variable.
    for (burn, state) in [("1", "burnt"), ("0", "committed")] {
        let id = pair.ada.pouch(send).env("POUCH_SEND_BURN", burn).end().ok().word();
        pair.bo.receive(&id);
        assert_eq!(pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle")["relay"], state);
    }
    // Global flags have short names, and the home can be a flag.
    let moved = pair.ada.pouch(["outbox", "--home", text(&pair.ada.home())]).without_env("POUCH_HOME");
    let ran = moved.env("POUCH_QUIET", "true").end().ok();
    assert_eq!(ran.word().lines().next().unwrap().len(), 26, "{ran}");
    for (wrong, what) in
        [("sned = 1", "sned"), ("[send]\nnoot = \"x\"", "noot"), ("[sand]\nnote = \"x\"", "sand"), ("=", "TOML")]
    {
        fs::write(&config, wrong).unwrap();
        pair.ada.run(&["inbox"]).fails(9, what);
    }
}

#[test]
fn exit_codes_of_what_cannot_be() {
    let mut pair = Pair::new();
    let file = pair.ada.file("f", "f");
    pair.ada.run(&["send", text(&file), "--to", "nobody"]).fails(3, "nobody");
    pair.ada.run(&["send", "no such file", "--to", "bo"]).ends(3);
    pair.ada.run(&["send", text(&file)]).fails(2, "--to");
    pair.ada.run(&["frobnicate"]).ends(2);
    pair.ada.run(&["--version"]).ok().says("pouch");
    pair.bo.run(&["receive"]).fails(3, "nothing is waiting");
    pair.bo.run(&["receive", "zzzzzz"]).fails(3, "zzzzzz");
    pair.stranger("eve").run(&["inbox"]).fails(2, "nobody has joined");
    // One link, one use (attacks.md 61).
    let link = pair.ada.invite("cy");
    pair.stranger("cy").join(&link);
    let late = pair.stranger("late").pouch(["join", "--name", "cy", "--no-passphrase"]).input(link.clone()).end();
    late.fails(6, "ask for a new link");
    let slip = format!("{}x{}", &link[..60], &link[61..]);
    pair.stranger("slip").pouch(["join", "--name", "cy", "--no-passphrase"]).input(slip).end().ends(2);
    pair.ada.run(&["contact", "list"]).ok().says("cy joined");
    // Nobody answers.
    pair.relay.stop().ok();
    let id = "0123456789abcdefghjkmnpqr0";
    for words in [&["inbox"][..], &["send", text(&file), "--to", "bo"], &["receive", id], &["invite", "dee"]] {
        pair.ada.run(words).fails(7, "cannot reach the relay");
    }
    // What failed is in the journal, not in the outbox.
    assert!(pair.ada.events().iter().any(|e| e["action"] == "sent" && e["outcome"] == "failed"));
    pair.ada.run(&["outbox"]).ok().says("nothing was sent yet");
    // State of another version.
    fs::write(pair.ada.home().join("version"), "2\n").unwrap();
    pair.ada.run(&["inbox"]).fails(9, "version 2");
    fs::write(pair.ada.home().join("version"), "1\n").unwrap();
    fs::write(pair.ada.home().join("contacts.json"), "[{").unwrap();
    pair.ada.run(&["contact", "list"]).fails(9, "damaged");
}

#[test]
fn without_the_relay_an_attempt_is_journaled_and_the_outbox_shows_what_is_known() {
    let mut pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let first = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&first);
    // The listing fetches receipts, and says where the relay has what.
    let listed = pair.ada.run(&["outbox", "--json"]).ok().object("bundle");
    assert_eq!((&listed["recipients"][0]["outcome"], &listed["relay"]), (&"verified".into(), &"committed".into()));
    assert!(pair.ada.events().iter().any(|e| e["action"] == "receipt-received"));
    let second = pair.ada.send(&[text(&file), "--to", "bo"]);
    pair.bo.receive(&second);
    // An invitation that nobody answered yet is asked about before anything else.
    pair.ada.invite("cy");
    let tried = |pair: &Pair| pair.ada.events().into_iter().filter(|e| e["action"] == "sent").count();
    let before = tried(&pair);
    pair.relay.stop().ok();
    pair.ada.run(&["send", text(&file), "--to", "bo"]).fails(7, "cannot reach the relay");
    pair.ada.run(&["send", text(&file), "--to", "cy"]).fails(7, "cannot reach the relay");
    let events = pair.ada.events();
    assert_eq!(tried(&pair), before + 2, "{events:#?}");
    for (event, to) in events.iter().rev().zip(["cy", "bo"]) {
        assert_eq!((&event["action"], &event["outcome"]), (&"sent".into(), &"failed".into()), "{event}");
        assert_eq!(event["peer"], to);
        assert!(event["detail"].as_str().unwrap().contains("cannot reach the relay"), "{event}");
    }
    let ran = pair.ada.run(&["outbox"]).ok().says("no new receipts were fetched");
    assert_eq!(ran.text().lines().count(), 2, "{ran}");
    ran.says("no receipt seen yet").says("received 2");
    pair.relay.serve();
    assert!(!pair.ada.run(&["outbox"]).ok().text().contains("no receipt seen yet"));
}

#[test]
fn pipes_are_neither_waited_for_nor_sent_as_nothing() {
    let pair = Pair::new();
    let make = |path: &std::path::Path| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let tree = pair.ada.desk().join("tree");
    fs::create_dir(&tree).unwrap();
    let pipe = tree.join("pipe");
    make(&pipe);
    for path in [&pipe, &tree] {
        for more in [&[][..], &["--dry-run"]] {
            let words = [&["send", text(path), "--to", "bo", "--skip-special"][..], more].concat();
            pair.ada.run(&words).fails(2, "nothing is left to send");
        }
    }
    assert!(!pair.ada.events().iter().any(|e| e["action"] == "sent"));
    fs::write(tree.join("f"), "f").unwrap();
    let id = pair.ada.send(&[text(&tree), "--to", "bo", "--skip-special"]);
    assert_eq!(fs::read_dir(pair.bo.receive(&id)).unwrap().count(), 1);
    make(&pair.ada.home().join("config.toml"));
    pair.ada.run(&["inbox"]).fails(9, "config.toml is not a file");
}

#[test]
fn help_is_a_verb_too() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = pouch_tests::Party::new(folder.path(), "nobody");
    let whole = nobody.run(&["--help"]).ok().text();
    assert_eq!(nobody.run(&["help"]).ok().text(), whole);
    assert!(whole.contains("Exchange:"), "{whole}");
    nobody.run(&["help", "send"]).ok().says("--until");
    nobody.run(&["help", "contact", "verify"]).ok().says("--words");
    nobody.run(&["contact", "help", "verify"]).ok().says("--words");
    nobody.run(&["help", "frobnicate"]).ends(2);
}

#[test]
fn attack_25_contacts_are_verified_before_they_are_sent_to() {
    let pair = Pair::new();
    // Cy is on the relay; Ada has the card from a mail.
    pair.ada.run(&["relay", "role", "bo", "member"]).ok();
    let cy = pair.stranger("cy");
    cy.join(&pair.bo.invite("cy"));
    let card = cy.run(&["card", "-q"]).ok();
    let mail = pair.ada.file("cy.card", card.out);
    let words = cy.run(&["card", "--words", "-q"]).ok().word();
    assert_eq!(words.split('-').count(), 12);
    let wrong = pair.bo.run(&["card", "--words", "-q"]).ok().word();

    pair.ada.run(&["contact", "add", text(&mail), "--words", &wrong]).fails(4, "another card's");
    pair.ada.run(&["contact", "add", text(&mail), "--words", "one two three"]).ends(2);
    pair.ada.run(&["contact", "show", "cy"]).ends(3);
    pair.ada.run(&["contact", "add", text(&mail)]).ok().says("not verified yet");
    let file = pair.ada.file("f", "for cy");
    pair.ada.run(&["send", text(&file), "--to", "cy"]).fails(5, "never verified");
    pair.ada.run(&["contact", "verify", "cy", "--words", &wrong]).fails(4, "another card's");
    pair.ada.run(&["send", text(&file), "--to", "cy"]).ends(5);
    // Spaces or dashes, capitals or not.
    let spoken = words.replace('-', " ").to_uppercase();
    pair.ada.run(&["contact", "verify", "cy", "--words", &spoken]).ok();
    let id = pair.ada.send(&[text(&file), "--to", "cy"]);
    // Cy does not know Ada: nothing is opened, and no receipt leaves (format.md, "Receipt").
    let into = cy.fresh();
    cy.run(&["receive", &id, "-o", text(&into)]).fails(5, "not in your address book");
    assert!(!into.exists());
    let hers = cy.file("ada.card", pair.ada.run(&["card", "-q"]).ok().out);
    let her_words = pair.ada.run(&["card", "--words", "-q"]).ok().word();
    cy.run(&["contact", "add", text(&hers), "--name", "boss", "--words", &her_words]).ok();
    cy.run(&["receive", &id, "-o", text(&into)]).ok().says("from boss");
    assert_eq!(fs::read(into.join("f")).unwrap(), b"for cy");
    // Bo's card under Cy's name, and a card that somebody changed (attacks.md 35).
    let bos = pair.ada.file("bo.card", pair.bo.run(&["card", "-q"]).ok().out);
    pair.ada.run(&["contact", "remove", "bo"]).ok();
    pair.ada.run(&["contact", "add", text(&bos), "--name", "cy"]).ends(4);
    let changed = fs::read_to_string(&bos).unwrap().replace("\"name\":\"bo\"", "\"name\":\"cy\"");
    let changed = pair.ada.file("changed.card", changed);
    pair.ada.run(&["contact", "add", text(&changed)]).ends(4);
    pair.ada.run(&["contact", "show", "bo"]).ends(3);
}

#[test]
fn the_owner_suspends_and_restores_an_account() {
    let pair = Pair::new();
    let accounts = || pair.ada.run(&["relay", "accounts", "--json"]).ok().objects();
    let bos = |accounts: &[serde_json::Value]| accounts.iter().find(|a| a["name"] == "bo").unwrap().clone();
    let mailbox = bos(&accounts())["mailbox"].as_str().unwrap().to_owned();
    assert!(bos(&accounts())["suspended"].is_null());
    pair.ada.run(&["relay", "suspend", "--help"]).ok().says("Refuse all requests of an account");
    pair.ada.run(&["relay", "suspend", "nobody"]).fails(3, "no account nobody");
    pair.ada.run(&["relay", "suspend", "ada"]).fails(5, "contradicts");
    pair.bo.run(&["relay", "suspend", "ada"]).ends(5);
    // By name, and by the beginning of the mailbox.
    assert_eq!(pair.ada.run(&["relay", "suspend", "bo", "-q"]).ok().word(), mailbox);
    assert!(bos(&accounts())["suspended"].is_string());
    pair.ada.run(&["relay", "accounts"]).ok().says("suspended since");
    pair.bo.run(&["inbox"]).fails(5, "suspended");
    let id = pair.ada.send(&[text(&pair.ada.file("f", "f")), "--to", "bo"]);
    let restored = pair.ada.run(&["relay", "restore", &mailbox[..8], "--json"]).ok().object("restored");
    assert_eq!((restored["name"].as_str(), restored["mailbox"].as_str()), (Some("bo"), Some(mailbox.as_str())));
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().word(), id);
}

#[test]
fn the_owner_takes_a_bundle_down() {
    let pair = Pair::new();
    let id = pair.bo.send(&[text(&pair.bo.file("f", "f")), "--to", "ada"]);
    pair.bo.run(&["relay", "takedown", &id, "--reason", "mine"]).ends(5);
    pair.ada.run(&["relay", "takedown", &id]).ends(2);
    pair.ada.run(&["relay", "takedown", &id, "--reason", ""]).fails(2, "needs a reason");
    assert_eq!(pair.ada.run(&["inbox", "-q"]).ok().word(), id);
    assert_eq!(pair.ada.run(&["relay", "takedown", &id, "--reason", "a court's order", "-q"]).ok().word(), id);
    pair.ada.run(&["receive", &id]).fails(6, "a court's order");
    pair.bo.run(&["outbox", &id]).ok().says("taken down because: a court's order");
    let bundle = pair.bo.run(&["outbox", &id, "--json"]).ok().object("bundle");
    assert_eq!((bundle["relay"].as_str(), bundle["reason"].as_str()), (Some("taken-down"), Some("a court's order")));
}

#[test]
fn a_passphrase_protects_the_identity() {
    let pair = Pair::new();
    let cy = pair.stranger("cy");
    let phrase = "sieben Zwerge, acht Gläser";
    let good = cy.file("good", format!("{phrase}\nnot this line\n"));
    let bad = cy.file("bad", "sieben Zwerge\n");
    let link = pair.ada.invite("cy");
    cy.pouch(["join", "--name", "cy", "--passphrase-file", text(&good)]).input(link).end().ok();
    assert!(cy.home().join("identity.age").exists() && !cy.home().join("identity").exists());
    pair.ada.run(&["contact", "list"]).ok();
    let file = pair.ada.file("f", "f");
    let id = pair.ada.send(&[text(&file), "--to", "cy"]);
    // Polling asks for nothing.
    assert_eq!(cy.run(&["inbox", "-q"]).ok().word(), id);
    cy.run(&["log", "verify"]).ok();
    // Opening and signing do.
    cy.run(&["receive", &id]).fails(2, "a passphrase is needed");
    cy.run(&["receive", &id, "--passphrase-file", text(&bad)]).fails(5, "does not open");
    cy.run(&["receive", &id, "--passphrase-file", "no such file"]).ends(2);
    cy.run(&["receive", &id, "--passphrase-file", text(&good), "--passphrase-command", "true"]).ends(2);
    let into = cy.fresh();
    cy.run(&["receive", &id, "-o", text(&into), "--passphrase-file", text(&good)]).ok();
    let fd = format!("3<'{}' exec", text(&good));
    cy.pouch(["receive", &id, "--list", "--passphrase-fd", "3"]).behind(&fd).end().ok();
    let command = format!("cat '{}'", text(&good));
    cy.run(&["receive", &id, "--list", "--passphrase-command", &command]).ok();
    cy.run(&["receive", &id, "--list", "--passphrase-command", "false"]).ends(2);
    // A flag beats a variable here, too, though they are different flags.
    let listing = ["receive", &id, "--list", "--passphrase-command", &command];
    cy.pouch(listing).env("POUCH_PASSPHRASE_FILE", &bad).end().ok();
    // Standard input is the data, not the passphrase.
    pair.bo.run(&["contact", "list"]).ok();
    let back = ["send", "-", "--to", "ada", "-q", "--passphrase-file", text(&good)];
    let id = cy.pouch(back).input("the data").end().ok().word();
    assert_eq!(pair.ada.run(&["receive", &id, "--stdout"]).ok().out, b"the data");
}

#[test]
fn no_colour_and_no_bar_where_nobody_watches() {
    let pair = Pair::new();
    let file = pair.ada.file("f", vec![7; 1 << 20]);
    let ran = pair.ada.run(&["send", text(&file), "--to", "bo"]).ok();
    assert!(is_plain(&ran), "{ran}");
    for words in [&["--help"][..], &["send", "--help"], &["send", "--to"], &["inbox"], &["contact", "list"]] {
        // Variables that ask for colours do not make a pipe a terminal; NO_COLOR is obeyed on one.
        let ran = pair.bo.pouch(words).env("TERM", "xterm-256color").env("COLORTERM", "truecolor").end();
        assert!(is_plain(&ran), "{ran}");
    }
    if have(&["script"]) {
        let help = pair.bo.pouch(["--help"]);
        let on_terminal = help.behind("exec script -qec \"$0 --help\" /dev/null #");
        let coloured = on_terminal.env("TERM", "xterm-256color").end().ok();
        assert!(coloured.text().contains("Exchange:"), "{coloured}");
        let plain = pair.bo.pouch(["--help"]).behind("exec script -qec \"$0 --help\" /dev/null #");
        let plain = plain.env("TERM", "xterm-256color").env("NO_COLOR", "1").end().ok();
        assert!(!plain.text().contains('\u{1b}'), "{plain}");
    }
}

#[test]
fn without_a_home_of_its_own_state_is_in_the_xdg_folders() {
    let pair = Pair::new();
    let cy = pair.stranger("cy");
    let (config, state) = (pair.root().join("config"), pair.root().join("state"));
    let xdg = |words: &[&str]| {
        let run = cy.pouch(words).without_env("POUCH_HOME");
        run.env("XDG_CONFIG_HOME", &config).env("XDG_STATE_HOME", &state)
    };
    let link = pair.ada.invite("cy");
    xdg(&["join", "--name", "cy", "--no-passphrase"]).input(link).end().ok();
    assert!(config.join("pouch/identity").is_file() && config.join("pouch/contacts.json").is_file());
    assert!(state.join("pouch/journal/records").is_file() && !state.join("pouch/identity").exists());
    assert!(!cy.home().exists() && cy.lying_around().is_empty());
    fs::write(config.join("pouch/config.toml"), "json = true\n").unwrap();
    assert_eq!(xdg(&["card"]).end().ok().object("card")["name"], "cy");
}

#[test]
fn attack_36_a_name_that_looks_like_another_is_warned_of() {
    let pair = Pair::new();
    assert_eq!(pair.ada.run(&["invite", "cy", "-q"]).ok().err, "");
    pair.ada.run(&["invite", "b\u{43e}"]).ok().says("looks like bo, who is somebody else");
}
