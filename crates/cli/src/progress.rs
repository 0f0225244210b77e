//! Progress on a terminal: how far, how fast, how long still. Nothing anywhere else.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pouch_client::Watch;

use crate::show::{Show, on_terminal};

/// A bar, or nothing.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar on stderr if a person watches; otherwise one that shows nothing.
    pub(crate) fn new(show: Show) -> Arc<Self> {
        let shown = show.chatty() && on_terminal();
        if !shown {
            return Self::hidden();
        }
        Arc::new(Self(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8))))
    }

    /// One that shows nothing: the terminal is used for something else.
    pub(crate) fn hidden() -> Arc<Self> {
        Arc::new(Self(ProgressBar::hidden()))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

impl Watch for Bar {
    fn stage(&self, what: &'static str, total: Option<u64>) {
        if self.0.is_hidden() {
            return;
        }
        match total {
            Some(total) => {
                self.0.set_length(total);
                self.0.set_style(style("{msg} [{bar:24}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left"));
            }
            None => self.0.set_style(style("{spinner} {msg} {bytes} {binary_bytes_per_sec}")),
        }
        self.0.set_position(0);
        self.0.reset_eta();
        self.0.set_message(what);
        // Only now: before the first stage other things are still being said.
        self.0.enable_steady_tick(Duration::from_millis(125));
    }

    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn done(&self) {
        self.0.finish_and_clear();
    }
}
