//! Responses as masks show them: header fields, JSON and forms by field and content, text by content.
//!
//! What cannot be looked into is refused, never passed.

mod form;
mod inflate;
pub(crate) mod json;
mod markup;
mod text;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tidegate_gate::{
    Masker,
    policy::{ContentMask, FieldMasks, Show, Verdict},
};

pub(crate) use self::inflate::Inflate;
use self::{form::Urlencoded, json::Json, markup::Markup, text::Text};
use crate::{media::Media, secrets};

/// Digests of what is changed, which would prove a guess of what is not shown, and offers of parts of it.
const ABOUT_THE_WHOLE: [&str; 9] = [
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
    "etag",
    "x-goog-hash",
    "accept-ranges",
    "content-length",
    "grpc-status-details-bin",
];

/// Makes header fields ready for a body that is no longer the one that they were about.
pub(crate) fn is_another(headers: &mut HeaderMap) {
    ABOUT_THE_WHOLE.iter().for_each(|name| _ = headers.remove(*name));
}

/// Asks for digests of the whole.
const ASKING_FOR_DIGESTS: [&str; 3] = ["want-digest", "want-content-digest", "want-repr-digest"];

/// Conditions on what the whole is: whoever may guess tags of it has its masked values confirmed one by one.
const CONDITIONS: [HeaderName; 3] = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_RANGE];

/// Makes a request ready whose response is masked: all of it is to come, as it can be read, whatever it is.
///
/// # Errors
/// Without its condition the request would be another.
pub(crate) fn ask_for_the_whole(method: &Method, headers: &mut HeaderMap) -> Result<(), &'static str> {
    for name in CONDITIONS {
        // Whether there is anything at all is no secret.
        if headers.get_all(&name).iter().all(|value| value == "*") {
            continue;
        }
        if !method.is_safe() {
            return Err(
                "a mask covers what this request is answered, so it cannot have conditions on entity tags",
            );
        }
        headers.remove(name);
    }
    ASKING_FOR_DIGESTS.iter().for_each(|name| _ = headers.remove(*name));
    ask_for_text(headers);
    Ok(())
}

/// Makes a request ready whose response is looked through: a part of a value is not known for what it is.
pub(crate) fn ask_for_text(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.remove("grpc-accept-encoding");
    headers.remove("connect-accept-encoding");
    headers.remove(header::RANGE);
}

/// The masks on one response.
#[derive(Debug, Clone)]
pub(crate) struct Masks<'a> {
    fields: Option<Arc<FieldMasks>>,
    content: Option<Arc<ContentMask>>,
    /// How credentials are shown that JSON and forms have under names which are known for them, where they aren't.
    withheld: Option<Arc<Show>>,
    masker: &'a Masker,
}

/// A body on its way through the masks.
#[derive(Debug)]
pub(crate) struct Masked<'a> {
    inflate: Option<Inflate>,
    form: Form<'a>,
}

/// What header fields tell of a body.
struct Told {
    /// Its media type.
    kind: Option<Media>,
    /// How it is compressed.
    coding: Option<String>,
}

