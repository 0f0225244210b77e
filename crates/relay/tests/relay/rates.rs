//! Rates of requests: what is beyond them is refused with the time to wait, and touches nobody else.

use pouch_protocol::{ProblemKind, route};

use crate::harness::{Draft, Reply, World, sealed};

fn refused(reply: &Reply, by: &str) {
    assert_eq!(reply.problem(), ProblemKind::Rate, "{reply:?}");
    let wait: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(reply.header("ratelimit"), format!("\"{by}\";r=0;t={wait}"));
}

// attacks.md 46: one account's flood is refused, and does not cost others theirs.
#[tokio::test]
async fn attack_46_an_account_beyond_its_rate_waits() {
    let change = |config: &mut pouch_relay::Config| {
        (config.account_requests_per_second, config.account_requests_burst) = (1, 20);
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    let mut replies = Vec::new();
    for _ in 0..40 {
        replies.push(world.by(&bo, Draft::get(route::ACCOUNT)).await);
    }
    let (granted, over): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!((20..30).contains(&granted.len()), "{}", granted.len());
    over.iter().for_each(|reply| refused(reply, "account"));
    assert_eq!(over[0].header("ratelimit-policy"), "\"account\";q=20;w=20");
    // Told before it comes to that, but not to those who are far from it.
    assert!(!granted[0].headers.contains_key("ratelimit"));
    assert!(granted.iter().any(|reply| reply.headers.contains_key("ratelimit")));
    // Nothing of a refused request has an effect, and the others go on.
    let bundle = pouch_statement::BundleId::random().unwrap();
    let put = world.by(&bo, Draft::part(bundle, 0, &sealed(1, 1000))).await;
    refused(&put, "account");
    world.wait_for_blobs(0).await;
    assert_eq!(world.by(&ada, Draft::get(route::ACCOUNT)).await.status, 200);
    // Whoever waits as long as was said is let in.
    let wait: u64 = put.header("retry-after").parse().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    assert_eq!(world.by(&bo, Draft::get(route::ACCOUNT)).await.status, 200);
    world.stop().await;
}

// attacks.md 46: before any signature is looked at.
#[tokio::test]
async fn attack_46_an_address_beyond_its_rate_waits() {
    let change = |config: &mut pouch_relay::Config| {
        (config.address_requests_per_second, config.address_requests_burst) = (1, 10);
    };
    let mut world = World::with(change, None).await;
    let (mut sender, connection) = world.connect().await.unwrap();
    let mut last = None;
    for _ in 0..20 {
        last = Some(world.send_on(&mut sender, Draft::get(route::INBOX)).await.unwrap());
    }
    refused(&last.unwrap(), "address");
    // The connection is good for more, when there is more.
    assert!(!connection.is_finished());
    connection.abort();
    world.stop().await;
}
