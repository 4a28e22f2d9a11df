//! Connections that are open while the bundle is loaded again.

use bytes::Bytes;
use http::Request;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::stage::{HOST, PATIENCE, Reached, Stage, ok};

const RULES: &str = r#"
rules:
  - {name: all, subjects: [tester], resources: [it], allow: [{path: "/open/**"}]}
"#;

/// Asks once more over an open connection; what it is answered, and nothing where that is closed instead.
async fn again(stage: &Stage, client: &mut (impl AsyncRead + AsyncWrite + Unpin), host: &str) -> String {
    let asked = format!("GET /open/a HTTP/1.1\r\nHost: {host}:{}\r\n\r\n", stage.port);
    // It may be closed by now.
    let _ = client.write_all(asked.as_bytes()).await;
    let mut heard = Vec::new();
    while !heard.ends_with(b"ok") {
        match timeout(PATIENCE, client.read_u8()).await.expect("there is more") {
            Ok(byte) => heard.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn a_connection_goes_on_under_other_rules_and_closes_where_the_resource_is_another() {
    let stage = Stage::set(RULES, "{wait: 7}", Reached::Plainly, ok).await;
    let (mut client, _) = stage.connect().await;
    assert!(again(&stage, &mut client, "127.0.0.1").await.starts_with("HTTP/1.1 200"));
    stage.reload(&RULES.replace("name: all", "name: others"));
    assert!(again(&stage, &mut client, "127.0.0.1").await.starts_with("HTTP/1.1 200"));
    stage.redefine("{wait: 7}", "{wait: 8}", RULES);
    assert_eq!(again(&stage, &mut client, "127.0.0.1").await, "");
    assert_eq!(stage.received().len(), 2);
}

#[tokio::test]
async fn so_does_one_of_http_2_and_takes_no_request_more() {
    let stage = Stage::set(RULES, "{wait: 7}", Reached::Plainly, ok).await;
    let (stream, _) = stage.connect().await;
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let serving = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let uri = format!("http://127.0.0.1:{}/open/a", stage.port);
    let mut ask = || client.send_request(Request::get(&uri).body(()).unwrap(), true);
    let answered = timeout(PATIENCE, ask().unwrap().0).await.unwrap().unwrap();
    assert_eq!(answered.status(), 200);
    stage.redefine("{wait: 7}", "{wait: 8}", RULES);
    let refused = match ask() {
        Ok((response, _)) => timeout(PATIENCE, response).await.unwrap().is_err(),
        Err(_) => true,
    };
    assert!(refused && stage.received().len() == 1, "{:?}", stage.received());
    drop::<h2::client::SendRequest<Bytes>>(client);
    timeout(PATIENCE, serving).await.expect("it is closed").unwrap().unwrap();
}

#[tokio::test]
async fn and_where_a_file_is_another_that_the_resource_names() {
    let stage = Stage::set(RULES, "{hosts: [it.test]}", Reached::AsNamed(HOST), ok).await;
    let mut client = stage.connect_tls(HOST, &[]).await;
    assert!(again(&stage, &mut client, HOST).await.starts_with("HTTP/1.1 200"));
    let stage = stage.configured_anew();
    stage.reload(RULES);
    assert!(again(&stage, &mut client, HOST).await.starts_with("HTTP/1.1 200"), "it is the same");
    stage.writes_to_authority_file("# another\n");
    let stage = stage.configured_anew();
    stage.reload(RULES);
    assert_eq!(again(&stage, &mut client, HOST).await, "");
}
