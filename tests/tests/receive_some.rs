//! Less than a bundle, and more than one: `--only`, `--all`, and handlers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use pouch_tests::{Pair, Small, large, noise, skip, snapshot, text};

/// A folder with this much in large files, and one file of a mebibyte between them.
fn make(folder: &Path, mebibytes: usize) {
    fs::create_dir_all(folder.join("data/deep")).unwrap();
    for half in ["a", "z"] {
        let file = fs::File::create(folder.join(format!("data/{half}.bin"))).unwrap();
        let mut file = std::io::BufWriter::new(file);
        for number in 0..mebibytes / 2 {
            std::io::Write::write_all(&mut file, &noise(&format!("{half}{number}"), 1 << 20)).unwrap();
        }
    }
    fs::write(folder.join("data/deep/wanted.csv"), noise("wanted", 1 << 20)).unwrap();
    fs::write(folder.join("data/deep/empty"), "").unwrap();
}

fn one_file_moves_its_parts_only(mebibytes: usize) {
    let (pair, proxy) = Pair::proxied();
    let source = pair.ada.desk().join("source");
    make(&source, mebibytes);
    let wanted = fs::read(source.join("data/deep/wanted.csv")).unwrap();
    let sent = pair.ada.pouch(["send", text(&source), "--to", "bo", "-q"]).limit(std::time::Duration::from_secs(600));
    let id = sent.end().ok().word();
    let before = proxy.moved();
    let into = pair.bo.fresh();
    let words = ["receive", &id, "--only", "data/deep/wanted.csv", "-o", text(&into), "--json"];
    let received = pair.bo.run(&words).ok().object("received");
    let moved = proxy.moved() - before;
    assert!(moved <= 24 << 20, "{moved} bytes moved");
    assert_eq!((received["receipt"].as_str(), received["files"].as_u64()), (Some("partial"), Some(1)));
    assert!(fs::read(into.join("data/deep/wanted.csv")).unwrap() == wanted);
    assert_eq!(pouch_tests::files_beneath(&into).len(), 1);
    // To standard output, and a whole folder.
    let before = proxy.moved();
    assert!(pair.bo.run(&["receive", &id, "--only", "data/deep/wanted.csv", "--stdout"]).ok().out == wanted);
    let into = pair.bo.fresh();
    pair.bo.run(&["receive", &id, "--only", "data/deep/", "-o", text(&into)]).ok();
    assert!(proxy.moved() - before <= 48 << 20);
    assert_eq!(snapshot(&into.join("data/deep")), snapshot(&source.join("data/deep")));
    // It was not received: it waits, and there is no receipt.
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().word(), id);
    let recipient = &pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle")["recipients"][0];
    assert_eq!((&recipient["outcome"], recipient["delivery"].as_str()), (&serde_json::Value::Null, Some("released")));
    let events = pair.bo.events();
    let last = events.last().unwrap();
    assert_eq!((last["action"].as_str(), last["files"].as_u64()), (Some("extracted"), Some(2)), "{last}");
}

#[test]
fn one_file_moves_its_parts_only_of_64_mib() {
    one_file_moves_its_parts_only(64);
}

#[test]
fn one_file_moves_its_parts_only_of_4_gib() {
    if !large() {
        return skip("it takes twelve gigabytes of disk; set POUCH_LARGE");
    }
    one_file_moves_its_parts_only(4096);
}

#[test]
fn some_files_out_of_what_was_carried_compressed_and_burns() {
    let pair = Pair::new();
    let source = pair.ada.desk().join("source");
    make(&source, 20);
    let carried = pair.bo.desk().join("it.pouch");
    let send = ["send", text(&source), "--to", "bo", "--compress", "zstd"];
    pair.ada.run(&[&send[..], &["--out", text(&carried)]].concat()).ok();
    let id = pair.ada.send(&[&send[1..], &["--burn"]].concat());
    for what in [text(&carried), &id] {
        let into = pair.bo.fresh();
        let only = ["--only", "data/z.bin", "--only", "./data/deep/empty"];
        pair.bo.run(&[&["receive", what, "-o", text(&into)][..], &only].concat()).ok().says("no receipt");
        let mut wanted = snapshot(&source);
        wanted.retain(|path, _| !path.ends_with("a.bin") && !path.ends_with("wanted.csv"));
        assert_eq!(snapshot(&into), wanted);
    }
    // Without a receipt nothing burns, also where the paths add up to all of it.
    let into = pair.bo.fresh();
    let whole = ["receive", &id, "-o", text(&into), "--only", "data"];
    pair.bo.run(&whole).ok().says("no receipt");
    pair.ada.run(&["outbox", &id]).ok().says("fetched");
    pair.bo.receive(&id);
    pair.bo.run(&["receive", &id]).ends(6);
}

