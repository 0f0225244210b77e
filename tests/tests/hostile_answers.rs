//! attacks.md 9, 28, 32, 39, 54, 55: answers that are wrong, endless, elsewhere or by somebody else.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use pouch_tests::hostile::{Answer, NASTY, Reply, Trap, World, tls_1_2_of, tls_of, tls_of_a_stranger};
use pouch_tests::text;
use serde_json::{Value, json};

/// No command may need more than this, in KiB, whatever the relay sends it.
const MEMORY: u64 = 200 << 10;
/// Characters of a bundle's id that make a receive ask what waits: with the whole id it does not.
const PREFIX: usize = 20;
/// What an endless answer writes at most before the test has failed.
const ENOUGH: u64 = 64 << 20;

fn endless(status: &str, fields: &str, piece: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n");
    Reply::Endless(head.into_bytes(), piece.to_vec(), ENOUGH)
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn item(bundle: &str, sender: &str) -> Value {
    json!({
        "bundle": bundle, "sender": sender, "state": "waiting", "committed": 1_800_000_000, "expires": 1_900_000_000,
        "size": 4096, "parts": 1, "revision": 1,
    })
}

fn id(number: u64) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    pouch_statement::BundleId::from_bytes(bytes).to_string()
}

#[test]
fn attack_54_endless_bodies_are_cut_off() {
    let world = World::of_two();
    let bundle = &world.send(&world.file("a.txt", "hello")).to_string()[..PREFIX];
    let routes = [
        ("GET", "/v1/inbox"),
        ("POST", "/v1/inbox/*/release"),
        ("GET", "/v1/bundles/*/index"),
        ("GET", "/v1/bundles/*/parts/*"),
    ];
    for (method, path) in routes {
        for chunked in [true, false] {
            world.hostile.behave();
            let before = world.hostile.streamed();
            world.hostile.on(method, path, move |_| match chunked {
                true => endless(
                    "200 OK",
                    "content-type: application/octet-stream\r\ntransfer-encoding: chunked",
                    &chunk(&[b' '; 32 << 10]),
                ),
                false => endless("200 OK", "connection: close", &[b'{'; 32 << 10]),
            });
            let (ran, fresh) = world.receive(bundle);
            let ran = ran.ends(4);
            fresh.is_untouched();
            assert!(ran.peak < MEMORY, "{path}: {} KiB", ran.peak);
            if path != "/v1/inbox" {
                assert_eq!(world.last_event("bo", "received")["outcome"], "failed", "{path}");
            }
            assert!(world.hostile.streamed() - before < ENOUGH / 2, "{path}: {}", world.hostile.streamed() - before);
        }
    }
    world.hostile.behave();
    let (ran, fresh) = world.receive(bundle);
    ran.ok();
    assert_eq!(fresh.read("a.txt"), b"hello");
}

#[test]
fn attack_54_an_announced_length_is_not_believed() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.txt", "hello"));
    for length in
        ["99999999999999", "18446744073709551615", "18446744073709551616", "-1", "5, 6", "5\r\ncontent-length: 6"]
    {
        world.hostile.behave();
        world.hostile.on("POST", "/v1/inbox/*/release", move |_| {
            Reply::Raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nshort").into_bytes())
        });
        let (ran, fresh) = world.receive(&bundle.to_string());
        assert!(ran.peak < MEMORY, "{length}: {} KiB", ran.peak);
        assert!(matches!(ran.code, 4 | 7), "{length}: {ran}");
        fresh.is_untouched();
    }
}

