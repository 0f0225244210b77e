//! The exchange as people do it: every way to send and to receive, receipts, expiry, revocation, and `.pouch` files.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use pouch_tests::{Node, Pair, noise, sample_tree, snapshot, text, until};

#[test]
fn a_folder_arrives_as_it_was() {
    let pair = Pair::new();
    let source = pair.ada.desk().join("dataset");
    sample_tree(&source);
    let id = pair.ada.send(&[text(&source), "--to", "bo", "--note", "für dich: №1"]);
    let sent = snapshot(&source);
    assert!(sent.len() > 15 && sent.values().any(|n| matches!(n, Node::File { executable: true, .. })));

    let waiting = pair.bo.run(&["inbox", "--json"]).ok().object("waiting");
    assert_eq!((waiting["bundle"].as_str().unwrap(), waiting["from"].as_str().unwrap()), (id.as_str(), "ada"));
    let into = pair.bo.fresh();
    // Any beginning of the id will do.
    let ran = pair.bo.run(&["receive", &id[..6], "-o", text(&into)]).ok();
    assert!(ran.err.contains("note: für dich: №1"), "{ran}");
    assert!(ran.text().contains("12 files from ada") && ran.text().contains("receipt sent"), "{ran}");
    assert_eq!(snapshot(&into), sent);
    assert_eq!(
        fs::metadata(into.join("README")).unwrap().permissions().mode() & 0o777,
        0o644,
        "the umask's, not the sender's"
    );

    pair.bo.run(&["inbox"]).ok().says("nothing is waiting");
    pair.ada.run(&["outbox", &id]).ok().says("received and verified");
    for party in [&pair.ada, &pair.bo] {
        party.run(&["log", "verify"]).ok().says("intact");
    }
    let actions = |events: &[serde_json::Value]| -> Vec<String> {
        events.iter().map(|e| format!("{} {}", e["action"].as_str().unwrap(), e["outcome"].as_str().unwrap())).collect()
    };
    assert_eq!(
        actions(&pair.ada.events()),
        ["joined done", "invited done", "contact-pinned done", "sent done", "receipt-received done"]
    );
    let events = pair.bo.events();
    assert_eq!(
        actions(&events),
        ["joined done", "contact-pinned done", "opened done", "received done", "receipt-sent done"]
    );
    assert_eq!((events[3]["files"].as_u64(), events[3]["peer"].as_str()), (Some(12), Some("ada")));
}

#[test]
fn several_paths_stand_under_their_own_names() {
    let pair = Pair::new();
    let folder = pair.ada.desk().join("one/two");
    sample_tree(&folder);
    let file = pair.ada.file("три.txt", "3");
    let id = pair.ada.send(&[text(&folder), text(&file), "--to", "bo"]);
    let into = pair.bo.receive(&id);
    assert_eq!(snapshot(&into.join("two")), snapshot(&folder));
    assert_eq!(fs::read(into.join("три.txt")).unwrap(), b"3");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 2);
}

#[test]
fn single_files_and_folders_may_be_empty() {
    let pair = Pair::new();
    let one = pair.ada.file("one.bin", noise("one", 3 << 20));
    let empty = pair.ada.file("empty", "");
    let folder = pair.ada.desk().join("nothing");
    fs::create_dir(&folder).unwrap();
    let ids = [&one, &empty, &folder].map(|path| pair.ada.send(&[text(path), "--to", "bo"]));
    let into = pair.bo.receive(&ids[0]);
    assert_eq!(fs::read(into.join("one.bin")).unwrap(), noise("one", 3 << 20));
    let into = pair.bo.receive(&ids[1]);
    assert_eq!(fs::metadata(into.join("empty")).unwrap().len(), 0);
    let into = pair.bo.receive(&ids[2]);
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
    // The same, but through a folder that another file is beside.
    let id = pair.ada.send(&[text(&folder), text(&empty), "--to", "bo"]);
    let into = pair.bo.receive(&id);
    assert!(into.join("nothing").is_dir() && into.join("empty").is_file());
}