#[test]
fn a_path_that_is_not_there_names_those_that_are_near() {
    let pair = Pair::new();
    let source = pair.ada.desk().join("source");
    make(&source, 2);
    let id = pair.ada.send(&[text(&source), "--to", "bo"]);
    let into = pair.bo.fresh();
    let only = |path: &str| pair.bo.run(&["receive", &id, "-o", text(&into), "--only", path]);
    only("data/deep/Wanted.cvs").fails(3, "near: data/deep/wanted.csv");
    only("wanted.csv").fails(3, "near: data/deep/wanted.csv");
    only("data/b.bin").fails(3, "near: data/a.bin, data/z.bin");
    only("nothing like it").fails(3, "`--list` shows what is in it");
    for path in ["", "/", "..", "../data", "/data"] {
        only(path).ends(3);
    }
    // One that is there does not make up for one that is not.
    let both = ["receive", &id, "-o", text(&into), "--only", "data/a.bin", "--only", "data/x"];
    pair.bo.run(&both).ends(3);
    assert!(pair.bo.lying_around().is_empty());
    pair.bo.run(&["receive", &id, "--only", "data/deep", "--stdout"]).fails(2, "only one file");
}

#[test]
fn all_that_waits_each_into_its_own_folder() {
    let pair = Pair::new();
    pair.bo.run(&["receive", "--all"]).fails(3, "nothing is waiting");
    let files = ["one", "two", "three"].map(|name| pair.ada.file(name, name));
    let ids = files.map(|file| pair.ada.send(&[text(&file), "--to", "bo"]));
    // The last one's place is taken.
    let (out, short) = (pair.bo.desk().join("in"), &ids[2][..6]);
    fs::create_dir_all(out.join(short)).unwrap();
    fs::write(out.join(short).join("mine"), "mine").unwrap();
    let ran = pair.bo.run(&["receive", "--all", "-o", text(&out), "--json"]).ends(5);
    let received: Vec<_> = ran.objects().iter().map(|o| o["bundle"].as_str().unwrap().to_owned()).collect();
    assert_eq!(received, [ids[0].as_str(), ids[1].as_str()]);
    assert_eq!(ran.error()["code"], 5);
    assert_eq!(fs::read(out.join(&ids[0][..6]).join("one")).unwrap(), b"one");
    assert_eq!(fs::read(out.join(&ids[1][..6]).join("two")).unwrap(), b"two");
    assert_eq!(fs::read_dir(out.join(short)).unwrap().count(), 1);
    // What failed still waits, and comes with the next.
    fs::remove_dir_all(&out).unwrap();
    pair.bo.run(&["receive", "--all", "--from", "ada", "-o", text(&out)]).ok();
    assert_eq!(fs::read(out.join(short).join("three")).unwrap(), b"three");
    pair.bo.run(&["receive", "--all"]).ends(3);
    // A credential does not go into a folder because it waits among others.
    let secret = pair.ada.pouch(["send", "--secret", "KEY", "--to", "bo", "-q"]).input("hunter2").end().ok().word();
    let file = pair.ada.send(&[text(&pair.ada.file("four", "4")), "--to", "bo"]);
    pair.bo.run(&["receive", "--all", "-o", text(&out)]).fails(5, "on disk in the clear");
    assert!(out.join(&file[..6]).exists() && !out.join(&secret[..6]).exists());
}

#[test]
fn a_handler_runs_where_a_bundle_is_once_it_is_verified() {
    let pair = Pair::new();
    let note = "$(touch injected) `touch injected` \"; touch injected; '";
    let file = pair.ada.file("data", "content");
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--note", note]);
    let handler = "test -f \"$POUCH_PATH/data\" && printf '%s\\n' \"$POUCH_BUNDLE\" \"$POUCH_SENDER\" \"$POUCH_PATH\" \"$POUCH_NOTE\" \"$PWD\" \
                   > told; printf from-the-handler";
    let into = pair.bo.fresh();
    let ran = pair.bo.run(&["receive", &id, "-o", text(&into), "--from", "ada", "--exec", handler]).ok();
    assert_eq!(ran.text(), "from-the-handler");
    let told = fs::read_to_string(pair.bo.desk().join("told")).unwrap();
    assert_eq!(told.lines().collect::<Vec<_>>(), [&id, "ada", text(&into), note, text(&pair.bo.desk())]);
    assert!(pouch_tests::files_beneath(pair.root()).iter().all(|path| !path.ends_with("injected")));
    // Before it ran the receipt was signed, and its own status is the command's.
    let send = |name: &str| pair.ada.send(&[text(&pair.ada.file(name, name)), "--to", "bo"]);
    let next = |handler: &str| {
        let into = pair.bo.fresh();
        pair.bo.run(&["receive", "--next", "--from", "ada", "-o", text(&into), "--exec", handler])
    };
    let id = send("five");
    next("exit 37").ends(37);
    pair.ada.run(&["outbox", &id]).ok().says("received and verified");
    send("six");
    next("kill -9 $$").ends(137);
    // Without a contact there is no handler, and what pouch cannot do is 125.
    pair.bo.run(&["receive", "--next", "--exec", "true"]).fails(2, "--exec needs --from");
    // Nor for less than the whole, wherever that was said.
    let config = pair.bo.home().join("config.toml");
    for line in ["only = \"f\"", "stdout = true"] {
        fs::write(&config, format!("[receive]\n{line}\n")).unwrap();
        pair.bo.run(&["receive", "--all", "--from", "ada", "--exec", "touch ran"]).fails(2, "whole bundles");
    }
    fs::remove_file(config).unwrap();
    // It gets nothing that opens the identity.
    let handler = "test -z \"$POUCH_PASSPHRASE_FD$POUCH_PASSPHRASE_FILE\" && test ! -e /proc/$$/fd/7";
    let into = pair.bo.fresh();
    let words = ["receive", "--next", "--from", "ada", "-o", text(&into), "--exec", handler];
    send("secrets");
    pair.bo.pouch(words).env("POUCH_PASSPHRASE_FD", "7").behind("exec 7</dev/null;").end().ok();
    pair.bo.run(&["receive", "0123456789", "--from", "ada", "--exec", "true"]).fails(125, "no bundle");
    // Of several each has its turn, and the first failure counts.
    let ids = ["seven", "eight", "nine"].map(send);
    let out = pair.bo.desk().join("several");
    let handler =
        "cd \"$POUCH_PATH\"; echo ${POUCH_NOTE-none} $(ls); test ! -f seven || exit 130; test ! -f nine || exit 4";
    let ran = pair.bo.run(&["receive", "--all", "-o", text(&out), "--from", "ada", "--exec", handler]).ends(130);
    assert_eq!(ran.text(), "none seven\nnone eight\nnone nine\n");
    assert!(ids.iter().all(|id| out.join(&id[..6]).is_dir()));
}

// Nothing is run on what was not verified, and not for somebody whose card never was.
#[test]
fn a_handler_does_not_run_on_what_failed() {
    let pair = Pair::new();
    let carried = pair.bo.desk().join("it.pouch");
    pair.ada.run(&["send", text(&pair.ada.file("f", noise("f", 100_000))), "--to", "bo", "--out", text(&carried)]).ok();
    let mut bytes = fs::read(&carried).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = pair.bo.file("damaged.pouch", bytes);
    let marker = pair.bo.desk().join("ran");
    let handler = format!("touch {}", text(&marker));
    pair.bo.run(&["receive", text(&damaged), "--from", "ada", "--exec", &handler]).ends(125);
    // Another sender than the one that the handler is for.
    let eve = pair.stranger("eve");
    eve.join(&pair.ada.invite_as("eve", "member"));
    let card = pair.bo.file("eve.card", eve.run(&["card"]).ok().out);
    pair.bo.run(&["contact", "add", text(&card)]).ok();
    pair.bo.run(&["receive", text(&carried), "--from", "eve", "--exec", &handler]).ends(125);
    assert!(!marker.exists());
    eve.pins(&pair.bo, "bo");
    let theirs = pair.bo.desk().join("theirs.pouch");
    eve.run(&["send", text(&eve.file("g", "g")), "--to", "bo", "--out", text(&theirs)]).ok();
    pair.bo.run(&["receive", text(&theirs), "--from", "eve", "--exec", &handler]).fails(125, "never verified");
    assert!(!marker.exists());
    pair.bo.run(&["receive", text(&carried), "--from", "ada", "--exec", &handler]).ok();
    assert!(marker.exists());
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_fetched() {
    let (pair, proxy) = Pair::proxied();
    let Some(small) = Small::mount(pair.bo.desk().join("small"), 4) else {
        return skip("only root mounts a small file system");
    };
    let ids = [6, 2].map(|size| {
        let file = pair.ada.file(&size.to_string(), noise("data", size << 20));
        pair.ada.send(&[text(&file), "--to", "bo"])
    });
    let into = small.path.join("in");
    let before = proxy.moved();
    let receive = |id: &str| pair.bo.run(&["receive", id, "-o", text(&into)]);
    receive(&ids[0]).fails(8, "6.0 MiB more are needed, and the disk has 4.0 MiB free; nothing more was fetched");
    assert!(proxy.moved() - before < 1 << 20);
    assert_eq!(fs::read_dir(&small.path).unwrap().count(), 0);
    receive(&ids[1]).ok();
    // It still waits, for a place with more room.
    fs::remove_dir_all(&into).unwrap();
    assert!(pair.bo.receive(&ids[0]).join("6").exists());
}
