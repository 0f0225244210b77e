//! Stock tools alone open what pouch made: runs the commands of docs/stock-tools.md, so that page and test cannot drift.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use pouch_client::Unwatched;
use pouch_client::send::send_to_file;
use pouch_statement::{Delegation, Signed};
use pouch_tests::{
    Pair, Party, Ran, Run, as_pipeline, go_age, have, noise, program, request, sample_tree, snapshot, text, workspace,
};

const TOOLS: [&str; 7] = ["bash", "age", "tar", "b3sum", "ssh-keygen", "jq", "sha256sum"];
const TO_THE_PARTS: [&str; 4] = ["The envelope", "The cards", "Who signed it, and for whom", "Index and parts"];

/// The commands that stand under these headings of the page.
fn commands(headings: &[&str]) -> String {
    let page = fs::read_to_string(workspace().join("docs/stock-tools.md")).unwrap();
    let mut script = String::new();
    for heading in headings {
        let (_, section) =
            page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no section {heading}"));
        let section = section.split("\n## ").next().unwrap();
        let blocks: Vec<&str> =
            section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
        assert!(!blocks.is_empty(), "no commands under {heading}");
        script.extend(blocks);
    }
    script
}

fn bash(script: &str, folder: &Path) -> Run {
    // Without a pouch on the path.
    Run::of("bash").args(["-c", &format!("set -euo pipefail; umask 077\n{script}")]).dir(folder)
}

fn run(script: &str, folder: &Path) -> Ran {
    bash(script, folder).end()
}

/// The search path with this folder in front.
fn path_with(folder: PathBuf) -> OsString {
    let path = std::env::var_os("PATH").unwrap();
    std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).unwrap()
}

fn card(party: &Party) -> Vec<u8> {
    party.run(&["card", "-q"]).ok().out
}

/// The folder in which Bo begins: bundle, keys and cards.
fn begin(pair: &Pair, name: &str, bundle: &Path) -> PathBuf {
    let folder = pair.root().join(name);
    fs::create_dir(&folder).unwrap();
    fs::copy(bundle, folder.join("dataset.pouch")).unwrap();
    fs::copy(pair.bo.home().join("identity"), folder.join("identity")).unwrap();
    fs::write(folder.join("ada.card"), card(&pair.ada)).unwrap();
    fs::write(folder.join("bo.card"), card(&pair.bo)).unwrap();
    folder
}

#[test]
fn a_folder_with_stock_tools() {
    if !have(&TOOLS) {
        return;
    }
    let pair = Pair::classic();
    let source = pair.ada.desk().join("dataset");
    sample_tree(&source);
    // Two parts, and a name that would upset a shell.
    fs::write(source.join("src/large"), noise("large", 9 << 20)).unwrap();
    fs::write(source.join("$(touch pwned) 'q'"), "quoted").unwrap();
    let file = pair.ada.desk().join("dataset.pouch");
    pair.ada.send(&[text(&source), "--to", "bo", "--out", text(&file)]);
    let script = commands(&[&TO_THE_PARTS[..], &["Files"]].concat());

    let folder = begin(&pair, "open", &file);
    run(&script, &folder).ok();
    assert_eq!(snapshot(&folder.join("files")), snapshot(&source));
    assert!(folder.join("part.00001").exists() && !folder.join("part.00002").exists());
    // And pouch says the same.
    assert_eq!(snapshot(&pair.bo.receive(text(&file))), snapshot(&source));

    // The commands verify: each of these stops them.
    let refused = |name: &str, change: &dyn Fn(&Path)| {
        let folder = begin(&pair, name, &file);
        change(&folder);
        let ran = run(&script, &folder);
        assert_ne!(ran.code, 0, "{name}: {ran}");
        assert!(!folder.join("files").exists(), "{name}: {ran}");
    };
    refused("another sender's card", &|folder| fs::write(folder.join("ada.card"), card(&pair.bo)).unwrap());
    refused("for somebody else", &|folder| fs::write(folder.join("bo.card"), card(&pair.ada)).unwrap());
    refused("others' keys", &|folder| {
        fs::copy(pair.ada.home().join("identity"), folder.join("identity")).map(|_| ()).unwrap()
    });
    // Objects in order: id, parts, index, envelope.
    let length = fs::metadata(&file).unwrap().len() as usize;
    for (name, at) in [("id", 515), ("part", 3 << 20), ("index", length - 9_000), ("envelope", length - 4_000)] {
        refused(name, &|folder| {
            let mut bytes = fs::read(&file).unwrap();
            bytes[at] ^= 1;
            fs::write(folder.join("dataset.pouch"), bytes).unwrap();
        });
    }
}

