#!/bin/sh
# Runs each fuzz target for SECONDS (default 30). Needs a nightly toolchain and cargo-fuzz; says so where one is missing.
# Usage: aggregation/fuzz/run.sh [SECONDS]
set -eu
cd "$(dirname "$0")/.."
seconds="${1:-30}"

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "skipped: fuzzing needs a nightly toolchain (rustup toolchain install nightly)"
    exit 0
fi
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "skipped: fuzzing needs cargo-fuzz (cargo install cargo-fuzz --locked)"
    exit 0
fi
for target in decode frame round_trip; do
    echo "fuzzing $target for $seconds s"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=4096
done
