//! Headers that say who calls, for whom, and how long the call may wait.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ctct_proxy::fuzzing::preferences(input));
