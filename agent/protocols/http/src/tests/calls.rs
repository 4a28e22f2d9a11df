//! Calls of gRPC whose messages the bundle knows: decided, held and masked by what they say.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client::SendRequest, server::SendResponse};
use http::{HeaderMap, Request, Response};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, prost::Message};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};

use super::stage::{PATIENCE, Reached, Stage};

const SMALL: &str = r#"
rules:
  - name: small-orders
    subjects: [tester]
    resources: [it]
    allow: [{grpc: "acme.shop.Orders/*", body: {amount: "<= 100"}}]
    hint: ask the shop
"#;

const MASKED: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{grpc: "acme.shop.Orders/*"}], masks: [people]}
masks:
  people: {columns: [body.cardNumber, body.order.customer_name], content: [card], show: {keep-last: 4}}
"#;

/// From where tests run.
const DESCRIPTORS: &str = "src/tests/grpc/shop.binpb";

fn declared(name: &str) -> MessageDescriptor {
    let pool = DescriptorPool::decode(&*std::fs::read(Path::new(DESCRIPTORS)).unwrap()).unwrap();
    pool.get_message_by_name(&format!("acme.shop.{name}")).unwrap()
}

/// A message that is written as JSON, in its frame.
fn frame(of: &str, value: &Value) -> Bytes {
    framed(0, &DynamicMessage::deserialize(declared(of), value).unwrap().encode_to_vec())
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat().into()
}

fn order(amount: i64) -> Bytes {
    frame("Order", &json!({"amount": amount}))
}

/// Takes whole messages from the beginning.
fn take(from: &mut Vec<u8>, of: &str) -> Vec<Value> {
    let mut all = Vec::new();
    while let Some((&[_, a, b, c, d], _)) = from.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if from.len() < 5 + length {
            break;
        }
        let whole: Vec<u8> = from.drain(..5 + length).collect();
        let message = DynamicMessage::decode(declared(of), &whole[5..]);
        all.push(message.map_or(Value::Null, |message| serde_json::to_value(&message).unwrap()));
    }
    all
}

/// A server that answers each order with a receipt, as soon as it has it where both stream, and tells what arrived.
fn shop(listener: TcpListener, received: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let received = received.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(request, respond, received.clone()));
                }
            });
        }
    })
}

async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    received: Arc<Mutex<Vec<String>>>,
) {
    let note = |text: String| received.lock().unwrap().push(text);
    let (parts, mut body) = request.into_parts();
    let method = parts.uri.path().rsplit('/').next().unwrap().to_owned();
    note(format!("{method} {:?}", parts.headers.get("grpc-accept-encoding")));
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut send = respond.send_response(head, false).unwrap();
    let (mut came, mut orders) = (Vec::new(), Vec::new());
    while let Some(data) = body.data().await {
        let Ok(data) = data else { return note("cut off".into()) };
        body.flow_control().release_capacity(data.len()).unwrap();
        came.extend_from_slice(&data);
        for order in take(&mut came, "Order") {
            note(order.to_string());
            if method == "Talk" {
                send.send_data(receipt(&order), false).unwrap();
            }
            orders.push(order);
        }
    }
    let count = match &*method {
        "Watch" => 3,
        "Talk" => 0,
        _ => 1,
    };
    for _ in 0..count {
        let last = orders.last().cloned().unwrap_or_else(|| json!({}));
        let _ = send.send_data(receipt(&last), false);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "card%204111111111111111".parse().unwrap());
    trailers.insert("grpc-status-details-bin", "NDExMQ".parse().unwrap());
    let _ = send.send_trailers(trailers);
}

fn receipt(order: &Value) -> Bytes {
    match order["note"].as_str() {
        Some("compressed") => framed(1, b"x"),
        Some("unknown") => framed(0, b"\x98\x06\x01"),
        _ => frame("Receipt", &json!({"id": "r-1", "cardNumber": "4111111111111111", "order": order})),
    }
}

