//! Running programs to their end, or until they are told to stop, within a limit.

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// No command of a test may take longer, unless the test says so.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Waits until `done` gives something.
///
/// # Panics
/// When the limit is over.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut done: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; the negative number of the signal that ended it.
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
    /// The most memory that it had at once (VmHWM), in KiB.
    pub peak: u64,
    what: String,
}

impl Ran {
    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Standard output as one word or line.
    #[must_use]
    pub fn word(&self) -> String {
        self.text().trim().to_owned()
    }

    /// It ended with this code.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// It succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.ends(0)
    }

    /// It failed with this code, and said this on stderr.
    #[track_caller]
    pub fn fails(self, code: i32, saying: &str) -> Self {
        let ran = self.ends(code);
        assert!(ran.err.contains(saying), "not said: {saying:?}\n{ran}");
        ran
    }

    /// It said this, on either stream.
    #[track_caller]
    pub fn says(self, words: &str) -> Self {
        assert!(self.err.contains(words) || self.text().contains(words), "not said: {words:?}\n{self}");
        self
    }

    /// It said nothing about a place in the sequence of its sender's bundles.
    #[track_caller]
    pub fn in_order(self) -> Self {
        let said = ["not come", "sent this before", "in the place of"];
        assert!(!said.iter().any(|words| self.err.contains(words)), "{self}");
        self
    }

    /// The objects that `--json` printed; each line of stdout is one, and says what it is.
    #[track_caller]
    #[must_use]
    pub fn objects(&self) -> Vec<Value> {
        let parse = |line: &str| -> Value {
            let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}\n{self}"));
            assert!(object["type"].is_string(), "no type: {line}");
            object
        };
        self.text().lines().map(parse).collect()
    }

    /// What went wrong, as `--json` says it on stderr.
    #[track_caller]
    #[must_use]
    pub fn error(&self) -> Value {
        let line = self.err.lines().last().unwrap_or_default();
        let object: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e})\n{self}"));
        assert!(object["type"] == "error" && object["code"] == self.code, "{self}");
        object
    }

    /// The one object of this type.
    #[track_caller]
    #[must_use]
    pub fn object(&self, kind: &str) -> Value {
        let mut found: Vec<Value> = self.objects().into_iter().filter(|o| o["type"] == kind).collect();
        assert_eq!(found.len(), 1, "objects of type {kind}\n{self}");
        found.remove(0)
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out: String = self.text().chars().take(4000).collect();
        write!(f, "{}: code {}\nstdout: {out}\nstderr: {}", self.what, self.code, self.err)
    }
}

/// A program that is about to run.
pub struct Run {
    command: Command,
    input: Input,
    output: Option<Stdio>,
    limit: Duration,
    what: String,
}

enum Input {
    Bytes(Vec<u8>),
    Held,
    From(Stdio),
}

impl Run {
    /// Any program.
    pub fn of(program: impl AsRef<OsStr>) -> Self {
        let what = program.as_ref().to_string_lossy().into_owned();
        let command = Command::new(program);
        Self { command, input: Input::Bytes(Vec::new()), output: None, limit: LIMIT, what }
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, words: I) -> Self {
        for word in words {
            self.what = format!("{} {}", self.what, word.as_ref().to_string_lossy());
            self.command.arg(word);
        }
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[must_use]
    pub fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    #[must_use]
    pub fn dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// These bytes on standard input; nothing unless said.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Standard input stays open and is written by the test: [`Running::stdin`].
    #[must_use]
    pub fn holding_input(mut self) -> Self {
        self.input = Input::Held;
        self
    }

    /// Standard input from a file or pipe.
    #[must_use]
    pub fn input_from(mut self, from: impl Into<Stdio>) -> Self {
        self.input = Input::From(from.into());
        self
    }

    /// Standard output to a file or pipe.
    #[must_use]
    pub fn output_to(mut self, to: impl Into<Stdio>) -> Self {
        self.output = Some(to.into());
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Killed at its `at`th system call of that name. Needs strace.
    #[must_use]
    pub fn killed_at(self, call: &str, at: usize) -> Self {
        self.behind(&format!("exec strace -f -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={at}"))
    }

    /// Through `sh`, with `before` (an `umask`, a redirection that ends in `exec`) in front.
    #[must_use]
    pub fn behind(self, before: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} \"$0\" \"$@\"")]).arg(self.command.get_program());
        command.args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(folder) = self.command.get_current_dir() {
            command.current_dir(folder);
        }
        Self { what: format!("{before} {}", self.what), command, ..self }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn end(self) -> Ran {
        self.start().end()
    }

    /// Starts it.
    #[track_caller]
    pub fn start(mut self) -> Running {
        let (from, bytes) = match self.input {
            Input::Bytes(bytes) => (Stdio::piped(), Some(bytes)),
            Input::Held => (Stdio::piped(), None),
            Input::From(from) => (from, None),
        };
        self.command.stdin(from).stdout(self.output.unwrap_or_else(Stdio::piped)).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|e| panic!("{}: {e}", self.what));
        let mut stdin = child.stdin.take();
        if let Some(bytes) = bytes {
            let mut stdin = stdin.take().unwrap();
            // Whoever refuses early does not read to the end.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let out = child.stdout.take().map(drain);
        let err = child.stderr.take().map(drain);
        Running { child, stdin, out, err, limit: self.limit, what: self.what, peak: 0 }
    }
}

fn drain(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (whole, drained) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = whole.send(bytes);
    });
    drained
}

/// A program that runs. Killed when it is dropped.
pub struct Running {
    child: Child,
    /// With [`Run::holding_input`].
    pub stdin: Option<ChildStdin>,
    out: Option<Receiver<Vec<u8>>>,
    err: Option<Receiver<Vec<u8>>>,
    limit: Duration,
    what: String,
    peak: u64,
}

impl Running {
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        // Gone already is no error here: the exit code tells.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its words, from /proc.
    #[must_use]
    pub fn command_line(&self) -> Vec<u8> {
        std::fs::read(format!("/proc/{}/cmdline", self.id())).unwrap_or_default()
    }

    /// The most memory that it had so far (VmHWM), in KiB.
    #[must_use]
    pub fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        drop(self.stdin.take());
        let begun = Instant::now();
        let status = loop {
            self.peak = self.peak.max(self.peak());
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > self.limit {
                let _ = self.child.kill();
                let err = self.err.take().and_then(|err| err.recv_timeout(Duration::from_secs(5)).ok());
                panic!("{} did not end; it said: {}", self.what, String::from_utf8_lossy(&err.unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let all = |from: Option<Receiver<Vec<u8>>>| {
            from.map(|from| from.recv_timeout(LIMIT).expect("its output stays open")).unwrap_or_default()
        };
        let (out, err) = (all(self.out.take()), all(self.err.take()));
        Ran {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap_or(i32::MAX)),
            out,
            err: String::from_utf8_lossy(&err).into_owned(),
            peak: self.peak,
            what: std::mem::take(&mut self.what),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
