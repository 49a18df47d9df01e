//! Access tokens and what they claim.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ctct_proxy::fuzzing::jwt(input));