#[test]
fn a_stream_goes_from_a_pipe_to_a_pipe() {
    let pair = Pair::new();
    // More than a part, and no length known before the end.
    let bytes = noise("stream", (9 << 20) + 17);
    let send = ["send", "-", "--to", "bo", "-q", "--name", "dump.sql"];
    let id = pair.ada.pouch(send).input(bytes.clone()).end().ok().word();
    let ran = pair.bo.run(&["receive", &id, "--stdout"]).ok();
    assert!(ran.out == bytes, "{} bytes of {}", ran.out.len(), bytes.len());
    // Received once does not mean gone: the same bundle into a folder, under the name that was given.
    let into = pair.bo.receive(&id);
    assert!(fs::read(into.join("dump.sql")).unwrap() == bytes);
    // An empty stream is a stream.
    let id = pair.ada.pouch(["send", "-", "--to", "bo", "-q"]).end().ok().word();
    assert_eq!(pair.bo.run(&["receive", &id, "--stdout"]).ok().out, b"");
}

#[test]
fn stdout_takes_one_file_only() {
    let pair = Pair::new();
    let folder = pair.ada.desk().join("two");
    fs::create_dir(&folder).unwrap();
    for name in ["a", "b"] {
        fs::write(folder.join(name), name).unwrap();
    }
    let id = pair.ada.send(&[text(&folder), "--to", "bo"]);
    let ran = pair.bo.run(&["receive", &id, "--stdout"]).ends(2);
    assert!(ran.out.is_empty(), "{ran}");
}

#[test]
fn a_list_shows_and_fetches_nothing() {
    let pair = Pair::new();
    let folder = pair.ada.desk().join("listed");
    sample_tree(&folder);
    let id = pair.ada.send(&[text(&folder), "--to", "bo", "--note", "look first", "--kind", "deliverable"]);
    let ran = pair.bo.run(&["receive", &id, "--list", "--json"]).ok();
    let bundle = ran.object("contents");
    assert_eq!((bundle["note"].as_str(), bundle["kind"].as_str()), (Some("look first"), Some("deliverable")));
    let paths: Vec<String> = ran.objects()[1..].iter().map(|o| o["path"].as_str().unwrap().to_owned()).collect();
    // Component by component, as paths compare (docs/format.md, "Archive").
    let wanted: Vec<String> = snapshot(&folder).keys().map(|p| text(p).to_owned()).collect();
    assert_eq!(paths, wanted);
    assert!(pair.bo.lying_around().is_empty());
    // Looking is not receiving: it waits as before, and there is no receipt.
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().word(), id);
    let bundle = pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle");
    assert_eq!(
        (&bundle["recipients"][0]["outcome"], bundle["recipients"][0]["delivery"].as_str()),
        (&serde_json::Value::Null, Some("released"))
    );
}

#[test]
fn next_waits_for_what_comes() {
    let pair = Pair::new();
    pair.bo.run(&["receive", "--next", "--timeout", "1s"]).fails(3, "nothing is waiting");
    let into = pair.bo.fresh();
    let waiting = pair.bo.pouch(["receive", "--next", "--from", "ada", "--timeout", "60s", "-o", text(&into)]).start();
    let file = pair.ada.file("late", "better than never");
    // And Ada waits for the receipt, at the same time.
    let sent =
        pair.ada.run(&["send", text(&file), "--to", "bo", "--wait", "receipt", "--timeout", "60s", "--json"]).ok();
    assert_eq!(sent.object("receipt")["outcome"], "verified");
    assert_eq!(sent.object("sent")["bundle"], sent.object("receipt")["bundle"]);
    waiting.end().ok();
    assert_eq!(fs::read(into.join("late")).unwrap(), b"better than never");
    pair.bo.run(&["receive", "--next", "--from", "nobody", "--timeout", "1s"]).ends(3);
}

