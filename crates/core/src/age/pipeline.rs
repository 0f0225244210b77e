//! Work on a stream by several threads, with its order kept.
//!
//! A fixed number of buffers circulates: whoever has a free one reads the next batch into it, works on it, and puts
//! it back in its place. Whoever puts back the batch that is due writes it out, and all that are ready behind it.
//! So reading, work and writing overlap, whoever is fast waits for whoever is slow, and nothing is allocated on
//! the way.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::error::{Error, Result};

/// Buffers for each thread: one in work, one that waits for its turn.
const BUFFERS_PER_THREAD: usize = 2;
/// More threads than this are not started, whatever the caller says.
const MAX_THREADS: usize = 256;

/// By whom a stream is worked on.
#[derive(Clone, Copy)]
pub struct Workers<'a> {
    threads: NonZero<usize>,
    failed: Option<&'a AtomicBool>,
}

impl<'a> Workers<'a> {
    /// So many threads, 256 at most; the caller's is one of them.
    pub fn new(threads: NonZero<usize>) -> Self {
        Self { threads, failed: None }
    }

    /// Sets `failed` as soon as anything fails. One thread may be waiting for an input that gives nothing when another
    /// meets the failure, which comes out only when that wait ends: an input that looks here can end it.
    #[must_use]
    pub fn telling(self, failed: &'a AtomicBool) -> Self {
        Self { failed: Some(failed), ..self }
    }
}

impl From<NonZero<usize>> for Workers<'_> {
    fn from(threads: NonZero<usize>) -> Self {
        Self::new(threads)
    }
}

/// Where batches come from. Called by one thread at a time.
pub(super) trait Intake<B>: Send {
    /// Reads the next batch into `buffer`; `false` if it is the last one.
    fn fill(&mut self, buffer: &mut B) -> Result<bool>;
}

/// Where batches go. Called by one thread at a time, in the order of the intake.
pub(super) trait Outlet<B>: Send {
    /// Writes a batch out. An error ends the whole: nothing behind it is written.
    fn put(&mut self, buffer: &mut B) -> Result<()>;
}

/// Runs every batch of `intake` through `work` and into `outlet`, by `workers`.
///
/// The first error in the order of the stream is the one that comes back, and everything before it was written. A
/// panic goes on in the caller's thread, once all others have stopped. A stream of one batch starts no threads.
///
/// # Errors
///
/// Whatever `intake` or `outlet` says.
pub(super) fn run<B: Send>(
    workers: Workers<'_>,
    new_buffer: impl Fn() -> B,
    intake: &mut impl Intake<B>,
    work: impl Fn(&mut B) + Sync,
    outlet: &mut impl Outlet<B>,
) -> Result<()> {
    let mut first = new_buffer();
    let mut more = intake.fill(&mut first)?;
    if !more || workers.threads.get() == 1 {
        loop {
            work(&mut first);
            outlet.put(&mut first)?;
            if !more {
                return Ok(());
            }
            more = intake.fill(&mut first)?;
        }
    }
    let threads = workers.threads.get().min(MAX_THREADS);
    let count = threads * BUFFERS_PER_THREAD;
    let belt = Belt {
        queue: Mutex::new(Queue { intake, next: 1, open: true }),
        yard: Mutex::new(Yard {
            free: (1..count).map(|_| new_buffer()).collect(),
            ready: (0..count).map(|_| None).collect(),
            due: 0,
            outlet: Some(outlet),
            closed: false,
            failed: None,
        }),
        changed: Condvar::new(),
        told: workers.failed,
        work,
    };
    thread::scope(|scope| {
        let others: Vec<_> =
            (1..threads).map(|_| thread::Builder::new().spawn_scoped(scope, || belt.serve(None))).collect();
        belt.serve(Some((0, first)));
        // Where the system grants fewer threads, those that are there do the work; the caller's always is.
        if let Some(panic) = others.into_iter().flatten().find_map(|other| other.join().err()) {
            resume_unwind(panic);
        }
    });
    belt.yard.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
}

struct Belt<'a, B, I, O, W> {
    queue: Mutex<Queue<'a, I>>,
    yard: Mutex<Yard<'a, B, O>>,
    /// A buffer became free, or the yard was closed.
    changed: Condvar,
    /// Who wants to know at once of a failure.
    told: Option<&'a AtomicBool>,
    work: W,
}

/// The input, and the number of the batch that comes next.
struct Queue<'a, I> {
    intake: &'a mut I,
    next: usize,
    open: bool,
}

/// The buffers that nobody works on, and the output.
struct Yard<'a, B, O> {
    free: Vec<B>,
    /// What is done, at its number modulo the length. Numbers in flight differ by less, for each holds a buffer.
    ready: Vec<Option<Result<B>>>,
    /// Number of the batch that is written next.
    due: usize,
    /// Away while somebody writes.
    outlet: Option<&'a mut O>,
    /// Nothing more is to be read.
    closed: bool,
    failed: Option<Error>,
}

