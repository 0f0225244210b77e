//! Requests that may come twice.

use std::time::Duration;

use crate::api::ApiError;
use crate::pause::Pause;

/// How often a request without side effects is tried.
const TRIES: u32 = 4;
/// The first and the longest pause between two of them.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// The longest that a relay may ask for.
const MAX_WAIT: Duration = Duration::from_secs(30);

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
