# Shortcuts; each recipe is a line that can be typed as well.

# List the recipes
default:
    @just --list

# Everything that CI does
ci:
    .ci/run

# All tests
test *args:
    cargo test --workspace {{args}}

# Formatting, lints and documentation
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo clippy -p pouch --no-default-features -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# The whole exchange on this machine, then attacks on it
demo *args:
    cargo run --release -- demo {{args}}

# Measure against age and rage; benches/README.md says how to read it
bench *args:
    cargo run --release -p pouch-benches -- {{args}}

# The tests at full size and with more rounds, then fuzzing and mutants: gigabytes of disk, and hours rather than minutes. Every tool
# must be there: POUCH_GO_AGE=DIR, and the two services, POUCH_POSTGRES=DIR and POUCH_CEPH=DIR of a Ceph that
# `tests/services/ceph start DIR` has started.
# A crowd of 10,000 needs `ulimit -n 21000`.
torture kills="1000" cases="4096" seconds="300" crashes="20000" crowd="10000" exchanges="10000":
    POUCH_REQUIRE_TOOLS=1 POUCH_LARGE=1 POUCH_KILLS={{kills}} POUCH_CRASHES={{crashes}} POUCH_CROWD={{crowd}} POUCH_EXCHANGES={{exchanges}} PROPTEST_CASES={{cases}} cargo test --workspace --release
    just fuzz {{seconds}}
    just mutants

# Changes to the code that verifies, judges names and derives keys, each of which a test must notice (cargo install cargo-mutants)
mutants:
    cargo mutants -p pouch-statement -f '**/sshsig.rs' -f '**/signed.rs' -f '**/card.rs' -f '**/key.rs' -f '**/fingerprint.rs'
    cargo mutants -p pouch-core -f '**/age/stream.rs' -f '**/age/header.rs' -f '**/age/recipient.rs' -f '**/age/hybrid.rs' -f '**/bundle/path.rs' -f '**/bundle/envelope.rs'

# Every fuzz target for so many seconds, from the vectors on (cargo install cargo-fuzz)
fuzz seconds="300":
    cargo run --quiet --manifest-path fuzz/Cargo.toml --example seed
    for target in $(cargo fuzz list); do cargo fuzz run --sanitizer none "$target" -- -max_total_time={{seconds}} -max_len=200000 -timeout=20 || exit 1; done

# Bans, licences and sources of the dependencies
deny:
    cargo deny --workspace check bans licenses sources

# Known vulnerabilities in the dependencies
advisories:
    cargo deny --workspace check advisories
