//! attacks.md 25, 26, 31: what a relay or a recipient gives the sender as a receipt.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pouch_client::clock::now;
use pouch_core::age::seal_to_vec;
use pouch_core::bundle::{Manifest, seal_receipt};
use pouch_statement::{BundleId, Outcome, Receipt, Sha256Digest, Signed, SigningKey, Stage};
use pouch_tests::hostile::forge::{fetched, objects, opened};
use pouch_tests::hostile::{Seen, World};
use serde_json::{Value, json};

const BUNDLE: &str = "/v1/bundles/*";

/// From now on the relay tells this of the one delivery.
fn claim(world: &World, receipt: Value) {
    world.hostile.behave();
    world.hostile.on("GET", BUNDLE, move |seen: &Seen| {
        let receipt = receipt.clone();
        seen.pass()
            .edit(|status| {
                status["deliveries"][0]["state"] = json!("received");
                status["deliveries"][0]["received"] = json!(now().unix());
                status["deliveries"][0]["receipt"] = receipt;
            })
            .into()
    });
}

/// What the relay holds as the receipt of a bundle, as Ada's own device gets it.
fn held(world: &World, bundle: BundleId) -> Value {
    let kept = Arc::new(Mutex::new(Value::Null));
    let keep = kept.clone();
    world.hostile.behave();
    world.hostile.on("GET", BUNDLE, move |seen| {
        let answer = seen.pass();
        let status: Value = serde_json::from_slice(&answer.body).unwrap();
        *keep.lock().unwrap() = status["deliveries"][0]["receipt"].clone();
        // Ada does not get it yet.
        answer.edit(|status| status["deliveries"][0]["receipt"] = Value::Null).into()
    });
    assert!(world.outbox(bundle)["outcome"].is_null());
    world.hostile.behave();
    let value = kept.lock().unwrap().clone();
    assert!(value["sealed"].is_string(), "{value}");
    value
}

#[track_caller]
fn no_receipt(world: &World, bundle: BundleId, what: &str) {
    for words in [&["outbox", &bundle.to_string(), "--json"][..], &["outbox", &bundle.to_string()]] {
        let ran = world.run("ada", words);
        assert_eq!(ran.code, 4, "{what}: {ran}");
        assert!(!ran.text().contains("receipt verified") && !ran.text().contains("\"outcome\""), "{what}: {ran}");
    }
    let path = world.party("ada").home().join(format!("outbox/{bundle}.json"));
    let kept: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(kept["recipients"][0]["receipt"].is_null(), "{what}: {kept}");
    assert_eq!(world.last_event("ada", "receipt-received")["outcome"], "failed", "{what}");
}

#[test]
fn attack_25_26_receipts_that_are_not_this_ones() {
    let world = World::of_two();
    let (one, two) = (world.send(&world.file("one.txt", "1")), world.send(&world.file("two.txt", "2")));
    for bundle in [one, two] {
        let (ran, _) = world.receive(&bundle.to_string());
        ran.ok();
    }
    let (right, other) = (held(&world, one), held(&world, two));
    let changed = |name: &str, value: Value| {
        let mut receipt = right.clone();
        receipt[name] = value;
        receipt
    };
    let sealed = STANDARD.decode(right["sealed"].as_str().unwrap()).unwrap();
    let mut flipped = sealed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let claims = [
        ("another bundle's", other.clone()),
        ("another bundle's, under this commitment", changed("sealed", other["sealed"].clone())),
        ("another commitment", changed("commitment", other["commitment"].clone())),
        ("zeros", changed("commitment", json!("00".repeat(32)))),
        ("another outcome", changed("outcome", json!("failed"))),
        ("no base64", changed("sealed", json!("%%%"))),
        ("nothing", changed("sealed", json!(""))),
        ("flipped", changed("sealed", json!(STANDARD.encode(flipped)))),
        ("cut", changed("sealed", json!(STANDARD.encode(&sealed[..sealed.len() - 1])))),
        ("long", changed("sealed", json!(STANDARD.encode(vec![0; 300 << 10])))),
    ];
    for (what, receipt) in claims {
        claim(&world, receipt);
        no_receipt(&world, one, what);
    }
    world.hostile.behave();
    assert_eq!(world.outbox(one)["outcome"], "verified");
    // Once verified it stays so, whatever is claimed and withheld afterwards.
    claim(&world, other);
    assert_eq!(world.outbox(one)["outcome"], "verified");
    claim(&world, Value::Null);
    assert_eq!(world.outbox(one)["outcome"], "verified");
    world.run("ada", &["log", "verify"]).ok();
}