#[test]
fn the_inbox_waits_for_what_comes() {
    let pair = Pair::new();
    let begun = std::time::Instant::now();
    pair.bo.run(&["inbox", "--wait", "2s"]).fails(3, "nothing is waiting");
    assert!(begun.elapsed() >= Duration::from_secs(2));
    pair.bo.run(&["inbox", "--wait", "soon"]).ends(2);
    let waiting = [&["inbox", "-q", "--wait"][..], &["inbox", "-q", "--wait", "10m"]];
    let waiting = waiting.map(|words| pair.bo.pouch(words).start());
    let begun = std::time::Instant::now();
    let file = pair.ada.file("late", "better than never");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    for one in waiting {
        assert_eq!(one.end().ok().word(), id);
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "the relay was asked again, and did not tell");
    // What is there is listed at once.
    assert_eq!(pair.bo.run(&["inbox", "-q", "--wait"]).ok().word(), id);
}

#[test]
fn a_receipt_that_does_not_come_is_not_waited_for_forever() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let ran = pair.ada.run(&["send", text(&file), "--to", "bo", "--wait", "receipt", "--timeout", "1s", "-q"]);
    let ran = ran.fails(3, "no receipt within 1 s");
    // It is delivered all the same.
    pair.bo.receive(&ran.word());
}

#[test]
fn a_credential_goes_into_the_environment_of_a_command() {
    let pair = Pair::new();
    let secret = "postgres://app:c9a1e7d2-0b5f@db.internal:5432/prod";
    let send = ["send", "--secret", "DB_URL", "--to", "bo", "-q"];
    let id = pair.ada.pouch(send).input(secret).end().ok().word();
    assert_eq!(pair.ada.run(&["outbox", &id, "--json"]).ok().object("bundle")["kind"], "credential");
    // The recipient names the variable; the child's output and status are the command's.
    let env = |command: &[&str]| pair.bo.run(&[&["receive", &id, "--env", "TOKEN", "--"], command].concat());
    let ran = env(&["sh", "-c", "printf %s \"$TOKEN\"; exit 37"]).ends(37);
    assert_eq!(ran.text(), secret);
    assert_eq!(env(&["true"]).ok().text(), "");
    assert!(pair.bo.lying_around().is_empty(), "it was never on disk");
    // Pouch's own failures are 125; the parser's are the parser's.
    env(&["/does/not/exist"]).fails(125, "nothing was fetched");
    pair.bo.run(&["receive", "0123456789", "--env", "TOKEN", "--", "true"]).fails(125, "no bundle");
    // A folder would keep it on disk: only where that is asked for.
    pair.bo.run(&["receive", &id]).fails(2, "on disk in the clear");
    assert!(pair.bo.lying_around().is_empty());
    assert_eq!(fs::read(pair.bo.receive(&id).join("DB_URL")).unwrap(), secret.as_bytes());
    for bad in ["LD_PRELOAD", "PATH", "POUCH_HOME", "1X", "A B", ""] {
        pair.bo.run(&["receive", &id, "--env", bad, "--", "true"]).ends(2);
    }
    pair.ada.pouch(send).end().fails(2, "the secret is empty");
    pair.ada.pouch(send).input(vec![b'x'; (1 << 20) + 1]).end().ends(1);
}

#[test]
fn burnt_after_receipt() {
    let pair = Pair::new();
    let file = pair.ada.file("once", noise("once", 100_000));
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--burn"]);
    // Looking does not burn.
    pair.bo.run(&["receive", &id, "--list"]).ok();
    pair.bo.receive(&id);
    pair.ada.run(&["outbox", &id]).ok().says("burnt").says("received and verified");
    let again = pair.bo.fresh();
    pair.bo.run(&["receive", &id, "-o", text(&again)]).ends(6);
    assert!(!again.exists());
    until("the relay deletes its objects", Duration::from_secs(60), || {
        let sealed = pouch_tests::find_bytes(&pair.relay.data().join("blobs"), b"age-encryption.org/v1");
        sealed.is_empty().then_some(())
    });
}

