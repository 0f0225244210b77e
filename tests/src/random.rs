//! Chance that can be had again.

/// SplitMix64: small, seeded, the same everywhere.
pub struct Random(pub u64);

impl Random {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// How many kills `POUCH_KILLS` asks for, or as usual.
#[must_use]
pub fn kills(usually: u64) -> u64 {
    std::env::var("POUCH_KILLS").ok().map_or(usually, |n| n.parse().unwrap())
}

/// So many seeds: the same each time, but for the last, which is fresh and told; or the one that `POUCH_SEED` names.
pub fn seeds(test: &str, count: u64) -> impl Iterator<Item = u64> {
    let only: Option<u64> = std::env::var("POUCH_SEED").ok().map(|seed| seed.parse().unwrap());
    let count = only.map_or(count, |_| 1);
    let fresh = u64::from_le_bytes(pouch_statement::random().unwrap());
    // Past the capture: whoever finds a failure needs it.
    let text = format!("{test}: fresh seed {fresh}\n");
    drop(std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes()));
    let seed = move |round| only.unwrap_or(if round + 1 == count { fresh } else { round });
    (0..count).map(seed)
}
