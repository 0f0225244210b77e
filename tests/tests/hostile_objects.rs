//! attacks.md 13, 17, 18, 19, 31, 54, 64: the relay gives other bytes than those that were sent.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use pouch_tests::hostile::forge::{Carried, fetched};
use pouch_tests::hostile::{Answer, Hostile, World};
use pouch_tests::noise;

const INDEX: &str = "/v1/bundles/*/index";
const PART: &str = "/v1/bundles/*/parts/*";
const RELEASE: &str = "/v1/inbox/*/release";

type Change<'a> = &'a dyn Fn(&mut Carried);
type Twist = Arc<dyn Fn(&mut Vec<u8>) + Send + Sync>;

fn twist(change: impl Fn(&mut Vec<u8>) + Send + Sync + 'static) -> Twist {
    Arc::new(change)
}

/// Every way in which one object comes back changed: 17 cut, 18 flipped or another, 19 with more behind.
fn twists(other: Vec<u8>) -> Vec<(&'static str, Twist)> {
    vec![
        ("first bit", twist(|b| b[0] ^= 1)),
        ("a bit in the header", twist(|b| b[60] ^= 4)),
        ("a bit in the nonce", twist(|b| b[170] ^= 0x80)),
        (
            "a bit in the middle",
            twist(|b| {
                let at = b.len() / 2;
                b[at] ^= 1
            }),
        ),
        ("last bit", twist(|b| *b.last_mut().unwrap() ^= 1)),
        ("nothing", twist(Vec::clear)),
        ("one byte", twist(|b| b.truncate(1))),
        ("the header alone", twist(|b| b.truncate(184))),
        ("half", twist(|b| b.truncate(b.len() / 2))),
        (
            "without the last byte",
            twist(|b| {
                b.pop();
            }),
        ),
        ("without the last tag", twist(|b| b.truncate(b.len() - 16))),
        ("one byte more", twist(|b| b.push(0))),
        ("an empty chunk more", twist(|b| b.extend([0; 16]))),
        ("twice", twist(|b| b.extend(b.clone()))),
        ("zeros", twist(|b| b.fill(0))),
        ("of another bundle", twist(move |b| b.clone_from(&other))),
    ]
}

fn change(hostile: &Hostile, method: &'static str, path: &'static str, change: Twist) {
    hostile.behave();
    hostile.on(method, path, move |seen| seen.pass().twist(|body| change(body)).into());
}

/// The object of a bundle as the relay has it.
fn object(world: &World, path: &'static str, bundle: &str) -> Vec<u8> {
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = kept.clone();
    let method = if path == RELEASE { "POST" } else { "GET" };
    world.hostile.on(method, path, move |seen| {
        let answer = seen.pass();
        keep.lock().unwrap().clone_from(&answer.body);
        answer.into()
    });
    let (ran, _) = world.receive(bundle);
    ran.ok();
    world.hostile.behave();
    let bytes = kept.lock().unwrap().clone();
    assert!(!bytes.is_empty());
    bytes
}

#[track_caller]
fn every_twist_is_refused(path: &'static str, stage: &str) {
    let world = World::of_two();
    let other = world.send(&world.file("other.txt", "another text, as long as"));
    let bundle = world.send(&world.file("this.txt", "the first one is, indeed"));
    for (what, how) in twists(object(&world, path, &other.to_string())) {
        change(&world.hostile, "GET", path, how);
        let (ran, fresh) = world.receive(&bundle.to_string());
        assert_eq!(ran.code, 4, "{what}: {ran}");
        fresh.is_untouched();
        let event = world.last_event("bo", "received");
        assert_eq!((&event["outcome"], &event["stage"]), (&"failed".into(), &stage.into()), "{what}: {event}");
    }
    // The sender knows, by a receipt that the recipient signed.
    world.hostile.behave();
    let told = world.outbox(bundle);
    assert_eq!((&told["outcome"], &told["stage"]), (&"failed".into(), &stage.into()), "{told}");
    // The harness itself changes nothing: honestly, the same bundle is good, and the word about it too.
    let (ran, fresh) = world.receive(&bundle.to_string());
    ran.ok();
    assert_eq!(fresh.read("this.txt"), b"the first one is, indeed");
    assert_eq!(world.outbox(bundle)["outcome"], "verified");
    world.run("bo", &["log", "verify"]).ok();
}

#[test]
fn attack_13_17_18_19_an_index_that_was_changed() {
    every_twist_is_refused(INDEX, "index");
}

#[test]
fn attack_13_17_18_19_a_part_that_was_changed() {
    every_twist_is_refused(PART, "part");
}

