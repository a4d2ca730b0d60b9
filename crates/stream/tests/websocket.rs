//! Exec and attach over WebSocket, with real processes and another library's client.

mod support;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use stream::Config;
use support::{eventually, noise, request, server, sh};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

type Socket = WebSocketStream<TcpStream>;

async fn connect(url: &str, protocol: &str) -> Socket {
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    if !protocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    let stream = TcpStream::connect(request.uri().authority().unwrap().as_str()).await.unwrap();
    let (socket, answer) = client_async(request, stream).await.unwrap();
    let agreed = answer.headers().get("sec-websocket-protocol").map(|value| value.to_str().unwrap());
    assert_eq!(agreed.unwrap_or_default(), protocol);
    socket
}

fn message(protocol: &str, channel: u8, bytes: &[u8]) -> Message {
    if protocol.contains("base64") {
        Message::text(format!("{channel}{}", STANDARD.encode(bytes)))
    } else {
        Message::binary([&[channel], bytes].concat())
    }
}

/// What came on each channel until the server closed, which it must do in peace.
async fn rest(socket: &mut Socket, protocol: &str) -> Vec<Vec<u8>> {
    let mut channels = vec![Vec::new(); 5];
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => {
                assert!(protocol.contains("base64"));
                let bytes = STANDARD.decode(&text.as_bytes()[1..]).unwrap();
                channels[usize::from(text.as_bytes()[0] - b'0')].extend(bytes);
            }
            Message::Binary(bytes) => {
                assert!(!protocol.contains("base64"));
                channels[usize::from(bytes[0])].extend(&bytes[1..]);
            }
            Message::Close(frame) => {
                assert_eq!(frame.unwrap().code, CloseCode::Normal);
                return channels;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn streams_and_exit_code_in_every_version() {
    let (server, _) = server(Config::default());
    for protocol in [
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "base64.channel.k8s.io",
        "channel.k8s.io",
        "",
    ] {
        let exec = sh("ioe", "read line; echo out $line; echo err >&2; exit 7");
        let mut socket = connect(&server.exec_url(exec).unwrap(), protocol).await;
        socket.send(message(protocol, 0, b"hello\n")).await.unwrap();
        let channels = rest(&mut socket, protocol).await;
        assert_eq!(channels[1], b"out hello\n");
        assert_eq!(channels[2], b"err\n");
        if protocol.starts_with('v') {
            let status: Value = serde_json::from_slice(&channels[3]).unwrap();
            assert_eq!(status["details"]["causes"][0]["message"], "7");
        } else {
            assert_eq!(channels[3], b"command terminated with non-zero exit code: 7");
        }
    }
}

#[tokio::test]
async fn only_version_5_can_end_the_input() {
    let (server, _) = server(Config::default());
    let v5 = "v5.channel.k8s.io";
    let mut socket = connect(&server.exec_url(sh("io", "cat; echo end")).unwrap(), v5).await;
    socket.send(message(v5, 0, b"all")).await.unwrap();
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    assert_eq!(rest(&mut socket, v5).await[1], b"allend\n");

    let v4 = "v4.channel.k8s.io";
    let mut socket = connect(&server.exec_url(sh("io", "cat")).unwrap(), v4).await;
    socket.send(Message::binary(vec![255, 0])).await.unwrap();
    // The first message is empty, a sign that the channels work; then nothing comes.
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![1]));
    assert!(timeout(Duration::from_millis(300), socket.next()).await.is_err());
}