async fn stage(rules: &str) -> Stage {
    with(rules, &format!("{{h2c: true, descriptors: {DESCRIPTORS}}}")).await
}

async fn with(rules: &str, options: &str) -> Stage {
    Stage::serving(rules, options, Reached::Plainly, |listener, _, received| shop(listener, received)).await
}

async fn client(stage: &Stage) -> SendRequest<Bytes> {
    let (stream, _) = stage.connect().await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

/// A call as its client sees it.
struct Called {
    send: SendStream<Bytes>,
    response: Option<h2::client::ResponseFuture>,
    head: HeaderMap,
    body: Option<RecvStream>,
    came: Vec<u8>,
}

impl Called {
    fn say(&mut self, frame: Bytes, is_last: bool) {
        // A call that is over takes no more.
        let _ = self.send.send_data(frame, is_last);
    }

    async fn body(&mut self) -> &mut RecvStream {
        if let Some(response) = self.response.take() {
            let (parts, body) =
                timeout(PATIENCE, response).await.expect("it is answered").unwrap().into_parts();
            self.head = parts.headers;
            self.body = Some(body);
        }
        self.body.as_mut().unwrap()
    }

    /// The next receipt.
    async fn next(&mut self) -> Value {
        loop {
            if let Some(receipt) = take(&mut self.came, "Receipt").pop() {
                return receipt;
            }
            let data =
                timeout(PATIENCE, self.body().await.data()).await.expect("there is more").unwrap().unwrap();
            self.came.extend_from_slice(&data);
        }
    }

    /// All receipts that are left, the status and its text.
    async fn end(mut self) -> (Vec<Value>, String, HeaderMap) {
        while let Some(data) = timeout(PATIENCE, self.body().await.data()).await.expect("it ends") {
            self.came.extend_from_slice(&data.unwrap());
        }
        let trailers = self.body().await.trailers().await.unwrap().unwrap_or_default();
        let all = if trailers.is_empty() { self.head } else { trailers };
        let text = |name: &str| all.get(name).map_or("", |value| value.to_str().unwrap());
        let told = format!(
            "{} {}",
            text("grpc-status"),
            text("grpc-message").replace("%20", " ").replace("%22", "\"").replace("%2A", "*")
        );
        assert!(self.came.is_empty() || self.came.len() > 5, "a message is cut off: {:?}", self.came);
        (take(&mut self.came, "Receipt"), told, all)
    }
}

fn call(stage: &Stage, client: &mut SendRequest<Bytes>, method: &str) -> Called {
    let uri = format!("http://127.0.0.1:{}/acme.shop.Orders/{method}", stage.port);
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    let request = request.header("grpc-accept-encoding", "gzip").body(()).unwrap();
    let (response, send) = client.send_request(request, false).unwrap();
    Called { send, response: Some(response), head: HeaderMap::new(), body: None, came: Vec::new() }
}

/// What a call comes to that says all this at once.
async fn told(stage: &Stage, method: &str, messages: &[Bytes]) -> (Vec<Value>, String, HeaderMap) {
    let mut call = call(stage, &mut client(stage).await, method);
    for (number, message) in messages.iter().enumerate() {
        call.say(message.clone(), number + 1 == messages.len());
    }
    call.end().await
}

const DENIED: &str = "7 no rule allows";

#[tokio::test]
async fn a_field_of_its_one_message_decides_a_call() {
    let stage = stage(SMALL).await;
    for method in ["Create", "Watch"] {
        let (receipts, status, _) = told(&stage, method, &[order(100)]).await;
        assert!(!receipts.is_empty() && status.starts_with("0"), "{method}: {status}");
        assert_eq!(receipts[0]["cardNumber"], "4111111111111111");
        let before = stage.received();
        let (receipts, status, _) = told(&stage, method, &[order(101)]).await;
        assert!(
            receipts.is_empty() && status.starts_with(DENIED) && status.ends_with("ask the shop"),
            "{status}"
        );
        assert_eq!(stage.received(), before, "nothing of it arrived");
    }
    // What is not sent is 0 to the server.
    assert!(told(&stage, "Create", &[framed(0, b"")]).await.1.starts_with("0"));
    assert_eq!(stage.memory.actions(), 5);
}

#[tokio::test]
async fn each_message_of_a_stream_is_decided_before_it_goes_on() {
    let stage = stage(SMALL).await;
    assert!(told(&stage, "Upload", &[order(1), order(100)]).await.1.starts_with("0"));
    let (_, status, _) = told(&stage, "Upload", &[order(2), order(101), order(3)]).await;
    assert!(status.starts_with(DENIED), "{status}");
    let (_, status, _) = told(&stage, "Upload", &[order(102), order(4)]).await;
    assert!(status.starts_with(DENIED), "{status}");
    let received = stage.received();
    let refused = ["101", "102", ":3", ":4"];
    assert!(!received.iter().any(|it| refused.iter().any(|no| it.contains(no))), "{received:?}");
    assert!(received.iter().any(|it| it.contains("100")), "{received:?}");
}

#[tokio::test]
async fn both_ways_flow_and_a_refused_message_ends_a_call_that_was_answered_already() {
    let stage = stage(SMALL).await;
    let mut client = client(&stage).await;
    let mut talk = call(&stage, &mut client, "Talk");
    for amount in [1, 2] {
        talk.say(order(amount), false);
        assert_eq!(talk.next().await["order"]["amount"], amount);
    }
    talk.say(order(101), false);
    let (_, status, _) = talk.end().await;
    assert!(status.starts_with(DENIED) && status.ends_with("ask the shop"), "{status}");
    let cut_off = async {
        while !stage.received().contains(&"cut off".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, cut_off).await.expect("the server is told");
    assert!(!stage.received().iter().any(|it| it.contains("101")), "{:?}", stage.received());
    // The connection stays.
    let mut again = call(&stage, &mut client, "Create");
    again.say(order(3), true);
    assert!(again.end().await.1.starts_with("0"));
    let texts: Vec<_> =
        stage.memory.lines().iter().filter(|line| line["action"] == "message").cloned().collect();
    assert_eq!(texts.len(), 2, "the first goes with its call: {texts:?}");
    assert!(texts[1]["text"].as_str().unwrap().starts_with("message to server, 127.0.0.1"), "{texts:?}");
}

#[tokio::test]
async fn what_a_rule_looks_at_and_cannot_is_refused() {
    let stage = stage(SMALL).await;
    let twice = [&order(1)[5..], &order(101)[5..]].concat();
    for (name, message) in [
        ("a compressed one", framed(1, &order(1)[5..])),
        ("an undeclared field", framed(0, b"\x98\x06\x01")),
        ("an Any", framed(0, b"\x4a\x00")),
        ("an amount twice", framed(0, &twice)),
        ("what is no message", framed(0, b"\xff")),
        ("two of them", [order(1), order(1)].concat().into()),
        ("one that is cut off", order(1).slice(..6)),
        ("no frame", Bytes::from_static(b"\x02\0\0\0\0")),
    ] {
        for method in ["Create", "Upload"] {
            if name == "two of them" && method == "Upload" {
                continue;
            }
            let (receipts, status, _) = told(&stage, method, std::slice::from_ref(&message)).await;
            assert!(receipts.is_empty() && !status.starts_with("0"), "{name} in {method}: {status}");
        }
    }
    assert!(!stage.received().iter().any(|it| it.starts_with('{')), "{:?}", stage.received());
    let (_, status, _) = told(&stage, "Unheard", &[order(1)]).await;
    assert!(status.contains("no descriptors have this call"), "{status}");
    assert!(!stage.received().iter().any(|it| it.starts_with("Unheard")), "{:?}", stage.received());
}

#[tokio::test]
async fn nothing_changes_where_no_rule_looks() {
    let stage = stage(
        r#"rules: [{name: all, subjects: [tester], resources: [it], allow: [{grpc: "acme.shop.Orders/*"}]}]"#,
    )
    .await;
    for (method, message) in
        [("Create", framed(1, b"x")), ("Upload", framed(0, b"\x98\x06\x01")), ("Unheard", order(1))]
    {
        assert!(told(&stage, method, &[message]).await.1.starts_with("0"), "{method}");
    }
    assert!(stage.received()[0].contains("gzip"), "{:?}", stage.received());
    assert_eq!(stage.memory.actions(), 3);
}

#[tokio::test]
async fn masked_fields_are_shown_so_in_whatever_kind_of_call() {
    let stage = stage(MASKED).await;
    let asked = frame("Order", &json!({"amount": 7, "customerName": "Ada Lovelace"}));
    for (method, count) in [("Create", 1), ("Watch", 3), ("Upload", 1), ("Talk", 1)] {
        let (receipts, status, all) = told(&stage, method, std::slice::from_ref(&asked)).await;
        assert_eq!(receipts.len(), count, "{method}: {status}");
        let order = json!({"amount": 7, "customerName": "********lace"});
        assert_eq!(receipts[0], json!({"id": "r-1", "cardNumber": "************1111", "order": order}));
        assert_eq!(status, "0 card ************1111");
        assert!(!all.contains_key("grpc-status-details-bin"), "{all:?}");
    }
    assert!(stage.received().iter().any(|it| it.contains("Lovelace")), "the server gets it all");
    assert!(!stage.received().iter().any(|it| it.contains("gzip")), "{:?}", stage.received());
}

#[tokio::test]
async fn an_answer_that_cannot_be_masked_is_not_shown() {
    let stage = stage(MASKED).await;
    for note in ["compressed", "unknown"] {
        let asked = frame("Order", &json!({"note": note}));
        for method in ["Create", "Talk"] {
            let (receipts, status, _) = told(&stage, method, std::slice::from_ref(&asked)).await;
            assert!(receipts.is_empty() && status.starts_with("7 a mask covers this response"), "{status}");
        }
    }
    let (receipts, status, _) = told(&stage, "Unheard", &[order(1)]).await;
    assert!(receipts.is_empty() && !status.starts_with("0"), "{status}");
    let unknown = with(MASKED, "{h2c: true}").await;
    assert!(!told(&unknown, "Create", &[order(1)]).await.1.starts_with("0"));
}

#[tokio::test]
async fn a_rule_about_messages_is_for_those_of_every_kind_of_call() {
    let rules = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{grpc: "acme.shop.Orders/*"}]}
  - {name: no-gifts, subjects: [tester], resources: [it], deny: [{action: message, to: server, body: {kind: GIFT}}]}
  - {name: no-rings, subjects: [tester], resources: [it], deny: [{to: client, body: {order.customer_name: "Sauron*"}}]}
  - {name: no-heaps, subjects: [tester], resources: [it], deny: [{action: message, to: server, size: ">= 1000"}]}
"#;
    let stage = stage(rules).await;
    for method in ["Create", "Watch", "Upload", "Talk"] {
        let said = async |order: Value| told(&stage, method, &[frame("Order", &order)]).await;
        assert!(said(json!({"kind": "RETURN"})).await.1.starts_with("0"), "{method}");
        assert_eq!(said(json!({"kind": "GIFT"})).await.1, "7 denied by rule \"no-gifts\"", "{method}");
        let (receipts, status, _) = said(json!({"customerName": "Sauron the Great"})).await;
        assert_eq!((receipts.len(), &*status), (0, "7 denied by rule \"no-rings\""), "{method}");
        assert_eq!(
            said(json!({"note": "x".repeat(1000)})).await.1,
            "7 denied by rule \"no-heaps\"",
            "{method}"
        );
    }
    assert!(!stage.received().iter().any(|it| it.contains("GIFT") || it.contains("xxx")));
}

