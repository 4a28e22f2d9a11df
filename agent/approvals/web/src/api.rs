//! The same for programs: questions as JSON, answered by whoever bears an ID token that the page's client was given.
//!
//! No cookie counts here, so no page in somebody's browser can answer for them, and no other origin is told that it may ask.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tidegate_approvals::{Answered, Failed, Inquiry, Person, Refused, Say};

use crate::pages::{Answer, LONGEST, Pages, is_id};

/// How many questions a list has at most.
const LISTED: u32 = 1_000;

/// A question, and what its reader may say.
#[derive(Serialize)]
struct Shown<'a> {
    question: &'a Inquiry,
    /// Of what is shown here: an answer that lets it run says it, so that it is for this.
    seal: String,
    /// What they may answer.
    answers: Vec<&'static str>,
    needs_reason: bool,
}

/// An answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    answer: String,
    seal: String,
    #[serde(default)]
    reason: String,
}

/// What is wrong (RFC 9457).
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

impl Pages {
    /// What is asked for below `/api/approvals`.
    pub(crate) async fn api(
        &self,
        (method, headers): (&Method, &HeaderMap),
        path: &[&str],
        body: Incoming,
    ) -> Answer {
        let person = match self.bearer(headers).await {
            Ok(person) => person,
            Err(refused) => return *refused,
        };
        match (method, path) {
            (&Method::GET, []) => match self.desk.list(&person, false, LISTED).await {
                Ok(overview) => json(StatusCode::OK, &overview),
                Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
            },
            (&Method::GET, [id]) if is_id(id) => shown(self.desk.show(&person, id).await, &person),
            (&Method::POST, [id]) if is_id(id) => match said(body).await {
                Ok(said) => self.take(&person, id, &said).await,
                Err((status, why)) => problem(status, why),
            },
            (&Method::GET | &Method::POST, _) => problem(StatusCode::NOT_FOUND, "there is no such thing"),
            _ => problem(StatusCode::METHOD_NOT_ALLOWED, "questions are read by GET and answered by POST"),
        }
    }

    async fn take(&self, person: &Person, id: &str, said: &Said) -> Answer {
        let Some(say) = Say::ALL.into_iter().find(|say| say.word() == said.answer) else {
            return problem(StatusCode::BAD_REQUEST, "there is no such answer");
        };
        let reason = Some(said.reason.trim()).filter(|reason| !reason.is_empty());
        shown(self.desk.answer(person, id, Answered { say, reason, shown: Some(&said.seal) }).await, person)
    }

    /// Who bears a token.
    async fn bearer(&self, headers: &HeaderMap) -> Result<Person, Box<Answer>> {
        let mut written = headers.get_all(header::AUTHORIZATION).iter();
        let one = written.next().filter(|_| written.next().is_none()).and_then(|value| value.to_str().ok());
        let token = one.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let refused = |why: &str, challenge: &'static str| {
            let mut refused = problem(StatusCode::UNAUTHORIZED, why);
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            Box::new(refused)
        };
        let Some((_, token)) = token else {
            let why = "send Authorization: Bearer, and an ID token that the issuer gave this page's client";
            return Err(refused(why, "Bearer realm=\"tidegate approvals\""));
        };
        match self.logins.bearer(token.trim()).await {
            Ok(login) if (login.counts)() => {
                Ok(Person { identities: [login.identity].into(), ..Person::default() })
            }
            Ok(_) => Err(refused("its issuer counts no more", "Bearer error=\"invalid_token\"")),
            Err(why) => {
                // Whoever reaches the listener can have it refused.
                tracing::debug!(why, "a token to answer questions with was refused");
                Err(refused(&why, "Bearer error=\"invalid_token\""))
            }
        }
    }
}

/// The answer of a body.
async fn said(body: Incoming) -> Result<Said, (StatusCode, &'static str)> {
    let bytes = Limited::new(body, LONGEST).collect().await;
    let bytes = bytes.map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "this is longer than any answer"))?;
    let wrong = "an answer is {\"answer\": ..., \"seal\": ..., \"reason\": ...}, as JSON";
    serde_json::from_slice(&bytes.to_bytes()).map_err(|_| (StatusCode::BAD_REQUEST, wrong))
}

fn shown(inquiry: Result<Inquiry, Failed>, person: &Person) -> Answer {
    match inquiry {
        Ok(inquiry) => {
            let choices = inquiry.choices(person, Timestamp::now());
            let answers = choices.iter().map(|say| say.word()).collect();
            let (seal, needs_reason) = (inquiry.seal(), inquiry.needs_reason());
            json(StatusCode::OK, &Shown { question: &inquiry, seal, answers, needs_reason })
        }
        Err(failed) => {
            let status = match &failed {
                Failed::Refused(Refused::Unknown(_)) => StatusCode::NOT_FOUND,
                Failed::Refused(_) => StatusCode::CONFLICT,
                Failed::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, &failed.to_string())
        }
    }
}

fn problem(status: StatusCode, detail: &str) -> Answer {
    let title = status.canonical_reason().unwrap_or_default();
    let told = Problem { r#type: "about:blank", title, status: status.as_u16(), detail };
    let mut answer = json(status, &told);
    let kind = HeaderValue::from_static("application/problem+json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn json(status: StatusCode, of: &impl Serialize) -> Answer {
    // It has texts and numbers: it always serialises.
    let text = serde_json::to_vec(of).unwrap_or_default();
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