// No receipt then: who sent it is not known, and nothing may leave.
#[test]
fn attack_17_18_19_31_an_envelope_that_was_changed_or_is_another() {
    let world = World::of_two();
    world.befriend("bo2");
    let old = world.send(&world.file("old.txt", "what was sent before"));
    let old_envelope = object(&world, RELEASE, &old.to_string());
    let sent = world.run("ada", &["send", "old.txt", "--to", "bo2", "-q"]).ok().word();
    let theirs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = theirs.clone();
    world.hostile.on("POST", RELEASE, move |seen| {
        let answer = seen.pass();
        keep.lock().unwrap().clone_from(&answer.body);
        answer.into()
    });
    let (ran, _) = world.receive_as("bo2", &sent);
    ran.ok();
    let theirs = theirs.lock().unwrap().clone();
    let bundle = world.send(&world.file("new.txt", "what is sent now"));
    let mut all = twists(old_envelope);
    all.push(("of another recipient", twist(move |b| b.clone_from(&theirs))));
    all.push(("garbage", twist(|b| *b = noise("garbage", 5000))));
    for (what, how) in all {
        change(&world.hostile, "POST", RELEASE, how);
        let (ran, fresh) = world.receive(&bundle.to_string());
        assert_eq!(ran.code, 4, "{what}: {ran}");
        fresh.is_untouched();
        assert_eq!(world.last_event("bo", "received")["outcome"], "failed", "{what}");
        let left = world.hostile.seen().iter().any(|s| s.ends_with("/receipt"));
        assert!(!left, "{what}: a receipt left for something that nobody is known to have sent");
    }
    world.hostile.behave();
    assert!(world.outbox(bundle)["outcome"].is_null());
    let (ran, _) = world.receive(&bundle.to_string());
    ran.ok();
}

/// A bundle of several parts, and another one alike; as Bo's own device gets them.
fn large(world: &World, bytes: usize, parts: u32) -> (Carried, Carried, Vec<u8>) {
    let (one, two) = (noise("one", bytes), noise("two", bytes));
    let first = world.send(&world.file("one.bin", &one));
    let second = world.send(&world.file("two.bin", &two));
    (fetched(world, "bo", first, parts), fetched(world, "bo", second, parts), one)
}

#[test]
fn attack_18_parts_swapped_repeated_or_spliced_from_another_bundle() {
    let world = World::of_two();
    let (honest, other, content) = large(&world, 17 << 20, 3);
    let changes: [(&str, Change<'_>); 6] = [
        ("swapped", &|c| c.parts.swap(0, 1)),
        ("repeated", &|c| c.parts[1] = c.parts[0].clone()),
        ("the last is the first", &|c| c.parts[2] = c.parts[0].clone()),
        ("spliced", &|c| c.parts[1] = other.parts[1].clone()),
        ("the whole content of another", &|c| c.parts = other.parts.clone()),
        ("a chunk moved", &|c| c.parts[1][184..184 + 2 * 65_552].rotate_left(65_552)),
    ];
    for (what, change) in changes {
        let mut carried = honest.clone();
        change(&mut carried);
        world.hostile.behave();
        carried.serve(&world.hostile);
        let (ran, fresh) = world.receive(&honest.bundle.to_string());
        assert_eq!(ran.code, 4, "{what}: {ran}");
        fresh.is_untouched();
        assert_eq!(world.last_event("bo", "received")["stage"], "part", "{what}");
    }
    // Index and parts of another bundle fit each other, and not this envelope.
    let mixed = Carried { envelope: honest.envelope.clone(), ..other.clone() };
    world.hostile.behave();
    mixed.serve(&world.hostile);
    world.refuses(&honest.bundle.to_string()).says("not the one that the manifest names");
    // More than announced, so much more that it is not even read; and a part that is withheld.
    world.hostile.behave();
    let long = [&honest.parts[2][..], &[0; 1 << 20]].concat();
    world.hostile.on("GET", "/v1/bundles/*/parts/2", move |_| Answer::object(long.clone()).into());
    world.refuses(&honest.bundle.to_string()).says("the index says");
    assert_eq!(world.last_event("bo", "received")["stage"], "part");
    world.hostile.behave();
    world.hostile.on("GET", "/v1/bundles/*/parts/2", |_| Answer::problem(404, "not-found", "gone fishing").into());
    let (ran, fresh) = world.receive(&honest.bundle.to_string());
    let _ = ran.ends(3);
    fresh.is_untouched();
    // Served back unchanged, it is good: what was refused was the change.
    world.hostile.behave();
    honest.serve(&world.hostile);
    let (ran, fresh) = world.receive(&honest.bundle.to_string());
    ran.ok();
    assert!(fresh.read("one.bin") == content);
}

#[test]
fn attack_64_standard_output_of_a_bundle_that_turns_out_bad() {
    let world = World::of_two();
    let (mut honest, _, content) = large(&world, 17 << 20, 3);
    let id = honest.bundle.to_string();
    // Up to 32 MiB nothing is printed.
    honest.parts[1][1000] ^= 1;
    honest.serve(&world.hostile);
    let ran = world.pouch("bo", &["receive", &id, "--stdout"]).end().ends(4);
    assert!(ran.out.is_empty(), "{} bytes came out", ran.out.len());
    world.hostile.behave();
    let ran = world.pouch("bo", &["receive", &id, "--stdout"]).end().ok();
    assert!(ran.out == content);
    // Beyond, only a verified prefix, and the exit code is the verdict.
    let (mut honest, _, content) = large(&world, 49 << 20, 7);
    let id = honest.bundle.to_string();
    honest.parts[5][1000] ^= 1;
    honest.serve(&world.hostile);
    let ran = world.pouch("bo", &["receive", &id, "--stdout"]).end().ends(4);
    assert!(ran.out.len() < content.len() && content.starts_with(&ran.out), "{} bytes", ran.out.len());
}
