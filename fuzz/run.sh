#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS, three at a time. The workspace has no code that could break memory but
# one system call, so there is no sanitizer: a stable toolchain and the tests' own build of what we depend on do.
# Arguments are names of targets; without any, all are run. New inputs stay in target/fuzz/corpus.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/fuzz
seconds=${FUZZ_SECONDS:-60}

# One target: quiet when nothing is found.
one() {
    local name=$1 log=$work/$1.log
    local dictionary=()
    if [ -f "$root/fuzz/dictionaries/$name" ]; then
        dictionary=(-dict="$root/fuzz/dictionaries/$name")
    fi
    mkdir -p "$work/corpus/$name" "$work/found/$name" "$work/empty"
    # Inputs that failed before are tried first. The folder is an empty one: a configuration may name files.
    if (cd "$work/empty" && RUST_BACKTRACE=0 "$work/../debug/$name" \
        "$work/corpus/$name" "$root/fuzz/seeds/$name" "$work/found/$name" \
        -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=1024 \
        "${dictionary[@]}" -artifact_prefix="$work/found/$name/" -print_final_stats=1) >"$log" 2>&1; then
        local first last
        first=$(grep -oE 'INITED +cov: [0-9]+' "$log" | grep -oE '[0-9]+$' || true)
        last=$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | grep -oE '[0-9]+$' || true)
        if [ -z "$last" ] || [ "$last" -lt 100 ]; then
            echo "fuzz $name: no coverage is seen (cov: ${last:-none}); is it compiled by fuzz/rustc.sh?" >&2
            return 1
        fi
        echo "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs," \
            "cov: ${first:-?} -> $last, nothing found"
        return 0
    fi
    echo "fuzz $name: FOUND; the whole log is in $log" >&2
    grep -vE '^(#[0-9]|INFO|WARNING|NOTE|MS:|stat::|0x| )' "$log" | tail -n 30 | cut -c 1-1000 >&2
    local input
    for input in "$work/found/$name"/*; do
        [ -f "$input" ] || continue
        echo "fuzz $name: input $input" >&2
        echo "fuzz $name: base64 $(base64 -w 0 "$input")" >&2
    done
    echo "fuzz $name: when it is mended, put the input into fuzz/seeds/$name, which the tests read too" >&2
    return 1
}

if [ "${1:-}" = --one ]; then
    one "$2"
    exit
fi

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    targets=(config import jwt preferences target)
fi
RUSTC_WORKSPACE_WRAPPER=$root/fuzz/rustc.sh CARGO_INCREMENTAL=0 \
    "${CARGO:-cargo}" build --locked --manifest-path "$root/fuzz/Cargo.toml" --bins
export FUZZ_SECONDS=$seconds
printf '%s\n' "${targets[@]}" | xargs -P "${FUZZ_JOBS:-3}" -I{} "$root/fuzz/run.sh" --one {}
