//! A signed-in session with the test as its client and as its server.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::BytesMut;
use tidegate_gate::{
    ServeError,
    contract::{Memory, PATIENCE, Rig},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Postgres,
    database::FUNCTION,
    sql,
    wire::{
        self, ErrorFields, Format, HEADER_BYTES,
        backend::{FieldDescription, TransactionStatus},
        frontend::tag,
        write,
    },
};

/// Selects, prepares, cursors and copies are allowed; `public.customers.card` is masked. Nothing is dropped.
pub(super) const BUNDLE: &str = r#"
tidegate: 1
name: engine
subjects:
  tester: {users: ["0"]}
resources:
  it:
    protocol: postgres
    addresses: ["127.0.0.1:{port}"]
    tls: {mode: disable}
    credential: any
    options: {longest-statement: 10000}
masks:
  cards:
    columns: ["public.customers.card"]
    show: {keep-last: 4}
    derived: mask
rules:
  - name: sign-in
    subjects: [tester]
    resources: [it]
    allow: [{action: [login, cancel]}]
  - name: work
    subjects: [tester]
    resources: [it]
    allow:
      - statement: [select, set, transaction, cursor, prepare, copy-to, copy-from, listen, notify, insert, create]
    masks: [cards]
"#;

/// The bundle with a mask that looks for e-mails in place of the one on a column.
pub(super) fn by_content() -> String {
    let bundle = BUNDLE.replace(r#"columns: ["public.customers.card"]"#, "content: [email]");
    bundle.replace("show: {keep-last: 4}\n    derived: mask", "show: redact")
}

/// A name that the server gives the gate no answer about.
pub(super) const SILENCE: &str = "silence";

/// A session that is signed in, and both of its peers.
pub(super) struct Stage {
    pub(super) rig: Rig,
    pub(super) server: TcpStream,
    /// Process id and secret that the client was given.
    pub(super) key: (u32, Vec<u8>),
    catalog: JoinHandle<()>,
    asked: Arc<AtomicUsize>,
    /// How often others have defined something anew.
    defined: Arc<AtomicUsize>,
    cancels: mpsc::UnboundedReceiver<Vec<u8>>,
    arrivals: mpsc::UnboundedReceiver<TcpStream>,
}

/// Another session of the same account on the same database, and both of its peers.
pub(super) struct Beside {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
}

/// How a session ended, and what both sides got last.
pub(super) struct Ended {
    pub(super) client: Vec<u8>,
    pub(super) server: Vec<u8>,
    pub(super) result: Result<(), ServeError>,
    pub(super) memory: Memory,
}

impl Stage {
    pub(super) async fn open() -> Self {
        Self::open_under(BUNDLE).await
    }

    pub(super) async fn open_under(bundle: &str) -> Self {
        let (rig, listener) = Self::arrive(bundle).await;
        Self::sign_in(rig, listener).await
    }

    /// The client has said who it is; nobody has answered.
    pub(super) async fn arrive(bundle: &str) -> (Rig, TcpListener) {
        let (mut rig, listener) = Rig::set(&Postgres::new(), bundle, Memory::default()).await;
        rig.client.write_all(&startup()).await.unwrap();
        (rig, listener)
    }

    /// The server lets it in.
    pub(super) async fn sign_in(rig: Rig, listener: TcpListener) -> Self {
        Self::sign_in_to(rig, listener, &greeting()).await
    }

    /// The server lets it in with these words.
    pub(super) async fn sign_in_to(mut rig: Rig, listener: TcpListener, greeting: &[u8]) -> Self {
        let server = Self::greet(&listener, greeting).await;
        let heard = read_until_ready(&mut rig.client).await;
        let key = heard.iter().find(|(tag, _)| *tag == b'K').map(|(_, body)| body.clone()).unwrap();
        let key = (u32::from_be_bytes(key[..4].try_into().unwrap()), key[4..].to_vec());
        let (cancelled, cancels) = mpsc::unbounded_channel();
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (asked, defined) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        Self {
            rig,
            server,
            key,
            catalog: tokio::spawn(catalog(listener, cancelled, arrived, asked.clone(), defined.clone())),
            asked,
            defined,
            cancels,
            arrivals,
        }
    }

    /// Another session, signed in.
    pub(super) async fn beside(&mut self) -> Beside {
        let (mut client, _) = self.rig.connect().await;
        client.write_all(&startup()).await.unwrap();
        let mut server = within(self.arrivals.recv()).await.unwrap();
        server.write_all(&greeting()).await.unwrap();
        read_until_ready(&mut client).await;
        Beside { client, server }
    }

    /// The server takes the gate's StartupMessage and answers this.
    pub(super) async fn greet(listener: &TcpListener, answer: &[u8]) -> TcpStream {
        let (mut server, _) = within(listener.accept()).await.unwrap();
        let length = within(server.read_u32()).await.unwrap() as usize;
        read(&mut server, length - 4).await;
        server.write_all(answer).await.unwrap();
        server
    }

    /// The client sends.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        within(self.rig.client.write_all(bytes)).await.unwrap();
    }

    /// The server sends.
    pub(super) async fn answer(&mut self, bytes: &[u8]) {
        within(self.server.write_all(bytes)).await.unwrap();
    }

    /// The server resets the connection. In its place stands one that nobody is at the other end of.
    pub(super) async fn reset(&mut self) {
        let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let idle = TcpStream::connect(nobody.local_addr().unwrap()).await.unwrap();
        self.server.set_zero_linger().unwrap();
        drop(mem::replace(&mut self.server, idle));
    }

    /// The next bytes that reach the server are these.
    #[track_caller]
    pub(super) fn server_gets(&mut self, wanted: &[u8]) -> impl Future<Output = ()> {
        expect("the server", &mut self.server, wanted, std::panic::Location::caller())
    }

    /// The next bytes that reach the client are these.
    #[track_caller]
    pub(super) fn client_gets(&mut self, wanted: &[u8]) -> impl Future<Output = ()> {
        expect("the client", &mut self.rig.client, wanted, std::panic::Location::caller())
    }

    /// The next message to the client is an error of this class.
    #[track_caller]
    pub(super) fn client_gets_error(&mut self, sqlstate: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let (kind, body) = next_message(&mut self.rig.client).await;
            assert_eq!(char::from(kind), 'E', "{caller}: {}", body.escape_ascii());
            let fields = ErrorFields::parse(&body).unwrap();
            assert_eq!(fields.get(b'C').unwrap(), sqlstate.as_bytes(), "{caller}: {}", fields.summary());
        }
    }

    /// A simple query and its answer go through as they are.
    pub(super) async fn still_works(&mut self) {
        let (asked, answer) =
            (query("select 1"), [rows("one", &["1"]), complete("SELECT 1"), ready()].concat());
        self.say(&asked).await;
        self.server_gets(&asked).await;
        self.answer(&answer).await;
        self.client_gets(&answer).await;
    }

    /// The next cancel request that reached the server.
    pub(super) async fn cancelled(&mut self) -> Vec<u8> {
        within(self.cancels.recv()).await.unwrap()
    }

    /// How many questions about the catalog were answered.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Somebody else defines anew what statements run by.
    pub(super) fn others_define(&self) {
        self.defined.fetch_add(1, Ordering::SeqCst);
    }

    /// No cancel request has reached the server.
    pub(super) fn nothing_is_cancelled(&mut self) {
        assert!(self.cancels.try_recv().is_err(), "something was cancelled");
    }

    /// The session ends by itself. Its record was closed once.
    pub(super) async fn ends(mut self) -> Ended {
        let (mut client, mut server) = (Vec::new(), Vec::new());
        let reading = async {
            // A peer that resets was cut off, which is an end as well.
            tokio::join!(async { drop(self.rig.client.read_to_end(&mut client).await) }, async {
                drop(self.server.read_to_end(&mut server).await)
            },)
        };
        timeout(PATIENCE, reading).await.expect("the session does not end");
        let result = timeout(PATIENCE, &mut self.rig.session).await.expect("the task ends");
        let result = result.expect("the session does not panic");
        assert_eq!(self.rig.memory.closes(), 1, "the record is closed once");
        Ended { client, server, result, memory: self.rig.memory.clone() }
    }

    /// The client leaves in order; nothing but its goodbye reaches the server.
    pub(super) async fn leaves(mut self) -> Memory {
        self.say(&terminate()).await;
        let ended = self.ends().await;
        assert!(ended.result.is_ok(), "{:?}", ended.result);
        assert_eq!(ended.client.escape_ascii().to_string(), "");
        assert_eq!(ended.server.escape_ascii().to_string(), terminate().escape_ascii().to_string());
        ended.memory
    }
}

