//! attacks.md 1–3, 6, 8, 9, 11–13, 14, 23–28, 30–32: bundles that a hostile sender or co-recipient makes with keys of their own.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use pouch_core::age::seal_to_vec;
use pouch_core::bundle::{ContentKind, Manifest, seal_envelope};
use pouch_statement::{Outcome, Receipt, Signed, sign_detached};
use pouch_tests::hostile::forge::{Carried, Draft, Forger, archive, fetched, line, objects, opened};
use pouch_tests::hostile::{NASTY, World};
use pouch_tests::text;

type Tree<'a> = &'a [(&'a str, Option<&'a [u8]>)];
type Change<'a> = &'a dyn Fn(&mut Vec<u8>);

const MEMORY: u64 = 200 << 10;

/// Bo is handed the bundle as a file and refuses all of it.
#[track_caller]
fn refused(world: &World, carried: &Carried, what: &str) -> String {
    let path = world.fresh().path.with_extension("pouch");
    carried.write(&path);
    let (ran, fresh) = world.receive(text(&path));
    assert_eq!(ran.code, 4, "{what}: {ran}");
    fresh.is_untouched();
    assert!(ran.peak < MEMORY, "{what}: {} KiB", ran.peak);
    assert_eq!(world.last_event("bo", "received")["outcome"], "failed", "{what}");
    ran.err
}

#[test]
fn forged_bundles_without_a_fault_are_taken() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let carried = ada.carry(Draft::tree(&[("a", None), ("a/b.txt", Some(b"inside")), ("c", Some(b""))]));
    carried.write(&world.root().join("good.pouch"));
    let (ran, fresh) = world.receive("good.pouch");
    ran.ok();
    assert_eq!(fresh.read("a/b.txt"), b"inside");
    let carried = ada.carry(Draft::stream(b"one stream"));
    carried.serve(&world.hostile);
    let (ran, fresh) = world.receive(&carried.bundle.to_string());
    ran.ok();
    assert_eq!(fresh.read("stream"), b"one stream");
}

#[test]
fn attack_1_8_names_that_are_no_paths_or_lead_out() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let (long, deep) = ("n".repeat(256), vec!["d"; 257].join("/"));
    let far = vec!["e".repeat(200); 21].join("/");
    let names = [
        "../x",
        "..",
        ".",
        "",
        "/x",
        "/etc/passwd",
        "C:\\x",
        "C:/x",
        "\\\\host\\share",
        "a\\..\\b",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        &long,
        &deep,
        &far,
    ];
    for name in names {
        let shown: String = name.chars().take(20).collect();
        let bytes: &[u8] = b"owned";
        let error = refused(&world, &ada.carry(Draft::tree(&[(name, Some(bytes))])), &shown);
        assert!(error.contains("entry 1") || error.contains("no folder"), "{shown}: {error}");
    }
    // A component that is no UTF-8 cannot be written in JSON at all: the line is refused.
    let mut draft = Draft::tree(&[("name", Some(b"x"))]);
    draft.index = draft.index.replace("\"name\"", "\"na\\ud800me\"");
    refused(&world, &ada.carry(draft), "a lone surrogate");
    // By way of the relay it is the same, and the sender gets the receipt that it failed at the index.
    let carried = ada.carry(Draft::tree(&[("../x", Some(b"owned"))]));
    carried.serve(&world.hostile);
    world.refuses(&carried.bundle.to_string());
    assert_eq!(world.last_event("bo", "received")["stage"], "index");
    assert!(world.hostile.seen().iter().any(|s| s.ends_with("/receipt")));
}

#[test]
fn attack_2_hidden_names_stay_in_the_fresh_folder_and_are_shown_before() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let carried =
        ada.carry(Draft::tree(&[(".ssh", None), (".ssh/authorized_keys", Some(b"ssh-ed25519 AAAA mallory"))]));
    let path = world.root().join("keys.pouch");
    carried.write(&path);
    world.run("bo", &["receive", text(&path), "--list"]).ok().says(".ssh/authorized_keys");
    let (ran, fresh) = world.receive(text(&path));
    ran.ok().says(".ssh/authorized_keys");
    assert_eq!(fresh.read(".ssh/authorized_keys"), b"ssh-ed25519 AAAA mallory");
    assert!(!world.party("bo").desk().join(".ssh").exists());
}