#[test]
fn revoked_before_it_was_fetched() {
    let pair = Pair::new();
    let file = pair.ada.file("mistake", noise("mistake", 100_000));
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    let kept = pair.ada.send(&[text(&file), "--to", "bo"]);
    let ran = pair.ada.run(&["outbox", "revoke", &id]).ok();
    assert!(!ran.err.contains("had fetched"), "{ran}");
    let into = pair.bo.fresh();
    pair.bo.run(&["receive", &id, "-o", text(&into)]).ends(6);
    assert!(pair.bo.lying_around().is_empty());
    pair.ada.run(&["outbox", &id]).ok().says("revoked");
    // The other one is not touched. Who had it is told of when it is revoked, too late.
    pair.bo.receive(&kept);
    pair.ada.run(&["outbox", "revoke", &kept]).ok().says("bo had fetched the envelope before");
    pair.ada.run(&["outbox", "revoke", "0123456789"]).ends(3);
}

#[test]
fn expired_is_gone_on_time() {
    let pair = Pair::new();
    let file = pair.ada.file("short", "lived");
    let id = pair.ada.send(&[text(&file), "--to", "bo", "--until", "2s"]);
    let carried = pair.ada.desk().join("short.pouch");
    pair.ada.send(&[text(&file), "--to", "bo", "--until", "2s", "--out", text(&carried)]);
    std::thread::sleep(Duration::from_millis(3100));
    let into = pair.bo.fresh();
    pair.bo.run(&["receive", &id, "-o", text(&into)]).ends(6);
    // No relay watches over a file: the manifest says so.
    pair.bo.run(&["receive", text(&carried), "-o", text(&into)]).fails(6, "expired");
    assert!(pair.bo.lying_around().is_empty());
    pair.bo.run(&["inbox"]).ok().says("nothing is waiting");
    pair.ada.run(&["outbox", &id]).ok().says("expired");
}

#[test]
fn carried_by_anyone() {
    let mut pair = Pair::new();
    let folder = pair.ada.desk().join("carried");
    sample_tree(&folder);
    let file = pair.ada.desk().join("carried.pouch");
    pair.relay.stop().ok();
    // Neither side needs the relay.
    let id = pair.ada.send(&[text(&folder), "--to", "bo", "--out", text(&file), "--note", "by hand"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&file).unwrap();
    pair.ada.run(&["send", text(&folder), "--to", "bo", "--out", text(&file)]).fails(5, "exists");
    assert!(fs::read(&file).unwrap() == before, "what was there is untouched");
    let into = pair.bo.fresh();
    let ran = pair.bo.run(&["receive", text(&file), "-o", text(&into), "--json"]).ok();
    assert_eq!(ran.object("received")["receipt"], "none");
    assert_eq!(snapshot(&into), snapshot(&folder));
    // The same checks: for nobody else, from nobody unknown, and not a byte changed.
    let stranger = pair.stranger("eve");
    pair.relay.serve();
    stranger.join(&pair.ada.invite("eve"));
    let never = stranger.fresh();
    stranger.run(&["receive", text(&file), "-o", text(&never)]).ends(4);
    let mut bytes = before.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = pair.bo.file("damaged.pouch", bytes);
    let never = pair.bo.fresh();
    pair.bo.run(&["receive", text(&damaged), "-o", text(&never)]).ends(4);
    pair.bo.run(&["receive", "no-such.pouch"]).fails(3, "no-such.pouch");
    assert!(!never.exists());
    // And the same journal.
    let bo = pair.bo.events();
    let received: Vec<_> = bo.iter().filter(|e| e["action"] == "received").collect();
    assert_eq!((received[0]["bundle"].as_str(), received[0]["outcome"].as_str()), (Some(id.as_str()), Some("done")));
    assert_eq!((received[1]["stage"].as_str(), received[1]["outcome"].as_str()), (Some("part"), Some("failed")));
    let ada = pair.ada.events();
    let sent: Vec<_> = ada.iter().filter(|e| e["action"] == "sent").map(|e| e["outcome"].as_str().unwrap()).collect();
    assert_eq!(sent, ["done", "failed"]);
    pair.ada.run(&["outbox", &id]).ok().says("not on the relay");
}

#[test]
fn attack_5_what_is_there_is_never_overwritten() {
    let pair = Pair::new();
    let file = pair.ada.file("f", "new");
    let id = pair.ada.send(&[text(&file), "--to", "bo"]);
    let taken = pair.bo.desk().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("f"), "old").unwrap();
    pair.bo.run(&["receive", &id, "-o", text(&taken)]).fails(5, "exists");
    assert_eq!(fs::read(taken.join("f")).unwrap(), b"old");
    // An empty folder, a file and a dangling link are there, too.
    let empty = pair.bo.desk().join("void");
    fs::create_dir(&empty).unwrap();
    pair.bo.run(&["receive", &id, "-o", text(&empty)]).ends(5);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    let link = pair.bo.desk().join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    pair.bo.run(&["receive", &id, "-o", text(&link)]).ends(5);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    // Nor the folder that is named by the id.
    fs::write(pair.bo.desk().join(&id[..6]), "mine").unwrap();
    pair.bo.run(&["receive", &id]).ends(5);
    assert_eq!(fs::read(pair.bo.desk().join(&id[..6])).unwrap(), b"mine");
    assert_eq!(pair.bo.lying_around().len(), 4, "nothing hidden was left");
    // It still can be had.
    pair.bo.receive(&id);
}

