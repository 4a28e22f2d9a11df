//! Who has logged in.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tidegate_gate::policy::Identity;

use crate::{Login, keys::random};

/// The longest that a login counts, in seconds.
pub(crate) const LONGEST: i64 = 1_800;
/// Most logins at once.
const MOST: usize = 1_000;

/// What a browser shows to be known again.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Secret(String);

/// Who has logged in, by what their browser shows.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<HashMap<Secret, (Login, i64)>>);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Sessions {
    /// Somebody logged in. None without randomness, and for a token that has ended.
    pub(crate) fn begin(&self, login: Login) -> Option<(Secret, i64)> {
        let secret = Secret(random()?);
        let now = Timestamp::now().as_second();
        let seconds = login.identity.expires.saturating_sub(now).min(LONGEST);
        if seconds <= 0 {
            return None;
        }
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, (_, until)| *until > now);
        if sessions.len() >= MOST {
            let first =
                sessions.iter().min_by_key(|(_, (_, until))| *until).map(|(secret, _)| secret.clone());
            first.and_then(|first| sessions.remove(&first));
        }
        sessions.insert(secret.clone(), (login, now.saturating_add(seconds)));
        Some((secret, seconds))
    }

    /// Who shows this, if it still counts.
    pub(crate) fn get(&self, secret: &Secret) -> Option<Identity> {
        let now = Timestamp::now().as_second();
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (login, _) = sessions.get(secret).filter(|(login, until)| *until > now && (login.counts)())?;
        Some(login.identity.clone())
    }

    /// Somebody logged out.
    pub(crate) fn end(&self, secret: &Secret) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(secret);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn somebody(seconds: i64) -> Login {
        let identity = Identity {
            issuer: "people".into(),
            url: "https://people.example".into(),
            account: None,
            subject: "ann".into(),
            groups: Vec::new(),
            expires: Timestamp::now().as_second() + seconds,
            claims: Default::default(),
        };
        Login { identity, counts: Arc::new(|| true) }
    }

    #[test]
    fn a_login_counts_no_longer_than_its_token_and_half_an_hour() {
        let sessions = Sessions::default();
        assert!(sessions.begin(somebody(0)).is_none());
        assert!(sessions.begin(somebody(100)).unwrap().1 <= 100);
        assert_eq!(sessions.begin(somebody(10_000)).unwrap().1, LONGEST);
    }

    #[test]
    fn who_logged_out_is_nobody() {
        let sessions = Sessions::default();
        let (secret, _) = sessions.begin(somebody(100)).unwrap();
        assert_eq!(&*sessions.get(&secret).unwrap().subject, "ann");
        sessions.end(&secret);
        assert!(sessions.get(&secret).is_none());
    }

    #[test]
    fn of_too_many_logins_the_one_that_ends_first_goes() {
        let sessions = Sessions::default();
        let (first, _) = sessions.begin(somebody(10)).unwrap();
        let others: Vec<_> = (0..MOST).map(|_| sessions.begin(somebody(100)).unwrap().0).collect();
        assert!(sessions.get(&first).is_none());
        assert!(others.iter().all(|secret| sessions.get(secret).is_some()));
    }
}
