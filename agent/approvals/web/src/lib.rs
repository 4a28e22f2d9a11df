//! The page where people answer questions in a browser: one page a question, behind a login at an issuer.
//!
//! Nothing is told to a browser that has not logged in. An answer is taken only from the page's own form, of the login
//! that the page was shown to, and for exactly the question that was shown. Programs read and answer the same as JSON, by a
//! token that they bear.

#![forbid(unsafe_code)]

mod addresses;
mod api;
mod cookies;
mod html;
mod keys;
mod pages;
mod server;
mod sessions;

use std::sync::Arc;

use tidegate_gate::{BoxFuture, policy::Identity};

pub use keys::Ticket;
pub use pages::Pages;
pub use server::{Server, Tls};

/// Logs people in at an issuer, by a browser that is sent there and comes back with a code.
pub trait Logins: Send + Sync {
    /// Where the browser is sent to.
    fn begin<'a>(&'a self, ticket: &'a Ticket) -> BoxFuture<'a, Result<String, String>>;

    /// Who came back with this code. `issuer`: whose answer it is, as the answer says (RFC 9207).
    fn finish<'a>(
        &'a self,
        code: &'a str,
        issuer: Option<&'a str>,
        ticket: &'a Ticket,
    ) -> BoxFuture<'a, Result<Login, String>>;

    /// Who an ID token is of that this page's client was given lately, by whatever grant.
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Login, String>>;
}

/// Somebody who logged in.
#[derive(Clone)]
pub struct Login {
    /// Who they are.
    pub identity: Identity,
    /// Whether that still counts: the issuer may be gone, or be trusted on other terms.
    pub counts: Arc<dyn Fn() -> bool + Send + Sync>,
}
