//! The agent: a process that keeps the opened identity for a time, so that a person is asked for the passphrase once.
//!
//! It listens on a socket in the home's state folder, and answers processes of its own user only. One request a connection:
//! a line `pouch.agent.v1 WORD`, answered by a line and, for the identity, its text. What has another form or another
//! version is refused (docs/decisions/0016).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsRawFd as _;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{DumpableBehavior, geteuid, set_dumpable_behavior};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroizing;

use crate::home::{self, Home, HomeError};
use crate::identity::{Identity, MAX_IDENTITY};

const VERSION: &str = "pouch.agent.v1";
/// The folder of the socket, its name, and the name of the lock of whoever starts an agent.
const FOLDER: &str = "agent";
const SOCKET: &str = "socket";
const STARTING: &str = "starting";
/// The longest request or first line of an answer, in bytes, with its end.
const MAX_LINE: u64 = 64;
/// How long the agent has for one connection, from its acceptance to its end.
const TURN: Duration = Duration::from_secs(1);
/// How long one who asks waits; longer than somebody before it may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// What has arrived is read even by a process that was stopped until its time was over.
const LEAST: Duration = Duration::from_millis(1);
/// How often the agent looks at the clocks.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// A machine that slept for longer than this, in seconds, has been suspended: the clocks are not read at one instant.
const SUSPENDED: i64 = 2;

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its socket.
    #[error("cannot {what} the agent's {}: {error}", path.display())]
    Socket {
        /// What was tried.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
    /// What is to be kept is not an identity.
    #[error("this is not the text of an identity")]
    NoIdentity,
    /// It did not come.
    #[error("cannot read the identity: {0}")]
    Text(#[source] io::Error),
}

/// What came of [`forget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// There was no agent.
    Nobody,
    /// There was, and it keeps nothing any more.
    Done,
    /// There is one, which may still keep the identity: it does not answer, or not as this user's agent.
    NoAnswer,
}

/// What an agent is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// For the identity.
    Identity,
    /// For how long it will still keep it.
    Left,
    /// To forget it and end.
    Forget,
}

impl Word {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Identity, "identity"), (Self::Left, "left"), (Self::Forget, "forget")];

    fn text(self) -> &'static str {
        Self::ALL.iter().find(|(word, _)| *word == self).map_or("", |(_, text)| text)
    }

    fn of(line: &str) -> Option<Self> {
        let word = line.strip_suffix('\n')?.strip_prefix(VERSION)?.strip_prefix(' ')?;
        Self::ALL.iter().find(|(_, text)| *text == word).map(|(word, _)| *word)
    }
}

/// The folder of a home's socket, and a path to the socket through it that no limit on the length of paths of sockets
/// applies to (108 bytes, unix(7)).
fn through(home: &Home) -> io::Result<(File, PathBuf)> {
    let folder = File::open(home.state(FOLDER))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()));
    Ok((folder, path))
}

/// Whether whoever is at the other end is this user.
fn is_mine(stream: &UnixStream) -> bool {
    socket_peercred(stream).is_ok_and(|peer| peer.uid == geteuid())
}

/// A connection, and when it has to be over.
struct Timed {
    stream: UnixStream,
    until: Instant,
}

impl Timed {
    fn new(stream: UnixStream, time: Duration) -> Self {
        Self { stream, until: Instant::now() + time }
    }

    fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now()).max(LEAST)
    }
}

impl io::Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()))?;
        self.stream.read(into)
    }
}

impl io::Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One line of at most [`MAX_LINE`] bytes; nothing behind it is read.
fn line(mut from: impl io::Read) -> io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while line.last() != Some(&b'\n') && (line.len() as u64) < MAX_LINE {
        from.read_exact(&mut byte)?;
        line.extend_from_slice(&byte);
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

// --- whoever asks ---

/// A connection to the agent. The error says whether there is one.
fn connect(home: &Home) -> Result<Timed, Forgotten> {
    let stream = through(home).and_then(|(_folder, path)| UnixStream::connect(path)).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Forgotten::Nobody,
        _ => Forgotten::NoAnswer,
    })?;
    if is_mine(&stream) { Ok(Timed::new(stream, PATIENCE)) } else { Err(Forgotten::NoAnswer) }
}

/// Asks the agent; the seconds that it will still keep the identity, and what follows. `None` if it does not answer as it must.
fn ask(mut agent: Timed, word: Word) -> Option<(u64, Timed)> {
    agent.write_all(format!("{VERSION} {}\n", word.text()).as_bytes()).ok()?;
    let answer = line(&mut agent).ok()?;
    let left = answer.strip_suffix('\n')?.strip_prefix(VERSION)?.strip_prefix(" ok ")?.parse().ok()?;
    Some((left, agent))
}

/// The identity that the agent keeps, if there is one.
pub(crate) fn identity(home: &Home) -> Option<Identity> {
    let (_, agent) = ask(connect(home).ok()?, Word::Identity)?;
    Identity::from_text(std::str::from_utf8(&read_text(agent).ok()?).ok()?)
}

/// The text of an identity.
fn read_text(from: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_IDENTITY as usize));
    from.take(MAX_IDENTITY).read_to_end(&mut text)?;
    Ok(text)
}

/// For how many seconds the identity will still be kept; `None` if it is not.
#[must_use]
pub fn left(home: &Home) -> Option<u64> {
    ask(connect(home).ok()?, Word::Left).map(|(left, _)| left)
}