#[test]
fn attack_6_one_name_for_two_things() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let file: Option<&[u8]> = Some(b"x");
    let trees: [(&str, Tree<'_>); 7] = [
        ("twice", &[("a", file), ("a", file)]),
        ("twice, once a folder", &[("a", None), ("a", file)]),
        ("a file with something in it", &[("a", file), ("a/b", file)]),
        ("no folder", &[("a/b", file)]),
        ("out of order", &[("b", file), ("a", file)]),
        ("a folder behind what is in it", &[("a/b", file), ("a", None)]),
        ("through another's folder", &[("a", None), ("ab/c", file)]),
    ];
    for (what, tree) in trees {
        refused(&world, &ada.carry(Draft::tree(tree)), what);
    }
}

// 3, 13: the archive is never parsed, so a header can only be right or refused.
#[test]
fn attack_3_13_headers_that_differ_from_the_index() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let lines = [line("a", Some(b"content"))];
    let changes: [(&str, Change<'_>); 8] = [
        ("another name", &|t| t[0] = b'b'),
        ("setuid", &|t| t[100..108].copy_from_slice(b"0004755\0")),
        ("an owner", &|t| t[108..116].copy_from_slice(b"0001750\0")),
        ("a symbolic link", &|t| t[156] = b'2'),
        ("a hard link to a file", &|t| {
            t[156] = b'1';
            t[157..161].copy_from_slice(b"/etc")
        }),
        ("a device", &|t| t[156] = b'3'),
        ("another size", &|t| t[124..135].copy_from_slice(b"77777777777")),
        ("a prefix", &|t| t[345..349].copy_from_slice(b"/etc")),
    ];
    for (what, change) in changes {
        let mut tar = archive(&[("a", Some(b"content"))]);
        change(&mut tar);
        // With the right checksum, for whoever would read it.
        tar[148..156].copy_from_slice(b"        ");
        let sum: u32 = tar[..512].iter().map(|b| u32::from(*b)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        refused(&world, &ada.carry(Draft::new(ContentKind::Tar, &tar, &lines)), what);
        assert_eq!(world.last_event("bo", "received")["stage"], "content", "{what}");
    }
    for (what, at) in [("content", 512), ("filling", 520), ("end", 1024), ("padding", 2048)] {
        let mut tar = archive(&[("a", Some(b"content"))]);
        let length = tar.len();
        tar.resize(4096, 0);
        tar[at] ^= 1;
        let mut draft = Draft::new(ContentKind::Tar, &tar[..length], &lines);
        if at >= length {
            draft.parts = vec![seal_to_vec(&draft.key.recipient(), &tar).unwrap()];
            let digest = blake3::hash(&draft.parts[0]).to_string();
            let found = draft.index.rfind("\"sealed_blake3\":\"").unwrap() + 17;
            draft.index.replace_range(found..found + 64, &digest);
        }
        refused(&world, &ada.carry(draft), what);
        assert_eq!(world.last_event("bo", "received")["stage"], "content", "{what}");
    }
}

#[test]
fn attack_11_13_14_numbers_that_lie() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let huge = u64::MAX.to_string();
    let edits = [
        ("\"entries\":1,", "\"entries\":10000000,".to_owned()),
        ("\"entries\":1,", "\"entries\":2000000,".to_owned()),
        ("\"entries\":1,", "\"entries\":0,".to_owned()),
        ("\"entries\":1,", format!("\"entries\":{huge},")),
        ("\"size\":7,", format!("\"size\":{huge},")),
        ("\"size\":7,", "\"size\":18446744073709551616,".to_owned()),
        ("\"size\":7,", "\"size\":8,".to_owned()),
        ("\"size\":7,", "\"size\":-1,".to_owned()),
        ("\"size\":7,", "\"size\":7e0,".to_owned()),
        ("\"content_size\":2048", format!("\"content_size\":{huge}")),
        ("\"padded_size\":4096", format!("\"padded_size\":{}", 1u64 << 62)),
        ("\"parts\":1}", "\"parts\":65536}".to_owned()),
        ("\"parts\":1}", "\"parts\":4294967295}".to_owned()),
        ("\"sealed_size\":4296", format!("\"sealed_size\":{huge}")),
        ("\"mtime\":0", "\"mtime\":9223372036854775808".to_owned()),
        ("\"part\":0", "\"part\":1".to_owned()),
    ];
    for (from, to) in edits {
        let mut draft = Draft::tree(&[("a", Some(b"content"))]);
        assert!(draft.index.contains(from), "{from} in {}", draft.index);
        draft.index = draft.index.replacen(from, &to, 1);
        refused(&world, &ada.carry(draft), &to);
    }
    // 27: one spelling of an index.
    for (from, to) in [
        ("{\"path\"", "{ \"path\""),
        ("\"kind\":\"file\"", "\"kind\":\"link\""),
        ("\"mtime\":0", "\"mtime\":0,\"uid\":0"),
        ("index.v1", "index.v2"),
        ("\"a\"", "\"\\u0061\""),
    ] {
        let mut draft = Draft::tree(&[("a", Some(b"content"))]);
        draft.index = draft.index.replacen(from, to, 1);
        refused(&world, &ada.carry(draft), to);
    }
}