#[test]
fn attack_15_links_and_pipes_in_the_source_are_refused() {
    let pair = Pair::new();
    let folder = pair.ada.desk().join("odd");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("plain"), "p").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("out")).unwrap();
    let send = ["send", text(&folder), "--to", "bo", "-q"];
    pair.ada.run(&send).fails(1, "out");
    let skipping = [&send[..], &["--skip-special"]].concat();
    let id = pair.ada.run(&skipping).ok().says("1 path left out").word();
    assert_eq!(fs::read_dir(pair.bo.receive(&id)).unwrap().count(), 1);
    let following = [&send[..], &["--dereference"]].concat();
    let id = pair.ada.run(&following).ok().word();
    assert_eq!(fs::read(pair.bo.receive(&id).join("out")).unwrap(), fs::read("/etc/passwd").unwrap());
    let pipe = folder.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    pair.ada.run(&following).fails(1, "pipe");
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "", "nothing of it was delivered");
}

#[test]
fn a_dry_run_sends_nothing() {
    let pair = Pair::new();
    let folder = pair.ada.desk().join("dry");
    sample_tree(&folder);
    let ran = pair.ada.run(&["send", text(&folder), "--to", "bo", "--dry-run", "--json"]).ok();
    assert_eq!(ran.objects().len(), snapshot(&folder).len());
    pair.ada.run(&["outbox"]).ok().says("nothing was sent yet");
    pair.bo.run(&["inbox"]).ok().says("nothing is waiting");
}

#[test]
fn a_gap_in_the_sequence_is_told() {
    // attacks.md 31: the relay withholds one; here its sender revoked it.
    let pair = Pair::new();
    let file = pair.ada.file("f", "f");
    let ids = [0, 1, 2].map(|_| pair.ada.send(&[text(&file), "--to", "bo"]));
    pair.bo.receive(&ids[0]);
    pair.ada.run(&["outbox", "revoke", &ids[1]]).ok();
    let into = pair.bo.fresh();
    pair.bo.run(&["receive", &ids[2], "-o", text(&into)]).ok().says("1 bundle from ada before this one has not come");
}

