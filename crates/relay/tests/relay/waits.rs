//! `GET /v1/inbox?wait=`: who waits is told at once, and waiting costs nobody else anything.

use std::time::{Duration, Instant};

use pouch_protocol::{Inbox, ProblemKind, route};
use pouch_services::Postgres;

use crate::harness::{Draft, Person, Reply, World, sealed};

/// Far less than any wait of these tests.
const SOON: Duration = Duration::from_secs(10);

fn wait(seconds: u64) -> Draft {
    Draft::get(route::INBOX).query(&format!("wait={seconds}"))
}

fn bundles(reply: &Reply) -> Vec<pouch_statement::BundleId> {
    reply.json::<Inbox>().items.iter().map(|item| item.bundle).collect()
}

async fn waiting(world: &World, count: usize) {
    world.wait_for_metric(&format!("pouch_relay_waiting_requests {count}")).await;
}

#[tokio::test]
async fn a_delivery_ends_the_wait_of_its_recipient_and_of_nobody_else() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.member(&ada, "Cy").await);
    let begun = Instant::now();
    let delivering = async {
        waiting(&world, 3).await;
        let bundle = world.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await;
        waiting(&world, 1).await;
        (bundle, world.deliver(&ada, &[sealed(2, 100)], &[&cy], false).await)
    };
    let (first, second, others, (to_bo, to_cy)) =
        tokio::join!(world.by(&bo, wait(60)), world.by(&bo, wait(60)), world.by(&cy, wait(60)), delivering);
    assert_eq!((bundles(&first), bundles(&second), bundles(&others)), (vec![to_bo], vec![to_bo], vec![to_cy]));
    // What lies there is told at once.
    assert_eq!(bundles(&world.by(&bo, wait(60)).await), [to_bo]);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    waiting(&world, 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_its_time_and_is_neither_idle_nor_slow() {
    let change = |config: &mut pouch_relay::Config| {
        (config.header_seconds, config.progress_seconds, config.handshake_seconds) = (1, 1, 1);
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let (mut sender, connection) = world.connect().await.unwrap();
    let begun = Instant::now();
    let reply = world.send_on(&mut sender, wait(3).signed(&world, &ada)).await.unwrap();
    assert!(bundles(&reply).is_empty());
    let took = begun.elapsed();
    assert!((Duration::from_secs(3)..SOON).contains(&took), "{took:?}");
    // And the connection is good for more.
    let reply = world.send_on(&mut sender, wait(0).signed(&world, &ada)).await.unwrap();
    assert_eq!((reply.status, reply.headers.contains_key("connection")), (200, false));
    connection.abort();
    for query in ["wait=61", "wait=", "wait=-1", "wait=1&wait=1", "wait=1&", "after=0&wait=x", "hold=1"] {
        let reply = world.by(&ada, Draft::get(route::INBOX).query(query)).await;
        assert_eq!(reply.problem(), ProblemKind::BadRequest, "{query}");
    }
    assert!(bundles(&world.by(&ada, Draft::get(route::INBOX).query("wait=1&after=7")).await).is_empty());
    assert_eq!(world.send(wait(60)).await.problem(), ProblemKind::Signature);
    world.stop().await;
}

// attacks.md 46: neither one account nor all together hold more than they may.
#[tokio::test]
async fn attack_46_those_who_wait_are_bounded() {
    let change = |config: &mut pouch_relay::Config| {
        (config.waits, config.account_waits) = (3, 2);
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    let (bo, cy) = (world.member(&ada, "Bo").await, world.member(&ada, "Cy").await);
    let begun = Instant::now();
    let rest = async {
        waiting(&world, 2).await;
        assert!(bundles(&world.by(&bo, wait(60)).await).is_empty(), "beyond the account's");
        let beyond = async {
            waiting(&world, 3).await;
            assert!(bundles(&world.by(&ada, wait(60)).await).is_empty(), "beyond all");
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            world.deliver(&ada, &[sealed(1, 100)], &[&bo, &cy], false).await
        };
        let (reply, bundle) = tokio::join!(world.by(&cy, wait(60)), beyond);
        assert_eq!(bundles(&reply), [bundle]);
    };
    let (one, two, ()) = tokio::join!(world.by(&bo, wait(60)), world.by(&bo, wait(60)), rest);
    assert_eq!((bundles(&one).len(), bundles(&two).len()), (1, 1));
    // All places are given back, and with one of them another waits.
    waiting(&world, 0).await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let begun = Instant::now();
    world.by(&ada, wait(1)).await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    world.stop().await;
}

#[tokio::test]
async fn whoever_goes_away_waits_no_more() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let (mut sender, connection) = world.connect().await.unwrap();
    let asking = world.send_on(&mut sender, wait(60).signed(&world, &ada));
    tokio::select! {
        reply = asking => panic!("{reply:?}"),
        () = waiting(&world, 1) => {}
    }
    connection.abort();
    drop(sender);
    waiting(&world, 0).await;
    world.stop().await;
}

#[tokio::test]
async fn a_relay_that_stops_answers_those_who_wait() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let begun = Instant::now();
    let stopping = async {
        waiting(&world, 1).await;
        world.begin_stop();
    };
    let (reply, ()) = tokio::join!(world.by(&ada, wait(60)), stopping);
    assert!(bundles(&reply).is_empty());
    assert_eq!(reply.header("connection"), "close");
    world.stop().await;
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_delivery_through_another_node_ends_the_wait() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    postgres.create("waits");
    let mut here = World::over(postgres.url("waits"), |_| {}).await;
    let mut there = here.node().await;
    let ada = here.owner("Ada").await;
    let bo: Person = here.member(&ada, "Bo").await;
    let begun = Instant::now();
    let delivering = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        here.deliver(&ada, &[sealed(1, 100)], &[&bo], false).await
    };
    let (reply, bundle) = tokio::join!(there.by(&bo, wait(60)), delivering);
    assert_eq!(bundles(&reply), [bundle]);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    here.stop().await;
    there.stop().await;
}
