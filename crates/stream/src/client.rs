//! The other side, for command lines: a WebSocket to a URL that a call of the CRI gave, and its channels.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;

use crate::websocket::frame::{self, Event, NORMAL, ReadError, Reader};
use crate::websocket::framing::{Framing, Meaning, Parser};

/// The channels of exec and attach.
pub mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    /// How it ended: a JSON object of Kubernetes' `metav1.Status`.
    pub const STATUS: u8 = 3;
    /// Sizes of the terminal, JSON objects with `Width` and `Height`.
    pub const RESIZE: u8 = 4;
}

/// For exec and attach: version 5 can end one channel, version 4 is what older servers have.
pub const REMOTE: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];

/// For port-forward: channel 0 is the connection, channel 1 says why there is none. Each begins with the port's number, little endian.
pub const FORWARD: &[&str] = &["v4.channel.k8s.io"];

/// So much of a refusal is read.
const MAX_REFUSAL: usize = 4096;

type Io = TokioIo<Upgraded>;

/// Why there is no conversation, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url:?} is no URL of a streaming server that can be reached: {why}")]
    Url { url: String, why: &'static str },
    #[error("connecting to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("the streaming server at {address} answers with {status}: {said}")]
    Refused { address: String, status: StatusCode, said: String },
    #[error("the streaming server at {address}: {source}")]
    Http { address: String, source: hyper::Error },
    #[error("the connection to the streaming server broke: {0}")]
    Broken(String),
}

/// Connects to `url` and agrees on one of `protocols`, of which the first is liked best.
///
/// # Errors
/// Nobody is there, or what is there does not know the URL or none of the protocols.
pub async fn connect(url: &str, protocols: &[&str]) -> Result<(Sender, Receiver), ClientError> {
    let bad = |why| ClientError::Url { url: url.into(), why };
    let uri: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
    let (tls, port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return Err(bad("only http and https are spoken here")),
    };
    let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(port));
    let not_connected = |source| ClientError::Connect { address: address.clone(), source };
    let stream = TcpStream::connect(&address).await.map_err(not_connected)?;
    stream.set_nodelay(true).ok();
    let stream: Box<dyn Stream> = if tls {
        let name = authority.host().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|_| bad("its host is no name for a certificate"))?;
        Box::new(trusting_the_system().connect(name, stream).await.map_err(not_connected)?)
    } else {
        Box::new(stream)
    };
    let failed = |source| ClientError::Http { address: address.clone(), source };
    let (mut sending, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection.with_upgrades());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, STANDARD.encode(random::<16>()))
        .header(SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))
        .body(Empty::<Bytes>::new())
        .map_err(|_| bad("it cannot be asked for"))?;
    let response = sending.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let said = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
        let said = said.map(|said| said.to_bytes()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        return Err(ClientError::Refused { address, status, said });
    }
    let agreed = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|name| name.to_str().ok());
    let half_close = agreed == Some("v5.channel.k8s.io");
    let io = TokioIo::new(hyper::upgrade::on(response).await.map_err(failed)?);
    let (read, write) = split(io);
    let sender = Sender { io: Arc::new(Mutex::new(write)), half_close };
    let framing = Framing::Binary { half_close };
    let receiver = Receiver {
        reader: Reader::of_server(BufReader::new(read)),
        parser: Parser::new(framing),
        sender: sender.clone(),
        first: None,
    };
    Ok((sender, receiver))
}

/// What a connection is made of.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Trusts whom this system trusts, or the file that the variable `SSL_CERT_FILE` names.
fn trusting_the_system() -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Speaks on the channels. Clones speak on the same connection.
#[derive(Clone)]
pub struct Sender {
    io: Arc<Mutex<WriteHalf<Io>>>,
    half_close: bool,
}

impl Sender {
    /// Sends bytes on a channel.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(&self, channel: u8, bytes: &[u8]) -> Result<(), ClientError> {
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(channel);
        message.extend_from_slice(bytes);
        self.write(frame::masked(frame::BINARY, &message, random())).await
    }

    /// Ends a channel where the server understands that; with an older one nothing happens.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn end(&self, channel: u8) -> Result<(), ClientError> {
        if !self.half_close {
            return Ok(());
        }
        self.write(frame::masked(frame::BINARY, &[crate::websocket::framing::END, channel], random())).await
    }

    /// Says that all was said.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn close(&self) -> Result<(), ClientError> {
        self.write(frame::masked(frame::CLOSE, &NORMAL.to_be_bytes(), random())).await
    }

    async fn write(&self, frame: BytesMut) -> Result<(), ClientError> {
        let mut io = self.io.lock().await;
        let written = async {
            io.write_all(&frame).await?;
            io.flush().await
        };
        written.await.map_err(|error| ClientError::Broken(error.to_string()))
    }
}

/// Hears the channels.
pub struct Receiver {
    reader: Reader<BufReader<ReadHalf<Io>>>,
    parser: Parser,
    sender: Sender,
    /// What was heard and not given yet.
    first: Option<(u8, Vec<u8>)>,
}

impl Receiver {
    /// Waits until the server has said that the streams are joined, or why they are not; whether they are.
    pub async fn is_joined(&mut self) -> bool {
        match self.next().await {
            Ok(Some(first)) => {
                let joined = first.0 != channel::STATUS || first.1.is_empty();
                self.first = Some(first);
                joined
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// What came next, and on which channel; nothing once the server has closed. A message comes in pieces; an empty one is a sign of life.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn next(&mut self) -> Result<Option<(u8, Vec<u8>)>, ClientError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        loop {
            match self.reader.next().await.map_err(broken)? {
                Event::Piece { bytes, first, last } => {
                    if let Meaning::Bytes { channel, bytes } =
                        self.parser.piece(bytes, first, last).map_err(broken)?
                    {
                        return Ok(Some((channel, bytes.to_vec())));
                    }
                }
                Event::Ping(payload) => {
                    self.sender.write(frame::masked(frame::PONG, &payload, random())).await?;
                }
                Event::Pong => {}
                Event::Close(_) => return Ok(None),
            }
        }
    }
}

fn broken(error: ReadError) -> ClientError {
    ClientError::Broken(match &error {
        ReadError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            "it ended in the middle".into()
        }
        other => other.to_string(),
    })
}

/// Bytes that nobody can foresee, as masks and keys of a WebSocket should be (RFC 6455, section 5.3).
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .unwrap_or_default();
    }
    bytes
}
