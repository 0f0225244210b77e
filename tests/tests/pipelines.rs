//! Pipelines: runners that keep nothing, with a secret that reaches as far as it was made to, and no further.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::sync::Arc;

use pouch_client::Unwatched;
use pouch_client::send::{Once, Request, send};
use pouch_tests::{Holding, Pair, Party, Run, Runner, as_pipeline, files_beneath, find_bytes, noise, request, text};
use serde_json::Value;

fn new(party: &Party, name: &str, more: &[&str]) -> String {
    party.run(&[&["pipeline", "new", name, "-q"], more].concat()).ok().word()
}

#[test]
fn two_runs_in_empty_folders_are_one_sender() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    assert!(secret.starts_with("pouch-pipeline-1.") && secret.len() < 10_000, "{}", secret.len());
    for day in ["monday", "tuesday"] {
        let runner = Runner::new(&pair, day, &secret);
        let file = runner.party.file("dump.sql", day);
        let words = ["send", text(&file), "--to", "bo", "--once", day, "--json"];
        let sent = runner.pouch(&words).end().ok().object("sent");
        runner.leaves_nothing();
        let again = Runner::new(&pair, &format!("{day}-again"), &secret);
        let file = again.party.file("dump.sql", "other bytes");
        let retried = again.pouch(&["send", text(&file), "--to", "bo", "--once", day, "--json"]).end().ok();
        let retried = retried.object("sent");
        assert_eq!((&retried["bundle"], &retried["again"]), (&sent["bundle"], &Value::Bool(true)));
        let id = sent["bundle"].as_str().unwrap();
        assert_eq!(pair.bo.run(&["inbox", "--json"]).ok().object("waiting")["from"], Value::from("ada"));
        let into = pair.bo.fresh();
        let ran = pair.bo.run(&["receive", id, "-o", text(&into), "--json"]).ok();
        let received = ran.object("received");
        assert_eq!((received["from"].as_str(), received["pipeline"].as_str()), (Some("ada"), Some("nightly")));
        // The second follows the first: nothing is missing, nothing stands beside.
        assert!(ran.err.is_empty(), "{ran}");
        assert_eq!(fs::read_to_string(into.join("dump.sql")).unwrap(), day);
        let other = Runner::new(&pair, &format!("{day}-later"), &secret);
        let words = ["send", "x", "--to", "bo", "--once", day, "--wait", "receipt", "--timeout", "1m", "--json"];
        other.party.file("x", "x");
        assert_eq!(other.pouch(&words).end().ok().object("receipt")["outcome"], "verified");
        other.leaves_nothing();
    }
    let runner = Runner::new(&pair, "log", &secret);
    let events = runner.pouch(&["log", "show", "--json"]).end().ok().objects();
    let actions: Vec<_> = events.iter().map(|e| e["action"].as_str().unwrap().to_owned()).collect();
    assert_eq!(actions, ["joined", "sent", "receipt-received", "sent", "receipt-received"]);
    runner.pouch(&["log", "verify"]).end().ok().says("5 records, intact");
    assert_eq!(runner.pouch(&["outbox", "-q"]).end().ok().text().lines().count(), 2);
    pair.bo.run(&["log", "verify"]).ok();
    // People are told the same, and that a bundle is missing where one was withheld.
    let runner = Runner::new(&pair, "wednesday", &secret);
    runner.party.file("x", "x");
    let lost = runner.pouch(&["send", "x", "--to", "bo", "-q"]).end().ok().word();
    let next = runner.pouch(&["send", "x", "--to", "bo", "-q"]).end().ok().word();
    let ran = pair.bo.run(&["receive", &next, "-o", text(&pair.bo.fresh())]).ok();
    assert!(ran.err.contains("1 bundle from ada (pipeline nightly) before this one has not come"), "{ran}");
    assert!(ran.text().contains("1 file from ada (pipeline nightly)"), "{ran}");
    assert_ne!(lost, next);
    let events = pair.bo.events();
    assert!(events.iter().any(|e| e["action"] == "received" && e["pipeline"] == "nightly" && e["peer"] == "ada"));
    // The secret stands where the job has put it, and nowhere else.
    let found = find_bytes(pair.root(), secret.as_bytes());
    assert!(found.iter().all(|path| path.extension().is_some_and(|e| e == "secret")), "{found:?}");
}

