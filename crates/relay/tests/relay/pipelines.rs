//! Pipelines over the wire: what they may ask for, and what nobody but they may.

use pouch_protocol::{Account, AccountRole, NewPipeline, Pipelines, ProblemKind, route};
use pouch_relay::Clock as _;
use pouch_statement::{BundleId, Device, Sha256Digest, Signed};

use crate::harness::openapi::DESCRIPTION;
use crate::harness::{Draft, Person, World, sealed};

const DAY: u64 = 86_400;

fn wanted(world: &World, pipeline: &Person, to: &[&Person], days: u64) -> NewPipeline {
    let card = world.card(pipeline);
    let device =
        Device { identity: card.fingerprint(), device_key: pipeline.device.public(), created: world.clock.now() };
    NewPipeline {
        card: card.detached(),
        device: Signed::sign(device, &pipeline.identity).unwrap().detached(),
        recipients: to.iter().map(|person| person.mailbox).collect(),
        expires: world.clock.now().plus(days * DAY),
    }
}

#[tokio::test]
async fn a_pipeline_sends_and_does_nothing_else() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let nightly = Person::new("Nightly");
    let make = |days| Draft::post(route::PIPELINES, &wanted(&world, &nightly, &[&bo], days));
    assert_eq!(world.by(&ada, make(91)).await.problem(), ProblemKind::BadRequest);
    assert_eq!(world.by(&ada, make(0)).await.problem(), ProblemKind::BadRequest);
    world.by(&ada, make(90)).await.is_done();
    let mine: Pipelines = world.by(&ada, Draft::get(route::PIPELINES)).await.json();
    assert_eq!(mine.pipelines.iter().map(|one| one.recipients.clone()).collect::<Vec<_>>(), [[bo.mailbox]]);
    let account: Account = world.by(&nightly, Draft::get(route::ACCOUNT)).await.json();
    assert_eq!(account.role, AccountRole::Pipeline);
    let bundle = world.deliver(&nightly, &[sealed(1, 100)], &[&bo], false).await;
    assert_eq!(world.by(&nightly, Draft::get(route::bundle(bundle))).await.status, 200);
    assert_eq!(world.by(&nightly, Draft::get(route::OUTBOX)).await.status, 200);
    // Every other route there is: whatever its body, and whether what it names is there.
    let granted = [
        "GET /v1",
        "GET /v1/openapi.json",
        "GET /j",
        "POST /v1/join",
        "GET /v1/account",
        "GET /v1/journal",
        "PUT /v1/journal",
        "POST /v1/bundles",
        "GET /v1/bundles/{bundle}",
        "DELETE /v1/bundles/{bundle}",
        "PUT /v1/bundles/{bundle}/parts/{part}",
        "GET /v1/bundles/{bundle}/parts/{part}",
        "PUT /v1/bundles/{bundle}/index",
        "PUT /v1/bundles/{bundle}/envelopes/{mailbox}",
        "POST /v1/bundles/{bundle}/commit",
        "GET /v1/outbox",
    ];
    let id = BundleId::random().unwrap().to_string();
    let mut others = 0;
    for (template, item) in DESCRIPTION["paths"].as_object().unwrap() {
        let path = template.replace("{bundle}", &bundle.to_string()).replace("{link}", &id).replace("{part}", "0");
        let path = path.replace("{mailbox}", &bo.mailbox.to_string()).replace("{key}", &"01".repeat(32));
        for method in ["get", "put", "post", "delete"].into_iter().filter(|method| item.get(*method).is_some()) {
            let method = method.to_uppercase();
            if granted.contains(&format!("{method} {template}").as_str()) {
                continue;
            }
            others += 1;
            let method = ["GET", "PUT", "POST", "DELETE"].into_iter().find(|known| *known == method).unwrap();
            let takes = item[method.to_lowercase()].get("requestBody").is_some();
            let draft = match (takes, method) {
                (true, "POST") => Draft::post(path.as_str(), &serde_json::json!({})),
                (true, _) => Draft::put(path.as_str(), sealed(1, 10)),
                (false, _) => Draft::new(method, path.as_str()),
            };
            let reply = world.by(&nightly, draft).await;
            // Enrolling is refused before it is known whose key it is.
            let expected = if template == route::DEVICES && method == "POST" { 400 } else { 403 };
            assert_eq!(reply.status, expected, "{method} {template}: {reply:?}");
        }
    }
    assert_eq!(others, DESCRIPTION["paths"].as_object().unwrap().values().map(methods).sum::<usize>() - granted.len());
    world.stop().await;
}

