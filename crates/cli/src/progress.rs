//! Progress on a terminal: how far, how fast, how long still. Nothing anywhere else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pouch_client::{News, Watch};
use pouch_statement::BundleId;

use crate::show::{Show, on_terminal, short, span};

/// A bar, or nothing; and what is worth telling on the way.
pub(crate) struct Bar {
    bar: ProgressBar,
    show: Show,
    begun: Mutex<Option<BundleId>>,
    /// The relay does not answer, and that was said.
    waits: AtomicBool,
}

impl Bar {
    /// A bar on stderr if a person watches; otherwise one that shows nothing.
    pub(crate) fn new(show: Show) -> Arc<Self> {
        let shown = show.chatty() && on_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        Self::of(ProgressBar::with_draw_target(None, target), show)
    }

    /// One that shows nothing: the terminal is used for something else.
    pub(crate) fn hidden(show: Show) -> Arc<Self> {
        Self::of(ProgressBar::hidden(), show)
    }

    fn of(bar: ProgressBar, show: Show) -> Arc<Self> {
        Arc::new(Self { bar, show, begun: Mutex::default(), waits: AtomicBool::new(false) })
    }

    /// The bundle that can go on after an interruption.
    pub(crate) fn begun(&self) -> Option<BundleId> {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, bundle: Option<BundleId>) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = bundle;
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Watch for Bar {
    fn stage(&self, what: &'static str, total: Option<u64>) {
        if self.bar.is_hidden() {
            return;
        }
        match total {
            Some(total) => {
                self.bar.set_length(total);
                self.bar.set_style(style("{msg} [{bar:24}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left"));
            }
            None => self.bar.set_style(style("{spinner} {msg} {bytes} {binary_bytes_per_sec}")),
        }
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.bar.set_message(what);
        // Only now: before the first stage other things are still being said.
        self.bar.enable_steady_tick(Duration::from_millis(125));
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }

    fn news(&self, news: News) {
        match news {
            News::Resumable(bundle) => self.begin(Some(bundle)),
            News::Continues { bundle, percent } => {
                self.begin(Some(bundle));
                let done = percent.map(|percent| format!(", {percent} % of which is there")).unwrap_or_default();
                self.bar.suspend(|| self.show.remark(format_args!("going on with bundle {}{done}", short(bundle))));
            }
            News::Retrying(seconds) => {
                if !self.waits.swap(true, Ordering::Relaxed) {
                    let text = format!(
                        "the relay does not answer, or cannot for the moment; trying again for up to {}",
                        span(seconds)
                    );
                    self.bar.suspend(|| self.show.remark(text));
                }
            }
            News::Reached => self.waits.store(false, Ordering::Relaxed),
            News::StartsOver(bundle, why) => {
                self.begin(None);
                let text = format!("bundle {} is begun anew: {why}", short(bundle));
                self.bar.suspend(|| self.show.warn(text));
            }
        }
    }
}
