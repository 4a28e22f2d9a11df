//! What ties requests of one browser together: derived from a key of this process, so that nothing is kept for a browser
//! that has not logged in.

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};

use crate::sessions::Secret;

/// For how long a login may take, in seconds.
pub(crate) const LOGIN: i64 = 600;

/// The values of one login (OpenID Connect Core 1.0, section 3.1.2.1; RFC 7636, section 4.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// `state`: comes back with the answer.
    pub state: String,
    /// `nonce`: comes back in the token.
    pub nonce: String,
    /// PKCE's `code_verifier`.
    pub verifier: String,
}

/// Derives and checks.
pub(crate) struct Keys(hmac::Key);

impl Keys {
    /// Of this process alone. None without randomness.
    pub(crate) fn new() -> Option<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok().map(Self)
    }

    /// The ticket of the login that this cookie stands for.
    pub(crate) fn ticket(&self, cookie: &str) -> Ticket {
        Ticket {
            state: self.derive(&["state", cookie]),
            nonce: self.derive(&["nonce", cookie]),
            verifier: self.derive(&["verifier", cookie]),
        }
    }

    /// What a form bears that was shown to this login for this question as it was.
    pub(crate) fn form(&self, session: &Secret, question: &str, seal: &str) -> String {
        self.derive(&["form", session.expose(), question, seal])
    }

    /// Each part after its length, so that no two lists of parts are the same bytes.
    fn derive(&self, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        hex::encode(context.sign())
    }
}

/// Compares in constant time.
pub(crate) fn same(one: &str, other: &str) -> bool {
    verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// 256 random bits in hexadecimal. None without randomness.
pub(crate) fn random() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}
