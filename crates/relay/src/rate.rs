//! Rates: how many requests an account, and an address, may make (attacks.md 46).
//!
//! Each has a token bucket, kept as the one time at which it is full again (GCRA, ITU-T I.371). The buckets live in a table of
//! fixed size, in small groups that a keyed hash chooses. When a group is full the bucket goes that is nearest to full,
//! which loses the least: whoever pushes others out by sheer number of addresses gives away their debts, never their tokens.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::config::Config;

/// Buckets of a group, and groups of a table: 65,536 buckets, 1 MiB.
const GROUP: usize = 8;
const GROUPS: usize = 8192;
const SECOND: u64 = 1_000_000_000;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Whom an address stands for: itself, or with IPv6 its /64, which is what one customer has at least (RFC 6177).
pub(crate) fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        // The upper half of no address in use is below 2^32: ::/8 is reserved (RFC 4291 §2.4), mapped ones are above.
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    }
}

/// How a bucket stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Whether the request found a token.
    pub(crate) granted: bool,
    /// Tokens left.
    left: u64,
    /// Until there is one more than now (RateLimit's `t`), or the one that was missing.
    wait: Duration,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    key: u64,
    /// Nanoseconds of the table's clock at which it is full again; 0 for a place that was never taken.
    full: u64,
}

/// Buckets of one kind.
pub(crate) struct Rates {
    name: &'static str,
    /// Nanoseconds in which a token comes back.
    each: u64,
    burst: u64,
    per_second: u64,
    hash: RandomState,
    begun: Instant,
    buckets: Mutex<Vec<[Bucket; GROUP]>>,
}

impl Rates {
    fn new(name: &'static str, per_second: u64, burst: u64) -> Self {
        Self {
            name,
            each: (SECOND / per_second.max(1)).max(1),
            burst: burst.max(1),
            per_second,
            hash: RandomState::new(),
            begun: Instant::now(),
            buckets: Mutex::new(vec![[Bucket::default(); GROUP]; GROUPS]),
        }
    }

    /// Those of accounts.
    pub(crate) fn of_accounts(config: &Config) -> Self {
        Self::new("account", config.account_requests_per_second, config.account_requests_burst)
    }

    /// Those of addresses.
    pub(crate) fn of_addresses(config: &Config) -> Self {
        Self::new("address", config.address_requests_per_second, config.address_requests_burst)
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self, key: u64) -> Standing {
        // A second late, so that no time is that of a place never taken.
        let now = SECOND + u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        self.take_at(key, now)
    }

    fn take_at(&self, key: u64, now: u64) -> Standing {
        let depth = self.each.saturating_mul(self.burst);
        let at = usize::try_from(self.hash.hash_one(key) % GROUPS as u64).unwrap_or(0);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.get_mut(at).and_then(|group| place(group, key)) else {
            return Standing { granted: true, left: 0, wait: Duration::ZERO };
        };
        let next = bucket.full.max(now).saturating_add(self.each);
        let granted = next - now <= depth;
        if granted {
            bucket.full = next;
        }
        let missing = bucket.full.saturating_sub(now);
        let left = depth.saturating_sub(missing) / self.each;
        // Down to the whole token that is the first not there now.
        let wait = missing.saturating_sub(depth - (left + 1).min(self.burst) * self.each);
        Standing { granted, left, wait: Duration::from_nanos(wait) }
    }

    /// Tells the client how it stands (draft-ietf-httpapi-ratelimit-headers-10, §3 and §4): with each refusal, and with
    /// answers once half of the tokens are gone.
    pub(crate) fn tell(&self, standing: &Standing, headers: &mut HeaderMap) {
        if standing.granted && standing.left > self.burst / 2 {
            return;
        }
        // Rounded up: whoever waits that long finds a token.
        let seconds = standing.wait.as_millis().div_ceil(1000).max(1);
        let window = self.burst.div_ceil(self.per_second.max(1));
        let policy = format!("\"{}\";q={};w={window}", self.name, self.burst);
        let state = format!("\"{}\";r={};t={seconds}", self.name, standing.left);
        for (name, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, state)] {
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
        if !standing.granted {
            headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
    }
}

/// The bucket of `key`, or the one that it takes over: the nearest to full.
fn place(group: &mut [Bucket; GROUP], key: u64) -> Option<&mut Bucket> {
    let at = group.iter().position(|bucket| bucket.key == key && bucket.full > 0);
    match at {
        Some(at) => group.get_mut(at),
        None => {
            let bucket = group.iter_mut().min_by_key(|bucket| bucket.full)?;
            *bucket = Bucket { key, full: 0 };
            Some(bucket)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const T: u64 = SECOND;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rates = Rates::new("account", 10, 5);
        let granted = (0..7).filter(|_| rates.take_at(1, T).granted).count();
        assert_eq!(granted, 5);
        let refused = rates.take_at(1, T);
        assert_eq!(refused, Standing { granted: false, left: 0, wait: Duration::from_millis(100) });
        // Nothing comes early, one token after its time, and never more than the burst.
        assert!(!rates.take_at(1, T + SECOND / 10 - 1).granted);
        assert!(rates.take_at(1, T + SECOND / 10).granted);
        assert!(!rates.take_at(1, T + SECOND / 10).granted);
        let later = T + 3600 * SECOND;
        assert_eq!((0..9).filter(|_| rates.take_at(1, later).granted).count(), 5);
        // Another one is not touched by it.
        assert!(rates.take_at(2, T).granted);
    }

    #[test]
    fn what_is_told_is_true() {
        let rates = Rates::new("address", 10, 5);
        let told = |standing: &Standing| {
            let mut headers = HeaderMap::new();
            rates.tell(standing, &mut headers);
            let get = |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            (get(RATELIMIT), get(RATELIMIT_POLICY), get(RETRY_AFTER))
        };
        assert_eq!(told(&rates.take_at(1, T)), (None, None, None));
        rates.take_at(1, T);
        let (state, policy, retry) = told(&rates.take_at(1, T));
        assert_eq!(state.unwrap(), "\"address\";r=2;t=1");
        assert_eq!(policy.unwrap(), "\"address\";q=5;w=1");
        assert_eq!(retry, None);
        for _ in 0..2 {
            rates.take_at(1, T);
        }
        let refused = rates.take_at(1, T);
        let (state, _, retry) = told(&refused);
        assert_eq!((state.unwrap().as_str(), retry.unwrap().as_str()), ("\"address\";r=0;t=1", "1"));
        // Whoever waits as long as they were told is let in.
        let slow = Rates::new("address", 1, 1);
        slow.take_at(1, T);
        let wait = slow.take_at(1, T + SECOND / 4).wait;
        assert_eq!(wait, Duration::from_millis(750));
        assert!(slow.take_at(1, T + SECOND / 4 + 750_000_000).granted);
    }

    // attacks.md 46, 48: memory is bounded, and a flood of addresses pushes nobody's debt out but that of the nearest to full.
    #[test]
    fn attack_46_a_flood_of_keys_does_not_forgive_who_is_over_the_limit() {
        let rates = Rates::new("address", 1, 100);
        while rates.take_at(7, T).granted {}
        for key in 1000..1000 + (GROUP * GROUPS * 4) as u64 {
            rates.take_at(key, T);
        }
        assert!(!rates.take_at(7, T).granted);
        assert_eq!(rates.buckets.lock().unwrap().len() * GROUP, 65_536);
    }

    #[test]
    fn an_address_stands_for_its_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::2"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
    }
}