/// A receipt that somebody makes with keys that they have.
fn made(world: &World, receipt: Receipt, key: &SigningKey) -> Value {
    let to = world.party("ada").client().1.age.recipient();
    let (sealed, commitment) = seal_receipt(&Signed::sign(receipt, key).unwrap(), &to).unwrap();
    json!({ "outcome": "verified", "commitment": commitment, "sealed": STANDARD.encode(sealed) })
}

#[test]
fn attack_25_26_receipts_by_the_wrong_key_or_of_another_kind() {
    let world = World::of_two();
    let bundle = world.send(&world.file("one.txt", "1"));
    let envelope = fetched(&world, "bo", bundle, 0).envelope;
    let ((ada, ada_keys), (bo, bo_keys)) = (world.party("ada").client(), world.party("bo").client());
    let inside = opened(&bo_keys, &envelope);
    let manifest = Sha256Digest::of(&inside[0].1);
    let good = Receipt {
        bundle,
        manifest_sha256: manifest,
        sender: ada.fingerprint(),
        recipient: bo.fingerprint(),
        outcome: Outcome::Verified,
        stage: None,
        created: now(),
    };
    let mallory = SigningKey::generate().unwrap();
    let other = BundleId::random().unwrap();
    let claims = [
        ("by a stranger", made(&world, good.clone(), &mallory)),
        ("by the sender", made(&world, good.clone(), &ada_keys.signing)),
        ("another bundle", made(&world, Receipt { bundle: other, ..good.clone() }, &bo_keys.signing)),
        (
            "another manifest",
            made(&world, Receipt { manifest_sha256: Sha256Digest::of(b""), ..good.clone() }, &bo_keys.signing),
        ),
        ("another sender", made(&world, Receipt { sender: bo.fingerprint(), ..good.clone() }, &bo_keys.signing)),
        ("another recipient", made(&world, Receipt { recipient: ada.fingerprint(), ..good.clone() }, &bo_keys.signing)),
        ("verified at a stage", made(&world, Receipt { stage: Some(Stage::Part), ..good.clone() }, &bo_keys.signing)),
        (
            "failed, called verified",
            made(
                &world,
                Receipt { outcome: Outcome::Failed, stage: Some(Stage::Part), ..good.clone() },
                &bo_keys.signing,
            ),
        ),
    ];
    for (what, receipt) in claims {
        claim(&world, receipt);
        no_receipt(&world, bundle, what);
    }
    // 26: the sender's own manifest, handed back as a receipt, with a commitment that fits.
    let salt = [7; 32];
    let list = [("receipt", &inside[0].1[..]), ("receipt.sig", &inside[1].1), ("salt", &salt)];
    let sealed = seal_to_vec(&ada_keys.age.recipient(), &objects(&list)).unwrap();
    let commitment = pouch_core::bundle::receipt_commitment(&salt, &inside[0].1);
    claim(&world, json!({ "outcome": "verified", "commitment": commitment, "sealed": STANDARD.encode(sealed) }));
    no_receipt(&world, bundle, "a manifest");
    assert_eq!(<Manifest as pouch_statement::Statement>::TYPE, "pouch.manifest.v1");
    // And with all of it right it is taken: what was refused was what was wrong.
    claim(&world, made(&world, good, &bo_keys.signing));
    assert_eq!(world.outbox(bundle)["outcome"], "verified");
}