/// The code and the error of a run that is refused, which tells nothing of the secret.
fn refused(runner: &Runner, words: &[&str], code: i32) -> String {
    let secret = fs::read_to_string(&runner.secret).unwrap();
    let ran = runner.pouch(words).end().ends(code);
    let said = format!("{}{}", ran.text(), ran.err);
    // No stretch of it, wherever it was cut.
    let told = secret
        .trim()
        .as_bytes()
        .windows(24)
        .skip(17)
        .step_by(8)
        .any(|part| std::str::from_utf8(part).is_ok_and(|part| said.contains(part)));
    assert!(!told && !said.contains("AGE-SECRET"), "{said}");
    runner.leaves_nothing();
    said
}

#[test]
fn a_pipeline_reaches_as_far_as_it_was_made_to() {
    let pair = Pair::new();
    pair.third("cy");
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    let runner = Runner::new(&pair, "job", &secret);
    runner.party.file("x", "x");
    // Whom it does not know it cannot even name.
    refused(&runner, &["send", "x", "--to", "cy"], 3);
    for words in [
        &["inbox"][..],
        &["receive", "--next"],
        &["invite", "dee"],
        &["contact", "list"],
        &["device", "list"],
        &["pipeline", "list"],
        &["outbox", "revoke", "x"],
        &["log", "show", "--relay"],
        &["send", "x", "--to", "bo", "--out", "x.pouch"],
    ] {
        refused(&runner, words, 2);
    }
    for verb in [&["extend", "x", "--until", "9d"][..], &["add", "x", "--to", "bo"], &["reseal"], &["forget", "x"]] {
        assert!(refused(&runner, &[&["outbox"], verb].concat(), 2).contains("a pipeline's secret cannot do this"));
    }
    // There is one of a name at a time, and for 90 days at most.
    pair.ada.run(&["pipeline", "new", "nightly", "--to", "bo"]).ends(2);
    pair.ada.run(&["pipeline", "new", "yearly", "--to", "bo", "--until", "91d"]).ends(2);
    pair.ada.run(&["pipeline", "new", "other", "--to", "dee"]).ends(3);
    // A contractor makes none.
    pair.bo.run(&["pipeline", "new", "mine", "--to", "ada"]).ends(5);
    let listed = pair.ada.run(&["pipeline", "list", "--json"]).ok().object("pipeline");
    assert_eq!(
        (&listed["name"], &listed["to"][0], &listed["revoked"]),
        (&"nightly".into(), &"bo".into(), &Value::Null)
    );
    // Revoked: from now on nothing goes, and what was sent stays.
    let id = runner.pouch(&["send", "x", "--to", "bo", "-q"]).end().ok().word();
    pair.ada.run(&["pipeline", "revoke", "nightly"]).ok();
    assert!(refused(&runner, &["send", "x", "--to", "bo"], 6).contains("revoked"));
    refused(&runner, &["log", "show"], 6);
    pair.ada.run(&["pipeline", "revoke", "nightly"]).ends(3);
    pair.bo.receive(&id);
    let actions: Vec<_> = pair.ada.events().iter().map(|e| (e["action"].clone(), e["outcome"].clone())).collect();
    assert!(actions.contains(&("pipeline-made".into(), "done".into())));
    assert!(actions.contains(&("pipeline-revoked".into(), "done".into())));
}

#[test]
fn a_pipeline_ends_by_itself() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "brief", &["--to", "bo", "--until", "8s"]);
    let runner = Runner::new(&pair, "job", &secret);
    runner.party.file("x", "x");
    // For no longer than the pipeline, whatever is asked for.
    let sent = runner.pouch(&["send", "x", "--to", "bo", "--json", "--until", "7d"]).end().ok().object("sent");
    let listed = pair.ada.run(&["pipeline", "list", "--json"]).ok().object("pipeline");
    assert_eq!(sent["expires"], listed["expires"]);
    std::thread::sleep(std::time::Duration::from_secs(9));
    assert!(refused(&runner, &["send", "x", "--to", "bo"], 6).contains("time is over"));
    pair.bo.run(&["receive", sent["bundle"].as_str().unwrap()]).ends(6);
}