// With hybrid keys, as they are by default, the same commands work with an age that knows them.
#[test]
fn a_folder_with_hybrid_keys_and_age_1_3() {
    let Some(tools) = go_age() else { return };
    if !have(&TOOLS) {
        return;
    }
    let pair = Pair::new();
    let source = pair.ada.desk().join("dataset");
    sample_tree(&source);
    let file = pair.ada.desk().join("dataset.pouch");
    pair.ada.send(&[text(&source), "--to", "bo", "--out", text(&file)]);
    let script = commands(&[&TO_THE_PARTS[..], &["Files"]].concat());
    let folder = begin(&pair, "open", &file);
    bash(&script, &folder).env("PATH", path_with(tools)).end().ok();
    assert_eq!(snapshot(&folder.join("files")), snapshot(&source));
}

#[test]
fn a_stream_with_stock_tools() {
    if !have(&TOOLS) {
        return;
    }
    let pair = Pair::classic();
    let file = pair.ada.desk().join("stream.pouch");
    let bytes = noise("stream", 300_001);
    let send = ["send", "-", "--name", "dump.sql", "--to", "bo", "--out", text(&file)];
    pair.ada.pouch(send).input(bytes.clone()).end().ok();
    let folder = begin(&pair, "open", &file);
    run(&commands(&[&TO_THE_PARTS[..], &["A stream"]].concat()), &folder).ok();
    assert!(fs::read(folder.join("dump.sql")).unwrap() == bytes);
    assert_eq!(fs::metadata(folder.join("content")).unwrap().len() % 4096, 0, "it was padded");
}

// Debian's zstd decompresses the parts as they are joined, padding and all.
#[test]
fn compressed_content_with_stock_tools() {
    if !have(&TOOLS) || !have(&["zstd"]) {
        return;
    }
    let pair = Pair::classic();
    let source = pair.ada.desk().join("dataset");
    sample_tree(&source);
    // Two parts, and frames that lie in both; and much that compresses.
    fs::write(source.join("src/large"), noise("large", 10 << 20)).unwrap();
    fs::write(source.join("src/zeros"), vec![0; 30 << 20]).unwrap();
    let file = pair.ada.desk().join("dataset.pouch");
    pair.ada.send(&[text(&source), "--to", "bo", "--compress", "zstd", "--out", text(&file)]);
    let script = commands(&[&TO_THE_PARTS[..], &["Compressed content", "Files"]].concat());
    let folder = begin(&pair, "open", &file);
    run(&script, &folder).ok();
    assert_eq!(snapshot(&folder.join("files")), snapshot(&source));
    assert!(folder.join("part.00001").exists() && !folder.join("part.00002").exists());

    for (name, bytes) in [("rows", vec![b'x'; 9_000_001]), ("nothing", Vec::new())] {
        let file = pair.ada.desk().join(format!("{name}.pouch"));
        let send = ["send", "-", "--name", "dump.sql", "--to", "bo", "--compress", "zstd", "--out", text(&file)];
        pair.ada.pouch(send).input(bytes.clone()).end().ok();
        let folder = begin(&pair, name, &file);
        run(&commands(&[&TO_THE_PARTS[..], &["Compressed content", "A stream"]].concat()), &folder).ok();
        assert!(fs::read(folder.join("dump.sql")).unwrap() == bytes, "{name}");
    }
}