fn methods(item: &serde_json::Value) -> usize {
    ["get", "put", "post", "delete"].into_iter().filter(|method| item.get(method).is_some()).count()
}

#[tokio::test]
async fn a_pipeline_that_is_over_is_told_so() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let (nightly, weekly) = (Person::new("Nightly"), Person::new("Weekly"));
    world.by(&ada, Draft::post(route::PIPELINES, &wanted(&world, &nightly, &[&bo], 1))).await.is_done();
    world.by(&ada, Draft::post(route::PIPELINES, &wanted(&world, &weekly, &[&bo], 7))).await.is_done();
    let revoke = |by: &Person| Draft::new("DELETE", route::pipeline(by.mailbox));
    assert_eq!(world.by(&bo, revoke(&weekly)).await.problem(), ProblemKind::NotFound);
    assert_eq!(world.by(&weekly, revoke(&weekly)).await.problem(), ProblemKind::Forbidden);
    world.by(&ada, revoke(&weekly)).await.is_done();
    let over = world.by(&weekly, Draft::get(route::ACCOUNT)).await;
    assert_eq!((over.status, over.problem()), (410, ProblemKind::PipelineOver));
    assert_eq!(world.by(&nightly, Draft::get(route::ACCOUNT)).await.status, 200);
    world.clock.forward(DAY);
    assert_eq!(world.by(&nightly, Draft::get(route::ACCOUNT)).await.problem(), ProblemKind::PipelineOver);
    // Its own identity enrols no other key for it.
    let enrol = pouch_protocol::NewDevice {
        mailbox: nightly.mailbox,
        device: wanted(&world, &nightly, &[&bo], 1).device,
        replaces: None,
    };
    assert_eq!(world.by(&nightly, Draft::post(route::DEVICES, &enrol)).await.problem(), ProblemKind::Forbidden);
    world.stop().await;
}

#[tokio::test]
async fn a_journal_has_a_tag_and_follows_it() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let put =
        |field: &'static str, value: &str, fill: u8| Draft::put(route::JOURNAL, sealed(fill, 500)).field(field, value);
    assert_eq!(world.by(&ada, Draft::get(route::JOURNAL)).await.problem(), ProblemKind::NotFound);
    let bare = world.by(&ada, Draft::put(route::JOURNAL, sealed(1, 500))).await;
    assert_eq!(bare.problem(), ProblemKind::BadRequest);
    world.by(&ada, put("if-none-match", "*", 1)).await.is_done();
    let got = world.by(&ada, Draft::get(route::JOURNAL)).await;
    assert_eq!((got.status, &got.body[..]), (200, &sealed(1, 500)[..]));
    let tag = format!("\"{}\"", Sha256Digest::of(&sealed(1, 500)));
    assert_eq!(got.headers["etag"], tag.as_str());
    assert_eq!(world.by(&ada, put("if-none-match", "*", 2)).await.problem(), ProblemKind::Conflict);
    for bad in ["*", "W/\"x\"", "x", "\"x\"", ""] {
        assert_eq!(world.by(&ada, put("if-match", bad, 2)).await.problem(), ProblemKind::BadRequest, "{bad}");
    }
    world.by(&ada, put("if-match", &tag, 2)).await.is_done();
    assert_eq!(world.by(&ada, put("if-match", &tag, 3)).await.problem(), ProblemKind::Conflict);
    let plain = Draft::put(route::JOURNAL, bytes::Bytes::from_static(b"plain text")).field("if-match", &tag);
    assert_eq!(world.by(&ada, plain).await.problem(), ProblemKind::BadRequest);
    world.restart().await;
    assert_eq!(world.by(&ada, Draft::get(route::JOURNAL)).await.body, sealed(2, 500));
    world.stop().await;
}
