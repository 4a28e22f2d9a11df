//! What is answered to which request.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use jiff::Timestamp;
use tidegate_approvals::{Answered, Desk, Failed, Inquiry, Person, Refused, Say};
use url::{Url, form_urlencoded};

use crate::{
    Login, Logins, cookies,
    html::{self, Form},
    keys::{self, Keys},
    sessions::{Secret, Sessions},
};

/// Longest form or answer, in bytes: a reason of 500 characters, each escaped, and a little more.
pub(crate) const LONGEST: usize = 8 * 1024;
/// Longest id of a question.
const LONGEST_ID: usize = 32;
/// Longest code of an issuer.
const LONGEST_CODE: usize = 4 * 1024;

/// On every answer: nothing is kept, framed, or loaded from elsewhere. With `no-referrer` browsers would hide the form's
/// origin from us, too.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
];

/// The pages of one desk.
pub struct Pages {
    pub(crate) desk: Desk,
    pub(crate) logins: Arc<dyn Logins>,
    /// Whether programs may answer, too.
    api: bool,
    origin: String,
    keys: Keys,
    sessions: Sessions,
}

/// A login, and the browser's proof of it.
struct Visitor {
    person: Person,
    secret: Secret,
}

pub(crate) type Answer = Response<Full<Bytes>>;

impl Pages {
    /// Pages that browsers reach at this URL. None without randomness.
    pub fn new(desk: Desk, logins: Arc<dyn Logins>, url: &Url) -> Option<Self> {
        let origin = url.origin().ascii_serialization();
        Some(Self { desk, logins, api: false, origin, keys: Keys::new()?, sessions: Sessions::default() })
    }

