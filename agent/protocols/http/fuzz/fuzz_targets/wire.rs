//! Any bytes as a client of HTTP/1.1 sends them.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_http::fuzz::wire(bytes));