#[derive(Debug)]
enum Form<'a> {
    Json(Json<'a>),
    Text(Text<'a>),
    Urlencoded(Urlencoded<'a>),
    /// Nobody says what it is; there should be nothing.
    Unknown,
    /// Nothing in it is looked for.
    Any,
}

impl<'a> Masks<'a> {
    /// The masks of a verdict, if it has any.
    pub(crate) fn of(verdict: &Verdict, masker: &'a Masker) -> Option<Self> {
        let (fields, content) = (verdict.fields.clone(), verdict.content.clone());
        (fields.is_some() || content.is_some()).then_some(Self { fields, content, withheld: None, masker })
    }

    /// None.
    pub(crate) fn none(masker: &'a Masker) -> Self {
        Self { fields: None, content: None, withheld: None, masker }
    }

    /// The same, with credentials withheld.
    pub(crate) fn withholding(self) -> Self {
        Self { withheld: Some(Arc::new(Show::Redact(secrets::WITHHELD.into()))), ..self }
    }

    /// Makes ready for a body that goes into the record: decoded, and with credentials withheld. An error says why that
    /// cannot be done.
    pub(crate) fn for_the_record(self, headers: &HeaderMap) -> Result<Masked<'a>, String> {
        let told = Told::by(headers)?;
        let has_names = told.essence().is_some_and(|kind| is_json(kind) || is_form(kind));
        if self.fields.is_none() && self.content.is_none() && !has_names {
            let inflate = told.coding.and_then(|coding| Inflate::new(coding.trim()));
            return Ok(Masked { inflate, form: Form::Any });
        }
        self.withholding().body(&told)
    }

    /// Masks the header fields, and makes ready for the body, if there is one. An error says why it cannot be masked.
    pub(crate) fn ready(
        self,
        status: StatusCode,
        headers: &mut HeaderMap,
        has_body: bool,
    ) -> Result<Option<Masked<'a>>, String> {
        let told = Told::by(headers);
        self.headers(headers);
        if !has_body {
            return Ok(None);
        }
        if status == StatusCode::PARTIAL_CONTENT {
            return Err("it is a part of something, in which a masked value need not be whole".into());
        }
        headers.remove(header::CONTENT_ENCODING);
        self.body(&told?).map(Some)
    }

    /// Makes ready for a body.
    fn body(self, told: &Told) -> Result<Masked<'a>, String> {
        let charset = told.kind.as_ref().and_then(Media::charset);
        if let Some(charset) = charset.filter(|charset| !is_ascii_compatible(charset)) {
            return Err(format!("its character set is {charset}"));
        }
        let inflate = match told.coding.as_deref().map(str::trim) {
            None | Some("" | "identity") => None,
            Some(coding) => Some(Inflate::new(coding).ok_or_else(|| format!("it is encoded as {coding}"))?),
        };
        let form = match told.essence() {
            None => Form::Unknown,
            Some(kind) if is_json(kind) => Form::Json(Json::new(self)),
            Some(kind) if is_form(kind) => Form::Urlencoded(Urlencoded::new(self)),
            Some(kind) if is_text(kind) => {
                if self.fields.as_ref().is_some_and(|fields| fields.reach("body.")) {
                    return Err(format!("a mask is on fields of a body, and {kind} has none that are known"));
                }
                Form::Text(Text::new(self, markup(kind)))
            }
            Some(kind) => return Err(format!("its media type is {kind}, which cannot be looked into")),
        };
        Ok(Masked { inflate, form })
    }

    /// A text message, which is there whole, as it is shown.
    pub(crate) fn message(self, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::with_capacity(text.len());
        let mut json = Json::new(self.clone());
        let read = json.take(text, &mut out).and_then(|()| json.end(&mut out));
        let begins_like_json = matches!(text.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'));
        match read {
            Ok(()) => Ok(out),
            Err(why) if begins_like_json => Err(why),
            Err(_) if self.fields.as_ref().is_some_and(|fields| fields.reach("body.")) => {
                Err("a mask is on fields, and it is no JSON".into())
            }
            Err(_) => Ok(self.scan(text).into_owned()),
        }
    }

    /// Who shows values otherwise than they are.
    pub(crate) fn masker(&self) -> &'a Masker {
        self.masker
    }

    /// What is left of them where these others are applied, too: no field is shown through the same mask twice, as tokens would
    /// be others then.
    pub(crate) fn beside(self, other: &Self) -> Self {
        let is_same =
            |fields: &Arc<FieldMasks>| other.fields.as_ref().is_some_and(|other| fields.is_same(other));
        Self { fields: self.fields.filter(|fields| !is_same(fields)), ..self }
    }

    /// Masks header fields.
    pub(crate) fn headers(&self, headers: &mut HeaderMap) {
        is_another(headers);
        let mut shown = HeaderMap::with_capacity(headers.len());
        let others = headers.iter().filter(|(name, _)| !name.as_str().starts_with("x-amz-checksum-"));
        for (name, value) in others {
            let masked = match self.field(&format!("header.{name}")) {
                Some(show) => self.masker.show(show, value.as_bytes()).map(Cow::Owned),
                None => Some(self.scan(value.as_bytes())),
            };
            match masked {
                None => {}
                Some(Cow::Borrowed(_)) => _ = shown.append(name.clone(), value.clone()),
                Some(Cow::Owned(masked)) => {
                    // What the bundle shows instead may be no header's value.
                    let masked = HeaderValue::from_bytes(&masked);
                    shown.append(name.clone(), masked.unwrap_or(HeaderValue::from_static("***")));
                }
            }
        }
        *headers = shown;
    }

    /// How a field is shown, where it is masked.
    pub(crate) fn field(&self, path: &str) -> Option<&Arc<Show>> {
        match (&self.withheld, &self.fields) {
            (Some(withheld), _) if secrets::is_in_body(path) => Some(withheld),
            (_, fields) => fields.as_ref()?.show(path),
        }
    }

    /// Text whose character references count for what they stand for.
    fn scan_markup<'t>(&self, markup: Markup, text: &'t [u8]) -> Result<Cow<'t, [u8]>, String> {
        match &self.content {
            Some(mask) => markup.scan(self.masker, mask, text),
            None => Ok(Cow::Borrowed(text)),
        }
    }

    /// A text, with what is looked for by content shown otherwise.
    pub(crate) fn scan<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        match &self.content {
            Some(mask) => self.masker.scan(mask, text),
            None => Cow::Borrowed(text),
        }
    }
}