// What a pipeline sent is Ada's, by her word for the pipeline's key, to those whom she named.
#[test]
fn from_a_pipeline_with_stock_tools() {
    if !have(&TOOLS) {
        return;
    }
    let pair = Pair::classic();
    let secret = pair.ada.run(&["pipeline", "new", "nightly", "--to", "bo", "-q"]).ok().word();
    // There is no command for a pipeline's file. What goes through the relay is the same objects.
    let (party, file) = (as_pipeline(&secret), pair.ada.desk().join("nightly.pouch"));
    let identity = party.unlock(|| unreachable!("no passphrase")).unwrap();
    let request = request(&pair.ada.file("report.csv", "all is well"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        pouch_client::pipeline::fetch(&party, &party.api().unwrap()).await.unwrap();
        send_to_file(&party, &identity, request, &file, &Unwatched).await.unwrap();
    });
    let envelope = commands(&["The envelope"]);
    let script = commands(&["The cards", "From a pipeline", "Index and parts", "Files"]);
    let folder = begin(&pair, "open", &file);
    run(&envelope, &folder).ok();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    run(&script, &folder).ok();
    assert_eq!(read("files/report.csv"), "all is well");
    assert_eq!(fs::read_to_string(pair.bo.receive(text(&file)).join("report.csv")).unwrap(), "all is well");

    let refused = |name: &str, script: &str, change: &dyn Fn(&Path)| {
        let folder = begin(&pair, name, &file);
        run(&envelope, &folder).ok();
        change(&folder);
        let ran = run(script, &folder);
        assert_ne!(ran.code, 0, "{name}: {ran}");
        assert!(!folder.join("files").exists(), "{name}: {ran}");
    };
    let by_herself = commands(&["The cards", "Who signed it, and for whom", "Index and parts", "Files"]);
    refused("as if Ada had sent it", &by_herself, &|_| {});
    refused("another's card", &script, &|folder| fs::write(folder.join("ada.card"), card(&pair.bo)).unwrap());
    // What else Ada could have signed, and what somebody else did.
    let ((ada, keys), (bo, bo_keys)) = (pair.ada.client(), pair.bo.client());
    let key = &ada.card().card().signing_key;
    let good = Signed::<Delegation>::verify(read("delegation").as_bytes(), &read("delegation.sig"), key).unwrap();
    let good = good.body();
    let ends = |seconds| good.created.plus(seconds);
    for (name, said, by) in [
        ("by somebody else", good.clone(), &bo_keys),
        ("in another's name", Delegation { identity: bo.fingerprint(), ..good.clone() }, &keys),
        ("for another key", Delegation { signing_key: *key, ..good.clone() }, &keys),
        ("for other keys", Delegation { age_recipient: bo.card().card().age_recipient.clone(), ..good.clone() }, &keys),
        ("to somebody else", Delegation { recipients: vec![ada.fingerprint()], ..good.clone() }, &keys),
        ("over before the bundle", Delegation { expires: ends(60), ..good.clone() }, &keys),
        ("for too long", Delegation { expires: ends(91 * 24 * 3600), ..good.clone() }, &keys),
    ] {
        let said = Signed::sign(said, &by.signing).unwrap().detached();
        refused(name, &script, &|folder| {
            fs::write(folder.join("delegation"), &said.statement).unwrap();
            fs::write(folder.join("delegation.sig"), &said.signature).unwrap();
        });
    }
}

#[test]
fn a_receipt_with_stock_tools() {
    if !have(&TOOLS) {
        return;
    }
    let pair = Pair::new();
    let path = pair.ada.file("report", "all is well");
    let id = pair.ada.send(&[text(&path), "--to", "bo"]);
    pair.bo.receive(&id);
    fs::write(pair.ada.desk().join("bo.card"), card(&pair.bo)).unwrap();
    let script = format!("set -euo pipefail\n{}", commands(&["The receipt"]));
    let path = path_with(program().parent().unwrap().to_owned());
    let bash = |id: &str| {
        let run = Run::of("bash").args(["-c", &script]).dir(&pair.ada.desk());
        run.env("POUCH_HOME", pair.ada.home()).env("PATH", &path).env("id", id).end()
    };
    let ran = bash(&id).ok();
    assert!(ran.text().ends_with("\nverified\n"), "{ran}");
    // A receipt of somebody else's is not Bo's.
    fs::write(pair.ada.desk().join("bo.card"), card(&pair.ada)).unwrap();
    assert_ne!(bash(&id).code, 0);
}
