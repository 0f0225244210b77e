//! How long to wait before the relay is asked the same again.

use std::time::Duration;

use crate::api::ApiError;

/// The longest that a relay is obeyed when it asks for time: one that is wrong about it must not stop us for good.
const OBEYED: Duration = Duration::from_secs(300);

/// A pause that doubles each time, is up to half as long again by chance, so that those who failed together do not come back
/// together, and is never shorter than the relay asks for.
pub(crate) struct Pause {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pause {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause, after an answer or after `error`.
    pub(crate) fn after(&mut self, error: Option<&ApiError>) -> Duration {
        let due = self.due(error);
        // Without randomness, without chance.
        let [chance] = pouch_statement::random().unwrap_or_default();
        due + due * u32::from(chance) / 512
    }

    fn due(&mut self, error: Option<&ApiError>) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        error.and_then(ApiError::retry_after).unwrap_or_default().min(OBEYED).max(pause)
    }

    /// Things move: the next one is the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use pouch_protocol::ProblemKind;

    use super::*;

    #[test]
    fn it_doubles_and_obeys() {
        let seconds = Duration::from_secs;
        let asks =
            |retry_after| ApiError::Refused { kind: ProblemKind::Rate, detail: None, retry_after, request: None };
        let mut pause = Pause::new(seconds(1), seconds(5));
        assert_eq!([(); 5].map(|()| pause.due(None)), [1, 2, 4, 5, 5].map(seconds));
        assert_eq!(pause.due(Some(&asks(Some(7)))), seconds(7));
        assert_eq!(pause.due(Some(&asks(Some(1)))), seconds(5));
        assert_eq!(pause.due(Some(&asks(None))), seconds(5));
        assert_eq!(pause.due(Some(&asks(Some(u64::MAX)))), OBEYED);
        pause.reset();
        assert_eq!(pause.due(None), seconds(1));
    }

    #[test]
    fn chance_makes_it_longer_by_up_to_a_half() {
        let second = Duration::from_secs(1);
        let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| Pause::new(second, second).after(None)).collect();
        assert!(pauses.len() > 10);
        assert!(pauses.iter().all(|pause| (second..second * 3 / 2).contains(pause)));
    }
}