#[test]
fn attack_54_a_billion_inbox_entries_are_capped() {
    let world = World::of_two();
    let sender = id(7);
    world.hostile.behave();
    world.hostile.on("GET", "/v1/inbox", move |seen| {
        let after: u64 = seen.query.as_deref().map_or(0, |q| q.strip_prefix("after=").unwrap().parse().unwrap());
        let items: Vec<_> = (after..after + 500).map(|n| item(&id(n), &sender)).collect();
        Answer::json(&json!({ "items": items, "next": after + 500 })).into()
    });
    let ran = world.run("bo", &["inbox", "-q"]);
    assert!(ran.peak < MEMORY, "{} KiB", ran.peak);
    let (lines, pages) = (ran.text().lines().count(), world.hostile.seen().len());
    assert!(lines == 10_000 && pages <= 20, "{lines} lines, {pages} pages");
    // That there is more is said, to people and to scripts; of a whole listing it is not.
    let cut = "the relay lists more than these; only the oldest 10,000 are shown";
    ran.ok().says(cut);
    let last = world.run("bo", &["inbox", "--json"]).ok().says(cut).objects().pop().unwrap();
    assert_eq!((&last["type"], &last["shown"]), (&"cut".into(), &10_000.into()));
    world.hostile.behave();
    let ran = world.run("bo", &["inbox", "--json"]).ok();
    assert!(!ran.err.contains("more than these") && ran.objects().iter().all(|o| o["type"] != "cut"), "{ran}");
    world.hostile.on("GET", "/v1/access", move |seen| {
        let before: u64 = seen.query.as_deref().map_or(1 << 40, |q| q.strip_prefix("after=").unwrap().parse().unwrap());
        let record = |seq: u64| {
            json!({
                "seq": seq, "time": 1_800_000_000, "account": null, "address": "", "method": "GET", "route": "/v1",
                "bundle": null, "status": 200, "problem": null, "count": 1,
            })
        };
        let records: Vec<_> = (1..=500).map(|n| record(before - n)).collect();
        Answer::json(&json!({ "records": records, "next": before - 500 })).into()
    });
    let ran = world.run("ada", &["log", "show", "--relay", "--json"]).ok().says("only the newest 10,000 are shown");
    assert_eq!(ran.objects().len(), 10_001);
    // More rows in one page than a page has; a page that leads to itself; and to the one before.
    world.hostile.behave();
    let sender = id(7);
    world.hostile.on("GET", "/v1/inbox", move |_| {
        let items: Vec<_> = (0..5000).map(|n| item(&id(n), &sender)).collect();
        Answer::json(&json!({ "items": items, "next": null })).into()
    });
    world.run("bo", &["inbox", "-q"]).ends(4).says("5000 rows");
    world.hostile.behave();
    world.hostile.on("GET", "/v1/inbox", |seen| {
        let next = if seen.query.as_deref() == Some("after=1") { 2 } else { 1 };
        Answer::json(&json!({ "items": [], "next": next })).into()
    });
    world.run("bo", &["inbox"]);
    assert!(world.hostile.seen().len() <= 20);
}

#[test]
fn what_the_relay_would_not_keep_so_long_is_refused_before_it_is_read() {
    let world = World::of_two();
    let file = world.file("a.txt", "hello");
    for (limit, shown) in [(864_000u64, "10d"), (5400, "90m"), (61, "61s")] {
        world.hostile.behave();
        world.hostile.on("GET", "/v1", move |seen| seen.pass().edit(|info| info["max_lifetime"] = json!(limit)).into());
        let ran = world.run("ada", &["send", text(&file), "--to", "bo", "--until", "11d"]);
        let ran = ran.fails(2, &format!("the relay keeps a bundle for {shown} at most"));
        assert!(ran.err.contains(&format!("--until {shown}")), "{ran}");
        assert!(world.hostile.seen().iter().all(|seen| !seen.starts_with("P")), "{:?}", world.hostile.seen());
        assert_eq!(world.last_event("ada", "sent")["outcome"], "failed");
        // As long as it is kept is not too long.
        world.run("ada", &["send", text(&file), "--to", "bo", "--until", shown]).ok();
    }
    world.run("ada", &["outbox", "-q"]).ok();
}

#[test]
fn attack_54_redirects_are_not_followed() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.txt", "hello"));
    let (plain, tls) = (Trap::set(), Trap::set());
    let targets = [
        format!("http://{}/v1/inbox", plain.authority()),
        format!("https://{}/v1/inbox", tls.authority()),
        "/v1/outbox".into(),
    ];
    for status in [301, 302, 303, 307, 308] {
        for target in &targets {
            world.hostile.behave();
            let to = target.clone();
            let answer = move || Answer::new(status, "text/html", "").with_field("location", &to);
            let other = answer.clone();
            world.hostile.on("GET", "/v1/inbox", move |_| answer().into());
            world.hostile.on("POST", "/v1/inbox/*/release", move |_| other().into());
            world.run("bo", &["inbox"]).ends(4).says(&format!("status {status}"));
            assert_eq!(world.hostile.seen(), ["GET /v1/inbox"]);
        }
    }
    let to = format!("http://{}/", plain.authority());
    world.hostile.behave();
    world.hostile.on("POST", "/v1/inbox/*/release", move |_| {
        Answer::new(307, "text/html", "").with_field("location", &to).into()
    });
    let (ran, fresh) = world.receive(&bundle.to_string());
    ran.fails(4, "");
    fresh.is_untouched();
    assert_eq!((plain.visits(), tls.visits()), (0, 0));
}

#[test]
fn attack_28_54_messages_that_are_not_of_the_protocol_are_refused() {
    let world = World::of_two();
    let good = item(&id(1), &id(2));
    let with = |name: &str, value: Value| {
        let mut item = item(&id(1), &id(2));
        item[name] = value;
        json!({ "items": [item], "next": null }).to_string()
    };
    let bodies = [
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "{\"items\":[]".into(),
        "\u{feff}{\"items\":[],\"next\":null}".into(),
        "{\"items\":[],\"next\":null} {}".into(),
        "{\"items\":[],\"next\":null,\"next\":1}".into(),
        "{\"items\":[],\"next\":-1}".into(),
        "{\"items\":[],\"next\":1e400}".into(),
        "[".repeat(200_000),
        "{\"items\":".repeat(100_000),
        json!({ "items": [good], "next": "1" }).to_string(),
        // 39: ids are decoded from one fixed length and alphabet, so none can be a path.
        with("bundle", json!("../../../../etc/passwd")),
        with("bundle", json!("%2e%2e%2f%2e%2e%2f")),
        with("bundle", json!("0".repeat(27))),
        with("bundle", json!(format!("{}\u{0}", "0".repeat(25)))),
        with("bundle", json!("0".repeat(25) + "1")),
        with("bundle", json!("O".repeat(26))),
        with("sender", json!("x".repeat(1 << 20))),
        with("size", json!(-1)),
        with("size", json!(1.5)),
        with("parts", json!(u64::from(u32::MAX) + 1)),
        with("expires", json!(u64::MAX)),
        with("state", json!(NASTY)),
    ];
    for body in bodies {
        let shown: String = body.chars().take(80).collect();
        world.hostile.behave();
        world.hostile.on("GET", "/v1/inbox", move |_| Answer::new(200, "application/json", body.clone()).into());
        let ran = world.run("bo", &["inbox"]);
        assert_eq!(ran.code, 4, "{shown}: {}", ran.err);
        assert!(ran.peak < MEMORY, "{shown}: {} KiB", ran.peak);
        assert!(ran.out.is_empty(), "{shown}: {}", ran.text());
    }
    // What a newer relay adds is passed over (docs/protocol.md, "Unknown members"), however large; not where cards are.
    let bundle = world.send(&world.file("a.txt", "hello")).to_string();
    for more in [NASTY.to_owned(), "x".repeat(1 << 20)] {
        world.hostile.behave();
        world.hostile.on("GET", "/v1/inbox", move |seen| {
            seen.pass()
                .edit(|page| page[&more] = json!([1, { "a": more }]))
                .edit(|p| p["items"][0]["more"] = json!(1))
                .into()
        });
        let ran = world.run("bo", &["inbox", "-q"]).ok();
        assert_eq!(ran.word(), bundle);
        assert!(ran.peak < MEMORY, "{} KiB", ran.peak);
    }
    world.hostile.behave();
    world.run("bo", &["inbox"]).ok();
}

