//! The OpenAPI description: what it does not say is noticed, and what it says of signing is so.

use pouch_statement::BundleId;
use serde_json::Value;

use crate::harness::openapi::{DESCRIPTION, check};
use crate::harness::{Draft, World};

#[test]
fn what_is_not_described_is_noticed() {
    let schema = |name: &str| DESCRIPTION["components"]["schemas"][name].clone();
    let bundle = BundleId::from_bytes([7; 16]).to_string();
    let good = serde_json::json!({ "bundle": bundle, "expires": 1, "burn": true, "recipients": [bundle] });
    assert_eq!(check(&good, &schema("NewBundle"), ""), Ok(()));
    for (name, value) in [("bundle", "x".into()), ("expires", (-1).into()), ("burn", Value::Null), ("more", 1.into())] {
        let mut bad = good.clone();
        bad[name] = value;
        assert!(check(&bad, &schema("NewBundle"), "").is_err(), "{name}");
    }
    let mut short = good;
    short.as_object_mut().unwrap().remove("burn");
    assert!(check(&short, &schema("NewBundle"), "").is_err());
    let problem = serde_json::json!({ "type": "urn:pouch:problem:new", "title": "", "status": 400 });
    assert!(check(&problem, &schema("Problem"), "").unwrap_err().contains("enum"));
}

#[tokio::test]
async fn the_description_is_served_and_says_who_must_sign() {
    let mut world = World::new().await;
    let served = world.send(Draft::get(pouch_protocol::route::OPENAPI)).await;
    assert_eq!(served.json::<Value>(), *DESCRIPTION);
    let id = BundleId::random().unwrap().to_string();
    for (template, item) in DESCRIPTION["paths"].as_object().unwrap() {
        let path = template.replace("{bundle}", &id).replace("{link}", &id).replace("{mailbox}", &id);
        let path = path.replace("{part}", "0").replace("{key}", &"01".repeat(32));
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let described = item.get(method.to_lowercase());
            let reply = world.send(Draft::new(method, &path)).await;
            let public = described.is_some_and(|operation| operation["security"] == serde_json::json!([]));
            let expected: &[u16] = match (described, public) {
                (None, _) => &[405],
                (Some(_), false) => &[401],
                // Joining needs a message.
                (Some(_), true) => &[200, 400],
            };
            assert!(expected.contains(&reply.status), "{method} {path}: {reply:?}");
        }
    }
    world.stop().await;
}
