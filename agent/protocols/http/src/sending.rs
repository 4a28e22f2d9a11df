//! A permitted request on its way upstream: over which connection, and as what.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tidegate_gate::{Credential, Permit};

use crate::{
    body::Outgoing,
    exchange::Session,
    problem::Problem,
    request::Understood,
    shown,
    traces::Traces,
    upstream::{self, Line, SendError, Versions},
};

/// What an upstream answers.
pub(crate) struct Heard {
    pub(crate) response: Response<Incoming>,
    pub(crate) traces: Traces,
    /// The response is cut off where this is dropped.
    pub(crate) driver: Arc<upstream::Driver>,
}

impl Session {
    /// Sends the request over a connection of this session's, or a new one.
    pub(crate) async fn ask(
        &self,
        understood: &Understood,
        permit: &Permit,
        outgoing: Outgoing,
        is_masked: bool,
    ) -> Result<Heard, Problem> {
        let (host, settings) = (&understood.authority.host, &self.server.settings);
        let versions = if self.server.options.h2c { Versions::Http2 } else { Versions::Any };
        let mut line = match understood.offer {
            None => self.lines.line(host, &self.gate, permit, settings, versions, &self.share).await?,
            Some(_) => {
                upstream::new_line(host, &self.gate, permit, settings, Versions::Http11, &self.share).await?
            }
        };
        let mut shown = self.credential(&line, permit).await?;
        let mut request = self.request(understood, &line, &shown, outgoing, is_masked)?;
        loop {
            let (driver, traces) = (line.driver(), self.traces(understood, permit, &shown));
            let failed = match line.send(request).await {
                Ok(response) => {
                    if response.status() == StatusCode::UNAUTHORIZED {
                        self.not_taken(&shown);
                    }
                    match self.is_last(response.status()) {
                        true => self.lines.forget(&driver),
                        false => self.lines.keep(line),
                    }
                    return Ok(Heard { response, traces, driver });
                }
                Err(failed) => failed,
            };
            match failed {
                SendError::Unsent(unsent) if line.is_used() => {
                    line =
                        upstream::new_line(host, &self.gate, permit, settings, versions, &self.share).await?;
                    shown = self.credential(&line, permit).await?;
                    let outgoing = unsent.into_body().into_plain();
                    request = self.request(understood, &line, &shown, outgoing, is_masked)?;
                }
                SendError::Unsent(_) => {
                    return Err(self.broke("the connection was closed before it took the request"));
                }
                SendError::Failed(error) => return Err(self.broke(&upstream::told(&error))),
            }
        }
    }

    /// What must not come back: the gate's credential, and what was filled in.
    fn traces(&self, understood: &Understood, permit: &Permit, shown: &Arc<Credential>) -> Traces {
        let traces = Traces::of(&self.server.options, shown, &self.spellings);
        let traces = match permit.verdict().carried.passes(header::COOKIE.as_str()) {
            true => traces.passing_cookies(),
            false => traces,
        };
        match &understood.filled {
            Some(filled) => traces.and(filled.secrets()),
            None => traces,
        }
    }

    /// Whether nothing more is asked over a connection after such a response. What was refused may have been a credential that
    /// was changed, or has ended: the next request takes it anew.
    fn is_last(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || self.server.options.sign_in.is_refusal(status)
    }

    pub(crate) fn broke(&self, why: &str) -> Problem {
        self.gate.event("upstream-broke", why);
        Problem::new(StatusCode::BAD_GATEWAY, "the upstream gave no response; the gate's record says why")
    }

    /// The request as it is sent: made from what was understood, signed in with the gate's credential.
    fn request(
        &self,
        understood: &Understood,
        line: &Line,
        shown: &Credential,
        outgoing: Outgoing,
        is_masked: bool,
    ) -> Result<Request<Outgoing>, Problem> {
        let (mut headers, mut query) = match &understood.filled {
            Some(filled) => (filled.headers.clone(), filled.query.clone()),
            None => (understood.headers.clone(), understood.query.clone()),
        };
        let how = &self.server.options.sign_in;
        how.add(shown, &mut headers, &mut query).map_err(|why| self.unusable(why))?;
        if is_masked {
            shown::ask_for_the_whole(&understood.method, &mut headers)
                .map_err(|why| Problem::new(StatusCode::PRECONDITION_FAILED, why))?;
        }
        if how.parameter().is_some() || understood.is_filled() {
            shown::ask_for_text(&mut headers);
        }
        if let Some(offer) = &understood.offer {
            offer.ask(&mut headers);
        }
        if !line.is_h2() {
            let host = understood.authority.to_string();
            let host = HeaderValue::from_str(&host).map_err(|_| self.broke("the host makes no Host"))?;
            headers.insert(header::HOST, host);
        }
        let target = how.target(&understood.path, query);
        let uri = understood.uri(target, self.way.tls, line.is_h2());
        let uri = uri.map_err(|error| self.broke(&format!("the target cannot be written: {error}")))?;
        let mut request = Request::new(outgoing);
        *request.method_mut() = understood.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let length = match request.body() {
            Outgoing::Whole(Some(whole)) => Some(whole.len() as u64),
            _ => understood.length,
        };
        if let Some(length) = length.filter(|length| *length > 0 || sends_length(&understood.method)) {
            request.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        let is_chunked = !line.is_h2() && matches!(request.body(), Outgoing::Parts { length: None, .. });
        let signed = how.sign(shown, request, &understood.payload, self.way.tls);
        let mut request = signed.map_err(|why| self.unusable(why))?;
        if is_chunked {
            // Methods that seldom have a body have none, in HTTP/1.1, unless it is said that they have.
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        Ok(request)
    }
}

/// Whether a request of this method says that it has no body (RFC 9110, 8.6).
fn sends_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}
