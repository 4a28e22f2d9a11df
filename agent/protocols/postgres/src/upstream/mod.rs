//! The gate's own side: TLS and signing in to the server.
