//! Port-forward over SPDY, WebSocket and the tunnel, to listeners on loopback.

mod support;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use stream::Config;
use support::spdy::{Client, Frame};
use support::{noise, server};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

const SPDY: &str = "portforward.k8s.io";

/// Listens, and serves each connection so.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// Says back what it hears, to the end, and then `end`.
async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    write.write_all(b"end").await.unwrap();
}

/// A port where nobody listens.
async fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn pair<S>(client: &mut Client<S>, port: u16, request: Option<&str>) -> (u32, u32)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let port = port.to_string();
    let mut ids = Vec::new();
    for kind in ["error", "data"] {
        let mut headers = vec![("streamtype", kind), ("port", port.as_str())];
        headers.extend(request.map(|request| ("requestid", request)));
        let id = client.send.syn(&headers, 0).await;
        while client.receive.frame().await.unwrap() != (Frame::Reply { stream: id, headers: 0 }) {}
        ids.push(id);
    }
    (ids[0], ids[1])
}

/// What comes on two streams until both are ended.
async fn both<S>(client: &mut Client<S>, (error, data): (u32, u32)) -> (String, Vec<u8>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite,
{
    let (mut errors, mut bytes, mut ended) = (Vec::new(), Vec::new(), 0);
    while ended < 2 {
        match timeout(Duration::from_secs(5), client.receive.frame()).await.unwrap().unwrap() {
            Frame::Data { stream, fin, bytes: part } if stream == error || stream == data => {
                if stream == error { &mut errors } else { &mut bytes }.extend(part);
                ended += usize::from(fin);
            }
            Frame::Ping(id) => client.send.ping(id).await,
            _ => {}
        }
    }
    (String::from_utf8(errors).unwrap(), bytes)
}

#[tokio::test]
async fn many_connections_over_one_and_refusals_between_them() {
    let (server, _) = server(Config::default());
    let (open, shut) = (listen(echo).await, closed().await);
    let url = server.port_forward_url("pod".into(), vec![open]).unwrap();
    let mut client = Client::connect(&url, SPDY).await;
    for round in 0..20 {
        let request = round.to_string();
        let request = (round % 2 == 0).then_some(request.as_str());
        let refused = pair(&mut client, shut, request).await;
        let (error, bytes) = both(&mut client, refused).await;
        assert!(error.contains(&format!("port {shut} of pod pod cannot be reached")), "{error}");
        assert!(bytes.is_empty());
        let ids = pair(&mut client, open, request).await;
        client.send.data(ids.1, b"hello ", true).await;
        assert_eq!(both(&mut client, ids).await, (String::new(), b"hello end".to_vec()));
    }
}

#[tokio::test]
async fn half_open_either_way() {
    let (server, _) = server(Config::default());
    // It hears all, and answers two seconds later: longer than any grace.
    let slow = listen(async |mut stream: TcpStream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        stream.write_all(&all).await.unwrap();
    });
    // It says all, and then hears nothing of what the client does.
    let brief = listen(async |mut stream: TcpStream| stream.write_all(b"brief").await.unwrap());
    let (slow, brief) = (slow.await, brief.await);
    let url = server.port_forward_url("pod".into(), vec![]).unwrap();
    let mut client = Client::connect(&url, SPDY).await;
    let ids = pair(&mut client, slow, None).await;
    client.send.data(ids.1, b"question", true).await;
    assert_eq!(both(&mut client, ids).await.1, b"question");
    let ids = pair(&mut client, brief, None).await;
    assert_eq!(both(&mut client, ids).await.1, b"brief");
}

