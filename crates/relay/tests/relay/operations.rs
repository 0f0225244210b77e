//! Health, readiness and metrics, and how the relay stops.

use std::time::Duration;

use pouch_protocol::{ProblemKind, route};
use pouch_relay::Clock as _;
use pouch_services::Postgres;
use sqlx::Connection as _;

use crate::harness::{Draft, Reply, World, sealed};

#[tokio::test]
async fn probes_and_metrics_are_answered_on_this_machine() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    assert_eq!(world.ask("GET", "/live").await, (200, "live\n".to_owned()));
    assert_eq!(world.ask("GET", "/ready").await, (200, "ready\n".to_owned()));
    assert_eq!(world.ask("GET", "/").await.0, 404);
    assert_eq!(world.ask("POST", "/ready").await.0, 405);
    let bundle = world.deliver(&ada, &[sealed(7, 100_000)], &[&ada], false).await;
    world.by(&ada, Draft::get(route::part(bundle, 0))).await;
    world.send(Draft::get(route::INBOX)).await;
    world.send(Draft::get("/v1/nothing/CANARY")).await;
    // Written by the access record's next group.
    world.by(&ada, Draft::get(route::ACCESS)).await;
    let value = async |name: &str| world.metric(name).await.expect(name);
    let part = "pouch_relay_requests_total{method=\"GET\",route=\"/v1/bundles/{bundle}/parts/{part}\",status=\"2xx\"}";
    assert_eq!(value(part).await, 1.0);
    assert_eq!(value("pouch_relay_requests_total{method=\"GET\",route=\"/v1/inbox\",status=\"4xx\"}").await, 1.0);
    assert_eq!(value("pouch_relay_requests_total{method=\"GET\",route=\"unknown\",status=\"4xx\"}").await, 1.0);
    assert_eq!(value("pouch_relay_request_seconds_count{route=\"/v1/bundles/{bundle}/parts/{part}\"}").await, 2.0);
    assert!(value("pouch_relay_received_bytes_total").await > 100_000.0);
    assert!(value("pouch_relay_sent_bytes_total").await > 100_000.0);
    assert!(value("pouch_relay_used_bytes").await > 100_000.0);
    assert!(value("pouch_relay_disk_free_bytes").await > 0.0);
    assert!(value("pouch_relay_ledger_commit_seconds_count").await >= 1.0);
    assert!(value("pouch_relay_swept_total{what=\"rounds\"}").await >= 1.0);
    assert_eq!(value("pouch_relay_ready").await, 1.0);
    world.stop().await;
}

