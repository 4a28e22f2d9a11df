//! The wire format: bytes in, messages out. Pure.