#[tokio::test]
async fn a_pod_that_does_not_read_holds_up_nobody_else() {
    let (server, _) = server(Config::default());
    let deaf = listen(async |stream: TcpStream| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(stream);
    });
    let (deaf, open) = (deaf.await, listen(echo).await);
    let url = server.port_forward_url("pod".into(), vec![]).unwrap();
    let mut client = Client::connect(&url, SPDY).await;
    let stuck = pair(&mut client, deaf, Some("stuck")).await;
    // As much as a client may that counts: 64 KiB, and what it hears of.
    let mut window = 65_536;
    let part = vec![0; 16 * 1024];
    loop {
        while window >= part.len() {
            client.send.data(stuck.1, &part, false).await;
            window -= part.len();
        }
        match timeout(Duration::from_millis(300), client.receive.frame()).await {
            Ok(Some(Frame::Window { stream, delta })) if stream == stuck.1 => window += delta as usize,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let ids = pair(&mut client, open, Some("other")).await;
    client.send.data(ids.1, b"through ", true).await;
    assert_eq!(both(&mut client, ids).await.1, b"through end");
}

#[tokio::test]
async fn streams_that_make_no_sense_are_refused_and_half_a_pair_is_given_up() {
    let (server, _) = server(Config { stream_timeout: Duration::from_millis(300), ..Config::default() });
    let url = server.port_forward_url("pod".into(), vec![]).unwrap();
    let mut client = Client::connect(&url, SPDY).await;
    for headers in [
        &[("streamtype", "data")][..],
        &[("streamtype", "data"), ("port", "0")],
        &[("streamtype", "data"), ("port", "65536")],
        &[("streamtype", "data"), ("port", "-1")],
        &[("streamtype", "stdin"), ("port", "80")],
        &[("port", "80")],
        &[],
    ] {
        let id = client.send.syn(headers, 0).await;
        while client.receive.frame().await.unwrap() != (Frame::Reset { stream: id, status: 3 }) {}
    }
    let half = client.send.syn(&[("streamtype", "error"), ("port", "80"), ("requestid", "1")], 0).await;
    let mut text = Vec::new();
    loop {
        match timeout(Duration::from_secs(5), client.receive.frame()).await.unwrap().unwrap() {
            Frame::Data { stream, fin, bytes } => {
                assert_eq!(stream, half);
                text.extend(bytes);
                if fin {
                    break;
                }
            }
            other => assert!(!matches!(other, Frame::GoAway { .. })),
        }
    }
    assert_eq!(text, b"the stream for data was not opened in time");
}

async fn websocket(url: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    let stream = TcpStream::connect(request.uri().authority().unwrap().as_str()).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

#[tokio::test]
async fn channels_over_websocket() {
    let (server, _) = server(Config::default());
    let (open, shut) = (listen(echo).await, closed().await);
    let by_request = server.port_forward_url("pod".into(), vec![open, shut]).unwrap();
    let by_address = server.port_forward_url("pod".into(), vec![]).unwrap();
    for url in [by_request, format!("{by_address}?port={open},{shut}")] {
        let mut socket = websocket(&url, "v4.channel.k8s.io").await;
        socket.send(Message::binary(b"\0hello ".to_vec())).await.unwrap();
        let mut channels = vec![Vec::new(); 4];
        while channels[0].len() < 2 + 6 || channels[3].len() < 3 {
            let message = socket.next().await.unwrap().unwrap().into_data();
            channels[usize::from(message[0])].extend(&message[1..]);
        }
        assert_eq!(channels[0], [&open.to_le_bytes()[..], b"hello "].concat());
        assert_eq!(channels[1], open.to_le_bytes());
        assert_eq!(channels[2], shut.to_le_bytes());
        assert_eq!(channels[3][..2], shut.to_le_bytes());
        assert!(String::from_utf8_lossy(&channels[3][2..]).contains("cannot be reached"));
    }
}

#[tokio::test]
async fn spdy_inside_of_websocket() {
    let (server, _) = server(Config::default());
    let open = listen(echo).await;
    let url = server.port_forward_url("pod".into(), vec![open]).unwrap();
    let socket = websocket(&url, "SPDY/3.1+portforward.k8s.io").await;
    let (near, far) = duplex(64 * 1024);
    let (mut sink, mut source) = socket.split();
    let (mut from_near, mut to_near) = tokio::io::split(far);
    let up = tokio::spawn(async move {
        let mut buffer = vec![0; 9000];
        while let Ok(count @ 1..) = from_near.read(&mut buffer).await {
            sink.send(Message::binary(buffer[..count].to_vec())).await.unwrap();
        }
    });
    let down = tokio::spawn(async move {
        while let Some(Ok(Message::Binary(bytes))) = source.next().await {
            to_near.write_all(&bytes).await.unwrap();
        }
    });
    let mut client = Client::over(near);
    let sent = noise(4, 60_000);
    for _ in 0..3 {
        let ids = pair(&mut client, open, None).await;
        client.send.data(ids.1, &sent, true).await;
        let (error, bytes) = both(&mut client, ids).await;
        assert_eq!((error.as_str(), bytes.len()), ("", sent.len() + 3));
        assert!(bytes.starts_with(&sent));
    }
    drop(client);
    up.abort();
    down.abort();
}
