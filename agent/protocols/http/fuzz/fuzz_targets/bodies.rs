//! Any bytes as a JSON body and a form whose fields rules ask for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_http::fuzz::bodies(bytes));