#[test]
fn attack_54_http_that_is_odd_or_broken_ends_in_an_error_or_in_the_truth() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.txt", "hello"));
    let raw: [(&str, &str); 12] = [
        ("no content", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("reset content", "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n"),
        ("partial", "HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\n\r\n{}"),
        ("unchanged", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("teapot", "HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n"),
        ("cut", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"),
        ("cut chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nshort"),
        ("bad chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nshort\r\n"),
        ("huge chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nshort\r\n"),
        ("only noise", "HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"),
        ("no http", "SSH-2.0-hello\r\n\r\n"),
        ("switch", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
    ];
    for (what, bytes) in raw {
        world.hostile.behave();
        world.hostile.on("POST", "/v1/inbox/*/release", move |_| Reply::Raw(bytes.as_bytes().to_vec()));
        let (ran, fresh) = world.receive(&bundle.to_string());
        assert!(matches!(ran.code, 4 | 7), "{what}: {:?} {}", ran.code, ran.err);
        fresh.is_untouched();
    }
    // Without end: header fields, and interim answers; memory stays what it was.
    for head in ["HTTP/1.1 200 OK\r\nx: 1", "HTTP/1.1 200 OK\r\n"] {
        world.hostile.behave();
        world.hostile.on("POST", "/v1/inbox/*/release", move |_| {
            Reply::Endless(head.as_bytes().to_vec(), b"x-field: 0123456789abcdef\r\n".repeat(1000), ENOUGH)
        });
        let (ran, fresh) = world.receive(&bundle.to_string());
        assert!(matches!(ran.code, 4 | 7), "{head}: {:?} {}", ran.code, ran.err);
        assert!(ran.peak < MEMORY, "{} KiB", ran.peak);
        fresh.is_untouched();
    }
    // Noise before the true answer, a foreign content type, and status 201 do no harm.
    world.hostile.behave();
    world.hostile.on("GET", "/v1/inbox", |seen| {
        let body = seen.pass().body;
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20);
        let head = format!(
            "HTTP/1.1 201 Created\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(&body);
        Reply::Raw(bytes)
    });
    let (ran, fresh) = world.receive(&bundle.to_string());
    ran.ok();
    assert_eq!(fresh.read("a.txt"), b"hello");
}

#[test]
fn attack_54_a_problem_that_calls_itself_success_is_no_object() {
    let world = World::of_two();
    let bundle = &world.send(&world.file("a.txt", "hello")).to_string()[..PREFIX];
    for (method, path) in [
        ("GET", "/v1/inbox"),
        ("POST", "/v1/inbox/*/release"),
        ("GET", "/v1/bundles/*/index"),
        ("GET", "/v1/bundles/*/parts/*"),
    ] {
        world.hostile.behave();
        world.hostile.on(method, path, |_| Answer { status: 200, ..Answer::problem(200, "not-found", "x") }.into());
        let (ran, fresh) = world.receive(bundle);
        ran.fails(4, "");
        fresh.is_untouched();
    }
}

#[test]
fn attack_9_what_the_relay_says_is_never_printed_raw() {
    let world = World::of_two();
    let bundle = &world.send(&world.file("a.txt", "hello")).to_string()[..PREFIX];
    for (status, word) in [
        (400, "bad-request"),
        (403, "forbidden"),
        (404, "not-found"),
        (410, "gone"),
        (507, "quota"),
        (500, "internal"),
        (499, NASTY),
    ] {
        for (method, path) in [("GET", "/v1/inbox"), ("POST", "/v1/inbox/*/release"), ("GET", "/v1/bundles/*/parts/*")]
        {
            for json in [false, true] {
                world.hostile.behave();
                world.hostile.on(method, path, move |_| Answer::problem(status, word, &NASTY.repeat(100)).into());
                let fresh = world.fresh();
                let mut words = vec!["receive", bundle, "-o", fresh.path.to_str().unwrap()];
                words.extend(json.then_some("--json"));
                // What is printed is looked through by `run` itself.
                let ran = world.run("bo", &words);
                assert!(ran.code > 0, "{status} {word}: {:?}", ran.code);
                // No line of it is one that the relay made up.
                let own = ["pouch: ", "  ", "from ada", "the relay does not answer", "{\"code\":"];
                let ours = |line: &str| own.iter().any(|own| line.starts_with(own));
                assert!(ran.err.lines().all(ours), "{}", ran.err);
                fresh.is_untouched();
            }
        }
    }
    // The access record is the relay's text throughout.
    world.hostile.behave();
    world.hostile.on("GET", "/v1/access", |_| {
        let record = json!({
            "seq": 1, "time": 1_800_000_000, "account": null, "address": NASTY, "method": NASTY, "route": NASTY,
            "bundle": null, "status": 200, "problem": NASTY, "count": 2,
        });
        Answer::json(&json!({ "records": [record], "next": null })).into()
    });
    let shown = world.run("ada", &["log", "show", "--relay"]).ok();
    assert_eq!(shown.text().lines().count(), 1, "{}", shown.text());
    let shown = world.run("ada", &["log", "show", "--relay", "--json"]).ok();
    assert_eq!(shown.objects()[0]["address"], NASTY, "escaped, and still the same text");
    // Header fields and the status line, too.
    world.hostile.behave();
    world.hostile.on("GET", "/v1/inbox", |_| {
        Reply::Raw(format!("HTTP/1.1 200 {NASTY}\r\ncontent-type: \u{1b}[31m{NASTY}\r\n\r\n").into_bytes())
    });
    assert!(world.run("bo", &["inbox"]).code > 0);
}

#[test]
fn attack_9_names_of_accounts_and_senders_cannot_be_forged_into_text() {
    let world = World::of_two();
    world
        .hostile
        .on("GET", "/v1/accounts", |seen| seen.pass().edit(|v| v["accounts"][1]["name"] = json!(NASTY)).into());
    world.run("ada", &["relay", "accounts"]).fails(4, "");
    // An unknown sender's mailbox is not shown as anybody.
    world
        .hostile
        .on("GET", "/v1/inbox", |_| Answer::json(&json!({ "items": [item(&id(1), &id(9))], "next": null })).into());
    world.run("bo", &["inbox"]).ok().says("somebody unknown");
}

#[test]
fn attack_32_a_clock_that_is_off_is_named_with_direction_and_distance() {
    let world = World::of_two();
    let now = pouch_client::clock::now().unix();
    for (time, text) in [(now + 3600, "behind"), (now - 3600, "ahead of"), (0, "ahead of"), (u64::MAX, "behind")] {
        world.hostile.behave();
        world.hostile.on("GET", "/v1/inbox", move |_| {
            let problem = json!({ "type": "urn:pouch:problem:clock", "title": "clock", "status": 401, "time": time });
            Answer::new(401, "application/problem+json", problem.to_string()).into()
        });
        let ran = world.run("bo", &["inbox"]).ends(5).says(text);
        if time.abs_diff(now) == 3600 {
            // The command runs a little later than this test began.
            assert!(ran.err.contains(" 359") || ran.err.contains(" 360"), "{}", ran.err);
        }
    }
}

#[test]
fn attack_55_another_key_is_refused_before_anything_is_asked() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.txt", "hello")).to_string();
    world.hostile.behave();
    world.hostile.set_tls(tls_of_a_stranger());
    for words in [&["inbox"][..], &["receive", &bundle]] {
        world.run("bo", words).ends(4).says("certificate");
    }
    world.run("ada", &["send", "a.txt", "--to", "bo"]).ends(4).says("certificate");
    let ran = world.join("somebody", &world.owner_link).ends(4).says("certificate");
    assert!(!ran.err.contains(world.owner_link.split('#').nth(1).unwrap()));
    assert!(world.hostile.seen().is_empty(), "{:?}", world.hostile.seen());
    // The key that the relay announced as its next one is right.
    let (certificate, key) = world.keys();
    let next = key.with_file_name("next.key");
    let pair = rcgen::KeyPair::from_pem(&std::fs::read_to_string(&next).unwrap()).unwrap();
    let made = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&pair).unwrap();
    let path = certificate.with_file_name("next.crt");
    std::fs::write(&path, made.pem()).unwrap();
    world.hostile.set_tls(tls_of(&path, &next));
    world.run("bo", &["inbox"]).ok();
}

#[test]
fn attack_55_tls_1_2_and_no_tls_are_refused() {
    let world = World::of_two();
    let (certificate, key) = world.keys();
    world.hostile.behave();
    world.hostile.set_tls(tls_1_2_of(&certificate, &key));
    let ran = world.run("bo", &["inbox"]);
    assert!(matches!(ran.code, 4 | 7), "{:?} {}", ran.code, ran.err);
    assert!(world.hostile.seen().is_empty());
    world.hostile.set_tls(tls_of(&certificate, &key));
    world.run("bo", &["inbox"]).ok();
}

#[test]
fn attack_54_a_relay_that_says_nothing_is_left() {
    let world = World::of_two();
    let bundle = world.send(&world.file("a.txt", "hello")).to_string();
    world.hostile.on("POST", "/v1/inbox/*/release", |_| Reply::Close);
    let (ran, fresh) = world.receive(&bundle);
    ran.fails(7, "");
    fresh.is_untouched();
    // Parts are asked for again, and a late answer is as good as one in time.
    world.hostile.behave();
    let tries = std::sync::atomic::AtomicU32::new(0);
    world.hostile.on("GET", "/v1/bundles/*/parts/*", move |seen| {
        match tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Reply::Close,
            1 => Answer::problem(503, "unavailable", "later").into(),
            _ => {
                std::thread::sleep(Duration::from_millis(300));
                seen.pass().into()
            }
        }
    });
    let (ran, fresh) = world.receive(&bundle);
    ran.ok();
    assert_eq!(fresh.read("a.txt"), b"hello");
}
