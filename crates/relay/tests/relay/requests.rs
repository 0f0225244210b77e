//! Requests that are not what they should be: signatures, replays, paths, hosts, methods, and whose it is.

use pouch_protocol::{AccountRole, NewBundle, Outbox, ProblemKind, route};
use pouch_relay::Clock as _;
use pouch_statement::{BundleId, LinkId, Outcome};

use crate::harness::cast::{commit_for, receipt};
use crate::harness::{Draft, Person, World, sealed};

/// Every route that names a bundle, for a bundle id as text.
fn verbs(id: &str, mailbox: &Person, part: &bytes::Bytes) -> Vec<Draft> {
    let any = BundleId::from_bytes([0; 16]);
    let at = |path: String| path.replace(&any.to_string(), id);
    let commit = commit_for(std::slice::from_ref(part), b"", &[mailbox]);
    let mut put_part = Draft::part(any, 0, part);
    put_part.path = at(put_part.path);
    vec![
        Draft::get(at(route::bundle(any))),
        Draft::new("DELETE", at(route::bundle(any))),
        put_part,
        Draft::get(at(route::part(any, 0))),
        Draft::put(at(route::index(any)), sealed(b'i', 99)),
        Draft::get(at(route::index(any))),
        Draft::put(at(route::envelope(any, mailbox.mailbox)), sealed(b'e', 99)),
        Draft::post(at(route::commit(any)), &commit),
        Draft::get(at(route::delivery(any))),
        Draft::new("POST", at(route::release(any))),
        Draft::post(at(route::receipt(any)), &receipt(Outcome::Verified, b'r', 200)),
    ]
}

// attacks.md 40: what is not yours, what is not there, and what cannot be are one answer, byte for byte.
#[tokio::test]
async fn attack_40_not_yours_is_not_there_for_every_verb() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, eve) = (world.member(&ada, "Bo").await, world.member(&ada, "Eve").await);
    let part = sealed(1, 500);
    let committed = world.deliver(&ada, std::slice::from_ref(&part), &[&bo], false).await;
    let pending = world.begin(&ada, false).await;
    world.fill(&ada, pending, std::slice::from_ref(&part), &[&bo]).await;
    let gone = world.deliver(&ada, std::slice::from_ref(&part), &[&bo], false).await;
    world.by(&ada, Draft::new("DELETE", route::bundle(gone))).await.is_done();

    let nothing = BundleId::random().unwrap();
    let ids = [committed, pending, gone].map(|id| id.to_string());
    for (n, reference) in verbs(&nothing.to_string(), &bo, &part).into_iter().enumerate() {
        let expected = world.by(&eve, reference).await;
        assert_eq!(expected.problem(), ProblemKind::NotFound);
        for id in &ids {
            let draft = verbs(id, &bo, &part).remove(n);
            let shown = format!("{} {}", draft.method, draft.path);
            let mut reply = world.by(&eve, draft).await;
            reply.headers.insert("date", expected.headers["date"].clone());
            assert_eq!(reply, expected, "{shown}");
        }
        // The recipient is not the sender, and the other way round.
        let (draft, method) = (verbs(&ids[0], &bo, &part).remove(n), verbs(&ids[0], &bo, &part).remove(n).method);
        let fetches = draft.path.contains("/parts/") || draft.path.ends_with("/index");
        if !(draft.path.contains("/inbox/") || method == "GET" && fetches) {
            assert_eq!(world.by(&bo, draft).await.body, expected.body);
        } else if draft.path.contains("/inbox/") {
            assert_eq!(world.by(&ada, draft).await.body, expected.body);
        }
    }
    assert!(world.by(&eve, Draft::get(route::OUTBOX)).await.json::<Outbox>().bundles.is_empty());
    // It is all still there for those it is for.
    assert_eq!(world.by(&bo, Draft::get(route::part(committed, 0))).await.body, part);
    assert_eq!(world.by(&ada, Draft::get(route::part(committed, 0))).await.body, part);
    world.stop().await;
}

