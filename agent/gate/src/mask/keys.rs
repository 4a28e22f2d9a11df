//! Credentials that people leave in texts: cloud keys, JSON Web Tokens, private keys.

use std::ops::Range;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use memchr::memmem;
use regex::bytes::Regex;
use serde::{Deserialize, de::IgnoredAny};

use super::stretches::{DIGIT, LETTER, SIGN, Stretches};

/// The shortest, a Slack token, in one run of letters, digits and `_~.+/%-`.
const CLOUD_KEY_MIN: usize = 15;

/// The shapes that providers publish for secret scanners, or that their keys have always had.
const CLOUD_KEYS: &[&str] = &[
    // AWS: access key ids (IAM identifiers), and the secret where its name stands before it.
    r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
    r#"(?i:aws_?secret_?(?:access_?)?key)["']?\s{0,4}[=:]\s{0,4}["']?[A-Za-z0-9/+]{40}"#,
    // Google: API keys, OAuth access tokens and client secrets.
    r"AIza[A-Za-z0-9_-]{35}",
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"GOCSPX-[A-Za-z0-9_-]{28}",
    // Azure: client secrets of Entra ID, account keys, shared access signatures.
    r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}",
    r"(?:Account|SharedAccess)Key=[A-Za-z0-9/+]{43,86}={0,2}",
    r"[?&]sig=[A-Za-z0-9/+%]{43,}={0,2}",
    // GitHub, GitLab, Slack, Stripe, npm, PyPI, HashiCorp Vault.
    r"gh[pousr]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]{20,}",
    r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,}",
    r"xapp-[0-9]-[A-Za-z0-9-]{10,}",
    r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-AgEI[A-Za-z0-9_-]{50,}",
    r"hv[sbr]\.[A-Za-z0-9_-]{24,}",
];

/// A private key's first or last line (RFC 7468, section 2).
const PEM_BORDER: &str = r"-----(BEGIN|END) [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----";

/// Compiled once an agent.
#[derive(Debug)]
pub(super) struct KeyShapes {
    cloud: Regex,
    pem_border: Regex,
}

impl KeyShapes {
    pub(super) fn new() -> Self {
        Self { cloud: regex(&CLOUD_KEYS.join("|")), pem_border: regex(PEM_BORDER) }
    }

    pub(super) fn cloud_keys(&self, text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
        if Stretches::of(text, DIGIT | LETTER | SIGN, CLOUD_KEY_MIN).next().is_none() {
            return;
        }
        for hit in self.cloud.find_iter(text) {
            found(hit.range());
        }
    }

    /// PEM blocks, borders included. One whose end is missing reaches to the end of the text; one whose beginning is
    /// missing is taken to begin with the lines of base64 before its end.
    pub(super) fn private_keys(&self, text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
        let (mut open, mut done) = (None, 0);
        for border in self.pem_border.captures_iter(text) {
            let Some(line) = border.get(0) else { continue };
            let is_begin = border.get(1).is_some_and(|word| word.as_bytes() == b"BEGIN");
            if is_begin {
                open.get_or_insert(line.start());
                continue;
            }
            let start = open.take().unwrap_or_else(|| {
                let before = text.get(done..line.start()).unwrap_or_default();
                line.start() - before.iter().rev().take_while(|byte| is_pem_body(**byte)).count()
            });
            done = line.end();
            found(start..done);
        }
        if let Some(start) = open {
            found(start..text.len());
        }
    }
}

fn is_pem_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte)
}

#[expect(clippy::expect_used, reason = "the patterns are constants, and a test compiles them")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

/// How often a header may turn out to be none before the rest of its run is taken for a token: only made-up text gets there.
const JWT_TRIES: usize = 8;

#[derive(Deserialize)]
struct JoseHeader {
    #[serde(rename = "alg")]
    _alg: IgnoredAny,
}

/// Compact JWS and JWE (RFC 7515 and 7516, section 3.1): dotted base64url whose first part is JSON with an `alg`.
pub(super) fn jwts(text: &[u8], found: &mut dyn FnMut(Range<usize>)) {
    let (mut from, mut tries, mut run_end) = (0, 0, 0);
    let finder = memmem::Finder::new(b"eyJ");
    while let Some(offset) = text.get(from..).and_then(|rest| finder.find(rest)) {
        let start = from + offset;
        if start >= run_end {
            (tries, run_end) = (0, start + base64url_at(text, start));
        }
        if text.get(run_end) != Some(&b'.') {
            from = run_end.max(start + 1);
            continue;
        }
        tries += 1;
        if tries > JWT_TRIES || is_jose_header(text.get(start..run_end).unwrap_or_default()) {
            from = jwt_end(text, run_end);
            found(start..from);
        } else {
            from = start + 1;
        }
    }
}

fn is_jose_header(part: &[u8]) -> bool {
    URL_SAFE_NO_PAD.decode(part).is_ok_and(|json| serde_json::from_slice::<JoseHeader>(&json).is_ok())
}

/// The end of the dotted parts that follow a header.
fn jwt_end(text: &[u8], header_end: usize) -> usize {
    let mut end = header_end;
    while text.get(end) == Some(&b'.') {
        let length = base64url_at(text, end + 1);
        if length == 0 && text.get(end + 1) != Some(&b'.') {
            break;
        }
        end += 1 + length;
    }
    end
}

fn base64url_at(text: &[u8], at: usize) -> usize {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-' || **byte == b'_';
    text.get(at..).unwrap_or_default().iter().take_while(is_part).count()
}
