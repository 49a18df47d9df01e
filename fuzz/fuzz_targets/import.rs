//! Files of grants: CSV and JSON lines.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ctct_proxy::fuzzing::import(input));
