//! Whole bundles on several threads: parts are sealed or opened side by side, and pass the one place where order counts
//! (what a sealed part is given to, where a part comes from) one at a time and by number.

use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::open::{OpenError, Receiver};
use super::seal::{SealError, SealedPart, Sealer};
use super::sink::Sink;

/// More threads than this are not started, whatever the caller says.
const MAX_THREADS: usize = 256;

/// One place that threads pass in turn, and the first reason why they should not go on.
struct Turns<T, E> {
    state: Mutex<State<T, E>>,
    moved: Condvar,
}

struct State<T, E> {
    place: T,
    /// Number of the part whose turn it is.
    next: u32,
    stopped: bool,
    reason: Option<E>,
}

impl<T, E> Turns<T, E> {
    fn new(place: T) -> Self {
        Self { state: Mutex::new(State { place, next: 0, stopped: false, reason: None }), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `ready` says so; `None` if all are to stop.
    fn wait(&self, ready: impl Fn(&State<T, E>) -> bool) -> Option<MutexGuard<'_, State<T, E>>> {
        let mut state = self.lock();
        while !state.stopped && !ready(&state) {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.stopped).then_some(state)
    }

    /// Nobody goes on; of several reasons the first one counts.
    fn stop(&self, reason: Option<E>) {
        let mut state = self.lock();
        state.stopped = true;
        if state.reason.is_none() {
            state.reason = reason;
        }
        self.moved.notify_all();
    }

    /// Runs `work` on so many threads. If one panics the others stop, and the panic goes on here.
    fn run(self, threads: NonZeroUsize, work: impl Fn(&Self) + Sync) -> Result<(), E>
    where
        T: Send,
        E: Send,
    {
        let work = || {
            let stops = StopsAtPanic(&self);
            work(&self);
            std::mem::forget(stops);
        };
        thread::scope(|scope| {
            // Where the system grants fewer threads, those that are there do the work; the caller's always is.
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..threads.get().min(MAX_THREADS)).filter_map(spawn).collect();
            work();
            if let Some(panic) = others.into_iter().find_map(|other| other.join().err()) {
                std::panic::resume_unwind(panic);
            }
        });
        self.state.into_inner().unwrap_or_else(PoisonError::into_inner).reason.map_or(Ok(()), Err)
    }
}

struct StopsAtPanic<'a, T, E>(&'a Turns<T, E>);

impl<T, E> Drop for StopsAtPanic<'_, T, E> {
    fn drop(&mut self) {
        self.0.stop(None);
    }
}

/// Ends the sealing when `deliver` panics.
struct FailsAtPanic<'a>(&'a Sealer);

impl Drop for FailsAtPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

impl Sealer {
    /// Seals all parts on so many threads, and gives them to `deliver` one at a time and in order. It may take the part
    /// and leave another for the next one to be sealed in. Memory is one part for each thread.
    ///
    /// # Errors
    /// The first error of [`Sealer::next_part`] or of `deliver`, after which no other part is delivered.
    pub fn seal_all<D, E>(&self, threads: NonZeroUsize, deliver: D) -> Result<(), E>
    where
        D: FnMut(&mut SealedPart) -> Result<(), E> + Send,
        E: From<SealError> + Send,
    {
        let work = |turns: &Turns<D, E>| {
            let _guard = FailsAtPanic(self);
            let mut part = SealedPart::default();
            loop {
                match self.next_part(&mut part) {
                    Ok(true) => {}
                    Ok(false) => return,
                    // The echo of an error that another thread met.
                    Err(SealError::Unfinished) => return turns.stop(None),
                    Err(error) => return turns.stop(Some(error.into())),
                }
                let number = part.number;
                let Some(mut state) = turns.wait(|state| state.next == number) else { return };
                if let Err(error) = (state.place)(&mut part) {
                    drop(state);
                    // Nobody needs what the others are making.
                    self.fail();
                    return turns.stop(Some(error));
                }
                state.next += 1;
                turns.moved.notify_all();
            }
        };
        Turns::new(deliver).run(threads, work)?;
        if self.is_failed() { Err(SealError::Unfinished.into()) } else { Ok(()) }
    }
}

impl<S: Sink> Receiver<S> {
    /// Opens all parts that are missing on so many threads. `fetch` brings sealed part after sealed part, one at a time and in
    /// order, into memory that is used again; it says `false` when no more will come. Memory is one sealed part for each
    /// thread.
    ///
    /// # Errors
    /// The first error of [`Receiver::accept`] or of `fetch`. Whether all parts came is told by [`Receiver::finish`].
    pub fn accept_all<F, B, E>(&self, threads: NonZeroUsize, fetch: F) -> Result<(), E>
    where
        F: FnMut(u32, &mut B) -> Result<bool, E> + Send,
        B: AsRef<[u8]> + Default,
        E: From<OpenError> + Send,
    {
        let missing = self.missing();
        let work = |turns: &Turns<F, E>| {
            let mut sealed = B::default();
            loop {
                let next = |state: &State<F, E>| missing.get(state.next as usize).copied();
                let ready = |state: &State<F, E>| next(state).is_none_or(|number| self.has_room_for(number));
                let Some(mut state) = turns.wait(ready) else { return };
                let Some(number) = next(&state) else { return };
                state.next += 1;
                let fetched = (state.place)(number, &mut sealed);
                drop(state);
                match fetched {
                    Ok(true) => {}
                    Ok(false) => return turns.stop(None),
                    Err(error) => return turns.stop(Some(error)),
                }
                match self.accept(number, sealed.as_ref()) {
                    // Under the lock, so that nobody who just looked for room misses it.
                    Ok(()) => {
                        let _looking = turns.lock();
                        turns.moved.notify_all();
                    }
                    Err(OpenError::Stopped) => return turns.stop(None),
                    Err(error) => return turns.stop(Some(error.into())),
                }
            }
        };
        Turns::new(fetch).run(threads, work)?;
        if self.is_stopped() { Err(OpenError::Stopped.into()) } else { Ok(()) }
    }
}
