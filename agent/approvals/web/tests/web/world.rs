//! A page with questions behind it, an issuer, and browsers.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
pub(crate) use tidegate_approvals::{Answered, Person, Say, State};
use tidegate_approvals::{Audience, Desk, Inquiry, Limits, store::Sqlite};
use tidegate_approvals_web::{Login, Logins, Pages, Server, Ticket};
use tidegate_gate::{
    Answer, Approvals, BoxFuture, Question,
    policy::{Approval, Held, Identity, People, Principal, Process, Scope, Sessions},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

pub(crate) const ORIGIN: &str = "https://tidegate.example";
pub(crate) const HOSTILE: &str = "DELETE FROM t; --</pre><script>x</script>\u{202e}";

/// An issuer at which the code is the name, with the groups behind the dash, and which remembers its tickets.
#[derive(Default)]
struct Issuer(Mutex<Vec<Ticket>>);

impl Logins for Issuer {
    fn begin<'a>(&'a self, ticket: &'a Ticket) -> BoxFuture<'a, Result<String, String>> {
        self.0.lock().unwrap().push(ticket.clone());
        Box::pin(async move { Ok(format!("https://login.example/?state={}", ticket.state)) })
    }

    fn finish<'a>(
        &'a self,
        code: &'a str,
        issuer: Option<&'a str>,
        ticket: &'a Ticket,
    ) -> BoxFuture<'a, Result<Login, String>> {
        let known = self.0.lock().unwrap().contains(ticket) && issuer == Some("people");
        Box::pin(async move {
            if !known {
                return Err("this login was never begun".into());
            }
            Ok(login(code))
        })
    }

    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Login, String>> {
        Box::pin(async move {
            match token.contains('-') {
                true => Ok(login(token)),
                false => Err("the token is not this issuer's".into()),
            }
        })
    }
}

/// Logged in as this. The issuer of some counts no more.
fn login(name: &str) -> Login {
    let counts = name != "gone-dba";
    Login { identity: identity(name), counts: Arc::new(move || counts) }
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity {
        issuer: "people".into(),
        url: "https://people.example".into(),
        account: None,
        subject: name.into(),
        groups: name.split('-').skip(1).map(Into::into).collect(),
        expires: jiff::Timestamp::now().as_second() + 600,
        claims: Default::default(),
    }
}

pub(crate) struct World {
    pub(crate) desk: Desk,
    address: SocketAddr,
    serving: JoinHandle<()>,
    asked: AtomicU8,
    _directory: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&directory.path().join("approvals.db")).unwrap());
        let desk =
            Desk::open("host", store, Limits { all: 9, of_account: 9, a_minute: 1000 }, Audience::default());
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        let address = server.address().unwrap();
        let logins = Arc::new(Issuer::default());
        let pages = Pages::new(desk.clone(), logins, &ORIGIN.parse().unwrap()).unwrap().with_api();
        let serving = tokio::spawn(server.run(pages));
        Self { desk, address, serving, asked: AtomicU8::new(0), _directory: directory }
    }

    /// Asked by `ci-dba` of issuer `people`; something else each time.
    pub(crate) async fn ask(&self, reason: bool) -> String {
        let by = People { groups: vec!["dba".into()], issuer: Some("people".into()), ..People::default() };
        let approval = Approval {
            by,
            approvers: 1,
            scope: Scope::Action,
            wait: Duration::from_secs(60),
            grant: None,
            sessions: Sessions::One,
            reason,
            break_glass: None,
        };
        let process = Process { pid: 7, uid: 1000, user: Some("ci".into()), ..Process::default() };
        let mut job = identity("ci-dba");
        job.claims.insert("repository".into(), "acme/<shop>".into());
        let principal = Principal { process, identities: [job].into(), ..Principal::default() };
        let question = Question {
            session: "s".into(),
            principal,
            resource: "shop".into(),
            protocol: "postgres".into(),
            policy: "digest".into(),
            action: 3,
            name: "statement".into(),
            text: HOSTILE.into(),
            particulars: vec![("database".into(), "shop".into())],
            holds: vec![Held { rule: "ask".into(), what: "".into(), approval: Arc::new(approval) }],
            exact: [self.asked.fetch_add(1, Ordering::Relaxed); 32],
            shape: [1; 32],
        };
        match self.desk.put(question).await.unwrap() {
            Answer::Waits(waits) => waits.id().to_string(),
            Answer::Known(_) => panic!("it is known"),
        }
    }

    pub(crate) async fn state(&self, id: &str) -> Inquiry {
        let root = Person { host: "host".into(), uid: Some(0), ..Person::default() };
        self.desk.show(&root, id).await.unwrap()
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser { address: self.address, cookies: HashMap::new() }
    }

    /// A browser in which this person has logged in for this question, and the page it then shows.
    pub(crate) async fn logged_in(&self, name: &str, id: &str) -> (Browser, Page) {
        let mut browser = self.browser();
        let sent = browser.get(&format!("/approvals/{id}")).await;
        let state = sent.place().split_once("state=").unwrap().1.to_owned();
        let back = browser.get(&format!("/callback?code={name}&state={state}&iss=people")).await;
        assert_eq!(back.status, 303, "{}", back.body);
        let page = browser.get(back.place()).await;
        (browser, page)
    }
}

#[derive(Clone)]
pub(crate) struct Browser {
    address: SocketAddr,
    pub(crate) cookies: HashMap<String, String>,
}

pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) cookies: Vec<String>,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn place(&self) -> &str {
        &self.headers["location"]
    }

    /// A hidden field of its form.
    pub(crate) fn field(&self, name: &str) -> String {
        let (_, rest) = self.body.split_once(&format!("name=\"{name}\" value=\"")).expect("a field");
        rest.split('"').next().unwrap().into()
    }

    /// Its form, filled in.
    pub(crate) fn form(&self, answer: &str, reason: &str) -> String {
        let (seal, token) = (self.field("seal"), self.field("token"));
        format!("seal={seal}&token={token}&reason={reason}&answer={answer}")
    }
}

impl Browser {
    pub(crate) async fn get(&mut self, path: &str) -> Page {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: tidegate.example\r\n"), "").await
    }

    pub(crate) async fn post(&mut self, path: &str, origin: Option<&str>, form: &str) -> Page {
        let origin = origin.map_or_else(String::new, |origin| format!("origin: {origin}\r\n"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: tidegate.example\r\n{origin}content-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n",
            form.len()
        );
        self.request(&head, form).await
    }

    pub(crate) async fn request(&mut self, head: &str, body: &str) -> Page {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("{head}cookie: {}\r\n\r\n{body}", cookies.join("; "));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let lines: Vec<(String, String)> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let set = lines.iter().filter(|(name, _)| name == "set-cookie").map(|(_, value)| value.clone());
        let cookies: Vec<String> = set.collect();
        for cookie in &cookies {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.into(), value.into());
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Page { status, headers: lines.into_iter().collect(), cookies, body: body.into() }
    }
}
