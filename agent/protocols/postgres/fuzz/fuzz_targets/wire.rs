//! Any bytes through every parser of the wire format.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_postgres::fuzz_wire(bytes));
