//! The TOML configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ctct_proxy::fuzzing::config(input));