#[test]
fn a_secret_that_is_not_whole_is_told_from_a_wrong_one() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    let half = secret.len() / 2;
    let flipped =
        format!("{}{}{}", &secret[..half], if &secret[half..=half] == "A" { "B" } else { "A" }, &secret[half + 1..]);
    for (number, (text, says)) in [
        (secret[..half].to_owned(), "damaged"),
        (flipped, "damaged"),
        (format!("{secret}A"), "damaged"),
        (secret.replacen("pipeline-1", "pipeline-2", 1), "version"),
        ("AGE-SECRET-KEY-1QQ".to_owned(), "not a pipeline's secret"),
        (String::new(), "not a pipeline's secret"),
    ]
    .into_iter()
    .enumerate()
    {
        let runner = Runner::new(&pair, &format!("job{number}"), &text);
        runner.party.file("x", "x");
        assert!(refused(&runner, &["send", "x", "--to", "bo"], 2).contains(says), "{says}");
    }
    let gone = Runner { party: pair.stranger("gone"), secret: pair.root().join("nothing") };
    gone.pouch(&["log", "show"]).end().ends(2);
    // By descriptor and by command, and not by two at once.
    let runner = Runner::new(&pair, "job", &secret);
    let file = text(&runner.secret).to_owned();
    let bare = || runner.party.pouch(["log", "verify"]).without_env("POUCH_HOME");
    let command = format!("cat {file}");
    bare().env("POUCH_PIPELINE_COMMAND", &command).end().ok();
    let script = format!("exec {} log verify --pipeline-fd 7 7< {file}", text(pouch_tests::program()));
    Run::of("sh").args(["-c", &script]).env("PATH", "/usr/bin:/bin").dir(&runner.party.desk()).end().ok();
    bare().env("POUCH_PIPELINE_COMMAND", &command).env("POUCH_PIPELINE_FILE", &file).end().ends(2);
}

#[test]
fn a_journal_that_no_run_left_is_refused() {
    let pair = Pair::new();
    let (secret, other) = (new(&pair.ada, "nightly", &["--to", "bo"]), new(&pair.ada, "other", &["--to", "bo"]));
    let (mine, others) = (as_pipeline(&secret), as_pipeline(&other));
    let (api, of_other) = (mine.api().unwrap(), others.api().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let run = |day: &str, words: &[&str]| {
        let runner = Runner::new(&pair, day, &secret);
        runner.party.file("x", day);
        let words = [&["send", "x", "--to", "bo", "--once", day, "-q"], words].concat();
        (runner.pouch(&words).end(), runner)
    };
    run("monday", &[]).0.ok();
    let monday = runtime.block_on(api.journal()).unwrap();
    run("tuesday", &[]).0.ok();
    let tuesday = runtime.block_on(api.journal()).unwrap();
    let digest = |bytes: &[u8]| pouch_statement::Sha256Digest::of(bytes);
    let put = |before: &bytes::Bytes, new: bytes::Bytes| {
        runtime.block_on(api.put_journal(Some(digest(before)), new.clone())).unwrap();
        new
    };
    // Tuesday's was lost, or is withheld: the relay still lists what went that day.
    let now = put(&tuesday, monday);
    let (ran, runner) = run("wednesday", &[]);
    ran.fails(4, "older than bundle");
    runner.leaves_nothing();
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text().lines().count(), 2, "nothing was sent");
    // Everybody can seal to a pipeline. What is in it they cannot sign.
    let forged = pouch_core::age::seal_to_vec(mine.recipient(), b"anything").unwrap();
    let now = put(&now, forged.into());
    run("thursday", &[]).0.fails(4, "does not unpack");
    let foreign = runtime.block_on(of_other.journal()).unwrap();
    let now = put(&now, foreign.clone());
    run("friday", &[]).0.fails(4, "does not open");
    let keys = others.unlock(|| unreachable!("no passphrase")).unwrap();
    let mut plain = zeroize::Zeroizing::new(Vec::new());
    pouch_core::age::open_part(&keys.age, &foreign, &mut plain).unwrap();
    let resealed = pouch_core::age::seal_to_vec(mine.recipient(), &plain).unwrap();
    let now = put(&now, resealed.into());
    run("saturday", &[]).0.fails(4, "others have written it");
    // With its own again it goes on.
    put(&now, tuesday);
    run("sunday", &[]).0.ok();
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text().lines().count(), 3);
}