#[test]
fn attack_9_names_with_escape_sequences_are_shown_escaped() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let name = NASTY.replace('/', "");
    let carried = ada.carry(Draft::tree(&[(&name, Some(b"x"))]));
    let path = world.root().join("nasty.pouch");
    carried.write(&path);
    // What is printed is looked through by `run` itself.
    world.run("bo", &["receive", text(&path), "--list"]).ok().says("\\u{1b}[31mred");
    world.run("bo", &["receive", text(&path), "--list", "-q"]).ok();
    let listed = world.run("bo", &["receive", text(&path), "--list", "--json"]).ok().object("entry");
    assert_eq!(listed["path"], name.as_str());
    let (ran, fresh) = world.receive(text(&path));
    ran.ok();
    assert_eq!(fresh.read(&name), b"x");
    // In errors too: names that are refused, and a destination that exists.
    let twice = ada.carry(Draft::tree(&[(&name, Some(b"x")), (&name, Some(b"x"))]));
    let error = refused(&world, &twice, "twice");
    assert!(error.contains("twice") && error.lines().count() == 1, "{error}");
    let odd = world.root().join(&name);
    std::fs::create_dir(&odd).unwrap();
    let _ = world.run("bo", &["receive", text(&path), "-o", text(&odd)]).ends(5);
}

#[test]
fn attack_23_24_what_a_recipient_can_do_with_what_they_got() {
    let world = World::of_two();
    world.befriend("bo2");
    let bundle = world.send(&world.file("a.txt", "from ada, for bo"));
    let (honest, bo) = (fetched(&world, "bo", bundle, 1), world.party("bo").client().1);
    let inside = opened(&bo, &honest.envelope);
    let list: Vec<(&str, &[u8])> = inside.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
    let to_second = Forger::new(&world, "ada", "bo2").recipient;

    // 24: Ada's own manifest and key, sealed to a second contractor by Bo, and carried by a relay that plays along.
    let envelope = seal_to_vec(&to_second, &objects(&list)).unwrap();
    let passed_on = Carried { envelope, ..honest.clone() };
    world.hostile.behave();
    passed_on.serve(&world.hostile);
    let (ran, fresh) = world.receive_as("bo2", &bundle.to_string());
    let _ = ran.ends(4).says("somebody else");
    fresh.is_untouched();
    assert!(!world.hostile.seen().iter().any(|s| s.ends_with("/receipt")), "nothing leaves");
    // The same as a file, and the envelope for Bo as it is.
    passed_on.write(&world.root().join("passed-on.pouch"));
    let (ran, fresh) = world.receive_as("bo2", "passed-on.pouch");
    let _ = ran.ends(4);
    fresh.is_untouched();
    honest.write(&world.root().join("not-mine.pouch"));
    let (ran, fresh) = world.receive_as("bo2", "not-mine.pouch");
    let _ = ran.ends(4);
    fresh.is_untouched();

    // 23: with the shared key, other content of the same length, and an index that fits it.
    let key: pouch_core::age::Identity = std::str::from_utf8(&inside[2].1).unwrap().trim().parse().unwrap();
    let mut plain = Vec::new();
    pouch_core::age::open_part(&key, &honest.parts[0], &mut plain).unwrap();
    let at = plain.windows(8).position(|w| w == b"from ada").unwrap();
    plain[at..at + 8].copy_from_slice(b"from eve");
    let part = seal_to_vec(&key.recipient(), &plain).unwrap();
    let mut index = Vec::new();
    pouch_core::age::open_part(&key, &honest.index, &mut index).unwrap();
    let text = String::from_utf8(index).unwrap();
    let (old, new) = (blake3::hash(&honest.parts[0]).to_string(), blake3::hash(&part).to_string());
    let text = text
        .replace(&old, &new)
        .replace(&blake3::hash(b"from ada, for bo").to_string(), &blake3::hash(b"from eve, for bo").to_string());
    let index = seal_to_vec(&key.recipient(), text.as_bytes()).unwrap();
    for (carried, stage) in [
        (Carried { parts: vec![part.clone()], ..honest.clone() }, "part"),
        (Carried { parts: vec![part], index, ..honest.clone() }, "index"),
    ] {
        world.hostile.behave();
        carried.serve(&world.hostile);
        world.refuses(&bundle.to_string());
        assert_eq!(world.last_event("bo", "received")["stage"], stage);
    }
    world.hostile.behave();
    let (ran, fresh) = world.receive(&bundle.to_string());
    ran.ok();
    assert_eq!(fresh.read("a.txt"), b"from ada, for bo");
}

