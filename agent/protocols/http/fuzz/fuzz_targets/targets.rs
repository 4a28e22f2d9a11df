//! Any text as an authority, a path and a query.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_http::fuzz::targets(bytes));
