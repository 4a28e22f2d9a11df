//! Any bytes as JSON and a form that masks are on.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_http::fuzz::masks(bytes));
