//! A sender that dies at a request of its own, and all ciphertext that left it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pouch_tests::hostile::{Reply, Seen, World};
use pouch_tests::{LIMIT, Ran, Random, file_key, files_beneath, noise, snapshot, until};
use rustix::process::{Pid, Signal, kill_process};

pub const PART: usize = 8 << 20;
/// Limits, begin, three parts, index, envelope, commit; and what asks how it stands when it goes on.
pub const STEPS: u64 = 10;
/// Enough of an age file for one recipient to tell its file key.
pub const HEAD: usize = 400;

pub const REQUESTS: [(&str, &str); 7] = [
    ("GET", "/v1"),
    ("GET", "/v1/bundles/*"),
    ("POST", "/v1/bundles"),
    ("PUT", "/v1/bundles/*/parts/*"),
    ("PUT", "/v1/bundles/*/index"),
    ("PUT", "/v1/bundles/*/envelopes/*"),
    ("POST", "/v1/bundles/*/commit"),
];

/// All ciphertext that left: by bundle, beginnings of parts and indexes by their digest, and envelopes.
#[derive(Default)]
pub struct Left {
    pub sealed: BTreeMap<String, BTreeMap<[u8; 32], Vec<u8>>>,
    pub envelopes: BTreeMap<String, Vec<Vec<u8>>>,
    /// Numbers of the parts that were put, in order.
    pub parts: Vec<u32>,
}

impl Left {
    pub fn note(&mut self, seen: &Seen) {
        if seen.method != "PUT" {
            return;
        }
        let (bundle, what) = (seen.component(2).to_owned(), seen.component(3));
        if what == "envelopes" {
            return self.envelopes.entry(bundle).or_default().push(seen.body.clone());
        }
        if what == "parts" {
            self.parts.push(seen.component(4).parse().unwrap());
        }
        let digest = *blake3::hash(&seen.body).as_bytes();
        self.sealed.entry(bundle).or_default().insert(digest, seen.body[..HEAD].to_vec());
    }

    /// No file key was used twice. Of a bundle that nobody got an envelope for, its key is its own at least.
    pub fn check(&self, bo: &pouch_core::age::Identity) -> usize {
        let mut keys = BTreeSet::new();
        let mut count = 0;
        for (bundle, envelopes) in &self.envelopes {
            let mut plain = Vec::new();
            pouch_core::age::open_part(bo, &envelopes[0], &mut plain).unwrap();
            let text = String::from_utf8_lossy(&plain);
            let at = text.find("AGE-SECRET-KEY-1").unwrap();
            for sealed in self.sealed[bundle].values() {
                count += 1;
                keys.insert(file_key(&text[at..at + 74], sealed));
            }
        }
        assert_eq!(keys.len(), count);
        count
    }
}

/// A world in which a sender dies when it says a certain word.
pub struct Deadly {
    pub world: World,
    pub left: Arc<Mutex<Left>>,
    pub victim: Arc<AtomicU32>,
    pub death: Arc<Mutex<Option<Death>>>,
    /// What she is given on standard input.
    pub input: Vec<u8>,
}

/// When it dies, and how.
pub struct Death {
    /// Whether it is this request.
    pub now: Box<dyn FnMut(&Seen) -> bool + Send>,
    /// Whether the relay hears of the request, and the sender of the answer; and how long after that it dies.
    pub heard: bool,
    pub answered: bool,
    pub delay: Duration,
}

impl Death {
    pub fn at(now: impl FnMut(&Seen) -> bool + Send + 'static) -> Self {
        Self { now: Box::new(now), heard: false, answered: false, delay: Duration::ZERO }
    }
}

impl Deadly {
    pub fn new() -> Self {
        let world = World::of_two();
        let deadly = Self { world, left: Arc::default(), victim: Arc::default(), death: Arc::default(), input: vec![] };
        deadly.watch();
        deadly
    }

    /// Notes what leaves, and kills when it is time.
    pub fn watch(&self) {
        for (method, path) in REQUESTS {
            let (left, victim, death) = (self.left.clone(), self.victim.clone(), self.death.clone());
            self.world.hostile.on(method, path, move |seen| {
                left.lock().unwrap().note(seen);
                let mut armed = death.lock().unwrap();
                let Some(Death { heard, answered, delay, .. }) = armed.take_if(|death| (death.now)(seen)) else {
                    drop(armed);
                    return seen.pass().into();
                };
                drop(armed);
                let answer = if heard { Some(seen.pass()) } else { None };
                let id =
                    until("the sender is known", LIMIT, || Some(victim.load(Ordering::SeqCst)).filter(|id| *id > 0));
                let kill = move || {
                    std::thread::sleep(delay);
                    let _ = kill_process(Pid::from_raw(id.cast_signed()).unwrap(), Signal::KILL);
                };
                match answer.filter(|_| answered) {
                    Some(answer) => {
                        std::thread::spawn(kill);
                        answer.into()
                    }
                    None => {
                        kill();
                        Reply::Close
                    }
                }
            });
        }
    }

