//! Content that a mask can look for.

use std::sync::Arc;

/// A detector of sensitive content.
#[derive(Debug, Clone)]
pub enum Content {
    /// Payment card number: 13 to 19 digits with a valid Luhn check digit (ISO/IEC 7812-1).
    Card,
    /// E-mail address (the addr-spec of RFC 5322 as used in practice).
    Email,
    /// Telephone number in international form (E.164).
    Phone,
    /// IBAN with valid check digits (ISO 13616).
    Iban,
    /// US social security number.
    UsSsn,
    /// Access key of a cloud provider.
    CloudKey,
    /// JSON Web Token (RFC 7519).
    Jwt,
    /// Private key in PEM form (RFC 7468).
    PrivateKey,
    /// The bundle's own pattern: its name and its regular expression.
    Pattern(Arc<str>, regex::Regex),
}
