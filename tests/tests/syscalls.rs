//! What a relay asks of the kernel for one part, in which order (crates/relay, `blob::folder`), seen by `strace`: the row
//! that says it is coming, the bytes, the name, the row that says it is there, each on stable storage before the next one
//! begins; and only then the answer.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use pouch_protocol::{NewBundle, PartField};
use pouch_statement::{Blake3Digest, BundleId};
use pouch_tests::{Pair, Party, Run, have, noise, text, until};
use rustix::process::Signal;

const LIMIT: Duration = Duration::from_secs(30);

/// One system call: what was written down of it, and the lines at which it began and ended.
#[derive(Debug)]
struct Call {
    text: String,
    begun: usize,
    ended: usize,
}

/// Reads a trace of several threads, in which calls that overlap are cut in two.
fn parse(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some((begun, _)) = text.split_once(" <unfinished ...>") {
            open.insert(thread, calls.len());
            calls.push(Call { text: begun.to_owned(), begun: number, ended: usize::MAX });
        } else if text.starts_with("<... ") {
            if let Some(call) = open.remove(thread) {
                calls[call].ended = number;
                calls[call].text.push_str(text);
            }
        } else {
            calls.push(Call { text: text.to_owned(), begun: number, ended: number });
        }
    }
    calls
}

/// The first call after `after` that holds all words.
#[track_caller]
fn find<'a>(calls: &'a [Call], after: usize, words: &[&str]) -> &'a Call {
    let fits = |call: &&Call| call.begun >= after && words.iter().all(|word| call.text.contains(word));
    calls.iter().find(fits).unwrap_or_else(|| panic!("no {words:?} after line {after}"))
}

#[test]
fn a_part_is_acknowledged_after_bytes_name_and_row_are_durable() {
    if !have(&["strace"]) {
        return;
    }
    let pair = Pair::new();
    let api = pair.ada.client().0.api().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bundle = BundleId::random().unwrap();
    let expires = pouch_client::clock::now().plus(3600);
    runtime.block_on(api.new_bundle(&NewBundle { bundle, expires, burn: false, recipients: vec![] })).unwrap();
    let part: Bytes = [b"age-encryption.org/v1\n".to_vec(), noise("part", 400_000)].concat().into();
    let blake3 = Blake3Digest::from_bytes(*blake3::hash(&part).as_bytes());
    let field = PartField { number: 0, length: part.len() as u64, blake3 };

    let trace = pair.root().join("trace");
    let id = pair.relay.process().id().to_string();
    let calls = "trace=openat,write,writev,pwrite64,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2";
    let mut strace =
        Run::of("strace").args(["-f", "-yy", "-s", "0", "-e", calls, "-p", &id, "-o"]).args([&trace]).start();
    let traced = || {
        let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
        tasks.map(|task| status(task.unwrap())).all(|status| !status.contains("TracerPid:\t0\n")).then_some(())
    };
    until("strace watches every thread", LIMIT, || {
        assert!(strace.is_running(), "strace ended");
        traced()
    });
    runtime.block_on(api.put_part(bundle, field, part)).unwrap();
    // What is sent to us was written before; what is traced is in the file once strace has let go.
    strace.signal(Signal::INT);
    drop(strace.end());

    let blobs = pair.relay.blobs();
    assert_eq!(blobs.len(), 1);
    let name = blobs[0].file_name().unwrap().to_str().unwrap();
    let (folder, staged) = (format!("blobs/{}/{}>", &name[..1], &name[1..2]), format!("/staging/{name}"));
    let trace = std::fs::read_to_string(&trace).unwrap();
    let calls = parse(&trace);

    let create = find(&calls, 0, &["openat(", &staged, "O_CREAT", "O_EXCL"]);
    let sync_bytes = find(&calls, create.ended, &["fsync(", &staged]);
    let rename = find(&calls, create.ended, &["rename", &staged, &format!("{}{name}", folder.replace('>', "/"))]);
    let sync_name = find(&calls, rename.ended, &["fsync(", &folder]);
    let write_row = find(&calls, sync_name.ended, &["pwrite64(", "ledger.sqlite-wal"]);
    let sync_row = find(&calls, write_row.ended, &["sync(", "ledger.sqlite-wal"]);
    assert!(sync_bytes.ended < rename.begun, "{trace}");
    for done in [sync_bytes, sync_name, sync_row] {
        assert!(done.text.contains("= 0"), "{done:?}");
    }
    // All bytes are written before they are synced, none after.
    let writes: Vec<_> = calls.iter().filter(|c| c.text.starts_with("write(") && c.text.contains(name)).collect();
    assert!(writes.len() >= 3 && writes.iter().all(|write| write.ended < sync_bytes.begun), "{trace}");
    // The pending row is durable before there is a file.
    let pending = calls.iter().find(|c| c.text.contains("sync(") && c.text.contains("ledger.sqlite-wal")).unwrap();
    assert!(pending.ended < create.begun, "{trace}");
    // Nothing is said to anybody between the first byte of the file and the durable row, and then the answer is.
    let sends =
        |call: &&Call| call.text.contains("<TCP") && ["write", "send"].iter().any(|name| call.text.starts_with(name));
    let early: Vec<_> =
        calls.iter().filter(sends).filter(|c| c.ended > create.begun && c.begun < sync_row.ended).collect();
    assert!(early.is_empty(), "{early:?}\n{trace}");
    assert!(calls.iter().filter(sends).any(|call| call.begun > sync_row.ended), "{trace}");
}

// Without the name of its folder a relay is lost, though all in it is durable.
#[test]
fn init_makes_the_names_of_the_folders_durable_that_it_makes() {
    if !have(&["strace"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let operator = Party::new(root.path(), "operator");
    let (new, trace) = (root.path().join("new"), root.path().join("trace"));
    let data = new.join("relay");
    let strace = format!("exec strace -f -yy -s 0 -e trace=mkdir,mkdirat,openat,fsync -o {}", text(&trace));
    let init = ["relay", "init", "-q", "--host", "127.0.0.1", "--port", "4433", "--data", text(&data)];
    operator.pouch(init).behind(&strace).end().ok();
    let trace = std::fs::read_to_string(&trace).unwrap();
    let calls = parse(&trace);
    for folder in [&new, &data] {
        let made = find(&calls, 0, &["mkdir", &format!("\"{}\"", text(folder)), "= 0"]);
        let parent = format!("<{}>", text(folder.parent().unwrap()));
        let durable = find(&calls, made.ended, &["fsync(", &parent, "= 0"]);
        let config = find(&calls, 0, &["openat(", "relay.toml", "O_CREAT"]);
        assert!(durable.ended < config.begun, "{trace}");
    }
}