    /// Ada's command, which dies if it gets that far.
    pub fn killed(&self, words: &[&str], death: Death) -> Ran {
        self.victim.store(0, Ordering::SeqCst);
        *self.death.lock().unwrap() = Some(death);
        let running = self.world.pouch("ada", words).input(self.input.clone()).start();
        self.victim.store(running.id(), Ordering::SeqCst);
        let ran = running.end();
        *self.death.lock().unwrap() = None;
        assert!(ran.code == -9 || ran.code == 0, "{ran}");
        ran
    }

    /// Killed in whatever way chance has it.
    pub fn killed_somewhere(&self, words: &[&str], random: &mut Random) -> Ran {
        let mut left = random.below(STEPS);
        let at = Death::at(move |_| {
            left = left.wrapping_sub(1);
            left == u64::MAX
        });
        let (heard, answered) = (random.below(3) > 0, random.below(2) > 0);
        self.killed(words, Death { heard, answered, delay: Duration::from_micros(random.below(5000)), ..at })
    }

    /// Killed when so many parts are acknowledged, and no other one has come to the relay; gives those.
    pub fn killed_after_parts(&self, words: &[&str], parts: usize) -> Vec<u32> {
        self.parts();
        let (mut come, folder) = (0, self.world.party("ada").home().join("transfers"));
        let ran = self.killed(
            words,
            Death::at(move |seen| {
                let is_part = seen.method == "PUT" && seen.component(3) == "parts";
                come += usize::from(is_part);
                if !is_part || come <= parts {
                    return false;
                }
                let lines = |file: &PathBuf| std::fs::read_to_string(file).unwrap_or_default().lines().count();
                until("they are acknowledged", LIMIT, || {
                    files_beneath(&folder).iter().any(|file| lines(file) == parts + 1).then_some(())
                });
                true
            }),
        );
        assert_eq!(ran.code, -9, "{ran}");
        self.parts().into_iter().take(parts).collect()
    }

    /// Killed when all parts are acknowledged.
    pub fn killed_at_the_index(&self, words: &[&str]) {
        let ran = self.killed(words, Death::at(|seen| seen.method == "PUT" && seen.component(3) == "index"));
        assert_eq!(ran.code, -9, "{ran}");
        self.parts();
    }

    pub fn parts(&self) -> Vec<u32> {
        std::mem::take(&mut self.left.lock().unwrap().parts)
    }

    /// Bo receives the one bundle that waits, and has what Ada sent.
    #[track_caller]
    pub fn arrives(&self, id: &str, source: &Path) {
        assert_eq!(self.world.run("bo", &["inbox", "-q"]).ok().word(), id, "one bundle, and this one");
        let (ran, fresh) = self.world.receive(id);
        ran.ok();
        assert_eq!(snapshot(source), snapshot(&fresh.path));
    }

    /// The one bundle that stands so in Ada's outbox.
    #[track_caller]
    pub fn standing(&self, progress: &str) -> serde_json::Value {
        let mut found = self.world.run("ada", &["outbox", "--json"]).ok().objects();
        found.retain(|bundle| bundle["progress"] == progress);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// Its id.
    #[track_caller]
    pub fn bundle(&self, progress: &str) -> String {
        self.standing(progress)["bundle"].as_str().unwrap().to_owned()
    }

    /// The file of a send of Ada's that is not finished.
    pub fn transfer(&self) -> PathBuf {
        files_beneath(&self.world.party("ada").home().join("transfers")).remove(0)
    }

    /// What waits for Bo, if Ada's state says that it is sent: she was killed when she had only to say so.
    pub fn done(&self) -> Option<String> {
        let waits = self.world.run("bo", &["inbox", "-q"]).ok().word();
        let bundles = self.world.run("ada", &["outbox", "--json"]).ok().objects();
        bundles.iter().any(|b| b["bundle"] == waits.as_str() && b["progress"] == "sent").then_some(waits)
    }

    /// Nothing is left over at Ada's.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        let ada = self.world.party("ada");
        let bundles = self.world.run("ada", &["outbox", "--json"]).ok().objects();
        assert!(bundles.iter().all(|b| b["progress"] != "interrupted" && b["progress"] != "sending"), "{bundles:?}");
        // What a kill left of one that was delivered goes with the listing.
        assert_eq!(files_beneath(&ada.home().join("transfers")), Vec::<PathBuf>::new());
        self.world.run("ada", &["log", "verify"]).ok().says("intact");
    }

    pub fn check_keys(&self) -> usize {
        self.left.lock().unwrap().check(&self.world.party("bo").client().1.age)
    }
}

/// A folder whose content takes three parts.
pub fn plant(world: &World, name: &str) -> PathBuf {
    let folder = world.root().join(name);
    std::fs::create_dir_all(folder.join("small")).unwrap();
    for number in 0..20 {
        std::fs::write(folder.join(format!("small/{number}")), noise(&format!("{name} {number}"), number * 500))
            .unwrap();
    }
    std::fs::write(folder.join("large"), noise(name, 2 * PART + 4321)).unwrap();
    folder
}
