//! The relay is killed (SIGKILL) anywhere in an upload: what it acknowledged is there and intact, nothing half is visible,
//! the upload can go on, and a new send works (attacks.md 50, the half of it that a kill can show).
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pouch_client::api::RelayApi;
use pouch_protocol::{Commit, NewBundle, PartField, ProblemKind, parts_digest};
use pouch_statement::{Blake3Digest, BundleId, MailboxId, Sha256Digest, Timestamp};
use pouch_tests::{LIMIT, Pair, Postgres, Random, files_beneath, kills, noise, seeds, text, until};
use tokio::task::JoinSet;

/// Uploads that are killed in an ordinary run; `POUCH_KILLS` sets another number.
const KILLS: u64 = 50;
const PARTS: u32 = 12;
/// Beginning, parts, index, envelope, commit.
const STEPS: usize = PARTS as usize + 4;

/// A bundle as a relay sees one: objects that begin like age files.
struct Objects {
    bundle: BundleId,
    /// The same each time that it is begun, as a client has it.
    expires: Timestamp,
    to: MailboxId,
    parts: Vec<Bytes>,
    index: Bytes,
    envelope: Bytes,
}

fn sealed(name: &str, length: usize) -> Bytes {
    [b"age-encryption.org/v1\n".to_vec(), noise(name, length)].concat().into()
}

impl Objects {
    fn new(seed: u64, random: &mut Random, to: MailboxId) -> Self {
        let mut sized = |what: &str| sealed(&format!("{seed} {what}"), 200 + random.below(300_000) as usize);
        let parts = (0..PARTS).map(|n| sized(&format!("part {n}"))).collect();
        let (index, envelope) = (sized("index"), sealed(&format!("{seed} envelope"), 5000));
        let (bundle, expires) = (BundleId::random().unwrap(), pouch_client::clock::now().plus(3600));
        Self { bundle, expires, to, parts, index, envelope }
    }

    fn field(&self, number: u32) -> PartField {
        let part = &self.parts[number as usize];
        let blake3 = Blake3Digest::from_bytes(*blake3::hash(part).as_bytes());
        PartField { number, length: part.len() as u64, blake3 }
    }

    fn commit(&self) -> Commit {
        let fields: Vec<PartField> = (0..PARTS).map(|n| self.field(n)).collect();
        Commit {
            parts: PARTS,
            parts_sha256: parts_digest(fields.iter().map(|f| (f.length, &f.blake3))),
            index_sha256: Sha256Digest::of(&self.index),
            recipients: vec![self.to],
        }
    }
}

/// What the relay answered with success, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Begun,
    Part(u32),
    Index,
    Envelope,
    Committed,
}

type Acknowledged = Arc<Mutex<Vec<Step>>>;

/// Uploads what is not acknowledged yet, three parts at once, until the relay is gone.
async fn upload(api: Arc<RelayApi>, objects: Arc<Objects>, done: Acknowledged) -> Result<(), String> {
    let bundle = objects.bundle;
    let missing = |step: Step| !done.lock().unwrap().contains(&step);
    let say = |step: Step| done.lock().unwrap().push(step);
    let text = |e: pouch_client::api::ApiError| e.to_string();
    if missing(Step::Begun) {
        api.new_bundle(&NewBundle { bundle, expires: objects.expires, burn: false, recipients: vec![] })
            .await
            .map_err(text)?;
        say(Step::Begun);
    }
    let mut under_way = JoinSet::new();
    for number in (0..PARTS).filter(|n| missing(Step::Part(*n))) {
        if under_way.len() == 3 {
            say(Step::Part(under_way.join_next().await.unwrap().unwrap()?));
        }
        let (api, objects) = (Arc::clone(&api), Arc::clone(&objects));
        under_way.spawn(async move {
            let part = objects.parts[number as usize].clone();
            api.put_part(bundle, objects.field(number), part).await.map_err(text).map(|()| number)
        });
    }
    while let Some(stored) = under_way.join_next().await {
        say(Step::Part(stored.unwrap()?));
    }
    if missing(Step::Index) {
        api.put_index(bundle, objects.index.clone()).await.map_err(text)?;
        say(Step::Index);
    }
    if missing(Step::Envelope) {
        api.put_envelope(bundle, objects.to, objects.envelope.clone()).await.map_err(text)?;
        say(Step::Envelope);
    }
    if missing(Step::Committed) {
        api.commit(bundle, &objects.commit()).await.map_err(text)?;
        say(Step::Committed);
    }
    Ok(())
}

struct Round<'a> {
    pair: &'a mut Pair,
    runtime: &'a tokio::runtime::Runtime,
    seed: u64,
}

