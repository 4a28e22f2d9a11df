//! The gate's own credential in what comes back: upstreams repeat it in links, redirects and cookies, and the client is
//! not to learn it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tidegate_gate::{Credential, Secret};
use zeroize::Zeroizing;

use crate::{
    grpc::{self, Ends},
    options::Options,
    shown::{self, Inflate},
    sign_in, target,
};

/// A credential that is shorter could be anything's name.
const SHORTEST: usize = 6;

/// What texts of JSON have otherwise than as it is, also where they are careful of slashes, or of HTML; and HTML itself.
const JSON: &[(u8, &str)] = &[(b'"', "\\\""), (b'\\', "\\\\")];
const SLASHED_JSON: &[(u8, &str)] = &[(b'"', "\\\""), (b'\\', "\\\\"), (b'/', "\\/")];
const CAREFUL_JSON: &[(u8, &str)] =
    &[(b'"', "\\\""), (b'\\', "\\\\"), (b'<', "\\u003c"), (b'>', "\\u003e"), (b'&', "\\u0026")];
const HTML: &[(u8, &str)] = &[(b'&', "&amp;"), (b'<', "&lt;"), (b'>', "&gt;"), (b'"', "&quot;")];

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
    /// A body in which it could not be found is not shown.
    strict: bool,
    /// Reads a body that came compressed.
    inflate: Option<Box<Inflate>>,
    /// Where its messages end, if it is some: nobody waits for the next one to be shown one.
    ends: Option<Ends>,
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
            strict: false,
            inflate: None,
            ends: None,
            held: Vec::new(),
        }
    }

    /// The same, and these secrets of another credential, wherever they are.
    pub(crate) fn and(mut self, secrets: &[Zeroizing<Vec<u8>>]) -> Self {
        if !secrets.is_empty() {
            let others = secrets.iter().flat_map(|secret| spelled(secret));
            self.spellings = ordered(self.spellings.iter().cloned().chain(others)).into();
            (self.in_bodies, self.strict) = (true, true);
        }
        self
    }

    /// The same, where the upstream's cookies are the client's.
    pub(crate) fn passing_cookies(self) -> Self {
        Self { passes_cookies: true, ..self }
    }

    /// Makes ready for a response's body where it must be looked through. One that came compressed, although it was asked for
    /// otherwise, is decoded, and its header fields say so: what was asked for may be done, and to be told that it failed would
    /// have it done twice. Whether it is.
    ///
    /// # Errors
    /// It is encoded in a way that the gate doesn't know, or a part in which a secret need not be whole.
    pub(crate) fn read(
        &mut self,
        status: StatusCode,
        headers: &mut HeaderMap,
        has_body: bool,
    ) -> Result<bool, &'static str> {
        if !self.strict {
            return Ok(false);
        }
        self.ends = grpc::is_enveloped(headers).then(Ends::default);
        if status == StatusCode::PARTIAL_CONTENT {
            return Err("what was filled in could come back in its response, which is a part of something");
        }
        let identity = |coding: &&HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter().filter(identity);
        let Some(coding) = codings.next() else { return Ok(false) };
        if has_body {
            const UNKNOWN: &str = "what was filled in could come back in its response, which is encoded in a way that the gate doesn't know";
            let known = coding.to_str().ok().filter(|_| codings.next().is_none());
            self.inflate =
                Some(Box::new(known.and_then(|coding| Inflate::new(coding.trim())).ok_or(UNKNOWN)?));
        }
        headers.remove(header::CONTENT_ENCODING);
        shown::is_another(headers);
        Ok(true)
    }

    /// A message that is there whole, with stars in the credential's place.
    pub(crate) fn message(&self, data: Bytes) -> Bytes {
        match self.in_bodies.then(|| self.starred(&data)).flatten() {
            Some(starred) => starred.into(),
            None => data,
        }
    }

    /// The same text with stars in place of every spelling; none where there is none.
    fn starred(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut starred: Option<Vec<u8>> = None;
        for spelling in &*self.spellings {
            while let Some(at) = memchr::memmem::find(starred.as_deref().unwrap_or(text), spelling) {
                let text = starred.get_or_insert_with(|| text.to_vec());
                text.iter_mut().skip(at).take(spelling.len()).for_each(|byte| *byte = b'*');
            }
        }
        starred
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
    ///
    /// # Errors
    /// It does not decompress, or has a message that is compressed by itself.
    pub(crate) fn take(&mut self, data: Bytes) -> Result<Bytes, String> {
        match &mut self.inflate {
            None => self.starred_but_for_the_end(data),
            Some(inflate) => {
                let mut plain = Vec::new();
                inflate.take(&data, &mut |made| {
                    plain.extend_from_slice(made);
                    Ok(())
                })?;
                self.starred_but_for_the_end(plain.into())
            }
        }
    }

    fn starred_but_for_the_end(&mut self, data: Bytes) -> Result<Bytes, String> {
        if !self.in_bodies {
            return Ok(data);
        }
        let is_end = self.ends.as_mut().map_or(Ok(false), |ends| ends.take(&data))?;
        let at_end = |traces: &Self, text: &[u8]| if is_end { 0 } else { traces.at_end(text) };
        let is_there = |text: &[u8]| {
            self.spellings.iter().any(|spelling| memchr::memmem::find(text, spelling).is_some())
        };
        if self.held.is_empty() && !is_there(&data) && at_end(self, &data) == 0 {
            return Ok(data);
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(&data);
        text = self.starred(&text).unwrap_or(text);
        self.held = text.split_off(text.len() - at_end(self, &text));
        Ok(text.into())
    }

    /// Whether a body is decoded.
    pub(crate) fn decode(&self) -> bool {
        self.inflate.is_some()
    }

    /// Whether something of the body is held back, or may be.
    pub(crate) fn hold_back(&self) -> bool {
        !self.held.is_empty() || self.inflate.is_some()
    }

    /// What was held back until the body's end.
    ///
    /// # Errors
    /// It does not decompress, or was cut off.
    pub(crate) fn rest(&mut self) -> Result<Option<Bytes>, String> {
        if let Some(inflate) = self.inflate.take() {
            inflate.end(&mut |made| {
                self.held.extend_from_slice(made);
                Ok(())
            })?;
            self.held = self.starred(&self.held).unwrap_or_else(|| std::mem::take(&mut self.held));
        }
        Ok(Some(std::mem::take(&mut self.held)).filter(|held| !held.is_empty()).map(Bytes::from))
    }

    /// How many bytes at the end a spelling could begin in. That goes by nothing but their number and the end of a line, which no
    /// spelling has: what is held back would else tell whoever made the text whether the credential begins so.
    fn at_end(&self, text: &[u8]) -> usize {
        let longest = self.spellings.iter().map(|spelling| spelling.len()).max().unwrap_or(1) - 1;
        text.iter().rev().take(longest).take_while(|byte| **byte >= b' ').count()
    }
}

/// All of what a credential shows, none twice.
fn spellings(credential: &Credential) -> Vec<Spelling> {
    let pair = sign_in::pair(credential);
    let secrets = [&credential.password, &credential.token].into_iter().flatten().map(Secret::expose);
    ordered(secrets.chain(pair.iter().map(|pair| pair.as_bytes())).flat_map(spelled))
}

/// Each once, and what another begins with behind that.
fn ordered(all: impl Iterator<Item = Spelling>) -> Vec<Spelling> {
    // One of stars alone is hidden as it is, and would be found again for ever.
    let is_hidden = |spelling: &Spelling| spelling.iter().any(|byte| *byte != b'*');
    let mut spellings: Vec<Spelling> =
        all.filter(|spelling| spelling.len() >= SHORTEST && is_hidden(spelling)).collect();
    spellings.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.as_slice().cmp(b.as_slice())));
    spellings.dedup();
    spellings
}

