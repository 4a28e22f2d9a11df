//! What an issuer vouches for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The claims of a verified ID token (OpenID Connect Core 1.0, section 2). Never the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The issuer, by its name in the bundle.
    pub issuer: Arc<str>,
    /// `iss`: its URL. Two names of one issuer mean the same people.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub url: Arc<str>,
    /// The account of the host that this is, where the bundle says that the issuer knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Arc<str>>,
    /// `sub`: whom the issuer means, unique for the issuer.
    pub subject: Arc<str>,
    /// Groups, from where the bundle says that this issuer tells them.
    pub groups: Vec<Arc<str>>,
    /// `exp`, in seconds since 1970.
    pub expires: i64,
    /// The claims that the bundle has any use for, by name.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// A token that is there for a process and does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unproven {
    /// The issuer whose token it should be, by its name in the bundle.
    pub issuer: Arc<str>,
    /// What is wrong with it, worded for whoever presented it. Never any part of the token.
    pub why: Arc<str>,
}