impl Round<'_> {
    fn ada(&self) -> Arc<RelayApi> {
        Arc::new(self.pair.ada.client().0.api().unwrap())
    }

    fn bo(&self) -> RelayApi {
        self.pair.bo.client().0.api().unwrap()
    }

    /// Kills at a point that the seed chooses; gives where that was.
    fn play(&mut self) -> usize {
        let mut random = Random(self.seed);
        let to = self.pair.bo.client().0.card().card().mailbox;
        let objects = Arc::new(Objects::new(self.seed, &mut random, to));
        let (steps, delay) = (random.below(STEPS as u64 + 1) as usize, random.below(4000));
        let done = Acknowledged::default();
        let uploading = self.runtime.spawn(upload(self.ada(), Arc::clone(&objects), Arc::clone(&done)));
        let begun = Instant::now();
        while done.lock().unwrap().len() < steps && !uploading.is_finished() {
            assert!(begun.elapsed() < Duration::from_secs(60), "seed {}: the upload stands still", self.seed);
            std::thread::sleep(Duration::from_micros(100));
        }
        std::thread::sleep(Duration::from_micros(delay));
        self.pair.relay.kill();
        let ended = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), uploading).await });
        let ended = ended.unwrap().unwrap();
        let acknowledged = done.lock().unwrap().clone();
        assert_eq!(ended.is_ok(), acknowledged.contains(&Step::Committed), "seed {}: {ended:?}", self.seed);
        self.pair.relay.serve();
        let committed = self.runtime.block_on(self.look(&objects, &acknowledged));
        // It goes on from there, unless the commit took effect and only its answer was lost.
        if !committed {
            self.runtime.block_on(upload(self.ada(), Arc::clone(&objects), done)).unwrap();
            assert!(self.runtime.block_on(self.look(&objects, &[Step::Committed])), "seed {}", self.seed);
        }
        self.runtime.block_on(self.ada().delete_bundle(objects.bundle)).unwrap();
        acknowledged.len()
    }

    /// After the restart: what was acknowledged, and either all of the bundle for Bo or nothing.
    async fn look(&self, objects: &Objects, acknowledged: &[Step]) -> bool {
        let (ada, bo, seed, bundle) = (self.ada(), self.bo(), self.seed, objects.bundle);
        let committed = bo.inbox(None).await.unwrap().rows.iter().any(|item| item.bundle == bundle);
        assert!(committed || !acknowledged.contains(&Step::Committed), "seed {seed}: an acknowledged commit is lost");
        for step in acknowledged {
            match step {
                Step::Begun => drop(ada.bundle(bundle).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"))),
                Step::Part(number) => {
                    let part = ada.get_part(bundle, *number, 1 << 20).await;
                    let part = part.unwrap_or_else(|e| panic!("seed {seed}: part {number} was acknowledged: {e}"));
                    assert!(part == objects.parts[*number as usize], "seed {seed}: part {number} changed");
                }
                Step::Index => {
                    let index = ada.get_index(bundle, 1 << 20).await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    assert!(index == objects.index, "seed {seed}: the index changed");
                }
                Step::Envelope | Step::Committed => {}
            }
        }
        if committed {
            for (number, part) in (0..).zip(&objects.parts) {
                assert!(bo.get_part(bundle, number, 1 << 20).await.unwrap() == part, "seed {seed}: part {number}");
            }
            assert!(bo.get_index(bundle, 1 << 20).await.unwrap() == objects.index, "seed {seed}");
            assert!(bo.release(bundle).await.unwrap() == objects.envelope, "seed {seed}");
        } else {
            for refused in
                [bo.get_part(bundle, 0, 1 << 20).await, bo.get_index(bundle, 1 << 20).await, bo.release(bundle).await]
            {
                assert_eq!(refused.unwrap_err().refused(), Some(ProblemKind::NotFound), "seed {seed}");
            }
        }
        committed
    }
}

fn killed_anywhere(mut pair: Pair, kills: u64) {
    let seeds = seeds("durability", kills);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut where_to: BTreeMap<usize, u32> = BTreeMap::new();
    for (round, seed) in (0..).zip(seeds) {
        let steps = Round { pair: &mut pair, runtime: &runtime, seed }.play();
        *where_to.entry(steps).or_default() += 1;
        if round % 10 == 9 {
            let file = pair.ada.file("new", noise(&format!("new {round}"), 100_000));
            let into = pair.bo.receive(&pair.ada.send(&[text(&file), "--to", "bo"]));
            assert_eq!(std::fs::read(into.join("new")).unwrap(), std::fs::read(&file).unwrap());
        }
    }
    assert!(kills < KILLS || where_to.len() > STEPS / 2, "the kills came at too few points: {where_to:?}");
    // What no row names any more is gone from the disk, too; and ledger and blobs agree.
    until("the last start has searched for orphans", LIMIT, || {
        let log = pair.relay.log();
        let last = log.rsplit_once(" serving ").map(|(_, last)| last.to_owned());
        last.filter(|said| said.contains("no row names"))
    });
    pair.relay.stop().ok();
    let left = files_beneath(&pair.relay.data().join("staging"));
    assert!(left.is_empty(), "{left:?}");
    let checked = pair.relay.check(&["--deep"]).ok().object("check");
    assert!(checked["objects"].as_u64() >= Some(kills / 10) && checked["found"] == 0, "{checked}");
}

#[test]
fn attack_50_killed_anywhere_in_an_upload() {
    killed_anywhere(Pair::new(), kills(KILLS));
}

#[test]
fn attack_50_killed_anywhere_in_an_upload_over_postgres() {
    let Some(postgres) = Postgres::start(&[]) else { return };
    killed_anywhere(Pair::over(&postgres, "pouch"), kills(KILLS / 2));
}
