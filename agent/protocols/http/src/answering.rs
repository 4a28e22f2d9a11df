//! What an upstream answers, on its way to the client.

use http::{HeaderMap, Method, Response, StatusCode, response::Parts};
use hyper::{
    body::{Body, Incoming},
    upgrade::Upgraded,
};
use tidegate_gate::Permit;

use crate::{
    answer::{Answer, Looked, Shown, cannot_be_masked},
    body::Outgoing,
    exchange::{Answered, Ended, NotSent, Responder, Session},
    forward, grpc,
    problem::Problem,
    request::Understood,
    sending::Heard,
    shown::Masks,
    traces::Traces,
    transcript::Transcript,
    upstream,
};

impl Session {
    /// Sends a request, and shows what comes back.
    pub(crate) async fn answer(
        &self,
        understood: &Understood,
        permit: &Permit,
        outgoing: Outgoing,
        responder: &mut impl Responder,
    ) -> Result<Answered, NotSent> {
        let verdict = permit.verdict().clone();
        let masks = Masks::of(&verdict, permit.masker());
        let is_looked_at = masks.is_some() || understood.is_answered_in_messages;
        let asking = self.ask(understood, permit, outgoing, is_looked_at);
        let Heard { response, mut traces, driver } = tokio::select! {
            biased;
            asked = asking => asked?,
            () = responder.gone() => return Err(Ended::Client("the client wants no response any more".into()).into()),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let (headers, upstream) =
                self.switched(understood, response, permit, &traces, masks.is_some()).await?;
            return Ok(Answered::Switched(headers, upstream, Box::new(traces), driver));
        }
        let (parts, body) = response.into_parts();
        if understood.offer.is_some() {
            return Err(self.stays(parts.status, permit).into());
        }
        let has_body = understood.method != Method::HEAD
            && !body.is_end_stream()
            && !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let mut head = Response::new(());
        *head.status_mut() = parts.status;
        *head.headers_mut() = forward::client(&parts.headers);
        let is_decoded = traces.read(parts.status, head.headers_mut(), has_body);
        let is_decoded = is_decoded.map_err(|why| self.broke(why))?;
        traces.clean(head.headers_mut());
        let declared = forward::declared(&parts.headers).filter(|_| !is_looked_at && !is_decoded);
        let looked = self.looked(understood, permit, masks, &parts, &mut head, has_body)?;
        let line =
            format!("{} {}", parts.status.as_str(), parts.status.canonical_reason().unwrap_or_default());
        permit.answered(forward::recorded(line.trim_end(), head.headers()));
        if parts.status.is_client_error() || parts.status.is_server_error() {
            permit.so_far(|outcome| outcome.error = Some(parts.status.as_str().to_owned()));
        }
        let transcript = Transcript::of_response(permit, head.headers()).filter(|_| has_body);
        let shown = Shown::new(body, (permit, &*self.share), looked, transcript, traces, declared);
        let mut body = Answer::Upstream(Box::new(shown));
        responder.respond(head, &mut body).await?;
        Ok(Answered::Shown)
    }

    /// What of a response's body is looked at; its header fields are masked here.
    fn looked<'a>(
        &'a self,
        understood: &'a Understood,
        permit: &'a Permit,
        masks: Option<Masks<'a>>,
        parts: &Parts,
        head: &mut Response<()>,
        has_body: bool,
    ) -> Result<Looked<'a>, Problem> {
        let decides = understood.is_answered_in_messages;
        let is_call = understood.call.is_some() && grpc::is_protobuf(&parts.headers);
        if is_call && (decides || masks.is_some()) {
            masks.iter().for_each(|masks| masks.headers(head.headers_mut()));
            return Ok(Looked::Messages(grpc::Messages::new(self, understood, permit, masks, decides)));
        }
        if decides && has_body {
            return Err(not_shown(
                parts.status,
                "a rule is about the messages of this response, and it is no gRPC",
            ));
        }
        let Some(masks) = masks else { return Ok(Looked::Not) };
        let ready = masks.ready(parts.status, head.headers_mut(), has_body);
        let ready = ready.map_err(|why| not_shown(parts.status, &cannot_be_masked(&why)))?;
        Ok(ready.map_or(Looked::Not, |masked| Looked::Masked(Box::new(masked))))
    }

    /// An upstream that was asked for a WebSocket and answers something else: what it says was asked for by no request that
    /// was decided, so that its status is all that is told.
    fn stays(&self, status: StatusCode, permit: &Permit) -> Problem {
        permit.answered(status.as_str().to_owned());
        let told = if status.is_client_error() || status.is_server_error() {
            status
        } else {
            StatusCode::BAD_GATEWAY
        };
        Problem::new(told, format!("the upstream opened no WebSocket: it answered {}", status.as_str()))
    }

    /// A connection that the upstream has switched.
    async fn switched(
        &self,
        understood: &Understood,
        response: Response<Incoming>,
        permit: &Permit,
        traces: &Traces,
        is_masked: bool,
    ) -> Result<(HeaderMap, Upgraded), Problem> {
        let offer = understood.offer.as_ref().ok_or("it switches protocols without being asked to");
        let accepted =
            offer.and_then(|offer| Ok((offer.status(), offer.accepted(response.headers(), is_masked)?)));
        let (status, mut headers) = accepted.map_err(|why| self.broke(why))?;
        traces.clean(&mut headers);
        permit.answered(forward::recorded(&status.to_string(), &headers));
        let upstream =
            hyper::upgrade::on(response).await.map_err(|error| self.broke(&upstream::told(&error)))?;
        Ok((headers, upstream))
    }
}

/// What is told instead of a response that is not shown. What the upstream refused it may refuse again: a status of the gate's own
/// would have clients ask on and on.
fn not_shown(status: StatusCode, why: &str) -> Problem {
    match status.is_client_error() || status.is_server_error() {
        true => Problem::new(
            status,
            format!("the upstream answered {}, and what it says is not shown: {why}", status.as_str()),
        ),
        false => Problem::new(StatusCode::BAD_GATEWAY, why),
    }
}
