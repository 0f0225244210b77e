//! A relay process that is killed (SIGKILL) at its n-th call to the disk, whatever it is doing then: what it acknowledged is
//! there after the next start, nothing is half there, and the folder holds what the ledger says.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use pouch_protocol::{ProblemKind, route};
use pouch_relay::{Config, DiskOp, Relay, Seams};
use pouch_statement::BundleId;
use rustix::process::{Signal, getpid, kill_process};

use crate::harness::cast::commit_for;
use crate::harness::{Draft, Person, TestClock, World, sealed};

/// Kills in an ordinary run; `POUCH_KILLS` sets another number.
const KILLS: u64 = 40;
/// States of the work in which kills must come: so many parts acknowledged, committed, deleted.
const POINTS: usize = 5;
/// Calls of a start and of the search for orphans that it begins, and about as many as the work makes that comes then.
const START: u64 = 540;
const WORK: u64 = 90;
const FOLDER: &str = "POUCH_TEST_KILLED_RELAY";
/// `start N` or `work N`: dies at the n-th call of it.
const CALL: &str = "POUCH_TEST_KILLED_AT";
/// How far the tests' clock is ahead, in seconds.
const AHEAD: &str = "POUCH_TEST_KILLED_AHEAD";
/// After which another sweeper deletes what a killed one had claimed, in seconds.
const CLAIM: u64 = 150;