#[test]
fn attack_25_26_27_signatures_and_spellings_of_the_manifest() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let mallory = pouch_statement::SigningKey::generate().unwrap();
    let draft = Draft::stream(b"a stream");
    let (manifest, index) = ada.manifest(&draft);
    let signed = manifest.clone().sign(&ada.keys.signing).unwrap();
    let carried = |envelope: Vec<u8>| Carried {
        bundle: signed.body().bundle,
        parts: draft.parts.clone(),
        index: index.clone(),
        envelope,
    };
    let with = |signature: &str| carried(ada.envelope(signed.bytes(), signature, &draft.key));
    let good = carried(seal_envelope(&signed, &draft.key, &ada.recipient).unwrap());
    good.write(&world.root().join("good.pouch"));
    let (ran, _) = world.receive("good.pouch");
    ran.ok();

    // 25: stripped, cut, by somebody else, doubled.
    let own = sign_detached("pouch.manifest.v1", signed.bytes(), &mallory).unwrap();
    refused(&world, &with(""), "stripped");
    refused(&world, &with(&signed.signature()[..100]), "cut");
    refused(&world, &with(&own), "by another key");
    refused(&world, &with(&format!("{own}{}", signed.signature())), "two");
    refused(&world, &with(&signed.signature().replace('\n', "\r\n")), "another armor");
    // In the name of a contact, signed by somebody else; and in the name of nobody known.
    let forged = manifest.clone().sign(&mallory).unwrap();
    refused(&world, &carried(seal_envelope(&forged, &draft.key, &ada.recipient).unwrap()), "forged");
    let mut unknown = manifest.clone();
    unknown.sender = pouch_statement::Fingerprint::from_bytes([7; 32]);
    let unknown = carried(seal_envelope(&unknown.sign(&mallory).unwrap(), &draft.key, &ada.recipient).unwrap());
    unknown.write(&world.root().join("unknown.pouch"));
    let (ran, fresh) = world.receive("unknown.pouch");
    let _ = ran.ends(5).says("address book");
    fresh.is_untouched();

    // 26: Ada's good signature of another kind, and another statement of hers.
    let other_kind = sign_detached("pouch.receipt.v1", signed.bytes(), &ada.keys.signing).unwrap();
    refused(&world, &with(&other_kind), "another namespace");
    let receipt = Receipt {
        bundle: signed.body().bundle,
        manifest_sha256: signed.digest(),
        sender: ada.me,
        recipient: ada.to,
        outcome: Outcome::Verified,
        stage: None,
        created: pouch_client::clock::now(),
    };
    let receipt = Signed::sign(receipt, &ada.keys.signing).unwrap();
    refused(&world, &carried(ada.envelope(receipt.bytes(), receipt.signature(), &draft.key)), "a receipt");

    // 27, 30: other bytes with a good signature of Ada's over exactly them.
    let spellings: [(&str, &str); 9] = [
        ("{\"type\"", "{ \"type\""),
        ("\"revision\":1", "\"revision\":1.0"),
        ("\"revision\":1", "\"revision\":1,\"revision\":1"),
        ("\"revision\":1", "\"revision\":1,\"critical\":true"),
        ("\"revision\":1,", ""),
        ("\"kind\":\"dataset\"", "\"kind\":\"\\u0064ataset\""),
        ("manifest.v1", "manifest.v2"),
        ("}\n", "}"),
        ("}\n", "}\n\n"),
    ];
    for (from, to) in spellings {
        let envelope = ada.respelled(&signed, &draft.key, |text| {
            assert!(text.contains(from), "{text}");
            text.replacen(from, to, 1)
        });
        refused(&world, &carried(envelope), to);
    }
}