#[test]
fn attack_62_several_processes_on_one_state() {
    let pair = Pair::new();
    let files: Vec<_> = (0..4).map(|n| pair.ada.file(&format!("f{n}"), noise(&n.to_string(), 200_000))).collect();
    let running: Vec<_> =
        files.iter().map(|file| pair.ada.pouch(["send", text(file), "--to", "bo", "-q"]).start()).collect();
    let sent: Vec<String> = running.into_iter().map(|one| one.end().ok().word()).collect();
    let events: Vec<_> = pair.ada.events().iter().map(|e| e["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["joined", "invited", "contact-pinned", "sent", "sent", "sent", "sent"]);
    pair.ada.run(&["log", "verify"]).ok().says("7 records, intact");
    // In the order in which they were committed there is no gap, no fork and no double number.
    let waiting: Vec<String> = pair.bo.run(&["inbox", "-q"]).ok().text().lines().map(str::to_owned).collect();
    assert_eq!(waiting.len(), 4);
    assert!(sent.iter().all(|id| waiting.contains(id)));
    for id in &waiting {
        let into = pair.bo.fresh();
        let ran = pair.bo.run(&["receive", id, "-o", text(&into)]).ok();
        assert!(!ran.err.contains("warning"), "{ran}");
    }
    // And receiving the same one at once, into different places.
    let running: Vec<_> =
        (0..3).map(|_| pair.bo.pouch(["receive", &waiting[0], "-o", text(&pair.bo.fresh())]).start()).collect();
    for one in running {
        one.end().ok();
    }
    pair.bo.run(&["log", "verify"]).ok().says("intact");
    pair.ada.run(&["outbox", &waiting[0]]).ok().says("received and verified");
}

#[test]
fn compressed_folders_and_streams_arrive_as_they_were() {
    let pair = Pair::new();
    let source = pair.ada.desk().join("dataset");
    sample_tree(&source);
    // Of many frames, of which some lie in two parts, and much smaller on the way.
    let rows: String =
        (0..900_000_u64).map(|n| format!("{n},{},some words that come again\n", n * 7919 % 1009)).collect();
    fs::write(source.join("rows.csv"), &rows).unwrap();
    fs::write(source.join("noise"), noise("compress", 20 << 20)).unwrap();
    let send = ["send", text(&source), "--to", "bo", "--compress", "zstd", "--json"];
    let sent = pair.ada.run(&send).ok().object("sent");
    assert_eq!(sent["compression"], "zstd");
    assert!(sent["size"].as_u64().unwrap() > (20 << 20) + rows.len() as u64, "what it is when it is there");
    let id = sent["bundle"].as_str().unwrap();
    let carried: u64 = pair.relay.blobs().iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(carried < (21 << 20) + rows.len() as u64 / 2, "{carried}");
    assert_eq!(pair.bo.run(&["receive", id, "--list", "--json"]).ok().object("contents")["compression"], "zstd");
    assert_eq!(snapshot(&pair.bo.receive(id)), snapshot(&source));
    pair.ada.run(&["outbox", id]).ok().says("received and verified");

    let send = ["send", "-", "--name", "rows.csv", "--to", "bo", "--compress", "zstd"];
    let id = pair.ada.pouch(send).args(["-q"]).input(rows.clone().into_bytes()).end().ok().text();
    let ran = pair.bo.run(&["receive", id.trim(), "--stdout"]).ok();
    assert!(ran.out == rows.as_bytes());
    // As a file; and nothing at all.
    let file = pair.ada.desk().join("rows.pouch");
    pair.ada.pouch(send).args(["--out", text(&file)]).input(rows.clone().into_bytes()).end().ok();
    assert!(fs::metadata(&file).unwrap().len() < rows.len() as u64 / 2);
    assert!(fs::read(pair.bo.receive(text(&file)).join("rows.csv")).unwrap() == rows.as_bytes());
    let id = pair.ada.pouch(send).args(["-q"]).input("").end().ok().text();
    assert!(fs::read(pair.bo.receive(id.trim()).join("rows.csv")).unwrap().is_empty());
}

// The size of what is compressed tells of it, so a credential never is, whatever a variable says.
#[test]
fn a_credential_is_not_compressed() {
    let pair = Pair::new();
    let secret = "A".repeat(100_000);
    for more in [&["--secret", "KEY"][..], &["--secret", "KEY", "--kind", "dataset"], &["-", "--kind", "credential"]] {
        let send = pair.ada.pouch([&["send", "--to", "bo", "--json"], more].concat());
        let ran = send.env("POUCH_SEND_COMPRESS", "zstd").input(secret.clone()).end().ok();
        let sent = ran.object("sent");
        assert!(sent["compression"].is_null(), "{ran}");
        let id = sent["bundle"].as_str().unwrap();
        let list = pair.bo.run(&["receive", id, "--list", "--json"]).ok().object("contents");
        assert!(list["compression"].is_null() && list["kind"] == "credential", "{list}");
        assert_eq!(pair.bo.run(&["receive", id, "--stdout"]).ok().text(), secret);
    }
}
