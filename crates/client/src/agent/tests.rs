#![allow(clippy::unwrap_used)]
use std::thread;
use std::time::Instant;

use super::*;

struct Kept {
    home: Home,
    identity: Identity,
    agent: thread::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// An agent in a thread, in a home with a path longer than a socket's may be.
fn kept(seconds: u64) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(&folder.path().join("long".repeat(40)))).unwrap();
    home.create().unwrap();
    assert!(left(&home).is_none() && identity(&home).is_none() && forget(&home) == Forgotten::Nobody);
    let identity = Identity::generate().unwrap();
    let (text, at) = (identity.to_text(), home.clone());
    let (say, ready) = std::sync::mpsc::channel();
    let agent = thread::spawn(move || serve(&at, text.as_bytes(), seconds, || say.send(()).unwrap()).unwrap());
    ready.recv().unwrap();
    Kept { home, identity, agent, _folder: folder }
}

#[test]
fn kept_until_forgotten() {
    let kept = kept(3600);
    assert!(left(&kept.home).is_some_and(|left| (3590..=3600).contains(&left)));
    for _ in 0..3 {
        let got = identity(&kept.home).unwrap();
        assert_eq!(got.signing.public(), kept.identity.signing.public());
        assert_eq!(got.age.recipient(), kept.identity.age.recipient());
    }
    let socket = kept.home.state(FOLDER).join(SOCKET);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&kept.home.state(FOLDER))), (0o600, 0o700));
    assert_eq!(forget(&kept.home), Forgotten::Done);
    kept.agent.join().unwrap();
    assert!(left(&kept.home).is_none() && identity(&kept.home).is_none() && !socket.exists());
}

#[test]
fn kept_for_its_time() {
    let kept = kept(2);
    assert!(identity(&kept.home).is_some());
    let begun = Instant::now();
    kept.agent.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(identity(&kept.home).is_none());
}

#[test]
fn a_machine_that_slept_forgets() {
    let begun = Clocks { all: 1000, awake: 400 };
    let after = |awake: i64, slept: i64| begun.left(60, Clocks { all: 1000 + awake + slept, awake: 400 + awake });
    assert_eq!([after(0, 0), after(59, 0), after(60, 0), after(1000, 0)], [Some(60), Some(1), None, None]);
    assert_eq!([after(10, 2), after(10, 3), after(0, 30), after(0, 60)], [Some(48), None, None, None]);
    // A clock that goes back is not one to trust.
    assert_eq!(begun.left(60, Clocks { all: 999, awake: 399 }), None);
}

#[test]
fn what_is_not_a_request_is_refused_and_holds_nobody_up() {
    let kept = kept(3600);
    let (_folder, path) = through(&kept.home).unwrap();
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(&path).unwrap();
        let _ = stream.write_all(request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    for bad in ["pouch.agent.v2 identity\n", "pouch.agent.v1 keys\n", "identity\n", "pouch.agent.v1 identity \n", "\n"]
    {
        assert_eq!(ask(bad.as_bytes()), "pouch.agent.v1 no\n", "{bad:?}");
    }
    for bad in [&b""[..], b"pouch.agent.v1 identity", &[0xff; 100], &[b'x'; 100_000]] {
        assert!(!ask(bad).contains(" ok "));
    }
    // One that says nothing, or says it slowly, has its turn, which is over before the next one's patience is.
    assert!(TURN * 2 < PATIENCE);
    let silent = UnixStream::connect(&path).unwrap();
    assert!(identity(&kept.home).is_some());
    drop(silent);
    let mut slow = UnixStream::connect(&path).unwrap();
    let slowly = thread::spawn(move || {
        while slow.write_all(b"x").is_ok() {
            thread::sleep(TURN / 4);
        }
    });
    assert!(identity(&kept.home).is_some());
    slowly.join().unwrap();
    assert_eq!(forget(&kept.home), Forgotten::Done);
    kept.agent.join().unwrap();
}

/// Two ends, of which the first has its turn with the agent.
fn ends() -> (Timed, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Timed::new(ours, TURN), theirs)
}

#[test]
fn told_to_forget_it_does_so_though_nobody_waits() {
    for (word, obeyed) in [(Word::Forget, true), (Word::Identity, false)] {
        let (mut peer, mut theirs) = ends();
        theirs.write_all(format!("{VERSION} {}\n", word.text()).as_bytes()).unwrap();
        drop(theirs);
        // What a stopped process finds when it goes on.
        peer.until = Instant::now();
        assert_eq!(answer(&mut peer, b"text", || Some(1)).is_ok_and(|word| word == Word::Forget), obeyed);
    }
}

// The time is over between the first and the last byte of a request.
#[test]
fn nothing_is_given_after_its_time() {
    let late = Duration::from_millis(300);
    let asked = |kept: Duration| {
        let (mut peer, mut theirs) = ends();
        let asking = thread::spawn(move || {
            theirs.write_all(VERSION.as_bytes()).unwrap();
            thread::sleep(late);
            theirs.write_all(b" identity\n").unwrap();
            let mut answer = String::new();
            theirs.read_to_string(&mut answer).unwrap();
            answer
        });
        let begun = Instant::now();
        let _ = answer(&mut peer, b"text", || (begun.elapsed() < kept).then_some(7));
        drop(peer);
        asking.join().unwrap()
    };
    assert_eq!(asked(late / 2), "");
    assert_eq!(asked(Duration::MAX), format!("{VERSION} ok 7\ntext"));
}

// In a process of its own: it is the process that is not dumped.
#[test]
fn protected_before_it_reads() {
    const ALONE: &str = "POUCH_TEST_ALONE";
    let name = "agent::tests::protected_before_it_reads";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let ran = alone.args(["--exact", name]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    struct Reads(PathBuf);
    impl io::Read for Reads {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
            assert!(!self.0.exists());
            Ok(0)
        }
    }
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path())).unwrap();
    let reads = Reads(home.state(FOLDER).join(SOCKET));
    assert!(matches!(serve(&home, reads, 5, || ()), Err(AgentError::NoIdentity)));
}

#[test]
fn the_socket_of_a_killed_agent_is_replaced_and_a_file_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::open(Some(folder.path())).unwrap();
    home.create().unwrap();
    assert!(matches!(serve(&home, &b"no identity"[..], 5, || ()), Err(AgentError::NoIdentity)));
    let (_listener, bound) = bind(&home).unwrap();
    std::mem::forget(bound);
    let (_second, bound) = bind(&home).unwrap();
    let path = bound.path.clone();
    drop(bound);
    assert!(!path.exists());
    std::fs::write(&path, "x").unwrap();
    assert!(matches!(bind(&home), Err(AgentError::Socket { what: "make", .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"x");
}