#[test]
fn attack_31_32_37_manifests_out_of_their_time_or_order() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    let now = pouch_client::clock::now();
    let made = |change: &dyn Fn(&mut Manifest)| {
        let draft = Draft::stream(b"a stream");
        let (mut manifest, index) = ada.manifest(&draft);
        change(&mut manifest);
        let signed = manifest.sign(&ada.keys.signing).unwrap();
        let envelope = seal_envelope(&signed, &draft.key, &ada.recipient).unwrap();
        let carried = Carried { bundle: signed.body().bundle, parts: draft.parts, index, envelope };
        let path = world.fresh().path.with_extension("pouch");
        carried.write(&path);
        (world.receive(text(&path)), carried.bundle)
    };
    let at = |seconds| pouch_statement::Timestamp::from_unix(seconds).unwrap();
    let ((ran, fresh), _) = made(&|m| (m.created, m.expires) = (at(now.unix() - 7200), at(now.unix() - 3600)));
    let _ = ran.ends(6).says("expired 36");
    fresh.is_untouched();
    let ((ran, fresh), _) = made(&|m| m.created = at(now.unix() + 3590));
    let _ = ran.ends(5).says("in the future");
    fresh.is_untouched();
    // Gaps are told and not refused.
    let previous = Some(pouch_statement::Sha256Digest::of(b"never seen"));
    let ((ran, _), bundle) = made(&|m| (m.sequence, m.previous) = (4, previous));
    ran.ok().says("3 bundles from ada before this one have not come");
    let ((ran, _), _) = made(&|m| (m.sequence, m.previous) = (2, previous));
    ran.ok().says("before one that you already have");
    // Another manifest under an id that was received, with no higher revision.
    let ((ran, fresh), _) = made(&|m| m.bundle = bundle);
    let _ = ran.ends(4).says("received before");
    fresh.is_untouched();
    let ((ran, _), _) = made(&|m| (m.bundle, m.revision) = (bundle, 2));
    ran.ok();
}

/// A frame (RFC 8878, §3.1.1) that says it holds `said` bytes and becomes `blocks` times 128 KiB.
fn bomb(said: u32, blocks: usize) -> Vec<u8> {
    let mut frame = 0xFD2F_B528_u32.to_le_bytes().to_vec();
    // A single segment; the size in four bytes.
    frame.push(0xA0);
    frame.extend_from_slice(&said.to_le_bytes());
    for number in 1..=blocks {
        let last = u32::from(number == blocks);
        frame.extend_from_slice(&(last | 1 << 1 | 1 << 20).to_le_bytes()[..3]);
        frame.push(0);
    }
    frame
}

#[test]
fn attack_12_a_bomb_stops_at_the_signed_size() {
    let world = World::of_two();
    let ada = Forger::new(&world, "ada", "bo");
    const FRAME: u64 = 4 << 20;
    // The digest is what the sender says: it is not reached.
    let entry = |size: u64| line("stream", Some(b"")).replace("\"size\":0", &format!("\"size\":{size}"));
    let zeros = |size: u64| line("stream", Some(&vec![0; size as usize]));
    // 32 blocks are 4 MiB: the honest frame.
    let good = ada.carry(Draft::frames(3 * FRAME, &vec![bomb(FRAME as u32, 32); 3], zeros(3 * FRAME)));
    good.serve(&world.hostile);
    let (ran, fresh) = world.receive(&good.bundle.to_string());
    ran.ok();
    assert!(fresh.read("stream") == vec![0; 3 * FRAME as usize]);

    // 128 GiB out of one frame of 4 MiB, under a header that lies, and under one that does not.
    let err = refused(&world, &ada.carry(Draft::frames(FRAME, &[bomb(FRAME as u32, 1 << 20)], entry(FRAME))), "lies");
    assert!(err.contains("frame 0 of the compressed content is refused: it does not decompress"), "{err}");
    let honest = bomb(u32::MAX, 1 << 20);
    let err = refused(&world, &ada.carry(Draft::frames(FRAME, &[honest], entry(FRAME))), "more than signed");
    assert!(err.contains("frame 0 of the compressed content is refused: it does not say"), "{err}");
    // The last of many.
    let mut frames = vec![bomb(FRAME as u32, 32); 20];
    frames.push(bomb(10, 1));
    let carried = ada.carry(Draft::frames(20 * FRAME + 10, &frames, entry(20 * FRAME + 10)));
    let err = refused(&world, &carried, "the last");
    assert!(err.contains("frame 20 of the compressed content is refused"), "{err}");
    // More than any bundle holds is refused with the index, and so is a frame that could hold more than its content.
    for size in [u64::MAX - 2000, 8 << 40] {
        let err = refused(&world, &ada.carry(Draft::frames(size, &[bomb(FRAME as u32, 32)], entry(size))), "huge");
        assert!(err.contains("more than a bundle can hold") || err.contains("do not fit each other"), "{err}");
    }
    let err = refused(&world, &ada.carry(Draft::frames(10, &[bomb(10, 1000)], entry(10))), "a long frame");
    assert!(err.contains("do not fit each other: a frame and its content"), "{err}");
}
