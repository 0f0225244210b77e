//! Signals: the first one lets a transfer clean up after itself, the second one does not wait for that. Where there is
//! nothing to clean up, and at a prompt, one is enough; the terminal then shows again what is typed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::exit;

struct State {
    /// Somebody waits for the first signal and will clean up.
    awaited: bool,
    /// A signal came before.
    stopping: bool,
    /// SIGHUP ends nothing: it has files read again.
    reloading: bool,
    /// The terminal as it was before a prompt, while one is open.
    terminal: Option<(File, Termios)>,
    /// A file that is not finished, on a file system where it needs a name; or a pipeline's folder.
    unfinished: Option<PathBuf>,
}

static STATE: Mutex<State> =
    Mutex::new(State { awaited: false, stopping: false, reloading: false, terminal: None, unfinished: None });

/// Told of each SIGHUP that means reading again.
#[cfg(feature = "relay")]
static RELOAD: Notify = Notify::const_new();

/// Told of the first signal. Starting it starts the thread that waits for signals; nothing else handles them.
static STOP: LazyLock<&'static Notify> = LazyLock::new(|| {
    let stop: &'static Notify = Box::leak(Box::new(Notify::new()));
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || watch(stop, &ready));
    // Without the thread signals keep their default action, which is to end the process.
    let _ = started.recv();
    stop
});

fn watch(stop: &Notify, ready: &std::sync::mpsc::Sender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let ignored = ignored();
        let listen = |kind: SignalKind| {
            // What the parent had us ignore (nohup, a shell's background job) stays ignored.
            let ours = ignored & (1 << (kind.as_raw_value() - 1)) == 0;
            if ours { signal(kind).ok() } else { None }
        };
        let mut int = listen(SignalKind::interrupt());
        let mut term = listen(SignalKind::terminate());
        let mut hup = listen(SignalKind::hangup());
        let _ = ready.send(());
        loop {
            let hangup = tokio::select! {
                () = next(&mut int) => false,
                () = next(&mut term) => false,
                () = next(&mut hup) => true,
            };
            let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
            if hangup && state.reloading {
                #[cfg(feature = "relay")]
                RELOAD.notify_one();
                continue;
            }
            let at_prompt = state.terminal.take();
            if let Some((tty, before)) = &at_prompt {
                let _ = tcsetattr(tty, OptionalActions::Now, before);
            }
            if at_prompt.is_some() || state.stopping || !state.awaited {
                if let Some(path) = &state.unfinished {
                    let _ = std::fs::remove_file(path).or_else(|_| std::fs::remove_dir_all(path));
                }
                std::process::exit(exit::INTERRUPTED.into());
            }
            state.stopping = true;
            stop.notify_one();
        }
    });
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The mask of ignored signals that the process was started with; bit N−1 is signal N (proc(5), `SigIgn`).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Whether a signal came while somebody was waiting for one.
pub(crate) fn came() -> bool {
    STATE.lock().unwrap_or_else(PoisonError::into_inner).stopping
}

/// From now on a signal is only noted, for whoever asks [`came`] between two steps.
#[cfg(feature = "relay")]
pub(crate) fn note() {
    LazyLock::force(&STOP);
    STATE.lock().unwrap_or_else(PoisonError::into_inner).awaited = true;
}

/// From the call on SIGHUP ends nothing; while what is returned runs, it calls `reload`.
#[cfg(feature = "relay")]
pub(crate) fn on_hangup(reload: impl Fn()) -> impl Future<Output = ()> {
    LazyLock::force(&STOP);
    STATE.lock().unwrap_or_else(PoisonError::into_inner).reloading = true;
    async move {
        loop {
            RELOAD.notified().await;
            reload();
        }
    }
}

/// Done when SIGINT, SIGTERM or SIGHUP comes for the first time after the call.
pub(crate) fn first() -> impl Future<Output = ()> {
    let stop = *STOP;
    STATE.lock().unwrap_or_else(PoisonError::into_inner).awaited = true;
    stop.notified()
}

/// Nobody cleans up any more: from now on one signal ends the process.
pub(crate) fn no_longer_awaited() {
    STATE.lock().unwrap_or_else(PoisonError::into_inner).awaited = false;
}

/// A file or folder that a signal which ends the process removes; or none any more.
pub(crate) fn remove_if_stopped(path: Option<&Path>) {
    if path.is_some() {
        LazyLock::force(&STOP);
    }
    STATE.lock().unwrap_or_else(PoisonError::into_inner).unfinished = path.map(Path::to_owned);
}

/// Runs a short step; a signal has its effect after it.
pub(crate) fn undisturbed<T>(step: impl FnOnce() -> T) -> T {
    LazyLock::force(&STOP);
    let _state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    step()
}

/// Runs a prompt, at which a signal ends the process at once.
pub(crate) fn at_prompt<T>(prompt: impl FnOnce() -> T) -> T {
    LazyLock::force(&STOP);
    let terminal = File::open("/dev/tty").ok().and_then(|tty| tcgetattr(&tty).ok().map(|before| (tty, before)));
    STATE.lock().unwrap_or_else(PoisonError::into_inner).terminal = terminal;
    let answer = prompt();
    STATE.lock().unwrap_or_else(PoisonError::into_inner).terminal = None;
    answer
}
