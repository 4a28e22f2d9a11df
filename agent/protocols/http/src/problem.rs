//! What a client is told when the gate answers instead of the upstream (RFC 9457).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde::Serialize;
use tidegate_gate::{Cause, Refusal};

use crate::grpc;

/// An answer of the gate's own.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    detail: String,
    hint: Option<String>,
    /// The question that waits for an answer.
    approval: Option<String>,
    /// Seconds after which asking again makes sense.
    retry_after: Option<u64>,
}

/// Who reads an answer of the gate's, and so how it is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Whoever takes `application/problem+json`.
    Any,
    /// A client of gRPC: it reads the status and message that its protocol has.
    Grpc,
    /// git: of an error it shows plain text to its user, and nothing else.
    Git,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<&'a str>,
    /// The record that says more.
    session: &'a str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), hint: None, approval: None, retry_after: None }
    }

    /// A refusal of the gate's.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let status = match refusal.cause {
            Cause::Policy => StatusCode::FORBIDDEN,
            Cause::Credential | Cause::Upstream => StatusCode::BAD_GATEWAY,
            Cause::Rate(_) | Cause::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Cause::Record | Cause::Approvals | Cause::Shutdown => StatusCode::SERVICE_UNAVAILABLE,
        };
        let retry_after = match refusal.cause {
            Cause::Rate(again) => Some(again.as_secs() + 1),
            _ => None,
        };
        let hint = refusal.hint.as_deref().map(Into::into);
        Self { hint, retry_after, ..Self::new(status, &*refusal.message) }
    }

    /// A request that waits for a person longer than this connection does.
    pub(crate) fn waits(told: &Refusal, id: &str) -> Self {
        Self { approval: Some(id.into()), retry_after: Some(5), ..Self::refused(told) }
    }

    /// There is no room at the moment.
    pub(crate) fn busy(detail: String) -> Self {
        Self { retry_after: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// The same as the end of a call of gRPC that has begun to be answered.
    pub(crate) fn status(&self) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        self.grpc(&mut trailers);
        trailers
    }

    /// What is wrong.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// As a response.
    pub(crate) fn response(&self, session: &str, reader: Reader) -> Response<Bytes> {
        let mut headers = HeaderMap::new();
        let bytes = match reader {
            Reader::Any => self.json(session, &mut headers),
            Reader::Git => self.text(session, &mut headers),
            Reader::Grpc => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                self.grpc(&mut headers);
                Bytes::new()
            }
        };
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        let mut response = Response::new(bytes);
        *response.status_mut() = if reader == Reader::Grpc { StatusCode::OK } else { self.status };
        *response.headers_mut() = headers;
        response
    }

    fn json(&self, session: &str, headers: &mut HeaderMap) -> Bytes {
        let title = match self.status {
            StatusCode::FORBIDDEN if self.approval.is_some() => "Waits for approval",
            StatusCode::FORBIDDEN => "Refused by policy",
            StatusCode::TOO_MANY_REQUESTS => "Too often",
            StatusCode::REQUEST_TIMEOUT => "Too slow",
            StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => "The upstream could not be asked",
            StatusCode::SERVICE_UNAVAILABLE => "The gate cannot let this run",
            _ => "Not understood",
        };
        let body = Body {
            r#type: "about:blank",
            title,
            status: self.status.as_u16(),
            detail: &self.detail,
            hint: self.hint.as_deref(),
            approval: self.approval.as_deref(),
            session,
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // It has texts and a number: it always serialises.
        let mut text = serde_json::to_vec_pretty(&body).unwrap_or_default();
        text.push(b'\n');
        text.into()
    }

    fn text(&self, session: &str, headers: &mut HeaderMap) -> Bytes {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let hint = self.hint.as_deref().map(|hint| format!("{hint}\n")).unwrap_or_default();
        format!("{}\n{hint}tidegate session {session}\n", self.detail).into()
    }

    /// `grpc-status` and `grpc-message`; among the headers, where nothing else is answered.
    fn grpc(&self, headers: &mut HeaderMap) {
        let code = match self.status {
            // Not for ever, as what is denied is: clients may ask again.
            StatusCode::FORBIDDEN if self.approval.is_some() => 14,
            StatusCode::FORBIDDEN => 7,
            StatusCode::TOO_MANY_REQUESTS => 8,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => 14,
            StatusCode::NOT_IMPLEMENTED => 12,
            _ => 3_u16,
        };
        headers.insert("grpc-status", code.into());
        if let Some(seconds) = self.retry_after {
            // As gRPC's own retries have it (gRFC A6), and as people's code does.
            headers.insert("grpc-retry-pushback-ms", seconds.saturating_mul(1000).into());
            let details = HeaderValue::from_str(&grpc::retry_info(code.into(), &self.detail, seconds));
            headers.extend(
                details.ok().map(|details| (HeaderName::from_static("grpc-status-details-bin"), details)),
            );
        }
        let hint = self.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
        let message = crate::target::encoded(format!("{}{hint}", self.detail).as_bytes());
        if let Ok(message) = HeaderValue::from_str(&message) {
            headers.insert("grpc-message", message);
        }
    }
}