// Whoever had the secret once can sign a journal. It sends to nobody else for that.
#[test]
fn a_journal_with_other_recipients_is_refused() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    pair.third("cy");
    let both = new(&pair.ada, "both", &["--to", "bo,cy"]);
    let (mine, of_both) = (as_pipeline(&secret), as_pipeline(&both));
    let (keys, others) = (mine.unlock(|| unreachable!()).unwrap(), of_both.unlock(|| unreachable!()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let open = |party: &pouch_client::Party, keys: &pouch_client::identity::Identity| {
        let sealed = runtime.block_on(party.api().unwrap().journal()).unwrap();
        let (mut packed, mut text) = (Vec::new(), Vec::new());
        pouch_core::age::open_part(&keys.age, &sealed, &mut packed).unwrap();
        let unpacked = Run::of("zstd").args(["-dcq"]).input(packed).end().ok();
        text.extend_from_slice(unpacked.text().as_bytes());
        let whole: Value = serde_json::from_slice(&text).unwrap();
        (sealed, serde_json::from_str::<Value>(whole["state"].as_str().unwrap()).unwrap())
    };
    let ((sealed, mut state), (_, foreign)) = (open(&mine, &keys), open(&of_both, &others));
    state["contacts.json"] = foreign["contacts.json"].clone();
    let state = state.to_string();
    let signature =
        pouch_statement::sign_detached("pouch.pipeline-journal.v1", state.as_bytes(), &keys.signing).unwrap();
    let whole = serde_json::json!({ "signature": signature, "state": state }).to_string();
    let path = pair.root().join("packed");
    fs::write(pair.root().join("plain"), whole).unwrap();
    Run::of("zstd").args(["-q", text(&pair.root().join("plain")), "-o", text(&path)]).end().ok();
    let planted = pouch_core::age::seal_to_vec(mine.recipient(), &fs::read(path).unwrap()).unwrap();
    let before = pouch_statement::Sha256Digest::of(&sealed);
    runtime.block_on(mine.api().unwrap().put_journal(Some(before), planted.into())).unwrap();
    let runner = Runner::new(&pair, "job", &secret);
    runner.party.file("x", "x");
    runner.pouch(&["send", "x", "--to", "bo"]).end().fails(4, "other recipients");
    runner.leaves_nothing();
}

#[test]
fn a_revoked_contact_gets_nothing_from_pipelines() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    pair.ada.run(&["contact", "revoke", "bo"]).ok().says("pipeline nightly sent to bo and is revoked");
    let runner = Runner::new(&pair, "job", &secret);
    runner.party.file("x", "x");
    runner.pouch(&["send", "x", "--to", "bo"]).end().ends(6);
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text(), "");
}

#[test]
fn runs_at_once_are_numbered_one_after_the_other() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    let runners: Vec<_> = (0..6).map(|n| Runner::new(&pair, &format!("job{n}"), &secret)).collect();
    let run = |runner: &Runner, key: &str| {
        runner.party.file("x", key);
        // As a script does with 7.
        for _ in 0..10 {
            let ran = runner.pouch(&["send", "x", "--to", "bo", "--once", key, "--json"]).end();
            runner.leaves_nothing();
            if ran.code == 0 {
                return ran.object("sent");
            }
            ran.fails(7, "another run of this pipeline came between");
        }
        panic!("a run never came to its turn")
    };
    let keys = ["a", "b", "c", "a", "b", "c"];
    let all: Vec<Value> = std::thread::scope(|scope| {
        let one = |(runner, key)| scope.spawn(move || run(runner, key));
        let runs: Vec<_> = runners.iter().zip(keys).map(one).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert_eq!(all.iter().filter(|sent| sent["again"] == true).count(), 3, "{all:?}");
    let ran = pair.bo.run(&["receive", "--all", "-o", "all"]).ok().in_order();
    assert_eq!(ran.text().lines().filter(|line| line.contains("from ada (pipeline nightly)")).count(), 3, "{ran}");
    let runner = Runner::new(&pair, "log", &secret);
    runner.pouch(&["log", "verify"]).end().ok().says("intact");
}

#[test]
fn a_run_that_is_stopped_leaves_nothing_here() {
    use rustix::process::Signal;
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    for (name, signal, what) in [("int", Signal::INT, "-"), ("term", Signal::TERM, "-"), ("file", Signal::INT, "x")] {
        let runner = Runner::new(&pair, name, &secret);
        runner.party.file("x", noise("x", 4 << 20));
        // The file takes a minute at this rate.
        let run = runner.pouch(&["send", what, "--to", "bo", "--limit-rate", "64K"]).holding_input().start();
        let begun = || files_beneath(&runner.party.temporary()).iter().any(|path| text(path).contains("/transfers/"));
        pouch_tests::until("the run sends", pouch_tests::LIMIT, || begun().then_some(()));
        std::thread::sleep(std::time::Duration::from_millis(700));
        run.signal(signal);
        let ran = run.end().ends(130);
        assert!(!ran.err.contains("goes on") && !ran.err.contains("--spool"), "nothing is left to go on with: {ran}");
        runner.leaves_nothing();
    }
    let runner = Runner::new(&pair, "after", &secret);
    let events = runner.pouch(&["log", "show", "--json"]).end().ok().objects();
    let failed = events.iter().filter(|event| event["outcome"] == "failed").count();
    assert_eq!((events.len(), failed), (4, 3), "all attempts are told of: {events:?}");
}

// The relay keeps what nobody finished for a day, for whoever goes on with it. Of a pipeline's nobody can.
#[test]
fn a_send_that_failed_is_given_up_at_the_relay() {
    let pair = Pair::configured("account_bytes = 1048576\n");
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    let runner = Runner::new(&pair, "job", &secret);
    runner.party.file("x", noise("x", 4 << 20));
    let ran = runner.pouch(&["send", "x", "--to", "bo"]).end().ends(8);
    assert!(!ran.err.contains("goes on"), "{ran}");
    runner.leaves_nothing();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listed = runtime.block_on(as_pipeline(&secret).api().unwrap().outbox()).unwrap().rows;
    assert!(listed.is_empty(), "{listed:?}");
}

fn first_try(pair: &Pair, identity: &pouch_client::identity::Identity) -> Request {
    let file = pair.ada.file("dump", "the first try");
    let once = Once::new(identity, &"monday".parse().unwrap());
    Request { once: Some(once), ..request(&file) }
}

#[test]
fn a_runner_that_was_thought_to_be_lost_comes_too_late() {
    let pair = Pair::new();
    let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
    let party = as_pipeline(&secret);
    let holding = Holding::new(&party, ("POST", "/commit"), 0);
    let party = party.with_transport(holding.clone());
    let identity = party.unlock(|| unreachable!("no passphrase")).unwrap();
    let request = first_try(&pair, &identity);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = runtime.block_on(async {
        let api = party.api().unwrap();
        pouch_client::pipeline::fetch(&party, &api).await.unwrap();
        let sending = send(&party, &api, &identity, request, Arc::new(Unwatched));
        let retry = async {
            holding.held.notified().await;
            let runner = Runner::new(&pair, "retry", &secret);
            runner.party.file("dump", "the second try");
            let words = ["send", "dump", "--to", "bo", "--once", "monday", "--json"];
            let run = runner.pouch(&words).start();
            let sent = tokio::task::block_in_place(|| run.end()).ok().object("sent");
            assert_eq!(sent["again"], Value::Bool(false));
            holding.go.notify_one();
        };
        tokio::join!(sending, retry).0
    });
    assert!(first.is_err(), "what the retry has taken the place of is not delivered");
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().text().lines().count(), 1);
}