/// Has the identity forgotten.
#[must_use]
pub fn forget(home: &Home) -> Forgotten {
    let agent = match connect(home) {
        Ok(agent) => agent,
        Err(none) => return none,
    };
    // Its end is the end of the connection: then it keeps nothing any more.
    if ask(agent, Word::Forget).is_some_and(|(_, mut agent)| matches!(agent.read(&mut [0]), Ok(0))) {
        return Forgotten::Done;
    }
    // Its time may have been over meanwhile.
    match connect(home) {
        Err(Forgotten::Nobody) => Forgotten::Done,
        _ => Forgotten::NoAnswer,
    }
}

/// The turn to replace the agent of a home by another one, until it is dropped: two that start at once would leave one that no
/// socket leads to.
pub struct Starting {
    _file: File,
}

impl Starting {
    /// Waits for it.
    ///
    /// # Errors
    /// The folder or the file cannot be made or locked.
    pub fn wait(home: &Home) -> Result<Self, AgentError> {
        home::private_folder(&home.state(FOLDER))?;
        let path = home.state(FOLDER).join(STARTING);
        let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| Self { _file: file }));
        locked.map_err(|error| AgentError::Socket { what: "lock", path, error })
    }
}

// --- the agent ---

/// Seconds since the machine was started: all of them, and those in which it did not sleep.
#[derive(Clone, Copy)]
struct Clocks {
    all: i64,
    awake: i64,
}

impl Clocks {
    fn now() -> Self {
        Self { awake: clock_gettime(ClockId::Monotonic).tv_sec, all: clock_gettime(ClockId::Boottime).tv_sec }
    }

    /// What is left of `seconds` that began with `self`; `None` when they are over, or the machine slept meanwhile.
    fn left(self, seconds: u64, now: Self) -> Option<u64> {
        let (all, awake) = (now.all - self.all, now.awake - self.awake);
        let left = seconds.checked_sub(u64::try_from(all).ok()?).filter(|left| *left > 0)?;
        (all - awake <= SUSPENDED).then_some(left)
    }
}

/// The socket in the file system; removed when it is dropped, if it is still the same.
struct Bound {
    path: PathBuf,
    node: (u64, u64),
}

impl Bound {
    /// Whether those who ask still find it. Its number is given to no other while the agent listens on it.
    fn is_there(&self) -> bool {
        node(&self.path).is_ok_and(|node| node == self.node)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn node(path: &Path) -> io::Result<(u64, u64)> {
    let data = std::fs::symlink_metadata(path)?;
    Ok((data.dev(), data.ino()))
}

fn bind(home: &Home) -> Result<(UnixListener, Bound), AgentError> {
    let path = home.state(FOLDER).join(SOCKET);
    let failed = |what| {
        let path = path.clone();
        move |error| AgentError::Socket { what, path, error }
    };
    home::private_folder(&home.state(FOLDER))?;
    let (_folder, through) = through(home).map_err(failed("open"))?;
    // Of an agent that was killed: whoever asks for one that lives has it forget first.
    if std::fs::symlink_metadata(&path).is_ok_and(|data| data.file_type().is_socket()) {
        std::fs::remove_file(&path).map_err(failed("replace"))?;
    }
    let listener = UnixListener::bind(through).map_err(failed("make"))?;
    // The folder keeps others out; this keeps them out of a socket that somebody moves.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed("protect"))?;
    let node = node(&path).map_err(failed("look at"))?;
    Ok((listener, Bound { path, node }))
}

/// Reads the text of an identity, keeps it for so many seconds, and gives it to processes of this user that ask. Returns when
/// the time is over, when it is told to forget, when the machine was suspended, and when its socket is not there any more.
/// `ready` is called once it listens.
///
/// # Errors
/// It cannot listen, or the text is none.
pub fn serve(home: &Home, from: impl io::Read, seconds: u64, ready: impl FnOnce()) -> Result<(), AgentError> {
    // Before there is a secret: neither in a core dump nor readable by a debugger of the same user; and not in the swap, where
    // the limit on locked memory allows that (docs/threat-model.md).
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    let text = read_text(from).map_err(AgentError::Text)?;
    std::str::from_utf8(&text).ok().and_then(Identity::from_text).ok_or(AgentError::NoIdentity)?;
    let begun = Clocks::now();
    let left = || begun.left(seconds, Clocks::now());
    let (listener, bound) = bind(home)?;
    ready();
    // One that nobody finds, because of another agent or because the home was moved or removed, nobody could tell to forget.
    while left().is_some() && bound.is_there() {
        match poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&LOOK)) {
            Ok(0) | Err(_) => continue,
            Ok(_) => {}
        }
        let Ok((stream, _)) = listener.accept() else { continue };
        let mut peer = Timed::new(stream, TURN);
        // Whoever asked wrongly, or went away, keeps nobody else from asking.
        if matches!(answer(&mut peer, &text, left), Ok(Word::Forget)) {
            // Before the connection, whose end tells that nothing is kept any more.
            drop((text, bound));
            return Ok(());
        }
    }
    Ok(())
}

/// Answers one request. `left` is asked after the request has come: it may have taken its time, or the machine may have slept.
fn answer(peer: &mut Timed, text: &[u8], left: impl FnOnce() -> Option<u64>) -> io::Result<Word> {
    if !is_mine(&peer.stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let Some(word) = Word::of(&line(&mut *peer)?) else {
        peer.write_all(format!("{VERSION} no\n").as_bytes())?;
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let answered = give(peer, word, text, left);
    // Obeyed also when whoever said it waits for no answer any more.
    if word == Word::Forget { Ok(word) } else { answered.map(|()| word) }
}

fn give(peer: &mut Timed, word: Word, text: &[u8], left: impl FnOnce() -> Option<u64>) -> io::Result<()> {
    let left = left().ok_or(io::ErrorKind::TimedOut)?;
    peer.write_all(format!("{VERSION} ok {left}\n").as_bytes())?;
    if word == Word::Identity { peer.write_all(text) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
