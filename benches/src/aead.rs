//! The two libraries for ChaCha20-Poly1305, and BLAKE3 beside them: what one core and all cores can do at most.

use std::hint::black_box;
use std::num::NonZero;
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce as OtherNonce};

use crate::options::Options;
use crate::{Failure, say};

/// Bytes of a chunk of age.
const CHUNK: usize = 64 * 1024;
/// How long each figure is taken for.
const TIME: Duration = Duration::from_millis(300);

/// Prints gigabytes (10^9) a second, the median of the rounds.
pub(crate) fn measure(options: &Options) -> Result<(), Failure> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).map_err(|_| "no key")?);
    let aws_lc = |number: u64, chunk: &mut [u8]| {
        let nonce = Nonce::assume_unique_for_key(nonce(number));
        black_box(key.seal_in_place_separate_tag(nonce, Aad::empty(), chunk).is_ok());
    };
    let other = ChaCha20Poly1305::new(&[7; 32].into());
    let rust_crypto = |number: u64, chunk: &mut [u8]| {
        let nonce: OtherNonce = nonce(number).into();
        black_box(other.encrypt_inout_detached(&nonce, b"", chunk.into()).is_ok());
    };
    let blake3 = |_: u64, chunk: &mut [u8]| {
        black_box(blake3::hash(chunk));
    };
    let work: [(&str, Work<'_>); 3] = [("aws-lc-rs", &aws_lc), (other_name(), &rust_crypto), ("BLAKE3", &blake3)];
    say("## 64 KiB in place, GB/s\n");
    say(format_args!("| | 1 core | {cores} cores |\n| --- | ---: | ---: |"));
    let mut rates = vec![(Vec::new(), Vec::new()); work.len()];
    for _ in 0..options.rounds {
        for ((_, work), (one, all)) in work.iter().zip(&mut rates) {
            one.push(rate(1, *work));
            all.push(rate(cores, *work));
        }
    }
    for ((name, _), (one, all)) in work.iter().zip(rates) {
        say(format_args!("| {name} | {:.2} | {:.2} |", crate::rounds::median(one), crate::rounds::median(all)));
    }
    say("");
    Ok(())
}

/// What it was built with decides.
#[expect(unexpected_cfgs, reason = "the library's switch, set in RUSTFLAGS")]
fn other_name() -> &'static str {
    if cfg!(chacha20_avx512) { "chacha20poly1305, --cfg chacha20_avx512" } else { "chacha20poly1305" }
}

/// Works on one chunk; the number is for the nonce.
type Work<'a> = &'a (dyn Fn(u64, &mut [u8]) + Sync);

fn nonce(number: u64) -> [u8; 12] {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    [0, 0, 0, a, b, c, d, e, f, g, h, 0]
}

/// Gigabytes a second of `threads` threads together.
fn rate(threads: usize, work: Work<'_>) -> f64 {
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut chunk = vec![0_u8; CHUNK];
                    let (start, mut count) = (Instant::now(), 0_u64);
                    while start.elapsed() < TIME {
                        work(count, &mut chunk);
                        count += 1;
                    }
                    (count * CHUNK as u64) as f64 / start.elapsed().as_secs_f64() / 1e9
                })
            })
            .collect();
        all.into_iter().filter_map(|thread| thread.join().ok()).sum()
    })
}
