#!/bin/sh
# The compiler for `RUSTC_WORKSPACE_WRAPPER`: counts branches and shows comparisons to libFuzzer, by the flags
# of cargo-fuzz. Only the workspace is compiled so; what it depends on is shared with the tests' build.
set -eu

rustc=$1
shift
exec "$rustc" "$@" --cfg fuzzing \
    -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions
