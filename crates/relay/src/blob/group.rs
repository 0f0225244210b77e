//! One fsync of a folder for all who wait for it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::folder::Steps;
use crate::disk::Disk;

/// What a sync came to: `io::Error` cannot be told to several.
type Outcome = Result<(), (io::ErrorKind, String)>;

/// A folder whose new names become durable in groups: whoever comes while a sync runs shares the next one. The sync
/// that counts for a caller always begins after its call, so it covers every name that was there by then.
pub(super) struct GroupSync {
    disk: Disk,
    steps: Arc<Steps>,
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: bool,
    waiting: Vec<oneshot::Sender<Outcome>>,
}

impl GroupSync {
    pub(super) fn new(disk: Disk, steps: Arc<Steps>, folder: PathBuf) -> Arc<Self> {
        Arc::new(Self { disk, steps, folder, state: Mutex::default() })
    }

    /// Returns when all names that are in the folder now are on stable storage.
    pub(super) async fn sync(self: &Arc<Self>) -> io::Result<()> {
        let (tell, told) = oneshot::channel();
        let first = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waiting.push(tell);
            !std::mem::replace(&mut state.running, true)
        };
        if first {
            // On a task of its own: the first one must neither wait for the others nor take them along when it ends.
            tokio::spawn(Arc::clone(self).lead());
        }
        match told.await {
            Ok(outcome) => outcome.map_err(|(kind, text)| io::Error::new(kind, text)),
            Err(_) => Err(io::Error::other("the sync of a folder was given up")),
        }
    }

    async fn lead(self: Arc<Self>) {
        loop {
            let group = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.running = !state.waiting.is_empty();
                std::mem::take(&mut state.waiting)
            };
            if group.is_empty() {
                return;
            }
            let (disk, folder) = (self.disk.clone(), self.folder.clone());
            let outcome = self.steps.run(move || disk.sync_folder(&folder)).await;
            let outcome = outcome.map_err(|error| (error.kind(), error.to_string()));
            for tell in group {
                let _ = tell.send(outcome.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::Duration;

    use super::*;
    use crate::disk::DiskOp;

    /// Counts syncs, each of which takes a while, and fails them when told.
    fn slow(count: &Arc<AtomicUsize>, fail: &Arc<AtomicUsize>) -> Disk {
        let (count, fail) = (Arc::clone(count), Arc::clone(fail));
        Disk::new(Some(Arc::new(move |op, _: &Path| {
            assert_eq!(op, DiskOp::SyncFolder);
            std::thread::sleep(Duration::from_millis(20));
            count.fetch_add(1, Ordering::SeqCst);
            if fail.load(Ordering::SeqCst) == 0 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        })))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn those_who_wait_share_a_sync_and_its_failure() {
        let folder = tempfile::tempdir().unwrap();
        let (count, fail) = (Arc::default(), Arc::default());
        let group = GroupSync::new(slow(&count, &fail), Arc::new(Steps::threads()), folder.path().to_owned());
        for (failing, outcome) in [(0, None), (1, Some(io::ErrorKind::StorageFull)), (0, None)] {
            fail.store(failing, Ordering::SeqCst);
            count.store(0, Ordering::SeqCst);
            let outcomes = futures_util::future::join_all((0..50).map(|_| group.sync())).await;
            assert!(outcomes.into_iter().all(|o| o.err().map(|e| e.kind()) == outcome));
            // The first one's, and one that began after all others had come.
            assert!((1..=3).contains(&count.load(Ordering::SeqCst)), "{count:?}");
        }
    }

    /// Lets it get as far as it can for now; whether it has to wait.
    async fn begins_only<F: Future + Unpin>(future: &mut F) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx).is_pending())).await
    }

    // A sync that was under way when a name came may have missed it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_sync_that_runs_already_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let (begins, begun) = std::sync::mpsc::channel();
        let (end, ends) = std::sync::mpsc::channel();
        let ends = Mutex::new(ends);
        // Each says that it begins, and ends when it is told to.
        let disk = Disk::new(Some(Arc::new(move |_, _: &Path| {
            begins.send(()).unwrap();
            ends.lock().unwrap().recv().map_err(io::Error::other)
        })));
        let group = GroupSync::new(disk, Arc::new(Steps::threads()), folder.path().to_owned());
        let mut first = Box::pin(group.sync());
        assert!(begins_only(&mut first).await);
        let begun = tokio::task::spawn_blocking(move || begun.recv().map(|()| begun)).await.unwrap().unwrap();
        let mut second = Box::pin(group.sync());
        assert!(begins_only(&mut second).await);
        end.send(()).unwrap();
        first.await.unwrap();
        let begun = tokio::task::spawn_blocking(move || begun.recv().map(|()| begun)).await.unwrap().unwrap();
        assert!(begins_only(&mut second).await, "its own sync runs still");
        end.send(()).unwrap();
        second.await.unwrap();
        assert!(begun.try_recv().is_err(), "two syncs are enough");
    }
}