impl Beside {
    /// The client sends this, and it reaches the server.
    #[track_caller]
    pub(super) fn sends(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            within(self.client.write_all(bytes)).await.unwrap();
            expect("the other server", &mut self.server, bytes, caller).await;
        }
    }

    /// The next bytes that reach the server are these.
    #[track_caller]
    pub(super) fn server_gets(&mut self, wanted: &[u8]) -> impl Future<Output = ()> {
        expect("the other server", &mut self.server, wanted, std::panic::Location::caller())
    }

    /// The server sends this, and the client gets it.
    #[track_caller]
    pub(super) fn answers(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            within(self.server.write_all(bytes)).await.unwrap();
            expect("the other client", &mut self.client, bytes, caller).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.catalog.abort();
    }
}

impl Ended {
    /// The client was told this last, and only this; the server got nothing but a goodbye.
    #[track_caller]
    pub(super) fn with(&self, sqlstate: &str) {
        assert_eq!(self.server.escape_ascii().to_string(), terminate().escape_ascii().to_string());
        self.told(sqlstate);
    }

    /// The client was told this last, and only this.
    #[track_caller]
    pub(super) fn told(&self, sqlstate: &str) {
        let header = wire::header(&self.client).unwrap().expect("the client was told something");
        let fields = ErrorFields::parse(&self.client[HEADER_BYTES..]).unwrap();
        assert_eq!((header.tag, header.length), (b'E', self.client.len() - HEADER_BYTES));
        assert_eq!(fields.get(b'C').unwrap(), sqlstate.as_bytes(), "{}", fields.summary());
        assert_eq!(fields.get(b'V').unwrap(), b"FATAL");
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it happens in time")
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

async fn expect(who: &str, stream: &mut TcpStream, wanted: &[u8], caller: &std::panic::Location<'_>) {
    let mut got = BytesMut::new();
    let reading = async {
        while got.len() < wanted.len() && wanted.starts_with(&got) {
            let mut part = vec![0; wanted.len() - got.len()];
            match stream.read(&mut part).await {
                Ok(count) if count > 0 => got.extend_from_slice(&part[..count]),
                _ => break,
            }
        }
    };
    let in_time = timeout(PATIENCE, reading).await.is_ok();
    assert_eq!(
        got.escape_ascii().to_string(),
        wanted.escape_ascii().to_string(),
        "{caller}: {who} got something else (in time: {in_time})"
    );
}

pub(super) async fn next_message(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let header = read(stream, HEADER_BYTES).await;
    let header = wire::header(&header).unwrap().unwrap();
    (header.tag, read(stream, header.length).await)
}

pub(super) async fn read_until_ready(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut messages = Vec::new();
    loop {
        let message = next_message(stream).await;
        let is_ready = message.0 == b'Z';
        messages.push(message);
        if is_ready {
            return messages;
        }
    }
}

/// The oid of the one function that there is.
pub(super) const FUNCTIONS_OID: &str = "16400";

/// Answers the gate's own questions: there is one table, `public.customers (id, card)`, and a function. Nobody is told of [`SILENCE`]. What
/// else arrives is passed on.
async fn catalog(
    listener: TcpListener,
    cancelled: mpsc::UnboundedSender<Vec<u8>>,
    arrived: mpsc::UnboundedSender<TcpStream>,
    answered: Arc<AtomicUsize>,
    defined: Arc<AtomicUsize>,
) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (cancelled, arrived, answered) = (cancelled.clone(), arrived.clone(), answered.clone());
        let defined = defined.clone();
        tokio::spawn(async move {
            let Ok(length) = stream.read_u32().await else { return };
            let packet = read(&mut stream, length as usize - 4).await;
            if packet.starts_with(&cancel_request(&(0, Vec::new()))[4..8]) {
                cancelled.send([&length.to_be_bytes()[..], &packet].concat()).unwrap();
                return;
            }
            if !contains(&packet, b"tidegate catalog") {
                // Nobody may wait for it.
                let _ = arrived.send(stream);
                return;
            }
            stream.write_all(&greeting()).await.unwrap();
            let (mut asked, mut names) = (Vec::new(), Vec::new());
            let mut header = [0; HEADER_BYTES];
            while stream.read_exact(&mut header).await.is_ok() {
                let known = wire::header(&header).unwrap().unwrap();
                let body = read(&mut stream, known.length).await;
                match known.tag {
                    tag::PARSE => asked = body,
                    tag::BIND => names = body,
                    tag::EXECUTE if contains(&names, SILENCE.as_bytes()) => {
                        return std::future::pending().await;
                    }
                    tag::EXECUTE => {
                        let defined = defined.load(Ordering::SeqCst);
                        stream.write_all(&found(&asked, &names, defined)).await.unwrap();
                    }
                    tag::SYNC => {
                        answered.fetch_add(1, Ordering::SeqCst);
                        stream.write_all(&ready()).await.unwrap();
                    }
                    _ => {}
                }
            }
        });
    }
}

