//! The gate's own credential in what comes back: upstreams repeat it in links, redirects and cookies, and the client is
//! not to learn it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tidegate_gate::{Credential, Secret};
use zeroize::Zeroizing;

use crate::{options::Options, sign_in, target};

/// A credential that is shorter could be anything's name.
const SHORTEST: usize = 6;

type Spelling = Zeroizing<Vec<u8>>;

/// The spellings of what a session showed last: it shows the same again and again.
#[derive(Default)]
pub(crate) struct Spellings(Mutex<Option<Known>>);

struct Known {
    of: Arc<Credential>,
    spellings: Arc<[Spelling]>,
}

impl Spellings {
    fn of(&self, credential: &Arc<Credential>) -> Arc<[Spelling]> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = last.as_ref().filter(|known| Arc::ptr_eq(&known.of, credential)) {
            return known.spellings.clone();
        }
        let spellings: Arc<[Spelling]> = spellings(credential).into();
        *last = Some(Known { of: credential.clone(), spellings: spellings.clone() });
        spellings
    }
}

/// What of the gate's credential could come back in one response.
pub(crate) struct Traces {
    /// Each spelling of it.
    spellings: Arc<[Spelling]>,
    /// It is looked for in bodies, too.
    in_bodies: bool,
    /// The upstream's cookies go on.
    passes_cookies: bool,
    /// The gate's own cookie.
    cookie: Option<String>,
    /// The beginning of what may be a spelling.
    held: Vec<u8>,
}

impl Traces {
    pub(crate) fn of(options: &Options, credential: &Arc<Credential>, known: &Spellings) -> Self {
        Self {
            spellings: known.of(credential),
            in_bodies: options.sign_in.may_be_repeated(credential),
            passes_cookies: options.pass.contains(&header::COOKIE),
            cookie: options.sign_in.cookie().map(Into::into),
            held: Vec::new(),
        }
    }

    /// Takes the credential out of header fields, and cookies that are not the client's to have: those of the session that the
    /// gate signed in to.
    pub(crate) fn clean(&self, headers: &mut HeaderMap) {
        let is_kept = |cookie: &HeaderValue| {
            let name = cookie.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
            self.passes_cookies && self.cookie.as_ref().is_none_or(|own| name.trim_ascii() != own.as_bytes())
        };
        if !headers.get_all(header::SET_COOKIE).iter().all(is_kept) {
            let cookies: Vec<_> = headers
                .get_all(header::SET_COOKIE)
                .iter()
                .filter(|cookie| is_kept(cookie))
                .cloned()
                .collect();
            headers.remove(header::SET_COOKIE);
            cookies.into_iter().for_each(|cookie| _ = headers.append(header::SET_COOKIE, cookie));
        }
        for value in headers.values_mut() {
            if let Some(cleaned) = self.cleaned(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&cleaned).unwrap_or(HeaderValue::from_static("***"));
            }
        }
    }

    fn cleaned(&self, value: &[u8]) -> Option<Vec<u8>> {
        let mut cleaned: Option<Vec<u8>> = None;
        for spelling in &*self.spellings {
            while let Some(at) = memchr::memmem::find(cleaned.as_deref().unwrap_or(value), spelling) {
                let mut text = cleaned.take().unwrap_or_else(|| value.to_vec());
                text.splice(at..at + spelling.len(), *b"***");
                cleaned = Some(text);
            }
        }
        cleaned
    }

    /// Takes a part of a body; what of it goes on, with stars in the credential's place, so that no length changes.
    pub(crate) fn take(&mut self, data: Bytes) -> Bytes {
        if !self.in_bodies {
            return data;
        }
        let is_there = |text: &[u8]| {
            self.spellings.iter().any(|spelling| memchr::memmem::find(text, spelling).is_some())
        };
        if self.held.is_empty() && !is_there(&data) && self.begun(&data) == 0 {
            return data;
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(&data);
        for spelling in &*self.spellings {
            while let Some(at) = memchr::memmem::find(&text, spelling) {
                text.iter_mut().skip(at).take(spelling.len()).for_each(|byte| *byte = b'*');
            }
        }
        self.held = text.split_off(text.len() - self.begun(&text));
        text.into()
    }

    /// Whether something of the body is held back.
    pub(crate) fn hold_back(&self) -> bool {
        !self.held.is_empty()
    }

    /// What was held back until the body's end.
    pub(crate) fn rest(&mut self) -> Option<Bytes> {
        Some(std::mem::take(&mut self.held)).filter(|held| !held.is_empty()).map(Bytes::from)
    }

    /// How many bytes at the end could be a spelling's beginning.
    fn begun(&self, text: &[u8]) -> usize {
        let begins = |count: &usize| {
            let end = text.get(text.len() - count..).unwrap_or_default();
            self.spellings.iter().any(|spelling| spelling.len() > *count && spelling.starts_with(end))
        };
        let longest = self.spellings.iter().map(|spelling| spelling.len()).max().unwrap_or(1) - 1;
        (1..=longest.min(text.len())).rev().find(begins).unwrap_or(0)
    }
}

