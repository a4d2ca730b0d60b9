//! A SPDY/3.1 client, written apart from the server: it says what it is told to, right or wrong, and shows what comes.

use std::collections::HashMap;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;

use super::dictionary::dictionary;

/// A frame that the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Data { stream: u32, fin: bool, bytes: Vec<u8> },
    Reply { stream: u32, headers: usize },
    Reset { stream: u32, status: u32 },
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway { last: u32, status: u32 },
    Window { stream: u32, delta: u32 },
}

pub(crate) struct Client<S = TcpStream> {
    pub(crate) send: Sender<WriteHalf<S>>,
    pub(crate) receive: Receiver<ReadHalf<S>>,
}

pub(crate) struct Sender<W> {
    io: W,
    deflate: Compress,
    next: u32,
}

pub(crate) struct Receiver<R> {
    io: R,
    inflate: Decompress,
}

impl Client {
    /// Upgrades, which must succeed.
    pub(crate) async fn connect(url: &str, protocol: &str) -> Client {
        let headers =
            format!("Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n");
        let (stream, answer) = super::request(url, "POST", &headers).await;
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        assert!(answer.contains(&format!("x-stream-protocol-version: {protocol}\r\n")), "{answer}");
        Client::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite> Client<S> {
    pub(crate) fn over(stream: S) -> Client<S> {
        let (read, write) = split(stream);
        let mut deflate = Compress::new(Compression::best(), true);
        deflate.set_dictionary(&dictionary()).unwrap();
        let send = Sender { io: write, deflate, next: 1 };
        Client { send, receive: Receiver { io: read, inflate: Decompress::new(true) } }
    }

    /// Opens a stream for each kind and waits for the replies; the streams' ids.
    pub(crate) async fn open(&mut self, kinds: &[&str]) -> Vec<u32> {
        let mut ids = Vec::new();
        for kind in kinds {
            let id = self.send.syn(&[("streamtype", kind)], 0).await;
            while self.receive.frame().await.unwrap() != (Frame::Reply { stream: id, headers: 0 }) {}
            ids.push(id);
        }
        ids
    }

    /// Reads to the end of the connection, acknowledging nothing; what came on each stream, and which were ended.
    pub(crate) async fn rest(&mut self) -> HashMap<u32, (Vec<u8>, bool)> {
        let mut streams: HashMap<u32, (Vec<u8>, bool)> = HashMap::new();
        while let Some(frame) = self.receive.frame().await {
            match frame {
                Frame::Data { stream, fin, bytes } => {
                    let (all, ended) = streams.entry(stream).or_default();
                    assert!(!*ended, "data after the end of stream {stream}");
                    all.extend(bytes);
                    *ended = fin;
                }
                Frame::Ping(id) => self.send.ping(id).await,
                _ => {}
            }
        }
        streams
    }
}

impl<W: AsyncWrite + Unpin> Sender<W> {
    pub(crate) async fn raw(&mut self, bytes: &[u8]) {
        // The server may have closed already.
        let _ = self.io.write_all(bytes).await;
        let _ = self.io.flush().await;
    }

    pub(crate) async fn control(&mut self, kind: u16, flags: u8, payload: &[u8]) {
        let mut frame = vec![0x80, 3];
        frame.extend(kind.to_be_bytes());
        frame.extend((u32::from(flags) << 24 | payload.len() as u32).to_be_bytes());
        frame.extend(payload);
        self.raw(&frame).await;
    }

    pub(crate) fn block(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend((text.len() as u32).to_be_bytes());
            block.extend(text.as_bytes());
        }
        let mut compressed = Vec::with_capacity(block.len() + 1024);
        self.deflate.compress_vec(&block, &mut compressed, FlushCompress::Sync).unwrap();
        compressed
    }

    pub(crate) async fn syn(&mut self, headers: &[(&str, &str)], flags: u8) -> u32 {
        let id = self.next;
        self.next += 2;
        let mut payload = [id.to_be_bytes(), [0; 4]].concat();
        payload.extend([0, 0]);
        payload.extend(self.block(headers));
        self.control(1, flags, &payload).await;
        id
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let mut frame = stream.to_be_bytes().to_vec();
        frame.extend((u32::from(fin) << 24 | bytes.len() as u32).to_be_bytes());
        frame.extend(bytes);
        self.raw(&frame).await;
    }

    pub(crate) async fn ping(&mut self, id: u32) {
        self.control(6, 0, &id.to_be_bytes()).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32) {
        self.control(3, 0, &[stream.to_be_bytes(), 5u32.to_be_bytes()].concat()).await;
    }

    pub(crate) async fn window(&mut self, stream: u32, delta: u32) {
        self.control(9, 0, &[stream.to_be_bytes(), delta.to_be_bytes()].concat()).await;
    }

    pub(crate) async fn first_window(&mut self, size: u32) {
        self.control(4, 0, &[1u32.to_be_bytes(), 7u32.to_be_bytes(), size.to_be_bytes()].concat()).await;
    }
}

impl<R: AsyncRead + Unpin> Receiver<R> {
    /// The next frame; none at the end.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        let first = self.io.read_u32().await.ok()?;
        let second = self.io.read_u32().await.unwrap();
        let mut payload = vec![0; (second & 0xff_ffff) as usize];
        self.io.read_exact(&mut payload).await.unwrap();
        if first >> 31 == 0 {
            return Some(Frame::Data { stream: first, fin: second >> 24 & 1 == 1, bytes: payload });
        }
        assert_eq!(first >> 16, 0x8003);
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        Some(match first & 0xffff {
            2 => Frame::Reply { stream: number(0), headers: self.headers(&payload[4..]) },
            3 => Frame::Reset { stream: number(0), status: number(4) },
            4 => Frame::Settings(
                (0..number(0) as usize).map(|at| (number(4 + 8 * at), number(8 + 8 * at))).collect(),
            ),
            6 => Frame::Ping(number(0)),
            7 => Frame::GoAway { last: number(0), status: number(4) },
            9 => Frame::Window { stream: number(0), delta: number(4) },
            other => panic!("a frame of type {other}"),
        })
    }

    /// How many headers a block has.
    fn headers(&mut self, block: &[u8]) -> usize {
        let mut out = Vec::with_capacity(4096);
        let before = self.inflate.total_in();
        if self.inflate.decompress_vec(block, &mut out, FlushDecompress::Sync).is_err() {
            self.inflate.set_dictionary(&dictionary()).unwrap();
            let read = (self.inflate.total_in() - before) as usize;
            self.inflate.decompress_vec(&block[read..], &mut out, FlushDecompress::Sync).unwrap();
        }
        u32::from_be_bytes(out[..4].try_into().unwrap()) as usize
    }
}
