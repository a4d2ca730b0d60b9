//! The way of a blob from the network, which is async, to the unpacking thread, which is not: a channel that is short.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;

/// How many pieces the network may be ahead. A piece is what one read brought, 400 KiB at most.
const AHEAD: usize = 4;

/// What the network hands over.
#[derive(Debug)]
pub enum Piece {
    Bytes(Bytes),
    /// The blob is whole. A channel that closes without it means that the download failed.
    End,
}

/// The receiving side as a stream.
#[derive(Debug)]
pub struct Pieces {
    receiver: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

/// Both sides. The receiving one may only be read on a thread that may wait.
pub fn channel() -> (mpsc::Sender<Piece>, Pieces) {
    let (sender, receiver) = mpsc::channel(AHEAD);
    (sender, Pieces { receiver, piece: Bytes::new(), ended: false })
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let size = buffer.len().min(self.piece.len());
        buffer[..size].copy_from_slice(&self.piece.split_to(size));
        Ok(size)
    }
}