/// All of what a credential shows, none twice.
fn spellings(credential: &Credential) -> Vec<Spelling> {
    let pair = sign_in::pair(credential);
    let secrets = [&credential.password, &credential.token].into_iter().flatten().map(Secret::expose);
    let all = secrets.chain(pair.iter().map(|pair| pair.as_bytes())).flat_map(spelled);
    let mut spellings: Vec<Spelling> = all.filter(|spelling| spelling.len() >= SHORTEST).collect();
    spellings.sort_by(|a, b| a.as_slice().cmp(b.as_slice()));
    spellings.dedup();
    spellings
}

/// As it is; encoded as in a URL, in either case; and with the slashes that some JSON has. Padding says nothing, and is
/// written in many ways.
fn spelled(secret: &[u8]) -> [Spelling; 4] {
    let padding = secret.iter().rev().take_while(|byte| **byte == b'=').count();
    let secret = secret.get(..secret.len() - padding).unwrap_or_default();
    let encoded = Zeroizing::new(target::encoded(secret).into_bytes());
    let mut lower = encoded.clone();
    let mut digits = 0;
    for byte in lower.iter_mut() {
        match *byte {
            b'%' => digits = 2,
            _ if digits > 0 => {
                digits -= 1;
                byte.make_ascii_lowercase();
            }
            _ => {}
        }
    }
    let slashed = secret.iter().flat_map(|byte| match byte {
        b'/' => &b"\\/"[..],
        byte => std::slice::from_ref(byte),
    });
    [Zeroizing::new(secret.to_vec()), encoded, lower, Zeroizing::new(slashed.copied().collect())]
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::target::Tolerated;

    fn traces(secret: &str) -> Traces {
        Traces {
            spellings: Arc::new(spelled(secret.as_bytes())),
            in_bodies: true,
            passes_cookies: false,
            cookie: None,
            held: Vec::new(),
        }
    }

    #[test]
    fn a_body_is_cleaned_of_every_spelling_wherever_it_is_cut() {
        let body = "key=Gate/k+y;Gate/k Gate%2Fk%2By Gate%2fk%2by \"Gate\\/k+y\" GateGate/k+y";
        let expected = "key=********;Gate/k ************ ************ \"*********\" Gate********";
        for piece in 1..body.len() {
            let mut traces = traces("Gate/k+y==");
            let mut shown = Vec::new();
            for piece in body.as_bytes().chunks(piece) {
                shown.extend_from_slice(&traces.take(Bytes::copy_from_slice(piece)));
            }
            shown.extend_from_slice(&traces.rest().unwrap_or_default());
            assert_eq!(String::from_utf8(shown).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_session_token_is_taken_out_of_errors_that_repeat_it() {
        let token = Some(Secret::new("FwoGZXIvYXdzEBY".into()));
        let credential = Credential { token, ..Credential::default() };
        let options = Options {
            hosts: BTreeSet::new(),
            added: BTreeSet::new(),
            sign_in: sign_in::SignIn::Fitting,
            pass: Vec::new(),
            tolerated: Tolerated::default(),
            h2c: false,
            wait: Duration::ZERO,
        };
        let mut traces = Traces::of(&options, &Arc::new(credential), &Spellings::default());
        assert_eq!(
            traces.take("<Token-0>FwoGZXIvYXdzEBY</Token-0>".into()),
            "<Token-0>***************</Token-0>"
        );
    }

    #[test]
    fn what_is_shown_anew_is_looked_for_anew() {
        let known = Spellings::default();
        let shown = |password: &str| {
            let password = Some(Secret::new(password.into()));
            Arc::new(Credential { password, ..Credential::default() })
        };
        let (old, new) = (shown("hunter22"), shown("hunter33"));
        assert!(Arc::ptr_eq(&known.of(&old), &known.of(&old)));
        assert!(known.of(&new).iter().any(|spelling| spelling.as_slice() == b"hunter33"));
        assert!(known.of(&old).iter().any(|spelling| spelling.as_slice() == b"hunter22"));
    }

    #[test]
    fn what_only_begins_like_it_comes_whole() {
        let mut traces = traces("Gatekey");
        assert_eq!(traces.take("x=Gate".into()), "x=");
        assert_eq!(traces.take("way".into()), "Gateway");
        assert_eq!(traces.take("Gateke".into()), "");
        assert_eq!(traces.rest().unwrap(), "Gateke");
    }
}