fn found(asked: &[u8], names: &[u8], defined: usize) -> Vec<u8> {
    let customers = br#"{"schema": "public", "name": "customers", "oid": 16384, "columns": [
        {"name": "id", "number": 1, "type": 23, "generated": false, "made_from": null},
        {"name": "card", "number": 3, "type": 25, "generated": false, "made_from": null},
        {"name": "name", "number": 4, "type": 25, "generated": false, "made_from": null}]}"#;
    let mut answer = [acknowledged(b'1'), acknowledged(b'2')].concat();
    if contains(asked, sql::RELATIONS.as_bytes()) && contains(names, b"\"customers\"") {
        write::data_row(&mut answer, &[Some(customers)]);
    }
    if contains(asked, sql::MARKS.as_bytes()) {
        write::data_row(&mut answer, &[Some(defined.to_string().as_bytes())]);
    }
    if contains(asked, FUNCTION.as_bytes()) && contains(names, FUNCTIONS_OID.as_bytes()) {
        write::data_row(&mut answer, &[Some(b"23 25\npublic.remove(id integer, reason text)")]);
    }
    [answer, complete("SELECT")].concat()
}

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

pub(super) fn greeting() -> Vec<u8> {
    let mut greeting = Vec::new();
    write::authentication_ok(&mut greeting);
    write::backend_key_data(&mut greeting, 42, &[1, 2, 3, 4]);
    write::ready_for_query(&mut greeting, TransactionStatus::Idle);
    greeting
}