#[tokio::test]
async fn a_terminal_and_its_size() {
    let (server, host) = server(Config::default());
    let v4 = "v4.base64.channel.k8s.io";
    let mut socket = connect(&server.exec_url(sh("iot", "read go; stty size")).unwrap(), v4).await;
    for size in ["{\"Width\":0,\"Height\":0}", "{\"Width\":111,\"Height\":44}"] {
        socket.send(message(v4, 4, size.as_bytes())).await.unwrap();
    }
    eventually("the size", || host.sizes.lock().unwrap()[..] == [(111, 44)]).await;
    socket.send(message(v4, 0, b"go\n")).await.unwrap();
    let output = String::from_utf8(rest(&mut socket, v4).await[1].clone()).unwrap();
    assert!(output.contains("44 111"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_both_ways() {
    const SIZE: usize = 32 << 20;
    let (server, _) = server(Config::default());
    let v5 = "v5.channel.k8s.io";
    let mut socket = connect(&server.exec_url(sh("io", "cat")).unwrap(), v5).await;
    let sent = noise(3, SIZE);
    let expected = sent.clone();
    let (mut sink, mut source) = socket.split();
    let writing = async {
        // Messages of eight mebibytes: their size must not matter.
        for part in sent.chunks(8 << 20) {
            sink.send(message(v5, 0, part)).await.unwrap();
        }
        sink.send(Message::binary(vec![255, 0])).await.unwrap();
    };
    let reading = async {
        let mut got: Vec<u8> = Vec::with_capacity(SIZE);
        while got.len() < SIZE {
            let message: Bytes = source.next().await.unwrap().unwrap().into_data();
            assert_eq!(message[0], 1);
            got.extend(&message[1..]);
        }
        got
    };
    let ((), got) = tokio::join!(writing, reading);
    assert!(got == expected, "not the same bytes");
    socket = sink.reunite(source).unwrap();
    let status = rest(&mut socket, v5).await.remove(3);
    assert_eq!(serde_json::from_slice::<Value>(&status).unwrap()["status"], "Success");
}

#[tokio::test]
async fn pings_are_answered_and_a_close_is_too() {
    let (server, _) = server(Config::default());
    let v4 = "v4.channel.k8s.io";
    let mut socket = connect(&server.exec_url(sh("io", "cat")).unwrap(), v4).await;
    socket.send(Message::Ping(Bytes::from_static(b"are you there"))).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![1]));
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"are you there")));
    socket.close(None).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    assert!(socket.next().await.is_none());
}

/// Upgrades and sends bytes as they are; the code with which the server closes.
async fn closed_for(server: &stream::Server, protocol: &str, bytes: &[u8]) -> Option<u16> {
    let url = server.exec_url(sh("io", "cat")).unwrap();
    let headers = format!(
        "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n"
    );
    let (mut stream, answer) = request(&url, "GET", &headers).await;
    // The example of RFC 6455.
    assert!(answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut said)).await.unwrap().unwrap();
    let at = said.windows(2).position(|window| window == [0x88, 2])?;
    Some(u16::from_be_bytes([said[at + 2], said[at + 3]]))
}

#[tokio::test]
async fn who_breaks_the_protocol_is_closed() {
    let (server, _) = server(Config::default());
    let v5 = "v5.channel.k8s.io";
    let mask = [0; 4];
    for (what, bytes, code) in [
        ("not masked", &[0x82, 1, 0][..], 1002),
        ("an extension's bit", &[&[0xc2, 0x81][..], &mask, &[0]].concat(), 1002),
        ("the rest of no message", &[&[0x80, 0x81][..], &mask, &[0]].concat(), 1002),
        ("a message inside of another", &[&[0x02, 0x80][..], &mask, &[0x82, 0x80], &mask].concat(), 1002),
        ("an unknown type", &[&[0x83, 0x80][..], &mask].concat(), 1002),
        ("a ping in parts", &[&[0x09, 0x80][..], &mask].concat(), 1002),
        ("a long ping", &[&[0x89, 0xfe, 0, 126][..], &mask].concat(), 1002),
        ("a negative length", &[&[0x82, 0xff][..], &[0xff; 8], &mask].concat(), 1002),
        ("an end of two channels", &[&[0x82, 0x83][..], &mask, &[255, 0, 1]].concat(), 1002),
        ("the end of no channel", &[&[0x82, 0x82][..], &mask, &[255, 9]].concat(), 1002),
    ] {
        assert_eq!(closed_for(&server, v5, bytes).await, Some(code), "{what}");
    }
    let no_base64 = [&[0x81, 0x83][..], &mask, b"0!!"].concat();
    assert_eq!(closed_for(&server, "v4.base64.channel.k8s.io", &no_base64).await, Some(1007));
    let close = [&[0x88, 0x82][..], &mask, &4000u16.to_be_bytes()].concat();
    assert_eq!(closed_for(&server, v5, &close).await, Some(4000));
}
