//! Requests that may come twice.

use std::time::{Duration, Instant};

use crate::api::{ApiError, RelayApi};
use crate::pause::Pause;
use crate::watch::{News, Watch};

/// How often a request without side effects is tried.
const TRIES: u32 = 4;
/// The first and the longest pause between two of them.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The longest that a relay may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The longest pause in the middle of a transfer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Tries a request in the middle of a transfer again for as long as the user is patient ([`Network::retry_for`]) after the
/// network or the relay failed for the moment: what was moved is worth more than an early answer.
///
/// [`Network::retry_for`]: crate::transport::Network::retry_for
pub(crate) async fn ride_out<T, F>(
    api: &RelayApi,
    watch: &dyn Watch,
    mut request: impl FnMut() -> F,
) -> std::result::Result<T, ApiError>
where
    F: Future<Output = std::result::Result<T, ApiError>>,
{
    let mut pause = Pause::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut begun = None;
    loop {
        match request().await {
            Err(error) if error.is_passing() => {
                let begun = begun.get_or_insert_with(|| {
                    watch.news(News::Retrying(api.patience.as_secs()));
                    Instant::now()
                });
                let wait = pause.after(Some(&error));
                if begun.elapsed() + wait > api.patience {
                    return Err(error);
                }
                tokio::time::sleep(wait).await;
            }
            other => {
                if begun.is_some() {
                    watch.news(News::Reached);
                }
                return other;
            }
        }
    }
}

/// Tries a request that may safely come twice again after the network or the relay failed for the moment.
pub(crate) async fn again<T, F>(mut request: impl FnMut() -> F) -> std::result::Result<T, ApiError>
where
    F: Future<Output = std::result::Result<T, ApiError>>,
{
    let mut pause = Pause::new(FIRST_PAUSE, MAX_PAUSE);
    for _ in 1..TRIES {
        match request().await {
            // Whoever asks for a longer pause than this is asked again by the user, who is told how long.
            Err(error) if error.is_passing() && error.retry_after().is_none_or(|wait| wait <= MAX_WAIT) => {
                tokio::time::sleep(pause.after(Some(&error))).await;
            }
            other => return other,
        }
    }
    request().await
}