/// Not a test: the relay that is killed, when a test below runs this program again.
#[test]
fn the_relay_that_is_killed() {
    let (Ok(folder), Ok(call)) = (std::env::var(FOLDER), std::env::var(CALL)) else { return };
    let (when, call) = call.split_once(' ').unwrap();
    let call = call.parse::<u64>().unwrap();
    // Counted down from here on, or once it serves.
    let left = Arc::new(AtomicU64::new(if when == "start" { call } else { u64::MAX / 2 }));
    let counter = Arc::clone(&left);
    // What searches for orphans meanwhile is no work.
    let searches = when == "start";
    let hook: pouch_relay::DiskHook = Arc::new(move |op, _| {
        if op == DiskOp::List && !searches {
            return Ok(());
        }
        if counter.fetch_sub(1, Ordering::SeqCst) == 0 {
            kill_process(getpid(), Signal::KILL).unwrap();
            // It takes effect at once, but not before the next instruction.
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(())
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config::load(&std::path::Path::new(&folder).join("relay.toml")).unwrap();
        let clock = Arc::new(TestClock::default());
        clock.forward(std::env::var(AHEAD).unwrap().parse().unwrap());
        let relay = Relay::open_with(config, Seams { disk: Some(hook), clock }).await.unwrap();
        let listener = relay.bind().await.unwrap();
        if when == "work" {
            left.store(call, Ordering::SeqCst);
        }
        println!("\nready");
        relay.serve(listener, std::future::pending()).await.unwrap();
    });
}

/// The process; killed at the latest when dropped.
struct Killed(Child);

impl Killed {
    /// Starts it; `false` if it died on the way.
    fn start(world: &World, when: &str, call: u64) -> (Self, bool) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kills::the_relay_that_is_killed", "--nocapture"]);
        command
            .env(FOLDER, world.data())
            .env(CALL, format!("{when} {call}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command.env(AHEAD, world.clock.ahead().to_string());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == "ready");
        (Self(child), ready)
    }
}

impl Killed {
    /// Waits, a bounded time, until it died by itself.
    fn dies(mut self) {
        for _ in 0..3000 {
            if self.0.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it lives");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What was acknowledged of one bundle.
#[derive(Default)]
struct Acknowledged {
    parts: Vec<usize>,
    committed: bool,
    deleted: bool,
}

/// Sends what is not acknowledged yet, commits, looks and deletes, until the relay is gone.
async fn work(world: &World, ada: &Person, bundle: BundleId, parts: &[Bytes], told: &mut Acknowledged) {
    let send = async |draft: Draft| {
        let draft = draft.signed(world, ada);
        let (mut sender, connection) = world.connect_or_not().await?;
        let reply = tokio::time::timeout(Duration::from_secs(20), world.send_on(&mut sender, draft)).await;
        connection.abort();
        let reply = reply.expect("an answer or an end").ok()?;
        assert!(reply.status == 204, "{reply:?}");
        Some(())
    };
    // Two at once.
    for pair in (0..parts.len()).collect::<Vec<_>>().chunks(2) {
        let puts = pair.iter().map(|n| send(Draft::part(bundle, *n as u32, &parts[*n])));
        let answers = futures_util::future::join_all(puts).await;
        told.parts.extend(pair.iter().zip(&answers).filter(|(_, answer)| answer.is_some()).map(|(n, _)| *n));
        if answers.iter().any(Option::is_none) {
            return;
        }
    }
    let index = sealed(b'i', 4096);
    let envelope = Draft::put(route::envelope(bundle, ada.mailbox), sealed(b'e', 4096));
    let commit = Draft::post(route::commit(bundle), &commit_for(parts, &index, &[ada]));
    for draft in [Draft::put(route::index(bundle), index), envelope, commit] {
        if send(draft).await.is_none() {
            return;
        }
    }
    told.committed = true;
    told.deleted = send(Draft::new("DELETE", route::bundle(bundle))).await.is_some();
}

/// On the next start: what was acknowledged, all or nothing of the rest, and no file too many or too few.
async fn look(world: &mut World, ada: &Person, bundle: BundleId, parts: &[Bytes], told: &Acknowledged, seed: u64) {
    world.clock.forward(CLAIM);
    world.start().await;
    let mut there = 0;
    for (number, part) in parts.iter().enumerate() {
        let reply = world.by(ada, Draft::get(route::part(bundle, number as u32))).await;
        if reply.status == 200 {
            assert!(reply.body == *part, "seed {seed}: part {number}");
            there += 1;
        } else {
            let ended = reply.problem() == ProblemKind::Gone;
            assert!(ended && told.committed || reply.problem() == ProblemKind::NotFound, "seed {seed}: {reply:?}");
            assert!(!told.parts.contains(&number) || ended, "seed {seed}: part {number} was acknowledged");
            assert!(!told.deleted || ended, "seed {seed}");
        }
    }
    let index = world.by(ada, Draft::get(route::index(bundle))).await;
    there += usize::from(index.status == 200);
    assert!(!told.deleted || there == 0, "seed {seed}: deleted, and there again");
    if told.committed && !told.deleted {
        assert!(there == 0 || there == parts.len() + 1, "seed {seed}: {there} objects of a committed bundle");
    }
    world.wait_for_blobs(there).await;
    if there > 0 || !told.committed {
        world.by(ada, Draft::new("DELETE", route::bundle(bundle))).await.is_done();
    }
    world.wait_for_blobs(0).await;
    world.wait_for_room(ada, 0).await;
    world.stop().await;
}

// attacks.md 50: killed at any call to the disk, also of the start that collects what an earlier one left.
#[test]
fn attack_50_killed_at_every_call_to_the_disk() {
    let kills = std::env::var("POUCH_KILLS").ok().map_or(KILLS, |n| n.parse().unwrap());
    let fresh = u64::from_le_bytes(pouch_statement::random().unwrap());
    // Past the capture: whoever finds a failure needs it. The others are the same each time.
    drop(std::io::Write::write_all(&mut std::io::stderr(), format!("kills: fresh seed {fresh}\n").as_bytes()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new().await;
        let ada = world.owner("Ada").await;
        let parts: Vec<_> = [100, 5000, 130_000, 140_000, 400_000, 1000].map(|n| sealed(n as u8, n)).to_vec();
        let mut points = std::collections::BTreeSet::new();
        // Where they come depends on the machine, too: at least at so many points, if it takes more of them.
        let mut round = 0;
        while round < kills || (kills >= KILLS && points.len() < POINTS && round < 4 * kills) {
            let seed = if round + 1 == kills { fresh } else { round };
            round += 1;
            let random = blake3::hash(&seed.to_le_bytes());
            let below = |n: usize, limit: u64| {
                (u64::from(random.as_bytes()[n]) << 8 | u64::from(random.as_bytes()[n + 1])) % limit
            };
            let bundle = world.begin(&ada, false).await;
            world.stop().await;
            let mut told = Acknowledged::default();
            let (relay, ready) = Killed::start(&world, "work", below(0, WORK));
            assert!(ready, "seed {seed}");
            work(&world, &ada, bundle, &parts, &mut told).await;
            drop(relay);
            points.insert((told.parts.len(), told.committed, told.deleted));
            if round % 4 == 0 {
                // The start that collects is killed, too.
                Killed::start(&world, "start", below(2, START)).0.dies();
            }
            look(&mut world, &ada, bundle, &parts, &told, seed).await;
            world.start().await;
        }
        assert!(kills < KILLS || points.len() >= POINTS, "the kills came at too few points: {points:?}");
        world.stop().await;
    });
}
