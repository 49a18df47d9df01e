//! Request targets, and which headers pass.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ctct_proxy::fuzzing::target(input));