// attacks.md 39: ids are decoded, of fixed length, and never a path.
#[tokio::test]
async fn attack_39_malformed_ids_are_not_found() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.deliver(&ada, &[sealed(1, 50)], &[&ada], false).await.to_string();
    let encoded = format!("%{:02x}{}", bundle.as_bytes()[0], &bundle[1..]);
    let long = "0".repeat(9000);
    let bad = [
        "..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e",
        "%00",
        ".",
        "%ff",
        "0",
        &long,
        &encoded,
        &bundle.to_uppercase(),
        "%2e%2e%5c",
    ];
    let part = sealed(1, 50);
    let expected = world.by(&ada, Draft::get(route::bundle(BundleId::random().unwrap()))).await;
    for id in bad {
        for draft in verbs(id, &ada, &part) {
            let shown = format!("{} {}", draft.method, draft.path);
            assert_eq!(world.by(&ada, draft).await.body, expected.body, "{shown}");
        }
        let draft = Draft::new("DELETE", route::link(LinkId::random().unwrap())).clone();
        let draft = Draft { path: format!("/v1/links/{id}"), ..draft };
        assert_eq!(world.by(&ada, draft).await.body, expected.body);
    }
    for number in ["-1", "+0", "00", "65536", "0x0", "%30", ""] {
        let draft = Draft::get(format!("/v1/bundles/{bundle}/parts/{number}"));
        assert_eq!(world.by(&ada, draft).await.body, expected.body, "{number}");
    }
    world.stop().await;
}

// attacks.md 42: missing, moved, doubled, or covering less.
#[tokio::test]
async fn attack_42_signatures_that_are_not_whole() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let new = NewBundle {
        bundle: BundleId::random().unwrap(),
        expires: world.clock.now().plus(999),
        burn: false,
        recipients: vec![],
    };
    let good = Draft::post(route::BUNDLES, &new).signed(&world, &ada);
    let without = |name: &str| {
        let mut draft = good.clone();
        draft.fields.retain(|(n, _)| *n != name);
        draft
    };
    let mut doubled = good.clone();
    let input = doubled.fields.iter().find(|(n, _)| *n == "signature-input").unwrap().clone();
    doubled.fields.push(input.clone());
    let stranger = Draft::post(route::BUNDLES, &new).signed(&world, &Person::new("Eve"));
    let uncovered = Draft { covered: pouch_protocol::Covered::Nothing, ..Draft::post(route::BUNDLES, &new) };
    let drafts = [
        without("signature"),
        without("signature-input"),
        without("content-digest"),
        doubled,
        stranger,
        uncovered.signed(&world, &ada),
        good.clone().field("signature", "pouch=:AAAA:"),
        good.clone().field("signature-input", input.1.replace("\"@query\"", "")),
    ];
    for draft in drafts {
        assert_eq!(world.send(draft.clone()).await.problem(), ProblemKind::Signature, "{draft:?}");
    }
    // None of them did anything.
    assert!(world.by(&ada, Draft::get(route::OUTBOX)).await.json::<Outbox>().bundles.is_empty());
    // A body that is not what its digest says.
    let swapped = Draft { body: good.body.to_ascii_uppercase().into(), ..good.clone() };
    assert_eq!(world.send(swapped).await.problem(), ProblemKind::Digest);
    world.send(good).await.is_done();
    world.stop().await;
}

// attacks.md 43: to another host, method, path, query or body; or again.
#[tokio::test]
async fn attack_43_replays_and_redirected_requests() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let part = sealed(1, 700);
    let bundle = world.begin(&ada, false).await;
    let put = Draft::part(bundle, 0, &part).signed(&world, &ada);
    world.send(put.clone()).await.is_done();
    let files = world.blob_files();
    // A PUT again: no effect, also later when another part stands there under another name.
    world.send(put.clone()).await.is_done();
    assert_eq!(world.blob_files(), files);
    let moved = [
        Draft { path: route::part(bundle, 1), ..put.clone() },
        Draft { path: route::part(world.begin(&ada, false).await, 0), ..put.clone() },
        Draft { method: "GET", body: bytes::Bytes::new(), ..put.clone() },
        put.clone().query("a=1"),
    ];
    for draft in moved {
        assert_eq!(world.send(draft.clone()).await.problem(), ProblemKind::Signature, "{draft:?}");
    }
    let elsewhere = Draft::get(route::ACCOUNT).signed_at("evil.example", &ada, [1; 16], world.clock.now());
    assert_eq!(world.send(elsewhere).await.problem(), ProblemKind::Signature);

    let delete = Draft::new("DELETE", route::bundle(bundle)).signed(&world, &ada);
    world.send(delete.clone()).await.is_done();
    assert_eq!(world.send(delete.clone()).await.problem(), ProblemKind::Replay);
    // Across a restart as well, and a refused request is not accepted later either.
    let refused = Draft::new("POST", route::release(bundle)).signed(&world, &ada);
    assert_eq!(world.send(refused.clone()).await.problem(), ProblemKind::NotFound);
    world.restart().await;
    assert_eq!(world.send(delete.clone()).await.problem(), ProblemKind::Replay);
    assert_eq!(world.send(refused).await.problem(), ProblemKind::Replay);
    // Once its nonce may be forgotten it is too old; the relay says what time it has.
    world.clock.forward(301);
    let late = world.send(delete).await;
    assert_eq!(late.problem(), ProblemKind::Clock);
    let told: pouch_protocol::Problem = serde_json::from_slice(&late.body).unwrap();
    assert!(told.time.is_some());
    world.stop().await;
}