#[test]
fn attack_31_an_older_receipt_does_not_take_back_a_newer_one() {
    let world = World::of_two();
    let bundle = world.send(&world.file("one.txt", "1"));
    world.hostile.on("GET", "/v1/bundles/*/parts/*", |seen| seen.pass().twist(|b| b[200] ^= 1).into());
    world.refuses(&bundle.to_string());
    let failed = held(&world, bundle);
    assert_eq!(failed["outcome"], "failed");
    // The failure, relabelled.
    let mut relabelled = failed.clone();
    relabelled["outcome"] = json!("verified");
    claim(&world, relabelled);
    no_receipt(&world, bundle, "a failure called success");
    world.hostile.behave();
    assert_eq!(world.outbox(bundle)["outcome"], "failed");
    let (ran, _) = world.receive(&bundle.to_string());
    ran.ok();
    assert_eq!(world.outbox(bundle)["outcome"], "verified");
    // The same failure again, truly signed, only old.
    claim(&world, failed);
    assert_eq!(world.outbox(bundle)["outcome"], "verified");
    world.run("ada", &["outbox", &bundle.to_string()]).ok().says("received and verified");
}

#[test]
fn attack_25_a_sender_who_waits_is_not_told_of_a_false_receipt() {
    let world = World::of_two();
    let other = world.send(&world.file("one.txt", "1"));
    let (ran, _) = world.receive(&other.to_string());
    ran.ok();
    claim(&world, held(&world, other));
    let words = ["send", "one.txt", "--to", "bo", "--wait", "receipt", "--timeout", "20s"];
    let ran = world.run("ada", &words).ends(4).says("receipt for bundle");
    assert!(!ran.text().contains("has received"));
}

#[test]
fn attack_25_a_bad_receipt_keeps_no_other_away_and_is_journaled_once() {
    let world = World::of_two();
    let sent: Vec<BundleId> = ["old", "bad", "junk", "new"].map(|name| world.send(&world.file(name, name))).into();
    for bundle in &sent {
        let (ran, _) = world.receive(&bundle.to_string());
        ran.ok();
    }
    // Listed newest first: times are whole seconds, so the files say which is which.
    let home = world.party("ada").home();
    for (at, bundle) in sent.iter().enumerate() {
        let path = home.join(format!("outbox/{bundle}.json"));
        let mut state: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        state["created"] = json!(state["created"].as_u64().unwrap() - 100 + at as u64);
        std::fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
    }
    let (bad, junk) = (sent[1].to_string(), sent[2].to_string());
    let (is_bad, is_junk) = (bad.clone(), junk.clone());
    world.hostile.on("GET", BUNDLE, move |seen: &Seen| match seen.component(2) {
        id if id == is_bad => seen.pass().edit(|s| s["deliveries"][0]["receipt"]["sealed"] = json!("%%%")).into(),
        id if id == is_junk => seen.pass().twist(|body| *body = b"junk".to_vec()).into(),
        _ => seen.pass().into(),
    });
    let failures = || {
        let of_receipts = |e: &&Value| e["action"] == "receipt-received" && e["outcome"] == "failed";
        world.party("ada").events().iter().filter(of_receipts).count()
    };
    for round in 0..3 {
        // The first error's code, the other as a warning, and everything that is known.
        let ran = world.run("ada", &["outbox", "--json"]);
        assert!(ran.code == 4 && ran.err.contains("warning") && ran.err.contains("receipt for bundle"), "{ran}");
        let outcomes: Vec<Value> = ran.objects().iter().map(|o| o["recipients"][0]["outcome"].clone()).collect();
        assert_eq!(outcomes, [json!("verified"), Value::Null, Value::Null, json!("verified")], "{round}: {ran}");
        world.run("ada", &["outbox", &bad]).fails(4, "receipt for bundle");
        assert_eq!(failures(), 1, "round {round}");
    }
    // Other evidence is another record; and the honest receipt is taken as soon as it comes.
    world.hostile.behave();
    world
        .hostile
        .on("GET", BUNDLE, |seen| seen.pass().edit(|s| s["deliveries"][0]["receipt"]["sealed"] = json!("%%")).into());
    world.run("ada", &["outbox", &bad]).ends(4);
    assert_eq!(failures(), 2);
    world.hostile.behave();
    let ran = world.run("ada", &["outbox", "--json"]).ok();
    assert!(ran.objects().iter().all(|o| o["recipients"][0]["outcome"] == "verified"), "{ran}");
}