// attacks.md 48, 59: no label is of a stranger's making, and none says who or what.
#[tokio::test]
async fn attack_48_labels_are_of_a_fixed_set() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let count = async || world.ask("GET", "/metrics").await.1.lines().count();
    for n in 0..3 {
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH", "BREW"] {
            world.send(Draft::new(method, format!("/v1/bundles/{bundle}/parts/{n}"))).await;
            world.send(Draft::new(method, format!("/nothing/{n}"))).await;
            world.by(&ada, Draft::new(method, format!("/v1/bundles/{bundle}"))).await;
        }
    }
    let before = count().await;
    for n in 0..300 {
        let method = ["GET", "PUT", "BREW"][n % 3];
        world.send(Draft::new(method, format!("/nothing/{n}")).field("x-forwarded-for", format!("192.0.2.{n}"))).await;
    }
    assert_eq!(count().await, before);
    let text = world.ask("GET", "/metrics").await.1;
    for secret in [bundle.to_string(), ada.mailbox.to_string(), "127.0.0.1".to_owned(), "BREW".to_owned()] {
        assert!(!text.contains(&secret), "{secret} is in\n{text}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_unix_socket_is_private_and_a_stale_one_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("operations");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let address = format!("unix:{}", path.display()).parse().unwrap();
    let mut world = World::with(|config| config.operations = Some(address), None).await;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    assert_eq!(world.ask("GET", "/ready").await, (200, "ready\n".to_owned()));
    // One that somebody serves is not taken, nor is what is no socket.
    for taken in [path.clone(), world.data().join("relay.toml")] {
        let address = format!("unix:{}", taken.display()).parse().unwrap();
        let other = World::try_with(|config| config.operations = Some(address)).await;
        let error = other.err().unwrap().to_string();
        assert!(error.contains("cannot listen for operations"), "{error}");
    }
    world.stop().await;
    assert!(!path.exists());
}

// Not ready first, while connections are still taken; then what runs is finished, and what comes is refused.
#[tokio::test]
async fn stopping_is_told_before_it_happens() {
    let change = |config: &mut pouch_relay::Config| {
        config.drain_seconds = 2;
    };
    let mut world = World::with(change, None).await;
    let ada = world.owner("Ada").await;
    assert!(!world.by(&ada, Draft::get(route::ACCOUNT)).await.headers.contains_key("connection"));
    world.begin_stop();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.ask("GET", "/ready").await, (503, "the relay is stopping\n".to_owned()));
    assert_eq!(world.ask("GET", "/live").await.0, 200);
    let late = world.by(&ada, Draft::get(route::ACCOUNT)).await;
    assert_eq!((late.status, late.header("connection")), (200, "close"));
    world.stop().await;
    assert!(tokio::net::TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn a_ledger_that_does_not_answer_is_not_ready() {
    let mut world = World::new().await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(world.data().join("ledger.sqlite"));
    let mut ledger = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    assert_eq!(world.ask("GET", "/ready").await.0, 200);
    sqlx::query("ALTER TABLE space RENAME TO elsewhere").execute(&mut ledger).await.unwrap();
    assert_eq!(world.ask("GET", "/ready").await, (503, "the ledger does not answer\n".to_owned()));
    assert_eq!(world.ask("GET", "/live").await.0, 200);
    let (_, text) = world.ask("GET", "/metrics").await;
    assert!(text.contains("\npouch_relay_ready 0\n") && !text.contains("used_bytes"), "{text}");
    sqlx::query("ALTER TABLE elsewhere RENAME TO space").execute(&mut ledger).await.unwrap();
    assert_eq!(world.ask("GET", "/ready").await.0, 200);
    ledger.close().await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn blobs_that_are_not_there_are_not_ready() {
    let mut world = World::new().await;
    assert_eq!(world.ask("GET", "/ready").await.0, 200);
    // A disk that is not there any more, or another one in its place.
    let (store, away) = (world.data().join("blobs/store"), world.data().join("away"));
    std::fs::rename(&store, &away).unwrap();
    let not_ours = (503, "the blobs are not this relay's\n".to_owned());
    assert_eq!(world.ask("GET", "/ready").await, not_ours);
    std::fs::write(&store, format!("{}\n", "0".repeat(32))).unwrap();
    assert_eq!(world.ask("GET", "/ready").await, not_ours);
    assert_eq!(world.metric("pouch_relay_ready").await, Some(0.0));
    std::fs::write(&store, "").unwrap();
    assert_eq!(world.ask("GET", "/ready").await, (503, "the blobs do not answer\n".to_owned()));
    std::fs::rename(&away, &store).unwrap();
    assert_eq!(world.ask("GET", "/ready").await.0, 200);
    world.stop().await;
}

// After a failover the name may still lead to what is a standby now: it reads, and takes nothing.
#[test]
fn a_standby_is_not_ready_and_takes_nothing() {
    let Some(mut postgres) = Postgres::start(&[]) else { return };
    postgres.create("standby");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut world = runtime.block_on(World::over(postgres.url("standby"), |_| {}));
    let ada = runtime.block_on(world.owner("Ada"));
    let ready = |status: u16, says: &str| {
        let mut answer = (0, String::new());
        for _ in 0..300 {
            answer = runtime.block_on(world.ask("GET", "/ready"));
            if answer == (status, format!("{says}\n")) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{answer:?} instead of {says}");
    };
    ready(200, "ready");
    postgres.stop();
    postgres.standby(true);
    postgres.serve();
    ready(503, "the ledger's database is a standby");
    runtime.block_on(async {
        assert_eq!(world.by(&ada, Draft::get(route::ACCOUNT)).await.status, 200);
        let bundle = pouch_statement::BundleId::random().unwrap();
        let new =
            pouch_protocol::NewBundle { bundle, expires: world.clock.now().plus(60), burn: false, recipients: vec![] };
        let refused = world.by(&ada, Draft::post(route::BUNDLES, &new)).await;
        assert_eq!((refused.status, refused.problem()), (503, ProblemKind::Unavailable));
    });
    postgres.stop();
    postgres.standby(false);
    postgres.serve();
    ready(200, "ready");
    runtime.block_on(async {
        world.begin(&ada, false).await;
        world.stop().await;
    });
}

// What one account asks for, however slow it is, leaves connections for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_account_does_not_have_the_whole_database() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    postgres.create("turns");
    let mut world = World::over(postgres.url("turns"), |config| config.ledger_connections = 8).await;
    let ada = world.owner("Ada").await;
    let bo = world.member(&ada, "Bo").await;
    // Every look at bundles takes eight seconds.
    let (locked, wait) = tokio::sync::oneshot::channel();
    let url = postgres.url("turns");
    let slow = tokio::spawn(async move {
        let mut conn = sqlx::PgConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("BEGIN; LOCK TABLE bundle IN ACCESS EXCLUSIVE MODE").execute(&mut conn).await.unwrap();
        locked.send(()).unwrap();
        tokio::time::sleep(Duration::from_secs(8)).await;
        sqlx::raw_sql("COMMIT").execute(&mut conn).await.unwrap();
    });
    wait.await.unwrap();
    let world_ref = &world;
    let many = (0..30).map(|_| world_ref.by(&ada, Draft::get(route::OUTBOX)));
    let honest = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world_ref.by(&bo, Draft::get(route::ACCOUNT)).await.status, 200);
        assert!(!slow.is_finished(), "only when all of the other's were over");
    };
    let (replies, ()) = tokio::join!(futures_util::future::join_all(many), honest);
    assert!(replies.iter().all(|reply| matches!(reply.status, 200 | 503)), "{replies:?}");
    slow.await.unwrap();
    world.stop().await;
}

/// A request that meets a clock that panics. What the relay does on its own asks for the time, too, and may meet it first.
async fn fails(world: &World, request: impl Fn() -> Draft) -> Reply {
    for _ in 0..20 {
        world.clock.panic_once();
        let reply = world.send(request()).await;
        if reply.status == 500 {
            return reply;
        }
    }
    panic!("the request never met the clock that panics");
}

// The name of the request is what its user tells and its operator looks for.
#[tokio::test]
async fn a_failure_has_a_name_that_the_answer_carries() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let good = Draft::get(route::ACCOUNT).signed(&world, &ada);
    let failed = fails(&world, || Draft::get(route::INFO)).await;
    assert_eq!(failed.problem(), ProblemKind::Internal);
    let good = world.send(good).await;
    assert!(good.status == 200 && good.request != failed.request, "{good:?}");
    // Also when what surrounds the handlers fails: this one reaches none, and the time is asked for at its end, for the record.
    let failed = fails(&world, || Draft::get(route::INFO).field("host", "elsewhere.example")).await;
    assert_eq!((failed.status, failed.problem()), (500, ProblemKind::Internal));
    assert_eq!(failed.header("cache-control"), "no-store");
    world.stop().await;
}

// The sweeper works in the one writer of the ledger: it is woken for what is to be deleted, not for each part.
#[tokio::test]
async fn an_upload_wakes_the_sweeper_only_for_what_it_leaves_to_delete() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let rounds = "pouch_relay_swept_total{what=\"rounds\"}";
    let wait_for = async |count: u64| world.wait_for_metric(&format!("{rounds} {count}")).await;
    wait_for(1).await;
    for number in 0..8 {
        world.by(&ada, Draft::part(bundle, number, &sealed(1, 1000))).await.is_done();
        world.by(&ada, Draft::part(bundle, number, &sealed(1, 1000))).await.is_done();
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.metric(rounds).await, Some(1.0));
    // One that is replaced, and one that is not what was announced.
    world.by(&ada, Draft::part(bundle, 0, &sealed(2, 1000))).await.is_done();
    wait_for(2).await;
    world.wait_for_blobs(8).await;
    let mut wrong = Draft::part(bundle, 9, &sealed(3, 1000));
    wrong.body = sealed(4, 1000);
    assert_eq!(world.by(&ada, wrong).await.problem(), ProblemKind::Digest);
    wait_for(3).await;
    world.wait_for_blobs(8).await;
    world.stop().await;
}
