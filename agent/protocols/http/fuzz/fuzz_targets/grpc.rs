//! Any bytes as a body of gRPC whose messages rules and masks look into.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate_http::fuzz::grpc(bytes));