    /// The same, for programs that bear a token, too.
    pub fn with_api(self) -> Self {
        Self { api: true, ..self }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        let mut answer = match (&head.method, &path[..]) {
            (method, ["api", "approvals", rest @ ..]) if self.api => {
                self.api((method, headers), rest, body).await
            }
            (&Method::GET, ["style.css"]) => style(),
            (&Method::GET, ["approvals", id]) if is_id(id) => self.look(headers, id).await,
            (&Method::GET, ["callback"]) => {
                self.callback(headers, head.uri.query().unwrap_or_default()).await
            }
            (&Method::POST, ["approvals", id]) if is_id(id) => match form(body).await {
                Some(form) => self.say(headers, id, &form).await,
                None => {
                    shown(StatusCode::PAYLOAD_TOO_LARGE, "Too long", "This form is longer than any of ours.")
                }
            },
            (&Method::POST, ["logout"]) => self.log_out(headers),
            (&Method::GET | &Method::POST, _) => {
                shown(StatusCode::NOT_FOUND, "Not found", "There is no such page.")
            }
            _ => shown(
                StatusCode::METHOD_NOT_ALLOWED,
                "Not allowed",
                "This page is read, or its form is sent.",
            ),
        };
        for (name, value) in HEADERS {
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        answer
    }

    /// Shows a question, or sends whoever has not logged in to the issuer.
    async fn look(&self, headers: &HeaderMap, id: &str) -> Answer {
        let Some(visitor) = self.visitor(headers) else { return self.begin(id).await };
        match self.desk.show(&visitor.person, id).await {
            Ok(inquiry) => self.question(StatusCode::OK, &inquiry, &visitor, None),
            Err(failed) => failure(&failed, &visitor.person),
        }
    }

    /// Takes an answer from a form of ours.
    async fn say(&self, headers: &HeaderMap, id: &str, form: &[(String, String)]) -> Answer {
        if !self.is_own(headers) {
            return shown(StatusCode::FORBIDDEN, "Refused", "This answer did not come from this page.");
        }
        let Some(visitor) = self.visitor(headers) else { return self.begin(id).await };
        let field = |name: &str| {
            let mut values = form.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
            values.next().unwrap_or_default()
        };
        let (seal, reason) =
            (field("seal"), Some(field("reason").trim()).filter(|reason| !reason.is_empty()));
        let expected = self.keys.form(&visitor.secret, id, seal);
        if !keys::same(&expected, field("token")) {
            return shown(
                StatusCode::FORBIDDEN,
                "Refused",
                "This form is not of this login: open the page again.",
            );
        }
        let Some(say) = Say::ALL.into_iter().find(|say| say.word() == field("answer")) else {
            return shown(StatusCode::BAD_REQUEST, "Refused", "There is no such answer.");
        };
        let answered = Answered { say, reason, shown: Some(seal) };
        match self.desk.answer(&visitor.person, id, answered).await {
            Ok(_) => moved(&format!("/approvals/{id}"), None),
            // It is shown as it is now, with what was wrong.
            Err(Failed::Refused(refused)) if !matches!(refused, Refused::Unknown(_)) => {
                match self.desk.show(&visitor.person, id).await {
                    Ok(inquiry) => {
                        let problem = refused.to_string();
                        self.question(StatusCode::CONFLICT, &inquiry, &visitor, Some(&problem))
                    }
                    Err(failed) => failure(&failed, &visitor.person),
                }
            }
            Err(failed) => failure(&failed, &visitor.person),
        }
    }

    fn question(
        &self,
        status: StatusCode,
        inquiry: &Inquiry,
        visitor: &Visitor,
        problem: Option<&str>,
    ) -> Answer {
        let seal = inquiry.seal();
        let token = self.keys.form(&visitor.secret, &inquiry.id, &seal);
        let choices = inquiry.choices(&visitor.person, Timestamp::now());
        let form = Form { token: &token, seal: &seal, choices: &choices };
        page(status, html::question(inquiry, &visitor.person, &form, problem))
    }

    /// Sends a browser to the issuer; it comes back to this question.
    async fn begin(&self, id: &str) -> Answer {
        let Some(random) = keys::random() else { return no_randomness() };
        let cookie = format!("{random}.{}.{id}", Timestamp::now().as_second());
        match self.logins.begin(&self.keys.ticket(&cookie)).await {
            Ok(place) => moved(&place, cookies::set(cookies::LOGIN, &cookie, keys::LOGIN)),
            Err(why) => {
                tracing::warn!(why, "nobody can log in to answer questions");
                shown(StatusCode::BAD_GATEWAY, "No login", &format!("The issuer cannot be asked: {why}"))
            }
        }
    }

    /// A browser comes back from the issuer.
    async fn callback(&self, headers: &HeaderMap, query: &str) -> Answer {
        let failed =
            |why: &str| shown(StatusCode::FORBIDDEN, "No login", &format!("{why} Open the link again."));
        let fields: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let field =
            |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let Some(cookie) = cookies::get(headers, cookies::LOGIN) else {
            return failed("This browser has begun no login, or too long ago.");
        };
        let mut parts = cookie.split('.').skip(1);
        let begun = parts.next().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
        let id = parts.next().unwrap_or_default();
        let age = Timestamp::now().as_second().saturating_sub(begun);
        let ticket = self.keys.ticket(cookie);
        // A cookie that we did not make has no state that anybody knows.
        if !keys::same(&ticket.state, field("state").unwrap_or_default()) || !is_id(id) {
            return failed("This is not the answer to a login of this browser.");
        }
        if !(0..=keys::LOGIN).contains(&age) {
            return failed("The login took too long.");
        }
        let Some(code) = field("code").filter(|code| code.len() <= LONGEST_CODE) else {
            return failed("The issuer let nobody in.");
        };
        match self.logins.finish(code, field("iss"), &ticket).await {
            Ok(login) => self.enter(login, id),
            Err(why) => {
                tracing::warn!(why, "a login to answer questions failed");
                failed(&format!("The login failed: {why}."))
            }
        }
    }

    fn enter(&self, login: Login, id: &str) -> Answer {
        let identity = &login.identity;
        tracing::info!(issuer = %identity.issuer, subject = %identity.subject, "logged in to answer questions");
        let Some((secret, seconds)) = self.sessions.begin(login) else { return no_randomness() };
        let mut answer =
            moved(&format!("/approvals/{id}"), cookies::set(cookies::SESSION, secret.expose(), seconds));
        if let Some(cookie) = cookies::set(cookies::LOGIN, "", 0) {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
        answer
    }

    fn log_out(&self, headers: &HeaderMap) -> Answer {
        if !self.is_own(headers) {
            return shown(StatusCode::FORBIDDEN, "Refused", "This request did not come from this page.");
        }
        if let Some(visitor) = self.visitor(headers) {
            self.sessions.end(&visitor.secret);
        }
        let mut answer = shown(StatusCode::OK, "Logged out", "You may close this page.");
        if let Some(cookie) = cookies::set(cookies::SESSION, "", 0) {
            answer.headers_mut().append(header::SET_COOKIE, cookie);
        }
        answer
    }

    fn visitor(&self, headers: &HeaderMap) -> Option<Visitor> {
        let secret = Secret::new(cookies::get(headers, cookies::SESSION)?);
        let identity = self.sessions.get(&secret)?;
        Some(Visitor { person: Person { identities: [identity].into(), ..Person::default() }, secret })
    }

    /// Whether a form was sent by a page of ours: browsers always say so (Fetch standard, "append a request `Origin`
    /// header").
    fn is_own(&self, headers: &HeaderMap) -> bool {
        headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes() == self.origin.as_bytes())
    }
}

/// Letters, digits and dashes: it goes into paths and cookies.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= LONGEST_ID
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// A form's fields; none if it is too long or breaks off.
async fn form(body: Incoming) -> Option<Vec<(String, String)>> {
    let bytes = Limited::new(body, LONGEST).collect().await.ok()?.to_bytes();
    Some(form_urlencoded::parse(&bytes).into_owned().collect())
}

fn failure(failed: &Failed, person: &Person) -> Answer {
    let (status, title) = match failed {
        Failed::Refused(Refused::Unknown(_)) => (StatusCode::NOT_FOUND, "Not found"),
        Failed::Refused(_) => (StatusCode::FORBIDDEN, "Refused"),
        Failed::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "Not now"),
    };
    page(status, html::message(title, &failed.to_string(), Some(person)))
}

fn no_randomness() -> Answer {
    shown(StatusCode::SERVICE_UNAVAILABLE, "Not now", "The login cannot be kept.")
}

fn shown(status: StatusCode, title: &str, text: &str) -> Answer {
    page(status, html::message(title, text, None))
}

fn page(status: StatusCode, text: String) -> Answer {
    with_type(status, "text/html; charset=utf-8", text)
}

fn style() -> Answer {
    with_type(StatusCode::OK, "text/css; charset=utf-8", html::STYLE.into())
}

fn with_type(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn moved(place: &str, cookie: Option<HeaderValue>) -> Answer {
    let Ok(place) = HeaderValue::from_str(place) else {
        return shown(StatusCode::BAD_GATEWAY, "No login", "The issuer's address is none.");
    };
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    answer.headers_mut().insert(header::LOCATION, place);
    cookie.map(|cookie| answer.headers_mut().append(header::SET_COOKIE, cookie));
    answer
}