impl Masked<'_> {
    /// Bytes that are held until more comes.
    pub(crate) fn held(&self) -> usize {
        match &self.form {
            Form::Json(json) => json.held(),
            Form::Text(text) => text.held(),
            Form::Urlencoded(form) => form.held(),
            Form::Unknown | Form::Any => 0,
        }
    }

    /// Whether what comes is compressed.
    pub(crate) fn decode(&self) -> bool {
        self.inflate.is_some()
    }

    /// Takes what came; what may be shown of it and of what came before.
    pub(crate) fn take(&mut self, data: &Bytes) -> Result<Bytes, String> {
        let mut out = Vec::with_capacity(data.len());
        match &mut self.inflate {
            None => self.form.take(data, &mut out)?,
            Some(inflate) => inflate.take(data, &mut |plain| self.form.take(plain, &mut out))?,
        }
        Ok(out.into())
    }

    /// What was held back until the end.
    pub(crate) fn end(mut self) -> Result<Bytes, String> {
        let mut out = Vec::new();
        if let Some(inflate) = self.inflate.take() {
            inflate.end(&mut |plain| self.form.take(plain, &mut out))?;
        }
        match self.form {
            Form::Json(json) => json.end(&mut out)?,
            Form::Text(text) => text.end(&mut out)?,
            Form::Urlencoded(form) => form.end(&mut out)?,
            Form::Unknown | Form::Any => {}
        }
        Ok(out.into())
    }
}

impl Form<'_> {
    fn take(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Json(json) => json.take(data, out),
            Self::Text(text) => text.take(data, out),
            Self::Urlencoded(form) => form.take(data, out),
            Self::Any => {
                out.extend_from_slice(data);
                Ok(())
            }
            Self::Unknown if data.is_empty() => Ok(()),
            Self::Unknown => Err("nothing says what its body is".into()),
        }
    }
}

impl Told {
    /// An error says what different readers read differently.
    fn by(headers: &HeaderMap) -> Result<Self, String> {
        let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
        let coding = codings.next().map(|coding| coding.to_str().unwrap_or("?").to_owned());
        match codings.next() {
            Some(_) => Err("it has more than one Content-Encoding".into()),
            None => Ok(Self { kind: Media::of(headers)?, coding }),
        }
    }

    fn essence(&self) -> Option<&str> {
        self.kind.as_ref().map(|kind| &*kind.essence)
    }
}

fn is_form(kind: &str) -> bool {
    kind == "application/x-www-form-urlencoded"
}

fn is_json(kind: &str) -> bool {
    crate::fields::is_json(kind) || matches!(kind, "text/json" | "application/x-ndjson" | "application/jsonl")
}

fn is_text(kind: &str) -> bool {
    const TEXTS: [&str; 9] = [
        "application/xml",
        "application/xhtml+xml",
        "application/javascript",
        "application/x-javascript",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/graphql",
        "application/sql",
    ];
    kind.starts_with("text/") || kind.ends_with("+xml") || TEXTS.contains(&kind)
}

/// What defines character references in it, if it has any.
fn markup(kind: &str) -> Option<Markup> {
    match kind {
        "text/html" | "text/markdown" => Some(Markup::Html),
        "text/xml" | "application/xml" => Some(Markup::Xml),
        kind => kind.ends_with("+xml").then_some(Markup::Xml),
    }
}

/// Whether what the detectors look for has the bytes there that it has in ASCII.
fn is_ascii_compatible(charset: &str) -> bool {
    matches!(charset, "utf-8" | "utf8" | "us-ascii" | "ascii")
        || charset.starts_with("iso-8859-")
        || charset.starts_with("windows-125")
}

#[cfg(test)]
mod tests;