impl<B, I: Intake<B>, O: Outlet<B>, W: Fn(&mut B)> Belt<'_, B, I, O, W> {
    /// One thread's share: until the input ends or something fails. It may come with the first batch in hand.
    fn serve(&self, first: Option<(usize, B)>) {
        let _guard = CloseOnPanic(self);
        if let Some((number, mut buffer)) = first {
            (self.work)(&mut buffer);
            self.deliver(number, Ok(buffer));
        }
        while let Some(mut buffer) = self.free_buffer() {
            let Some((number, filled)) = self.fill(&mut buffer) else { break };
            let done = filled.map(|()| {
                (self.work)(&mut buffer);
                buffer
            });
            self.deliver(number, done);
        }
    }

    fn free_buffer(&self) -> Option<B> {
        let mut yard = lock(&self.yard);
        while yard.free.is_empty() && !yard.closed {
            yard = self.changed.wait(yard).unwrap_or_else(PoisonError::into_inner);
        }
        if yard.closed { None } else { yard.free.pop() }
    }

    fn fill(&self, buffer: &mut B) -> Option<(usize, Result<()>)> {
        let mut queue = lock(&self.queue);
        if !queue.open {
            return None;
        }
        let filled = queue.intake.fill(buffer);
        let number = queue.next;
        queue.next += 1;
        queue.open = matches!(filled, Ok(true));
        if !queue.open {
            self.close();
        }
        Some((number, filled.map(|_| ())))
    }

    /// Puts a batch in its place, and writes out what is due unless somebody else is at it.
    fn deliver(&self, number: usize, done: Result<B>) {
        let mut yard = lock(&self.yard);
        let places = yard.ready.len();
        if let Some(place) = yard.ready.get_mut(number % places) {
            *place = Some(done);
        }
        while yard.failed.is_none()
            && let due = yard.due % places
            && let Some(place) = yard.ready.get_mut(due)
            && place.is_some()
            && let Some(outlet) = yard.outlet.take()
        {
            let done = yard.ready.get_mut(due).and_then(Option::take);
            drop(yard);
            let put = done.map(|done| done.and_then(|mut buffer| outlet.put(&mut buffer).map(|()| buffer)));
            yard = lock(&self.yard);
            yard.outlet = Some(outlet);
            yard.due += 1;
            match put {
                Some(Ok(buffer)) => {
                    yard.free.push(buffer);
                    self.changed.notify_one();
                }
                Some(Err(error)) => {
                    yard.failed = Some(error);
                    yard.closed = true;
                    self.tell();
                    self.changed.notify_all();
                }
                None => {}
            }
        }
    }

    fn tell(&self) {
        if let Some(told) = self.told {
            told.store(true, Ordering::Relaxed);
        }
    }

    fn close(&self) {
        lock(&self.yard).closed = true;
        self.changed.notify_all();
    }
}

/// Lets nobody wait for a thread that is gone.
struct CloseOnPanic<'a, 'b, B, I: Intake<B>, O: Outlet<B>, W: Fn(&mut B)>(&'a Belt<'b, B, I, O, W>);

impl<B, I: Intake<B>, O: Outlet<B>, W: Fn(&mut B)> Drop for CloseOnPanic<'_, '_, B, I, O, W> {
    fn drop(&mut self) {
        if thread::panicking() {
            // First, for the lock below may be held by a thread that waits for input.
            self.0.tell();
            lock(&self.0.queue).open = false;
            self.0.close();
        }
    }
}

/// A panic elsewhere is passed on by `run`; what it left behind is only given back or dropped.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    struct Numbers {
        next: usize,
        end: usize,
    }

    impl Intake<usize> for Numbers {
        fn fill(&mut self, buffer: &mut usize) -> Result<bool> {
            *buffer = self.next;
            self.next += 1;
            Ok(self.next < self.end)
        }
    }

    impl Outlet<usize> for Vec<usize> {
        fn put(&mut self, buffer: &mut usize) -> Result<()> {
            self.push(*buffer);
            Ok(())
        }
    }

    fn threads(count: usize) -> NonZero<usize> {
        NonZero::new(count).unwrap()
    }

    #[test]
    fn order_is_kept_however_long_the_work_takes() {
        for count in [1, 2, 3, 8] {
            let mut out = Vec::new();
            let work = |number: &mut usize| {
                thread::sleep(Duration::from_micros((*number as u64 * 7919) % 500));
                *number *= 2;
            };
            run(threads(count).into(), || 0, &mut Numbers { next: 0, end: 300 }, work, &mut out).unwrap();
            assert!(out.iter().copied().eq((0..300).map(|number| number * 2)));
        }
    }

    #[test]
    fn a_panic_at_work_ends_the_whole_and_comes_out_once() {
        for count in [1, 2, 5] {
            let mut out = Vec::new();
            let work = |number: &mut usize| assert!(*number != 40, "forty");
            let run = catch_unwind(AssertUnwindSafe(|| {
                run(threads(count).into(), || 0, &mut Numbers { next: 0, end: usize::MAX }, work, &mut out)
            }));
            assert_eq!(run.unwrap_err().downcast_ref(), Some(&"forty"));
            assert!(out.iter().copied().eq(0..out.len()) && out.len() <= 40);
        }
    }
}
