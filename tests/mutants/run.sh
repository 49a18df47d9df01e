#!/bin/sh
# Changes the engine in every way that cargo-mutants knows and lists what no test notices.
# Arguments go to cargo-mutants: `run.sh --file src/engine/queue.rs`, `run.sh --list`.
set -eu

version=27.1.0
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$root/target/mutants
cargo=${CARGO:-cargo}

if ! "$cargo" mutants --version 2>/dev/null | grep -qF " $version"; then
    "$cargo" install cargo-mutants --locked --version "$version"
fi

mkdir -p "$copy/.cargo"
rm -rf "$copy/src" "$copy/proptest-regressions"
mkdir -p "$copy/src"
cp -R "$root/src/engine" "$root/src/engine.rs" "$copy/src/"
if [ -d "$root/proptest-regressions" ]; then
    cp -R "$root/proptest-regressions" "$copy/"
fi
cp "$root/tests/mutants/Cargo.toml" "$root/Cargo.lock" "$root/rust-toolchain.toml" "$copy/"
cp "$root/tests/mutants/mutants.toml" "$copy/.cargo/mutants.toml"
printf '//! The engine alone.\n\npub mod engine;\n' >"$copy/src/lib.rs"

# The same cases for every mutant, so that the list is the same at every run.
cd "$copy"
PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1} \
    PROPTEST_CASES=${PROPTEST_CASES:-64} \
    PROPTEST_MAX_SHRINK_ITERS=0 \
    "$cargo" mutants --jobs "${JOBS:-2}" "$@" || status=$?

# 3 is for mutants that never end, which is noticed, and hides whether others were missed.
if [ "${status:-0}" -eq 3 ] && [ ! -s mutants.out/missed.txt ]; then
    exit 0
fi
exit "${status:-0}"
