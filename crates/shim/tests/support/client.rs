//! A blocking client, so that a test decides itself what is sent when, and sees every answer.

use prost::Message;
use shim::protocol::{
    CallError, DESCRIPTORS_KEY, Decoder, ErrorCode, FrameKind, KeyValue, Method, Request, Response, SERVICE,
    encode,
};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub struct Client {
    pub socket: UnixStream,
    decoder: Decoder,
    next: u32,
    answers: HashMap<u32, Response>,
}

impl Client {
    pub fn over(socket: OwnedFd) -> Client {
        let socket = UnixStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        Client { socket, decoder: Decoder::new(), next: 1, answers: HashMap::new() }
    }

    /// Sends a request; its stream.
    pub fn send(&mut self, method: Method, message: &impl Message) -> u32 {
        self.send_raw(SERVICE, method.name(), message.encode_to_vec(), 0, &[])
    }

    pub fn send_raw(
        &mut self,
        service: &str,
        method: &str,
        payload: Vec<u8>,
        timeout_nano: i64,
        descriptors: &[BorrowedFd<'_>],
    ) -> u32 {
        let stream = self.next;
        self.next += 2;
        let metadata = match descriptors.len() {
            0 => vec![],
            number => vec![KeyValue { key: DESCRIPTORS_KEY.into(), value: number.to_string() }],
        };
        let request =
            Request { service: service.into(), method: method.into(), payload, timeout_nano, metadata };
        let mut frame = Vec::new();
        encode(&mut frame, stream, FrameKind::Request, &request).unwrap();
        if descriptors.is_empty() {
            self.socket.write_all(&frame).unwrap();
        } else {
            sys::socket::send(self.socket.as_fd(), &frame, descriptors).unwrap();
        }
        stream
    }

    /// The answer of a stream; panics after the read timeout.
    pub fn answer(&mut self, stream: u32) -> Response {
        loop {
            if let Some(answer) = self.answers.remove(&stream) {
                return answer;
            }
            assert!(self.read_more().expect("the shim answers in time"), "the shim closed the connection");
        }
    }

    /// Whether the answer of a stream is there within `limit`.
    pub fn answered_within(&mut self, stream: u32, limit: Duration) -> bool {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        while !self.answers.contains_key(&stream) {
            if !self.read_more().unwrap_or(false) {
                break;
            }
        }
        self.socket.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
        self.answers.contains_key(&stream)
    }

    /// Reads once. False at the end of the connection.
    pub fn read_more(&mut self) -> std::io::Result<bool> {
        let mut buffer = [0; 16384];
        let length = self.socket.read(&mut buffer)?;
        self.decoder.feed(&buffer[..length]);
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            assert_eq!(frame.kind, FrameKind::Response);
            let response = Response::decode(frame.payload).unwrap();
            assert!(self.answers.insert(frame.stream, response).is_none(), "answered twice");
        }
        Ok(length > 0)
    }

    pub fn result<R: Message + Default>(&mut self, stream: u32) -> Result<R, CallError> {
        let response = self.answer(stream);
        match response.status {
            Some(status) => Err(CallError::from_status(&status)),
            None => Ok(R::decode(&response.payload[..]).unwrap()),
        }
    }

    pub fn call<R: Message + Default>(
        &mut self,
        method: Method,
        message: &impl Message,
    ) -> Result<R, CallError> {
        let stream = self.send(method, message);
        self.result(stream)
    }

    pub fn call_with<R: Message + Default>(
        &mut self,
        method: Method,
        message: &impl Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<R, CallError> {
        let stream = self.send_raw(SERVICE, method.name(), message.encode_to_vec(), 0, descriptors);
        self.result(stream)
    }

    /// The code a call fails with.
    pub fn refusal(&mut self, method: Method, message: &impl Message) -> ErrorCode {
        match self.call::<shim::protocol::Empty>(method, message) {
            Ok(_) => panic!("{} was not refused", method.name()),
            Err(error) => error.code,
        }
    }
}