/// Servers take calls in many forms, and rules are about what a call says, not about how it is written.
#[tokio::test]
async fn a_rule_about_messages_is_not_evaded_by_another_form_of_the_call() {
    let rules = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/**"}]}
  - {name: no-gifts, subjects: [tester], resources: [it], deny: [{action: message, to: server, body: {kind: GIFT}}]}
"#;
    let of_answers =
        rules.replace("to: server, body: {kind: GIFT}", "to: client, grpc: acme.shop.Orders/Create");
    for rules in [rules, &*of_answers] {
        let stage = stage(rules).await;
        let mut client = client(&stage).await;
        for (method, path, kind) in [
            ("POST", "Create", "application/grpc-web+proto"),
            ("POST", "Create", "application/grpc+json"),
            ("POST", "Create", "application/json"),
            ("POST", "Create", "application/proto"),
            ("GET", "Create?encoding=json&message=%7B%22kind%22%3A%22GIFT%22%7D", "application/json"),
        ] {
            let uri = format!("http://127.0.0.1:{}/acme.shop.Orders/{path}", stage.port);
            let request = Request::builder().method(method).uri(uri).header("content-type", kind);
            let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
            send.send_data(r#"{"kind": "GIFT"}"#.into(), true).unwrap();
            let head = timeout(PATIENCE, response).await.unwrap().unwrap();
            let status = head.headers().get("grpc-status");
            assert!(head.status() == 422 || status.is_some_and(|status| status == "3"), "{kind}: {head:?}");
        }
        assert!(stage.received().is_empty(), "{:?}", stage.received());
    }
}

const HOLD: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{grpc: "acme.shop.Orders/*"}]}
  - {name: large, subjects: [tester], resources: [it], hold: [{body: {amount: "> 100"}}], approve: {by: {users: [ann]}}}
"#;

#[tokio::test]
async fn a_held_message_is_shown_as_json_and_goes_on_with_a_yes() {
    let stage = stage(HOLD).await;
    let mut client = client(&stage).await;
    for (method, number) in [("Create", 1), ("Talk", 2)] {
        let mut held = call(&stage, &mut client, method);
        if method == "Talk" {
            held.say(order(1), false);
            assert_eq!(held.next().await["order"]["amount"], 1);
        }
        held.say(order(101), true);
        let question = stage.people.question(number).await;
        let shown = format!("{:?}", question.particulars);
        assert!(shown.contains("\\\"amount\\\": 101"), "{shown}");
        assert!(!stage.received().iter().any(|it| it.contains("101")) || number == 2);
        stage.people.approve(&format!("q{number}"));
        let (receipts, status, _) = held.end().await;
        assert_eq!(receipts.len(), 1, "{method}: {status}");
    }
}

#[tokio::test]
async fn a_client_that_waits_is_told_the_question_and_when_to_ask_again() {
    let stage = with(HOLD, &format!("{{h2c: true, wait: 0, descriptors: {DESCRIPTORS}}}")).await;
    for (method, said) in [("Create", &[order(101)][..]), ("Upload", &[order(1), order(101)])] {
        let (_, status, all) = told(&stage, method, said).await;
        assert!(status.starts_with("14 waits for approval q"), "{method}: {status}");
        assert_eq!(all["grpc-retry-pushback-ms"], "5000");
        // google.rpc.Status of that code, with a RetryInfo of five seconds.
        let details = all["grpc-status-details-bin"].to_str().unwrap();
        let details =
            base64::Engine::decode(&base64::engine::general_purpose::STANDARD_NO_PAD, details).unwrap();
        assert!(details.starts_with(b"\x08\x0e\x12"), "{details:x?}");
        assert!(
            details.ends_with(b"type.googleapis.com/google.rpc.RetryInfo\x12\x04\x0a\x02\x08\x05"),
            "{details:x?}"
        );
    }
    assert_eq!(stage.people.asked(), 2);
}