#[test]
fn a_runner_that_is_lost_at_any_step_delivers_once() {
    // Where it ends, and whether Bo has it by then.
    for (of, left, delivered) in [
        (("PUT", "/v1/journal"), 0, false),
        (("PUT", "/index"), 0, false),
        (("POST", "/commit"), 0, false),
        (("PUT", "/v1/journal"), 1, true),
    ] {
        let pair = Pair::new();
        let secret = new(&pair.ada, "nightly", &["--to", "bo"]);
        let party = as_pipeline(&secret);
        let holding = Holding::new(&party, of, left);
        let party = party.with_transport(holding.clone());
        let identity = party.unlock(|| unreachable!("no passphrase")).unwrap();
        let request = first_try(&pair, &identity);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let api = party.api().unwrap();
            pouch_client::pipeline::fetch(&party, &api).await.unwrap();
            tokio::select! {
                sent = send(&party, &api, &identity, request, Arc::new(Unwatched)) => panic!("{:?}", sent.map(|s| s.again)),
                () = holding.held.notified() => {}
            }
        });
        // The runner is gone, with all that it had. Another one takes up the job.
        drop(party);
        let runner = Runner::new(&pair, "retry", &secret);
        runner.party.file("dump", "the second try");
        let words = ["send", "dump", "--to", "bo", "--once", "monday", "--json"];
        let sent = runner.pouch(&words).end().ok().object("sent");
        assert_eq!(sent["again"], Value::Bool(delivered), "{of:?}");
        let ids = pair.bo.run(&["inbox", "-q"]).ok().text();
        assert_eq!(ids.lines().collect::<Vec<_>>(), [sent["bundle"].as_str().unwrap()], "{of:?}");
        let into = pair.bo.receive(sent["bundle"].as_str().unwrap());
        let expected = if delivered { "the first try" } else { "the second try" };
        assert_eq!(fs::read_to_string(into.join("dump")).unwrap(), expected);
        let words =
            ["send", "dump", "--to", "bo", "--once", "monday", "--wait", "receipt", "--timeout", "1m", "--json"];
        assert_eq!(runner.pouch(&words).end().ok().object("receipt")["outcome"], "verified");
    }
}