/// Whether a secret is long enough to be looked for, and of one line.
pub(crate) fn can_be_found(secret: &[u8]) -> bool {
    unpadded(secret).len() >= SHORTEST && secret.iter().all(|byte| *byte >= b' ')
}

/// Padding says nothing, and is written in many ways.
fn unpadded(secret: &[u8]) -> &[u8] {
    let padding = secret.iter().rev().take_while(|byte| **byte == b'=').count();
    secret.get(..secret.len() - padding).unwrap_or_default()
}

/// As it is; encoded as in a URL, in either case; as a text of JSON, with the slashes that some have, and with what others
/// escape for HTML's sake; in HTML; and JSON in a text of JSON, or in HTML.
fn spelled(secret: &[u8]) -> [Spelling; 9] {
    let secret = unpadded(secret);
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
    let [json, slashed, careful, html] =
        [JSON, SLASHED_JSON, CAREFUL_JSON, HTML].map(|signs| escaped(secret, signs));
    let (twice, shown) = (escaped(&json, JSON), escaped(&json, HTML));
    [Zeroizing::new(secret.to_vec()), encoded, lower, json, slashed, careful, html, twice, shown]
}

fn escaped(secret: &[u8], signs: &[(u8, &str)]) -> Spelling {
    let mut text = Zeroizing::new(Vec::with_capacity(secret.len() * 6));
    for byte in secret {
        match signs.iter().find(|(sign, _)| sign == byte) {
            Some((_, written)) => text.extend_from_slice(written.as_bytes()),
            None => text.push(*byte),
        }
    }
    text
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
            strict: false,
            inflate: None,
            ends: None,
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
                shown.extend_from_slice(&traces.take(Bytes::copy_from_slice(piece)).unwrap());
            }
            shown.extend_from_slice(&traces.rest().unwrap().unwrap_or_default());
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
            interim: false,
            wait: Duration::ZERO,
            descriptors: None,
            described_by: None,
            proxy: None,
        };
        let mut traces = Traces::of(&options, &Arc::new(credential), &Spellings::default());
        let shown = traces.take("<Token-0>FwoGZXIvYXdzEBY</Token-0>\n".into()).unwrap();
        assert_eq!(shown, "<Token-0>***************</Token-0>\n");
    }

    #[test]
    fn what_is_held_back_tells_nothing_of_the_credential() {
        let sizes = |end: &str| {
            let mut traces = traces("hunter2-and-more");
            let text = format!("made by whoever asks: {end}");
            let shown = traces.take(Bytes::from(text)).unwrap().len();
            (shown, traces.rest().unwrap().map_or(0, |rest| rest.len()))
        };
        for (guessed, other) in [("h", "x"), ("hunter", "hunted"), ("hunter2-an", "hunter2-am")] {
            assert_eq!(sizes(guessed), sizes(other), "{guessed}");
        }
        assert_eq!(sizes("a line\n").1, 0);
    }

    #[test]
    fn a_message_does_not_wait_for_the_next_one_and_none_is_compressed() {
        let mut traces = Traces { strict: true, ..traces("hunter2-and-more") };
        let mut headers: HeaderMap =
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))].into_iter().collect();
        traces.read(StatusCode::OK, &mut headers, true).unwrap();
        let message = grpc::framed(b"you said hunter2-and-more");
        let (begun, rest) = message.split_at(12);
        let shown = [begun, rest].map(|part| traces.take(Bytes::copy_from_slice(part)).unwrap());
        assert_eq!(shown.concat(), grpc::framed(b"you said ****************"));
        assert!(
            traces.take(Bytes::from_static(b"\x01\x00\x00\x00\x01x")).unwrap_err().contains("compressed")
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
    fn a_credential_of_stars_is_no_other_s_end() {
        let password = Some(Secret::new("********".into()));
        let known = Spellings::default();
        let credential = Arc::new(Credential { password, ..Credential::default() });
        assert!(known.of(&credential).iter().all(|spelling| spelling.iter().any(|byte| *byte != b'*')));
    }

    #[test]
    fn what_only_begins_like_it_comes_whole() {
        let mut traces = traces("Gatekey");
        let shown = ["x=Gate", "way", "Gateke"].map(|part| traces.take(part.into()).unwrap()).concat();
        assert_eq!([&*shown, &*traces.rest().unwrap().unwrap()].concat(), *b"x=GatewayGateke");
    }
}