// What clients say.

pub(super) fn startup() -> Vec<u8> {
    said(|out| write::startup(out, 0, [("user", "anyone"), ("database", "shop")]))
}

pub(super) fn query(text: &str) -> Vec<u8> {
    said(|out| write::query(out, text.as_bytes()))
}

pub(super) fn parse(name: &str, text: &str) -> Vec<u8> {
    said(|out| write::parse(out, name.as_bytes(), text.as_bytes(), &[]))
}

pub(super) fn bind(portal: &str, statement: &str) -> Vec<u8> {
    said(|out| write::bind(out, portal.as_bytes(), statement.as_bytes(), &[], &[], &[]))
}

pub(super) fn describe(kind: wire::frontend::Kind, name: &str) -> Vec<u8> {
    said(|out| write::describe(out, kind, name.as_bytes()))
}

pub(super) fn close(kind: wire::frontend::Kind, name: &str) -> Vec<u8> {
    said(|out| write::close(out, kind, name.as_bytes()))
}

pub(super) fn execute(portal: &str) -> Vec<u8> {
    said(|out| write::execute(out, portal.as_bytes(), None))
}

/// The unnamed statement, from Parse to Execute.
pub(super) fn run(text: &str) -> Vec<u8> {
    [parse("", text), bind("", ""), execute("")].concat()
}

