//! The relay's memory does not grow with what it receives. A process of its own, since it measures the whole of it.
#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "relay/harness.rs"]
mod harness;

use harness::{Draft, World, sealed};
use pouch_protocol::route;

const CONNECTIONS: u32 = 8;
const ROUNDS: u32 = 6;
/// 8 MiB of content, sealed: about what parts are at first.
const PART: usize = (8 << 20) + 20_000;

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Client and relay in one process: eight connections of 8 MiB parts and back. The client's one part is in it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_parts_at_once_stay_below_100_mib() {
    let mut world = World::new().await;
    let ada = world.owner("Ada").await;
    let bundle = world.begin(&ada, false).await;
    let part = sealed(7, PART);
    for round in 0..ROUNDS {
        let numbers = (0..CONNECTIONS).map(|n| round * CONNECTIONS + n);
        let puts = numbers.map(|n| world.by(&ada, Draft::part(bundle, n, &part)));
        for reply in futures_util::future::join_all(puts).await {
            reply.is_done();
        }
    }
    let after_upload = peak_kib();
    // One at a time: the client keeps what it gets.
    for number in 0..CONNECTIONS {
        assert_eq!(world.by(&ada, Draft::get(route::part(bundle, number))).await.body, part);
    }
    world.stop().await;
    eprintln!("{after_upload} KiB at the peak of the upload");
    assert!(after_upload < 100 << 10, "{after_upload} KiB at the peak");
}