// attacks.md 51: SQL in names, ids and queries; a hostile Host.
#[tokio::test]
async fn attack_51_sql_and_hosts_are_inert() {
    let mut world = World::new().await;
    let ada = world.owner("Robert'-- DROP TABLE account' x").await;
    let account: pouch_protocol::Account = world.by(&ada, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!((account.name.as_str(), account.role), (ada.name, AccountRole::Owner));
    for path in ["/v1/bundles/'%20OR%201=1--", "/v1/inbox/';DROP%20TABLE%20bundle;--"] {
        assert_eq!(world.by(&ada, Draft::get(path)).await.problem(), ProblemKind::NotFound);
    }
    for query in
        ["after=1;DROP", "after='", "after=-1", "after=", "before=1", "after=1&after=2", "after=99999999999999999999"]
    {
        let reply = world.by(&ada, Draft::get(route::OUTBOX).query(query)).await;
        assert_eq!(reply.problem(), ProblemKind::BadRequest, "{query}");
    }
    for host in ["evil.example", "127.0.0.1", "127.0.0.1:1", "' OR 1=1", "127.0.0.1:65536@evil.example"] {
        let reply = world.send(Draft::get(route::INFO).field("host", host)).await;
        assert_eq!(reply.problem(), ProblemKind::BadRequest, "{host}");
    }
    world.stop().await;
}

#[tokio::test]
async fn methods_and_paths_that_are_not() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    for (method, path) in [
        ("POST", route::INFO),
        ("PUT", route::INBOX),
        ("HEAD", route::ACCOUNT),
        ("PATCH", route::BUNDLES),
        ("OPTIONS", route::INFO),
    ] {
        let reply = world.by(&ada, Draft::new(method, path)).await;
        assert_eq!(reply.status, 405, "{method} {path}");
    }
    for path in ["/", "/v1/", "/v2", "/v1/bundles/", "//v1", "/v1/account/", "/favicon.ico"] {
        assert_eq!(world.send(Draft::get(path)).await.problem(), ProblemKind::NotFound, "{path}");
    }
    world.stop().await;
}

// attacks.md 53: what a browser may get to see.
#[tokio::test]
async fn attack_53_nothing_runs_in_a_browser() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.deliver(&ada, &[sealed(1, 50)], &[&ada], false).await;
    let page = world.send(Draft::get(route::LINK_PAGE)).await;
    let text = std::str::from_utf8(&page.body).unwrap();
    assert!(page.header("content-type").starts_with("text/html") && text.contains("pouch join"));
    assert!(!text.contains("<script") && !text.contains("http"));
    let object = world.by(&ada, Draft::get(route::part(bundle, 0))).await;
    assert_eq!(object.header("content-disposition"), "attachment");
    assert_eq!(object.header("content-type"), "application/octet-stream");
    let refused = world.send(Draft::get("/x")).await;
    let listing = world.by(&ada, Draft::get(route::OUTBOX)).await;
    for reply in [page, object, refused, listing] {
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cache-control"), "no-store");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"));
    }
    world.stop().await;
}

// An answer that is given before the body was read arrives, and the connection goes on.
#[tokio::test]
async fn one_connection_carries_refusals_panics_and_more() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let part = sealed(1, 8 << 20);
    let (mut sender, task) = world.connect().await.unwrap();
    let unsigned = world.send_on(&mut sender, Draft::part(bundle, 0, &part)).await.unwrap();
    assert_eq!(unsigned.problem(), ProblemKind::Signature);
    for _ in 0..2 {
        let put = Draft::part(bundle, 0, &part).signed(&world, &ada);
        world.send_on(&mut sender, put).await.unwrap().is_done();
    }
    let draft = Draft::get(route::ACCOUNT).signed(&world, &ada);
    world.clock.panic_once();
    let panicked = world.send_on(&mut sender, draft.clone()).await.unwrap();
    assert_eq!(panicked.problem(), ProblemKind::Internal);
    assert_eq!(world.send_on(&mut sender, draft).await.unwrap().status, 200);
    task.abort();
    world.stop().await;
}