pub(super) fn sync() -> Vec<u8> {
    said(write::sync)
}

pub(super) fn flush() -> Vec<u8> {
    said(write::flush)
}

pub(super) fn terminate() -> Vec<u8> {
    said(write::terminate)
}

pub(super) fn copy_data(data: &str) -> Vec<u8> {
    message(tag::COPY_DATA, data.as_bytes())
}

pub(super) fn copy_done() -> Vec<u8> {
    message(tag::COPY_DONE, b"")
}

pub(super) fn copy_fail() -> Vec<u8> {
    said(|out| write::copy_fail(out, "no more"))
}

// What servers say.

pub(super) fn ready() -> Vec<u8> {
    ready_in(TransactionStatus::Idle)
}

pub(super) fn ready_in(status: TransactionStatus) -> Vec<u8> {
    said(|out| write::ready_for_query(out, status))
}

pub(super) fn complete(tag: &str) -> Vec<u8> {
    said(|out| write::command_complete(out, tag.as_bytes()))
}

pub(super) fn error(sqlstate: &str) -> Vec<u8> {
    said(|out| write::error_response(out, &ErrorFields::new("ERROR", sqlstate, "no")))
}

pub(super) fn fatal(sqlstate: &str) -> Vec<u8> {
    said(|out| write::error_response(out, &ErrorFields::new("FATAL", sqlstate, "no")))
}

/// ParseComplete, BindComplete, CloseComplete, NoData, PortalSuspended or EmptyQueryResponse.
pub(super) fn acknowledged(tag: u8) -> Vec<u8> {
    message(tag, b"")
}

pub(super) fn described(column: &str) -> Vec<u8> {
    described_as(column, (0, 0))
}

/// One column of text, which is this one of a table's.
pub(super) fn described_as(column: &str, (table_oid, number): (u32, i16)) -> Vec<u8> {
    let field = |name| FieldDescription {
        name,
        table_oid,
        column: number,
        type_oid: 25,
        type_length: -1,
        type_modifier: -1,
        ..Default::default()
    };
    let name = [column.as_bytes(), b"\0"].concat();
    let body = said(|out| write::row_description(out, &[field(wire::Text::default())]));
    // The name goes in front of the field's terminator.
    let body = [&body[HEADER_BYTES..HEADER_BYTES + 2], &name, &body[HEADER_BYTES + 3..]].concat();
    message(b'T', &body)
}

pub(super) fn row(value: &str) -> Vec<u8> {
    said(|out| write::data_row(out, &[Some(value.as_bytes())]))
}

/// One column of text, described, and its rows.
pub(super) fn rows(column: &str, values: &[&str]) -> Vec<u8> {
    let mut rows = described(column);
    values.iter().for_each(|value| rows.extend(row(value)));
    rows
}

/// The server takes copy data of one column from here on.
pub(super) fn copies_in() -> Vec<u8> {
    message(b'G', &[0, 0, 1, 0, Format::Text.code() as u8])
}

pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    said(|out| write::raw(out, tag, body))
}

pub(super) fn said(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

/// Kept by who wants to look at records: the outcomes in order.
pub(super) fn outcomes(memory: &Memory) -> Vec<String> {
    let lines = memory.lines();
    let outcomes = lines.iter().filter(|line| line["type"] == "outcome");
    outcomes.map(|line| line["outcome"].as_str().unwrap().to_owned()).collect()
}

/// A second protocol connection for a cancel request.
pub(super) fn cancel_request((process_id, secret): &(u32, Vec<u8>)) -> Vec<u8> {
    said(|out| write::cancel_request(out, *process_id, secret))
}
